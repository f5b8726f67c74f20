"""The label log's reader: the lines that it reads, and the winning label of a photograph."""

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

import boto3
import pytest
from bintally.common.errors import Transient
from bintally.labels.log import BrokenLog, Label, Winners, label_id, merged, rank, winners
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

BUCKET = "artifacts"
NOON = "2026-11-22T12:00:00.000000Z"


def label(photograph: str = "a", **changes: Any) -> Label:
    image = {"bucket": "images", "key": f"incoming/SEA1/B/{photograph}.jpg", "version_id": "v"}
    line = {
        **{"image": image, "site": "SEA1", "bin": "B", "quantity": 3, "source": "record", "as_of": NOON},
        **{"captured_at": NOON, "logged_at": NOON, "count": 2, "confidence": 0.5, "p_record": None},
        **{"model_version": "2026-11-22"},
        **changes,
    }
    line.setdefault("id", label_id(line["image"], line["source"], line["as_of"], line["quantity"]))
    return cast("Label", line)


@pytest.fixture
def s3(environment: None) -> Iterator[Any]:
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield client


def log(s3: Any, name: str, *lines: Label) -> None:
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    s3.put_object(Bucket=BUCKET, Key=f"labels/{name}", Body=body)


def read(s3: Any, since: datetime) -> dict[str, int]:
    """Photographs that have a winner, and its quantity."""
    found = {line["image"]["key"]: line["quantity"] for line in winners(s3, BUCKET, since).lines()}
    return {key.split("/")[-1].removesuffix(".jpg"): quantity for key, quantity in found.items()}


def test_an_id_is_of_who_says_what_of_which_version() -> None:
    image = label()["image"]
    assert label_id(image, "record", NOON, 3) == "ea6c7546fa73dd2ba8e23d09bec2d8ec"
    others = {label_id(image, "person", NOON, 3), label_id(image, "record", NOON, 4)}
    assert label_id(image, "record", NOON, 3) not in others and len(others) == 2


def test_reads_from_the_day_before_the_watermark_on(s3: Any) -> None:
    for day, photograph in [("2026/11/20", "a"), ("2026/11/21", "b"), ("2026/11/22", "c"), ("2026/11/23", "d")]:
        log(s3, f"{day}/x.jsonl", label(photograph))
    assert read(s3, datetime(2026, 11, 22, 23, tzinfo=UTC)).keys() == {"b", "c", "d"}
    assert read(s3, datetime.fromtimestamp(0, UTC)).keys() == {"a", "b", "c", "d"}


def test_reads_more_objects_than_a_page_has(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")  # instead of 1000
    for number in range(25):
        log(s3, f"2026/11/22/{number:04}.jsonl", label(str(number)))
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 10
    assert len(winners(s3, BUCKET, datetime(2026, 11, 22, tzinfo=UTC))) == 25


def test_leaves_out_what_stands_aside(s3: Any) -> None:
    log(s3, "2026/11/22/x.jsonl", label())
    s3.put_object(Bucket=BUCKET, Key="labels/aside/2026/11/22/y.jsonl", Body=b"no label")
    assert read(s3, datetime(2026, 11, 22, tzinfo=UTC)) == {"a": 3}


def test_tells_the_newest_line_also_when_it_wins_nothing(s3: Any) -> None:
    later = NOON.replace("T12", "T13")
    log(s3, "2026/11/22/x.jsonl", label(source="person"), label(logged_at=later))
    found = winners(s3, BUCKET, datetime(2026, 11, 22, tzinfo=UTC))
    assert found.newest == later and [line["source"] for line in found.lines()] == ["person"]
    assert winners(s3, BUCKET, datetime(2027, 1, 1, tzinfo=UTC)).newest == ""


@pytest.mark.parametrize("body", [b"no label", b"[]", b'{"id": "1"}', b"\xff"])
def test_names_a_line_that_is_no_label(s3: Any, body: bytes) -> None:
    good = json.dumps(label()).encode()
    s3.put_object(Bucket=BUCKET, Key="labels/2026/11/22/x.jsonl", Body=good + b"\n" + body + b"\n")
    with pytest.raises(BrokenLog, match=r"labels/2026/11/22/x\.jsonl, line 2"):
        winners(s3, BUCKET, datetime(2026, 11, 22, tzinfo=UTC))


def test_a_bucket_that_cannot_be_read_may_be_tried_again(s3: Any, refuse: Any) -> None:
    log(s3, "2026/11/22/x.jsonl", label())
    refuse(s3, "GetObject", "SlowDown", 503)
    with pytest.raises(Transient):
        winners(s3, BUCKET, datetime(2026, 11, 22, tzinfo=UTC))


labels_of_two = st.builds(
    label,
    photograph=st.sampled_from("ab"),
    source=st.sampled_from(["record", "person"]),
    as_of=st.sampled_from([NOON, NOON.replace("T12", "T11")]),
    told=st.sampled_from(["", "1", "2"]),
    quantity=st.integers(0, 3),
)


@given(st.lists(labels_of_two), st.randoms())
def test_the_winner_is_the_same_in_any_order_and_with_repeats(lines: list[Label], random: Any) -> None:
    shuffled = lines + random.choices(lines, k=3) if lines else []
    random.shuffle(shuffled)
    found = list(Winners(shuffled).lines())
    assert found == list(Winners(lines).lines())
    for winner in found:
        rivals = [line for line in lines if line["image"] == winner["image"]]
        people = [line for line in rivals if line["source"] == "person"]
        assert winner in (people or rivals)
        assert rank(winner) == max(rank(line) for line in rivals)
        assert winner["as_of"] == max(line["as_of"] for line in people or rivals)


def back(of: Label) -> Label:
    """The line that takes a label back."""
    return cast("Label", {**of, "withdrawn": True})


def test_what_a_person_took_back_gives_way_to_the_next_best() -> None:
    record, first = label(quantity=3), label(quantity=4, source="person", as_of=NOON.replace("T12", "T13"))
    second = label(quantity=5, source="person", as_of=NOON.replace("T12", "T14"))
    for lines, quantity in (
        ([record, first, second, back(second)], 4),
        ([record, first, back(first)], 3),
        ([record, first, back(first), second], 5),
    ):
        for order in itertools.permutations(lines):
            assert [line["quantity"] for line in Winners(order).lines()] == [quantity]
    assert list(Winners([first, back(first)]).lines()) == []
    again = cast("Label", {**first, "told": NOON})  # another line of the same label
    assert list(Winners([first, back(first), again]).lines()) == []


@given(st.lists(labels_of_two), st.lists(st.integers(0, 9)), st.integers(1, 3), st.randoms())
def test_slices_of_the_log_give_the_same_winners(lines: list[Label], taken: list[int], parts: int, random: Any) -> None:
    """In any order, cut anywhere, with repeats: also where a label and its withdrawal are in different slices."""
    people = [line for line in lines if line["source"] == "person"]
    told = lines + [back(people[n % len(people)]) for n in taken if people]
    once = list(Winners(told).lines())
    told += random.choices(told, k=2) if told else []
    random.shuffle(told)
    found = [json.loads(text) for text in merged([Winners(told[at::parts]).texts() for at in range(parts)])]
    assert [line for line in found if not line.get("withdrawn")] == once
    gone = {line["id"] for line in told if line.get("withdrawn")}
    assert not gone & {line["id"] for line in once}
