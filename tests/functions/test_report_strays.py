"""Objects that no rule sends anywhere are reported."""

from types import SimpleNamespace
from typing import Any

import pytest
from bintally import report_strays
from bintally.aws import clients
from bintally.common.errors import Transient
from bintally.strays import find_strays as finding

CONTEXT: Any = SimpleNamespace(
    function_name="report-strays",
    memory_limit_in_mb=256,
    invoked_function_arn="arn:aws:lambda:us-east-1:0:function:report-strays",
    aws_request_id="r",
)


@pytest.fixture
def told(world: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The messages that the topic got."""
    monkeypatch.setenv("IMAGES_BUCKET", "images")
    monkeypatch.setenv("ALERTS_TOPIC", "arn:aws:sns:us-east-1:000000000000:alerts")
    messages: list[str] = []
    monkeypatch.setattr(clients.sns(), "publish", lambda **alert: messages.append(alert["Message"]))
    return messages


def report() -> dict[str, Any]:
    answer: dict[str, Any] = report_strays.handler({"reason": "schedule"}, CONTEXT)
    return answer


def test_a_tidy_bucket_is_no_news(world: Any, told: list[str]) -> None:
    for key in ("incoming/SEA1/P-1/a.jpg", "records/a.csv", "archive/", "incoming/"):
        world.put(key, b"")
    assert report() == {"strays": 0, "places": []}
    assert told == []


def test_what_is_elsewhere_is_named(world: Any, told: list[str]) -> None:
    for key in (
        "Incoming/SEA1/P-1/a.jpg",
        "Incoming/SEA1/P-1/b.jpg",
        "/incoming/SEA1/P-1/a.jpg",
        "a.jpg",
        "incoming/a.jpg",
    ):
        world.put(key, b"x")
    assert report() == {"strays": 4, "places": ["a.jpg", "/ (1)", "Incoming/ (2)"]}
    (said,) = told
    assert "s3://images contains objects outside incoming/ and records/" in said
    assert "a.jpg, / (1), Incoming/ (2)" in said and "every day until then" in said


def test_many_are_counted_no_further(world: Any, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "MOST_FOLDERS", 2)
    for number in range(14):
        world.put(f"folder{number:02}/a", b"x")
    answer = report()
    assert answer["places"][1:3] == ["folder01/ (1)", "folder02/ (1 or more)"] and len(answer["places"]) == 14
    assert told[0].count("folder") == report_strays.NAMED and "…" in told[0]


def test_a_fault_of_s3_is_tried_again(world: Any, told: list[str], refuse: Any) -> None:
    refuse(clients.s3(), "ListObjectsV2", "SlowDown", 503)
    with pytest.raises(Transient):
        report()
