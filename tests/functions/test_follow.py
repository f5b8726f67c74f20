"""The follow function, from a batch of the table's stream to the label log: it writes each label once."""

import itertools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from bintally import follow
from bintally.aws import clients, items, table
from bintally.common.errors import Transient
from bintally.labels import follow_batch, log
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
BUCKET = "artifacts"
CAPTURED = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
LOGGED = datetime(2026, 11, 22, 10, 15, 3, tzinfo=UTC)
PAIRING = timedelta(hours=24)
BIN = "BIN#SEA1#B"

Item = dict[str, Any]


def utc(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def count(name: str = "a", captured: datetime = CAPTURED, **changes: Any) -> Item:
    image = {"bucket": "images", "key": f"incoming/SEA1/B/{name}.jpg", "version_id": "v", "etag": "e", "sequencer": "0"}
    digest = items.version_digest(image["bucket"], image["key"], image["version_id"])
    return {
        **{"PK": BIN, "SK": f"COUNT#{utc(captured)}#{digest}", "site": "SEA1", "bin": "B", "image": image},
        **{"captured_at": utc(captured), "uploaded_at": utc(captured), "status": "COUNTED", "count": 2},
        **{"confidence": 0.5, "model_version": "2026-11-22", "probabilities": [0.1, 0.2, 0.5, 0.2, 0, 0, 0]},
        **changes,
    }


def by_metadata(quantity: int, as_of: datetime = CAPTURED) -> Item:
    told = {"recorded_quantity": quantity, "recorded_from": "metadata", "recorded_as_of": utc(as_of)}
    return told | {"p_record": 0.2}


def record(quantity: int = 3, as_of: datetime = CAPTURED, **changes: Any) -> Item:
    told = {"expected_quantity": quantity, "as_of": utc(as_of), "site": "SEA1", "bin": "B"}
    return {"PK": BIN, "SK": "RECORD", **told, **changes}


def recount(about: Item, quantity: int = 4, at: datetime = CAPTURED) -> Item:
    seen = {name: about[name] for name in ("image", "captured_at")}
    return {"PK": BIN, "SK": "RECOUNT#01J", "quantity": quantity, "recounted_at": utc(at), **seen}


class Stream:
    """The table, and the function behind its stream."""

    def __init__(self, world: Any) -> None:
        self.s3, self.table = world.s3, boto3.resource("dynamodb").Table("counts")
        self.number = 0

    def put(self, item: Item) -> Item:
        """Puts an item; the stream record about it."""
        wire = items.wire(item)
        old = boto3.client("dynamodb").put_item(TableName="counts", Item=wire, ReturnValues="ALL_OLD").get("Attributes")
        self.number += 1
        return {
            **{"eventID": f"{self.number:032x}", "eventName": "MODIFY" if old else "INSERT"},
            "eventSource": "aws:dynamodb",
            "dynamodb": {
                "ApproximateCreationDateTime": LOGGED.timestamp(),
                "Keys": {"PK": wire["PK"], "SK": wire["SK"]},
                "NewImage": wire,
                **({"OldImage": old} if old else {}),
                "SequenceNumber": str(self.number),
            },
        }

    def follow(self, *records: Item) -> None:
        context = SimpleNamespace(
            function_name="follow",
            memory_limit_in_mb=512,
            invoked_function_arn="arn:aws:lambda:us-east-1:000000000000:function:follow",
            aws_request_id="a request",
        )
        follow.handler({"Records": list(records)}, context)

    def objects(self) -> dict[str, bytes]:
        found = self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {o["Key"]: self.s3.get_object(Bucket=BUCKET, Key=o["Key"])["Body"].read() for o in found}

    def lines(self) -> list[dict[str, Any]]:
        bodies = [body for key, body in self.objects().items() if not key.startswith(log.ASIDE)]
        return [json.loads(line) for body in bodies for line in body.splitlines()]

    def said(self) -> list[tuple[str, int, str, str]]:
        """Photograph, quantity, source and as_of of each line."""
        return sorted(
            (line["image"]["key"].split("/")[-1][:-4], line["quantity"], line["source"], line["as_of"])
            for line in self.lines()
        )

    def aside(self) -> list[dict[str, Any]]:
        return [json.loads(body) for key, body in self.objects().items() if key.startswith(log.ASIDE)]


@pytest.fixture
def stream(world: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stream]:
    monkeypatch.setenv("ARTIFACTS_BUCKET", BUCKET)
    monkeypatch.setenv("PAIRING_HOURS", "24")
    monkeypatch.setattr(follow_batch, "now", lambda: LOGGED + timedelta(hours=23))
    world.s3.create_bucket(Bucket=BUCKET)
    yield Stream(world)


# Which labels


def test_what_a_photographs_own_metadata_say_is_a_label(stream: Stream) -> None:
    event = stream.put(count(**by_metadata(4, as_of=LOGGED)))
    stream.follow(event)
    (key,) = stream.objects()
    assert key.startswith("labels/2026/11/22/101503-") and key.endswith(".jsonl")
    (line,) = stream.lines()
    image = {"bucket": "images", "key": "incoming/SEA1/B/a.jpg", "version_id": "v"}
    assert line == {
        **{"id": log.label_id(image, "record", utc(LOGGED), 4), "image": image, "site": "SEA1", "bin": "B"},  # type: ignore[arg-type]
        **{"quantity": 4, "source": "record", "as_of": utc(LOGGED), "told": "", "captured_at": utc(CAPTURED)},
        **{"logged_at": utc(LOGGED), "count": 2, "confidence": 0.5, "p_record": 0.2, "model_version": "2026-11-22"},
    }


def test_many_lines_are_several_objects_and_a_retry_replaces_them(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader of the log holds whole objects in memory."""
    monkeypatch.setattr(log, "LARGEST", 2)
    events = [stream.put(count(name, **by_metadata(4))) for name in "abcde"]
    stream.follow(*events)
    stream.follow(*events)
    assert sorted(len(body.splitlines()) for body in stream.objects().values()) == [1, 2, 2]
    assert len(stream.said()) == 5


def test_a_photograph_of_which_nobody_says_anything_has_no_label(stream: Stream) -> None:
    stream.follow(stream.put(count()))
    assert stream.objects() == {}


@pytest.mark.parametrize("apart", [PAIRING, -PAIRING])
def test_a_record_is_a_label_for_photographs_of_its_time(stream: Stream, apart: timedelta) -> None:
    """Whichever of the two comes first."""
    near, far = count("near", CAPTURED + apart), count("far", CAPTURED + apart * 1.01)
    stream.follow(stream.put(near), stream.put(far))
    assert stream.lines() == []
    stream.follow(stream.put(record(3)))
    assert stream.said() == [("near", 3, "record", utc(CAPTURED))]
    late, later = count("late", CAPTURED - apart), count("later", CAPTURED - apart * 1.01)
    stream.follow(stream.put(late), stream.put(later))
    assert [photograph for photograph, *_ in stream.said()] == ["late", "near"]
    assert all(line["p_record"] is None for line in stream.lines())


def test_a_record_is_a_label_only_for_its_own_bins_counted_photographs(stream: Stream) -> None:
    stream.put(count("other", PK="BIN#SEA1#B2"))
    stream.put(count("rejected", status="REJECTED"))
    stream.put(count() | {"SK": "LATEST"})
    stream.put(count("own"))
    stream.follow(stream.put(record()))
    assert [photograph for photograph, *_ in stream.said()] == ["own"]


def test_the_record_that_a_photograph_was_compared_with_is_a_label_though_another_stands_by_now(stream: Stream) -> None:
    compared = by_metadata(3, CAPTURED - timedelta(hours=2)) | {"recorded_from": "record"}
    event = stream.put(count(**compared))
    stream.put(record(7, CAPTURED + timedelta(days=3)))
    stream.follow(event)
    assert stream.said() == [("a", 3, "record", utc(CAPTURED - timedelta(hours=2)))]


def test_an_old_record_that_a_photograph_was_compared_with_is_none(stream: Stream) -> None:
    compared = by_metadata(3, CAPTURED - PAIRING * 1.01) | {"recorded_from": "record"}
    stream.follow(stream.put(count(**compared)))
    assert stream.lines() == []


def test_old_metadata_are_a_label_whenever_the_photograph_is_uploaded(stream: Stream) -> None:
    stream.follow(stream.put(count(**by_metadata(3, CAPTURED + timedelta(days=90)))))
    assert [quantity for _, quantity, *_ in stream.said()] == [3]


def test_a_newer_record_is_another_label(stream: Stream) -> None:
    stream.put(count())
    stream.follow(stream.put(record(3)), stream.put(record(3)), stream.put(record(5, CAPTURED + timedelta(hours=1))))
    assert [(quantity, as_of[11:13]) for _, quantity, _, as_of in stream.said()] == [(3, "10"), (5, "11")]


def test_what_a_person_counted_is_a_label_of_the_photograph_they_saw(stream: Stream) -> None:
    seen, other = count("seen", **by_metadata(3)), count("other")
    stream.put(seen)
    stream.put(other)
    stream.follow(stream.put(recount(seen)))
    assert stream.said() == [("seen", 4, "person", utc(CAPTURED))]
    (line,) = stream.lines()
    assert (line["count"], line["p_record"]) == (2, 0.2)
    assert "audit" not in line
    stream.follow(stream.put(recount(seen) | {"audits": True}))
    assert [line["audit"] for line in stream.lines() if "audit" in line] == [True]


def test_what_a_person_took_back_withdraws_its_label_and_no_other(stream: Stream) -> None:
    seen = count("seen", **by_metadata(3))
    stream.put(seen)
    said = recount(seen)
    undone = said | {"SK": said["SK"].replace("RECOUNT#", "UNDONE#")}
    stream.follow(stream.put(said))
    stream.follow(stream.put(undone))
    stream.follow(stream.put(undone), stream.put(seen))
    found = list(log.winners(stream.s3, BUCKET, LOGGED).lines())
    assert [(line["quantity"], line["source"]) for line in found] == [(3, "record")]


def test_a_person_who_saw_no_photograph_labels_none(stream: Stream) -> None:
    blind = recount(count())
    del blind["image"]
    stream.follow(stream.put(blind))
    assert stream.objects() == {}


@pytest.mark.slow
def test_a_bin_of_many_photographs_gives_a_line_for_each(stream: Stream) -> None:
    note = "x" * 8000  # pages of a query end at 1 MB
    for number in range(200):
        stream.put(count(f"{number:03}", CAPTURED + timedelta(minutes=number), note=note))
    stream.follow(stream.put(record()))
    assert len({line["id"] for line in stream.lines()}) == 200


def test_reads_what_stands_beside_a_whole_batch_at_once(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    events = []
    for number in range(100):
        place = f"BIN#SEA1#{number}"
        stream.put(record(PK=place))
        events.append(stream.put(count(f"{number:03}", PK=place)))
    asked: list[Any] = []
    ask = clients.dynamodb().batch_get_item

    def halved(**request: Any) -> Any:
        """Answers half of what it is asked and leaves the rest, as DynamoDB may."""
        keys = request["RequestItems"]["counts"]["Keys"]
        asked.append(len(keys))
        answer = ask(RequestItems={"counts": {"Keys": keys[: len(keys) // 2 + 1], "ConsistentRead": True}})
        left = keys[len(keys) // 2 + 1 :]
        return answer | ({"UnprocessedKeys": {"counts": {"Keys": left}}} if left else {})

    monkeypatch.setattr(clients.dynamodb(), "batch_get_item", halved)
    monkeypatch.setattr(table, "TRIES", 10)
    stream.follow(*events)
    assert asked[:2] == [100, 49] and len(stream.said()) == 100
    monkeypatch.setattr(table, "TRIES", 2)
    with pytest.raises(Transient, match="not read in 2 tries"):
        stream.follow(*events)


# Once, however often


def test_a_batch_that_comes_again_replaces_what_it_wrote(stream: Stream) -> None:
    batch = [stream.put(count("a", **by_metadata(4))), stream.put(count("b", **by_metadata(1))), stream.put(record())]
    stream.follow(*batch)
    before = stream.objects()
    stream.follow(*batch)
    assert stream.objects() == before and len(before) == 1


def test_a_batch_is_logged_under_the_day_of_its_newest_record(stream: Stream) -> None:
    """So that it stands where a reader looks who has seen the day before."""
    first, second = stream.put(count("a", **by_metadata(4))), stream.put(count("b", **by_metadata(1)))
    second["dynamodb"]["ApproximateCreationDateTime"] = datetime(2026, 11, 23, 0, 0, 1, tzinfo=UTC).timestamp()
    stream.follow(first, second)
    assert next(iter(stream.objects())).startswith("labels/2026/11/23/000001-")
    assert sorted(line["logged_at"][:10] for line in stream.lines()) == ["2026-11-22", "2026-11-23"]


def test_what_is_given_again_after_days_is_logged_as_of_now(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has learned since looks no further back than a day before it."""
    event = stream.put(count("a", **by_metadata(4)))
    later = LOGGED + timedelta(days=9)
    monkeypatch.setattr(follow_batch, "now", lambda: later)
    stream.follow(event)
    assert next(iter(stream.objects())).startswith("labels/2026/12/01/")
    assert len(log.winners(stream.s3, BUCKET, later)) == 1


def test_a_record_that_is_told_again_gives_no_more_labels(stream: Stream) -> None:
    stream.put(count("a"))
    stream.follow(stream.put(record(3, order="1")))
    before = stream.objects()
    stream.follow(stream.put(record(3, order="2")))
    assert stream.objects() == before and len(before) == 1


def test_a_correction_as_of_the_same_time_counts(stream: Stream) -> None:
    """Whatever the labels' ids are, and although the stream dates both alike; also when what it corrects is given
    again after days."""
    for number, (first, last) in enumerate(itertools.permutations(range(4), 2)):
        stream.put(count(name := f"p{number}"))
        events = [stream.put(record(one, order=f"{number:02}-{k}")) for k, one in enumerate((first, last))]
        stream.follow(*events)
        events[0]["dynamodb"]["ApproximateCreationDateTime"] -= 9 * 24 * 3600
        stream.follow(events[0])
        found = log.winners(stream.s3, BUCKET, LOGGED).lines()
        assert [line["quantity"] for line in found if name in line["image"]["key"]] == [last]


@pytest.mark.slow
@examples(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(st.data())
def test_any_batches_and_repeats_give_the_same_winners(stream: Stream, data: Any) -> None:
    """Cut into batches anywhere, batches twice, and some again from an earlier place, as a stream may."""
    for key in stream.objects():
        stream.s3.delete_object(Bucket=BUCKET, Key=key)
    seen = count("a", **by_metadata(4))
    items = [seen, count("b"), record(3), count("c"), record(5, CAPTURED + timedelta(hours=3)), recount(seen, 6)]
    events = [stream.put(item) for item in items]
    place = 0
    while place < len(events):
        end = data.draw(st.integers(place + 1, len(events)))
        for _ in range(data.draw(st.integers(1, 2))):
            stream.follow(*events[place:end])
        place = end if data.draw(st.booleans()) else data.draw(st.integers(place + 1, end))
    found = log.winners(stream.s3, BUCKET, LOGGED)
    winners = {line["image"]["key"][-5]: (line["source"], line["quantity"]) for line in found.lines()}
    assert winners == {"a": ("person", 6), "b": ("record", 5), "c": ("record", 5)}


# What can never work, and what cannot work now


def broken(item: Item, *missing: str, **changes: Any) -> Item:
    return {name: value for name, value in item.items() if name not in missing} | changes


BROKEN = {
    "a count without a model": broken(count("x", **by_metadata(4)), "model_version"),
    "a count without an image": broken(count("x", **by_metadata(4)), "image"),
    "a count of no number": broken(count("x", **by_metadata(4)), count="two"),
    "a count of no time": broken(count("x", **by_metadata(4)), captured_at="noon"),
    "a count compared with nobody's record": broken(count("x", **by_metadata(4)), "recorded_from"),
    "a record without a quantity": broken(record(), "expected_quantity"),
    "a record of no time": record() | {"as_of": "soon"},
    "a record of the first day": record() | {"as_of": "0001-01-01T00:00:00.000000Z"},
    "a recount of no quantity": recount(count("own")) | {"quantity": "many"},
    "a recount of half an image": recount(count("own")) | {"image": {"bucket": "images"}},
    "a recount of what was never counted": recount(count("never")),
    "something else": {"PK": BIN, "SK": "LATEST"},
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_can_never_give_a_label_is_put_aside_and_the_others_go_on(stream: Stream, name: str) -> None:
    stream.put(count("own"))
    poison = stream.put(BROKEN[name])
    batch = [stream.put(count("a", **by_metadata(4))), poison, stream.put(count("b", **by_metadata(1)))]
    stream.follow(*batch)
    assert [photograph for photograph, *_ in stream.said()] == ["a", "b"]
    (aside,) = stream.aside()
    assert aside["record"] == poison and aside["reason"]
    stream.follow(*batch)
    assert len(stream.aside()) == 1
    assert {line["image"]["key"][-5] for line in log.winners(stream.s3, BUCKET, LOGGED).lines()} == {"a", "b"}


@pytest.mark.parametrize(
    "poison",
    [
        {},
        {"eventID": "1"},
        {"eventID": "1", "dynamodb": None},
        {"eventID": "1", "dynamodb": {"ApproximateCreationDateTime": 1, "NewImage": {"PK": {"X": 1}}}},
        {"eventID": "1", "dynamodb": {"ApproximateCreationDateTime": 1e300, "NewImage": {}}},
        {"eventID": "1", "dynamodb": {"ApproximateCreationDateTime": 1, "NewImage": {"SK": {"S": "RECORD"}}}},
    ],
)
def test_what_is_no_stream_record_is_put_aside(stream: Stream, poison: Any) -> None:
    stream.follow(poison, stream.put(count("a", **by_metadata(4))))
    assert [one["record"] for one in stream.aside()] == [poison] and len(stream.lines()) == 1


def test_broken_items_beside_a_change_are_none_of_its_faults(stream: Stream) -> None:
    """They were quarantined when their own changes arrived."""
    stream.put(broken(count("broken"), "model_version"))
    stream.put(count("own"))
    stream.follow(stream.put(record(3)))
    stream.put(record() | {"as_of": "soon"})
    stream.follow(stream.put(count("late", **by_metadata(5))))
    assert [(photograph, quantity) for photograph, quantity, *_ in stream.said()] == [("late", 5), ("own", 3)]
    assert stream.aside() == []


@pytest.mark.parametrize(
    ("client", "operation", "code", "status"),
    [
        (clients.dynamodb, "BatchGetItem", "InternalServerError", 500),
        (clients.dynamodb, "BatchGetItem", "ThrottlingException", 400),
        (clients.dynamodb, "Query", "ProvisionedThroughputExceededException", 400),
        (clients.s3, "PutObject", "InternalServerError", 500),
    ],
)
def test_what_may_pass_has_the_whole_batch_come_again(
    stream: Stream, refuse: Any, client: Callable[[], Any], operation: str, code: str, status: int
) -> None:
    batch = [stream.put(count("a", **by_metadata(4))), stream.put(record())]
    recover = refuse(client(), operation, code, status)
    with pytest.raises(Transient):
        stream.follow(*batch)
    assert stream.objects() == {}
    recover()
    stream.follow(*batch)
    assert [quantity for _, quantity, *_ in stream.said()] == [3, 4]


def test_tells_how_many_labels_and_how_many_aside(stream: Stream, capsys: pytest.CaptureFixture[str]) -> None:
    stream.follow(stream.put(count("a", **by_metadata(4))), stream.put(BROKEN["something else"]))
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
    assert [(metrics["Labels"], metrics["Aside"]) for metrics in told] == [([1.0], [1.0])]


def test_the_sample_event_is_understood(stream: Stream) -> None:
    sample = json.loads((ROOT / "events" / "follow.json").read_bytes())
    for event in sample["Records"]:
        boto3.client("dynamodb").put_item(TableName="counts", Item=event["dynamodb"]["NewImage"])
    stream.follow(*sample["Records"])
    assert [(quantity, as_of) for _, quantity, _, as_of in stream.said()] == [
        (4, "2026-11-22T06:00:00.000000Z"),
        (4, "2026-11-22T10:15:02.000000Z"),
    ]
    assert stream.aside() == []
