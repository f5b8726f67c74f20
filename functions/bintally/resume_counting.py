"""Enables the count queue's mapping: the release state machine calls this once a model answers correctly."""

from bintally.aws import clients
from bintally.common.events import check_fields
from bintally.releasing import counting


def handler(event: dict[str, str], context: object) -> dict[str, str]:
    """`event`: mapping. Returns {"state": …} from Lambda, mostly "Enabling". Raises WrongEvent."""
    check_fields(event, "resume_counting", "a mapping to enable", "mapping")
    return {"state": counting.resume_counting(clients.lambda_(), event["mapping"])}
