"""Reconciling: every image version below incoming/ without a count goes back to the queue, whatever lost it."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from bintally import reconcile, record
from bintally.aws import clients
from bintally.common.arrivals import parse_arrival
from bintally.common.errors import Transient

ROOT = Path(__file__).parents[2]
Photo = Callable[..., bytes]
KEYS = ["incoming/SEA1/A/1.jpg", "incoming/SEA1/A/2.jpg", "incoming/SEA1/B/ü #1+%41.jpg", "incoming/front.jpg"]
UNPLACED = ["incoming/a/b/c/d.jpg", "incoming/front"]
"""Keys of no pattern: they are rejected, with an item."""


def context_of(function: str, remaining_ms: int = 900_000) -> Any:
    return SimpleNamespace(
        function_name=function,
        memory_limit_in_mb=1769,
        invoked_function_arn=f"arn:aws:lambda:us-east-1:000000000000:function:{function}",
        aws_request_id="a request",
        get_remaining_time_in_millis=lambda: remaining_ms,
    )


class Stack:
    """The world, and what the state machine does with the function."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.steps = 0

    def run(self, remaining_ms: int = 900_000, **request: Any) -> dict[str, Any]:
        """The machine's output. `remaining_ms` is what each page finds left of the step's time."""
        context = context_of("reconcile", remaining_ms)
        started_at = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
        progress: dict[str, Any] = {}
        self.steps = 0
        while not progress.get("done") and "refused" not in progress:
            event = {"started_at": started_at, "input": {"grace_seconds": 0} | request, "progress": progress}
            progress = json.loads(json.dumps(reconcile.handler(json.loads(json.dumps(event)), context)))
            self.steps += 1
        return progress

    def sums(self, **request: Any) -> tuple[int, int, int, int]:
        found = self.run(**request)
        return found["checked"], found["uncounted"], found["requeued"], found["young"]

    def queued(self) -> list[dict[str, Any]]:
        """The events in the count queue, which they leave."""
        found: list[dict[str, Any]] = []
        while messages := self.world.sqs.receive_message(QueueUrl=self.world.queue, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            found += [json.loads(message["Body"]) for message in messages]
            for message in messages:
                self.world.sqs.delete_message(QueueUrl=self.world.queue, ReceiptHandle=message["ReceiptHandle"])
        return found

    def count_queued(self) -> None:
        assert self.world.deliver(*self.queued()) == []


@pytest.fixture
def stack(world: Any, monkeypatch: pytest.MonkeyPatch) -> Stack:
    monkeypatch.setenv("IMAGES_BUCKET", "images")
    monkeypatch.setenv("ARTIFACTS_BUCKET", "artifacts")
    monkeypatch.setenv("RECORD_QUEUE_URL", world.sqs.create_queue(QueueName="record")["QueueUrl"])
    world.s3.create_bucket(Bucket="artifacts")
    return Stack(world)


def unread(stack: Stack) -> tuple[int, int]:
    found = stack.run()
    return found["files"], found["unread"]


def read_queued(stack: Stack) -> list[str]:
    """The record function reads the files in its queue, whose messages stay. The keys of the files."""
    queue = os.environ["RECORD_QUEUE_URL"]
    messages = stack.world.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
    sample = json.loads((ROOT / "events" / "record.json").read_bytes())["Records"][0]
    event = {"Records": [sample | {"body": message["Body"]} for message in messages]}
    assert record.handler(event, context_of("record")) == {"batchItemFailures": []}
    return sorted(parse_arrival(message["Body"]).key for message in messages)


def test_files_that_nobody_read_are_read(stack: Stack) -> None:
    """Every version, refused ones among them, and none twice; what the console puts there for a folder is no file."""
    files = {
        "records/SEA1/A.json": b'{"expected_quantity": 3, "as_of": "2026-11-20"}',
        "records/all.csv": b"no,columns\n1,2\n",
    }
    for key, data in files.items():
        stack.world.put(key, data)
    stack.world.put("records/SEA1/A.json", b'{"expected_quantity": 4, "as_of": "2026-11-21"}')
    stack.world.put("records/SEA1/", b"")
    assert unread(stack) == (3, 3)
    assert read_queued(stack) == ["records/SEA1/A.json", "records/SEA1/A.json", "records/all.csv"]
    assert stack.world.only("RECORD")["expected_quantity"] == 4
    assert unread(stack) == (3, 0)
    stack.world.put("records/SEA1/B.json", b'{"expected_quantity": 1}')
    assert unread(stack) == (4, 1)
    assert stack.queued() == [], "no file goes to the count queue"


def one_page_of(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    client = clients.s3_bulk()
    full = client.list_object_versions
    monkeypatch.setattr(client, "list_object_versions", lambda **asked: full(MaxKeys=number, **asked))


@pytest.mark.parametrize("captured_at", [None, "2019-01-01T00:00:00Z"])
def test_what_was_lost_is_counted_once(stack: Stack, photo: Photo, captured_at: str | None) -> None:
    named = {"captured_at": captured_at} if captured_at else {}
    for key in [*KEYS, *UNPLACED]:
        stack.world.put(key, photo(), **named)
    counted = stack.world.put(KEYS[0], photo(), **named)
    stack.world.deliver(counted)
    assert stack.sums() == (7, 6, 6, 0)
    stack.count_queued()
    assert len(stack.world.items("COUNT#")) == sum(stack.world.totals().values()) == 7
    assert stack.world.totals()["rejected"] == 2
    assert stack.sums() == (7, 0, 0, 0)
    assert stack.queued() == []


def test_a_message_is_what_s3_sends(stack: Stack, photo: Photo) -> None:
    """Except for the sequencer, which S3 gives in its own events alone."""
    sent = stack.world.put(KEYS[2], photo())
    stack.run()
    (event,) = stack.queued()
    for place in ("version", "detail-type", "source"):
        assert event[place] == sent[place]
    wanted = {
        name: value for name, value in sent["detail"]["object"].items() if name not in ("sequencer", "size", "etag")
    }
    found = event["detail"]["object"]
    assert {name: found[name] for name in wanted} == wanted
    head = stack.world.s3.head_object(Bucket="images", Key=KEYS[2])
    assert (found["size"], f'"{found["etag"]}"') == (head["ContentLength"], head["ETag"])
    assert parse_arrival(json.dumps(event)).time == head["LastModified"]
    stack.run()
    assert stack.queued() == [event], "the same version has the same event"


def test_what_is_in_the_queue_as_well_is_counted_once(stack: Stack, photo: Photo) -> None:
    """It waits, or a function has it, or it lies in the dead-letter queue: its second message finds the count."""
    events = [stack.world.put(key, photo()) for key in [*KEYS, *UNPLACED]]
    assert stack.sums() == stack.sums() == (6, 6, 6, 0)
    again = stack.queued()
    assert len(again) == 12
    assert stack.world.deliver(*again[:6], *events, *again[6:]) == []
    assert len(stack.world.items("COUNT#")) == sum(stack.world.totals().values()) == 6
    orders = [item["order"] for item in stack.world.items("COUNT#")]
    assert len(set(orders)) == 6


def test_markers_and_folders_are_no_photographs(stack: Stack, photo: Photo) -> None:
    stack.world.put("incoming/SEA1/", b"")
    stack.world.put("records/SEA1/A.json", b"{}")
    stack.world.put(KEYS[0], photo())
    stack.world.s3.delete_object(Bucket="images", Key=KEYS[0])  # hidden by a delete marker, and still a version
    gone = stack.world.put(KEYS[1], photo())
    stack.world.s3.delete_object(Bucket="images", Key=KEYS[1], VersionId=gone["detail"]["object"]["version-id"])
    assert stack.sums() == (1, 1, 1, 0)
    assert [event["detail"]["object"]["key"] for event in stack.queued()] == [KEYS[0]]


def test_what_just_arrived_is_not_lost(stack: Stack, photo: Photo) -> None:
    stack.world.put(KEYS[0], photo())
    assert stack.sums(grace_seconds=3600) == (0, 0, 0, 1)
    assert stack.queued() == []


def test_only_since(stack: Stack, photo: Photo) -> None:
    stack.world.put(KEYS[0], photo())
    assert stack.sums(since=(datetime.now(UTC) + timedelta(minutes=1)).isoformat()) == (0, 0, 0, 0)
    assert stack.sums(since=(datetime.now(UTC) - timedelta(minutes=1)).isoformat()) == (1, 1, 1, 0)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"since": "yesterday"}, "since takes ISO 8601"),
        ({"since": 3}, "since takes ISO 8601"),
        ({"grace_seconds": "an hour"}, "grace_seconds a number"),
        ({"grace_seconds": 1e30}, "grace_seconds a number"),
        ({"sinec": "2026-11-22"}, "sinec"),
    ],
)
def test_a_wrong_input_is_refused(stack: Stack, request_: dict[str, Any], reason: str) -> None:
    assert reason in stack.run(**request_)["refused"]


@pytest.mark.parametrize("remaining_ms", [900_000, 100_000])
def test_page_by_page_and_step_by_step(
    stack: Stack, photo: Photo, monkeypatch: pytest.MonkeyPatch, remaining_ms: int
) -> None:
    """Pages end between keys and between versions of a key; a step without time ends after its page."""
    one_page_of(2, monkeypatch)
    for key in (KEYS[0], KEYS[0], KEYS[0], *KEYS[1:], *UNPLACED):
        stack.world.put(key, photo())
    found = stack.run(remaining_ms)
    assert (found["checked"], found["uncounted"]) == (8, 8)
    assert stack.steps == (1 if remaining_ms == 900_000 else 5), "four pages of photographs, one of files"
    assert len({parse_arrival(json.dumps(event)).version_id for event in stack.queued()}) == 8


@pytest.mark.parametrize("service", ["s3", "dynamodb", "sqs"])
def test_a_fault_repeats_its_page_only(
    stack: Stack, photo: Photo, monkeypatch: pytest.MonkeyPatch, refuse: Any, service: str
) -> None:
    one_page_of(2, monkeypatch)
    for key in KEYS:
        stack.world.put(key, photo())
    client, operation = {
        "s3": (clients.s3_bulk(), "ListObjectVersions"),
        "dynamodb": (clients.dynamodb(), "BatchGetItem"),
        "sqs": (clients.sqs(), "SendMessageBatch"),
    }[service]
    accept = refuse(client, operation, "AccessDenied")
    with pytest.raises(Transient):
        stack.run()
    accept()
    pages = []
    full = clients.s3_bulk().list_object_versions

    def faulty(**asked: Any) -> Any:
        pages.append(asked.get("KeyMarker"))
        if len(pages) == 2:
            refuse(client, operation, "AccessDenied", times=1)
        return full(**asked)

    monkeypatch.setattr(clients.s3_bulk(), "list_object_versions", faulty)
    assert stack.sums() == (4, 4, 4, 0)
    assert (stack.steps, len(pages)) == (2, 4), "one page again, and one of files"
    assert pages[0] is None and pages[1] == pages[2] is not None


def test_counts_of_before_the_markers_are_found_and_marked(stack: Stack, photo: Photo) -> None:
    """0.1 wrote none. The second run needs no look at their bins."""
    events = [stack.world.put(key, photo(), captured_at="2019-01-01T00:00:00Z") for key in [*KEYS, *UNPLACED]]
    stack.world.deliver(*events)
    for marker in stack.world.items("IMAGE"):
        boto3.resource("dynamodb").Table("counts").delete_item(Key={"PK": marker["PK"], "SK": marker["SK"]})
    stack.world.put(KEYS[0], photo())
    assert stack.sums() == (7, 1, 1, 0)
    assert len(stack.world.items("IMAGE")) == 6
    stack.count_queued()
    assert stack.world.deliver(*events) == []
    assert len(stack.world.items("COUNT#")) == 7


def test_a_count_that_someone_removed_is_restored(stack: Stack, photo: Photo) -> None:
    stack.world.deliver(stack.world.put(KEYS[0], photo()))
    count = stack.world.only()
    boto3.resource("dynamodb").Table("counts").delete_item(Key={"PK": count["PK"], "SK": count["SK"]})
    assert stack.sums() == (1, 1, 1, 0)
    stack.count_queued()
    assert stack.world.only()["SK"] == count["SK"]
    assert stack.sums() == (1, 0, 0, 0)


def test_the_alarms_metric_is_what_it_found(stack: Stack, photo: Photo, capsys: pytest.CaptureFixture[str]) -> None:
    for key in KEYS:
        stack.world.put(key, photo())
    stack.run()
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"Uncounted"' in line]
    assert [line["Uncounted"] for line in told] == [[4.0]]


def test_the_sample_event_is_taken(stack: Stack) -> None:
    event = json.loads((ROOT / "events" / "reconcile.json").read_bytes())
    context = SimpleNamespace(
        **{"function_name": "r", "memory_limit_in_mb": 1, "invoked_function_arn": "a", "aws_request_id": "a"},
        get_remaining_time_in_millis=lambda: 900_000,
    )
    assert reconcile.handler(event, context)["done"] is True
