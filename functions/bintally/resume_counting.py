"""Switches the count queue's mapping on: the release state machine asks for it when a model answers right."""

from functools import cache
from typing import TYPE_CHECKING

import boto3

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient


def handler(event: dict[str, str], context: object) -> dict[str, str]:
    """`event`: mapping. Answers {"state": …} as Lambda has it then, mostly "Enabling"."""
    return {"state": switch(lambda_(), event["mapping"], enabled=True)}


@cache
def lambda_() -> "LambdaClient":
    return boto3.client("lambda")


def switch(client: "LambdaClient", mapping: str, *, enabled: bool) -> str:
    """Raises ClientError (ResourceInUseException) while the mapping is still in another change."""
    return client.update_event_source_mapping(UUID=mapping, Enabled=enabled)["State"]
