"""An EventBridge event about a new object, read from the body of an SQS message."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bintally.common.events import name_of


class NotAnArrival(ValueError):
    """The message is not an event about a new object version. Retries cannot help; it ends in the dead-letter queue."""


@dataclass(frozen=True)
class Arrival:
    event_id: str
    time: datetime
    bucket: str
    key: str
    version_id: str
    etag: str
    sequencer: str
    size: int | None = None
    """Bytes; None when the event does not say."""


def parse_arrival(body: str) -> Arrival:
    """Reads the raw dictionary: EventBridge does not quote keys, and Powertools' event class would unquote them.

    Raises NotAnArrival.
    """
    event: Any = None
    try:
        event = json.loads(body)
        found = event["detail"]["object"]
        return Arrival(
            event_id=event["id"],
            time=datetime.fromisoformat(event["time"]),
            bucket=event["detail"]["bucket"]["name"],
            key=found["key"],
            version_id=found["version-id"],
            etag=found.get("etag", ""),
            sequencer=found.get("sequencer", ""),
            size=found.get("size"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        wanted = "EventBridge's event Object Created, of a versioned bucket, is expected"
        raise NotAnArrival(f"the message is {name_of(event)}; {wanted}: {error!r}") from error
