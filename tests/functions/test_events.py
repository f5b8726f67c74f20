"""Every function says which event it takes when it is given another kind."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bintally.common.arrivals import NotAnArrival, parse_arrival
from bintally.common.errors import Rejected
from bintally.common.events import WrongEvent

EVENTS = Path(__file__).parents[2] / "events"
FUNCTIONS = EVENTS.parent / "functions" / "bintally"
VERBS = sorted(path.stem for path in EVENTS.glob("*.json") if (FUNCTIONS / f"{path.stem}.py").is_file())
"""The page's function is elsewhere, and tests/page asks it."""
S3 = {
    "eventSource": "aws:s3",
    "eventName": "ObjectCreated:Put",
    "s3": {"bucket": {"name": "b"}, "object": {"key": "k"}},
}
OBJECT_CREATED = json.loads(json.loads((EVENTS / "count.json").read_text())["Records"][0]["body"])
WRONG: dict[str, tuple[Any, str]] = {
    "S3": ({"Records": [S3]}, "an S3 notification"),
    "S3 test": ({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}, "an S3 test event"),
    "EventBridge": (OBJECT_CREATED, "an EventBridge event (Object Created)"),
    "API": ({"version": "2.0", "routeKey": "$default", "requestContext": {}}, "an API Gateway request"),
    "SNS": ({"Records": [{"EventSource": "aws:sns", "Sns": {}}]}, "an SNS notification"),
    "empty": ({}, "an empty event"),
    "no records": ({"Records": []}, "an empty batch"),
    "null": (None, "a JSON null"),
    "list": ([1], "a JSON list"),
    "text": ("hello", "a JSON str"),
    "console": ({"key1": "value1", "key2": "value2"}, "an event with key1, key2"),
}
CONTEXT = SimpleNamespace(
    function_name="f",
    memory_limit_in_mb=256,
    invoked_function_arn="arn:aws:lambda:us-east-1:0:function:f",
    aws_request_id="r",
    get_remaining_time_in_millis=lambda: 240_000,
)


ALIKE = ({"count", "record"}, {"follow", "review"}, {"answer", "sign_in"})
"""Functions that take the same kind of event."""


def handler(verb: str) -> Any:
    return importlib.import_module(f"bintally.{verb}").handler


def others() -> Iterator[tuple[str, str]]:
    yield from ((verb, name) for verb in VERBS for name in WRONG)
    yield from ((verb, other) for verb in VERBS for other in VERBS if verb != other and {verb, other} not in ALIKE)


@pytest.mark.parametrize(("verb", "name"), list(others()))
def test_another_kind_of_event_is_refused_in_one_line(verb: str, name: str) -> None:
    event, called = WRONG.get(name) or (json.loads((EVENTS / f"{name}.json").read_text()), "")
    with pytest.raises(WrongEvent) as caught:
        handler(verb)(event, CONTEXT)
    said = str(caught.value)
    assert isinstance(caught.value, Rejected), "no retry can help"
    assert said.startswith(f"{verb} takes ") and said.endswith(f"; events/{verb}.json is a sample") and "\n" not in said
    assert f"not {called}" in said
    assert ("SQS" in said.split(", not")[0]) == (verb in ("count", "record"))


@pytest.mark.parametrize("name", [name for name in WRONG if name not in ("EventBridge",)])
def test_a_message_of_another_kind_says_what_it_is(name: str) -> None:
    event, called = WRONG[name]
    with pytest.raises(NotAnArrival) as caught:
        parse_arrival(json.dumps(event))
    assert str(caught.value).startswith(f"the message is {called}; EventBridge's event Object Created")
