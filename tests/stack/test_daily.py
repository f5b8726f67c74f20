"""What schedules start once a day, on a running stack with the functions' own roles."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.stack.releasing import inbox_of

Alerts = Callable[[], list[Any]]


@pytest.fixture
def alerts(user: Any) -> Iterator[Alerts]:
    """The alerts since the test began."""
    with inbox_of(user.stack, "Strays") as queue:

        def received() -> list[Any]:
            messages = user.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
            return [json.loads(message["Body"]) for message in messages]

        yield received


def call(user: Any, function: str, event: dict[str, str]) -> Any:
    answer = user.functions.invoke(FunctionName=user.outputs[function], Payload=json.dumps(event).encode())
    assert "FunctionError" not in answer
    return json.loads(answer["Payload"].read())


def test_a_photograph_in_a_strange_place_is_reported(
    user: Any, alerts: Alerts, photograph: Callable[..., bytes]
) -> None:
    """Other tests of this stack may have left some elsewhere."""
    before = call(user, "ReportStraysFunction", {"reason": "a test"})
    user.upload("0-incoming/SEA1/A/1.jpg", photograph())
    try:
        found = call(user, "ReportStraysFunction", {"reason": "a test"})
        assert found["strays"] == before["strays"] + 1 and "0-incoming/ (1)" in found["places"]
        user.wait_for("an alert", lambda: any("0-incoming/ (1)" in each.get("Message", "") for each in alerts()))
    finally:
        user.s3.delete_object(Bucket=user.bucket, Key="0-incoming/SEA1/A/1.jpg")
    assert call(user, "ReportStraysFunction", {"reason": "a test"}) == before
