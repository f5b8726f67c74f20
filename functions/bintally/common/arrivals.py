"""An EventBridge event about a new object, as the body of an SQS message."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
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


def notification(bucket: str, version: Mapping[str, Any], queue_url: str) -> str:
    """The event about an image version, as S3 sent it through EventBridge when the version was new.

    `version` is an entry of ListObjectVersions; `queue_url` names the account. A version always has the same event. S3
    gives a sequencer only in its own events; without one, a version sorts before others that were uploaded in the same
    second.
    """
    name = "/".join((bucket, version["Key"], version["VersionId"]))
    event = {
        "version": "0",
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"s3://{name}")),
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": queue_url.split("/")[-2],
        "time": version["LastModified"].astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "resources": [f"arn:aws:s3:::{bucket}"],
        "detail": {
            "version": "0",
            "bucket": {"name": bucket},
            "object": {
                "key": version["Key"],
                "size": version["Size"],
                "etag": version["ETag"].strip('"'),
                "version-id": version["VersionId"],
            },
            "reason": "Reconcile",
        },
    }
    return json.dumps(event)
