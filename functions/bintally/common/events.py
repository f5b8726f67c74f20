"""Kinds of events: each function checks first that it was given the kind that it takes."""

from bintally.common.errors import Rejected

SOURCES = {
    "aws:s3": "an S3 notification",
    "aws:sqs": "an SQS batch",
    "aws:sns": "an SNS notification",
    "aws:dynamodb": "a batch of a DynamoDB stream",
    "aws:kinesis": "a Kinesis batch",
}
MESSAGE = {"messageId", "receiptHandle", "body", "attributes"}


class WrongEvent(Rejected):
    """The function was given an event of another kind; the message says which it takes. Retries cannot help."""


def check_messages(event: object, verb: str, wanted: str) -> None:
    """For a function behind a queue. Raises WrongEvent."""
    _check(_is_batch(event, "aws:sqs", MESSAGE), event, verb, f"an SQS batch of {wanted}")


def check_changes(event: object, verb: str, wanted: str) -> None:
    """For a function behind a table's stream, which quarantines single records itself. Raises WrongEvent."""
    records = event.get("Records") if isinstance(event, dict) else None
    others = SOURCES.keys() - {"aws:dynamodb"}
    fits = isinstance(records, list) and bool(records) and not any(_source(each) in others for each in records)
    _check(fits, event, verb, f"a batch of {wanted}")


def check_fields(event: object, verb: str, wanted: str, *fields: str, inside: str = "") -> None:
    """For a function that is called by name, with a dictionary of these fields, or of one that holds them `inside`.

    Raises WrongEvent.
    """
    holds = event.get(inside) if inside and isinstance(event, dict) else event
    fits = isinstance(holds, dict) and all(holds.get(name) is not None for name in fields)
    _check(fits, event, verb, f"{wanted}, with {', '.join(fields)}")


def name_of(event: object) -> str:
    """A kind of event, for people."""
    if not isinstance(event, dict):
        return f"a JSON {'null' if event is None else type(event).__name__}"
    if not event:
        return "an empty event"
    if event.get("Event") == "s3:TestEvent":
        return "an S3 test event"
    records = event.get("Records")
    if isinstance(records, list):
        return SOURCES.get(_source(records[0]), "a batch of another kind") if records else "an empty batch"
    if "detail-type" in event:
        return f"an EventBridge event ({str(event['detail-type'])[:60]})"
    if "httpMethod" in event or "requestContext" in event:
        return "an API Gateway request"
    if "RequestType" in event and "ResponseURL" in event:
        return "a CloudFormation request"
    return f"an event with {', '.join(map(str, list(event)[:5]))[:100]}"


def _source(record: object) -> str:
    return str(record.get("eventSource", record.get("EventSource"))) if isinstance(record, dict) else ""


def _is_batch(event: object, source: str, needed: set[str]) -> bool:
    records = event.get("Records") if isinstance(event, dict) else None
    return (
        isinstance(records, list)
        and bool(records)
        and all(
            isinstance(each, dict) and each.get("eventSource") == source and needed <= each.keys() for each in records
        )
    )


def _check(fits: bool, event: object, verb: str, wanted: str) -> None:
    if not fits:
        raise WrongEvent(f"{verb} takes {wanted}, not {name_of(event)}; events/{verb}.json is a sample")
