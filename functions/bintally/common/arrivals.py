"""An EventBridge event about a new object, read from the body of an SQS message."""

import json
from dataclasses import dataclass
from datetime import datetime


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


def parse_arrival(body: str) -> Arrival:
    """Reads the raw dictionary: EventBridge does not quote keys, and Powertools' event class would unquote them.

    Raises NotAnArrival.
    """
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
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotAnArrival(f"not an event about a new object version: {error!r}") from error
