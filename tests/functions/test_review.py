"""The review function: from changes of the table to reviews and events."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from bintally import review
from bintally.aws import clients
from bintally.aws.items import record_digest, wire
from bintally.aws.table import Table
from bintally.common.errors import Transient
from bintally.reviewing import settings
from bintally.reviewing.desk import Desk
from botocore.exceptions import ClientError

from tests.functions.test_reviews import ANA, BEN, BIN, NOON, counted, latest

CONTEXT: Any = SimpleNamespace(
    function_name="review",
    memory_limit_in_mb=512,
    invoked_function_arn="arn:aws:lambda:us-east-1:000000000000:function:review",
    aws_request_id="a request",
)
Deliver = Callable[..., list[tuple[str, Any]]]


@pytest.fixture
def desk(world: Any, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("ARTIFACTS_BUCKET", "artifacts")
    return Desk(Table.named("counts"))


@pytest.fixture
def deliver(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Deliver:
    """Hands changed items to the function as one batch; the events that it sends, as detail type and detail."""

    def make(*changed: Any) -> list[tuple[str, Any]]:
        sent: list[tuple[str, Any]] = []

        def put_events(Entries: list[Any]) -> Any:
            sent.extend((entry["DetailType"], json.loads(entry["Detail"])) for entry in Entries)
            return {"FailedEntryCount": 0, "Entries": []}

        monkeypatch.setattr(clients.events(), "put_events", put_events)
        records = [{"eventSource": "aws:dynamodb", "dynamodb": {"NewImage": wire(item)}} for item in changed]
        review.handler({"Records": records}, CONTEXT)
        return sent

    return make


def lines(desk: Desk, first: int = 0) -> list[Any]:
    return desk.trail(BIN)[first:]


def test_a_count_that_differs_opens_a_review_and_tells_it(desk: Desk, deliver: Deliver) -> None:
    desk.table.put(latest())
    assert deliver(latest(), latest()) == []
    ((kind, detail),) = deliver(*lines(desk))
    assert kind == "Bin Discrepancy Detected"
    assert (detail["site"], detail["bin"], detail["recorded_quantity"]) == ("SEA1", "P-4", 3)
    assert detail["id"] == f"{BIN}/TRAIL#00000001"


def test_a_resolved_difference_is_told_with_its_number(desk: Desk, deliver: Deliver) -> None:
    desk.table.put(latest())
    deliver(latest())
    counted(desk, ANA, 5)
    counted(desk, BEN, 5)
    ((kind, detail),) = deliver(*lines(desk, 1))
    assert (kind, detail["outcome"], detail["quantity"], detail["difference"]) == (
        *("Bin Discrepancy Resolved", "RECORD_WRONG"),
        *(5, 2),
    )
    desk.undo(BIN, BEN, NOON)
    assert [kind for kind, _ in deliver(*lines(desk, 5))] == ["Bin Discrepancy Reopened"]


def test_a_corrected_record_closes_the_loop_and_is_told(desk: Desk, deliver: Deliver) -> None:
    desk.table.put(latest())
    deliver(latest())
    counted(desk, ANA, 4)
    counted(desk, BEN, 4)
    record = {"PK": BIN, "SK": "RECORD", "expected_quantity": 4, "as_of": "2026-11-23T00:00:00.000000Z", "order": "1"}
    desk.table.put(record)
    deliver(record)
    assert desk.table.get({"PK": BIN, "SK": "LATEST"}, consistent=True)["recorded_order"] == record_digest(record)  # type: ignore[index]
    ((kind, detail),) = deliver(lines(desk)[-1])
    assert (kind, detail["action"], detail["outcome"]) == ("Bin Discrepancy Resolved", "CORRECTED", "RECORD_RIGHT")
    assert desk.queue("SEA1", 10) == []


def test_what_people_wrote_by_hand_stops_nobody(desk: Desk, deliver: Deliver) -> None:
    odd = {"PK": "BIN#S#odd", "SK": "LATEST", "recorded_quantity": "three"}
    desk.table.put(odd)
    desk.table.put(latest())
    deliver(odd, {"PK": "BIN#S#odd", "SK": "TRAIL#1"}, {"PK": "only"}, latest())
    assert len(desk.queue("SEA1", 10)) == 1


def test_a_bus_that_takes_no_event_gets_it_again(desk: Desk, deliver: Deliver, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.table.put(latest())
    deliver(latest())
    refused = {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "ThrottlingException"}]}
    monkeypatch.setattr(clients.events(), "put_events", lambda **_: refused)
    record = {"eventSource": "aws:dynamodb", "dynamodb": {"NewImage": wire(lines(desk)[0])}}
    with pytest.raises(Transient):
        review.handler({"Records": [record]}, CONTEXT)


@pytest.fixture
def locked(world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A bucket as TrailLockDays=30 makes it."""
    monkeypatch.setenv("TRAIL_BUCKET", "trail")
    world.s3.create_bucket(Bucket="trail", ObjectLockEnabledForBucket=True)
    retention = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 30}}
    world.s3.put_object_lock_configuration(
        Bucket="trail", ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": retention}
    )
    return world.s3


def copies(s3: Any) -> list[Any]:
    return list(s3.list_object_versions(Bucket="trail").get("Versions", []))


def test_lines_of_the_trail_have_a_locked_copy_once(locked: Any, desk: Desk, deliver: Deliver) -> None:
    desk.table.put(latest())
    deliver(latest())
    assert copies(locked) == [], "of the trail alone"
    counted(desk, ANA, 5)
    told = lines(desk)
    assert deliver(*told) == deliver(*told), "the same batch again"
    (copy,) = copies(locked)
    body = locked.get_object(Bucket="trail", Key=copy["Key"])["Body"].read()
    stored = [json.loads(line) for line in body.splitlines()]
    assert [(line["SK"], line["action"]) for line in stored] == [(line["SK"], line["action"]) for line in told]
    assert copy["Key"].startswith(f"trail/{told[0]['at'][:10].replace('-', '/')}/")
    kept = locked.head_object(Bucket="trail", Key=copy["Key"])
    assert kept["ObjectLockMode"] == "GOVERNANCE"
    assert kept["ObjectLockRetainUntilDate"] > datetime.now(UTC) + timedelta(days=29)
    with pytest.raises(ClientError, match="AccessDenied"):
        locked.delete_object(Bucket="trail", Key=copy["Key"], VersionId=copy["VersionId"])


def test_without_a_copy_nothing_is_told_and_the_batch_comes_again(
    locked: Any, desk: Desk, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.table.put(latest())
    deliver(latest())
    monkeypatch.setenv("TRAIL_BUCKET", "no-such-bucket")
    review.services.cache_clear()
    settings.trail_bucket.cache_clear()
    with pytest.raises(Transient, match="locked trail"):
        deliver(*lines(desk))
