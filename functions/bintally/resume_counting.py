"""Switches the count queue's mapping on: the release state machine calls this when a model answers right."""

from bintally.aws import clients
from bintally.releasing import counting


def handler(event: dict[str, str], context: object) -> dict[str, str]:
    """`event`: mapping. Answers {"state": …} as Lambda has it then, mostly "Enabling"."""
    return {"state": counting.resume_counting(clients.lambda_(), event["mapping"])}
