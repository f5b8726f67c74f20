"""The label log in slices: stopped anywhere and read on, each line is read once and none is lost."""

import contextlib
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from bintally.labels import slices
from bintally.labels.log import Label
from bintally.labels.slices import Limits, Reading, load, merge, read_slices, reading_key
from moto import mock_aws

from tests.functions.test_labels import BUCKET, NOON, label, log

ALL = Limits(labels=1000, share=1)
FOLDER = "retrain/261122-aaaaaa"
NEVER = float("inf")


class Log:
    """The log's bucket; counts how often each of its objects is read, and stops at the request that a test chooses."""

    def __init__(self) -> None:
        self.s3 = boto3.client("s3")
        self.s3.create_bucket(Bucket=BUCKET)
        self.gets: Counter[str] = Counter()
        self.requests, self.stop_at = itertools.count(1), 0
        self.s3.meta.events.register("before-call.s3", self.count)

    def count(self, model: Any, params: dict[str, Any], **_: Any) -> None:
        key = params["url_path"].removeprefix("/")
        if model.name == "GetObject" and key.startswith("labels/"):
            self.gets[key] += 1
        if next(self.requests) == self.stop_at:
            self.stop_at = 0
            raise KeyboardInterrupt  # the function's end: nothing catches it

    def write(self, name: str, *labels: Label) -> None:
        log(self.s3, name, *labels)

    def read(self, before: Reading, limits: Limits = ALL, deadline: float = NEVER) -> tuple[Reading, str]:
        return read_slices(self.s3, BUCKET, FOLDER, before, limits, deadline)

    def manifest(self, reading: Reading) -> list[Label]:
        number = merge(self.s3, BUCKET, reading, "manifest.jsonl")
        body = self.s3.get_object(Bucket=BUCKET, Key="manifest.jsonl")["Body"].read()
        lines = [json.loads(line) for line in body.splitlines()]
        assert len(lines) == number
        return lines


@pytest.fixture
def labels(environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    monkeypatch.setattr(slices, "LINES", 4)
    with mock_aws():
        yield Log()


def at(hour: int, day: int = 22) -> str:
    return f"2026-11-{day}T{hour:02}:00:00.000000Z"


def photographs(lines: list[Label]) -> list[str]:
    return sorted(line["image"]["key"].split("/")[-1].removesuffix(".jpg") for line in lines)


def fill(labels: Log, number: int = 10) -> None:
    """Two lines an object: a new photograph, and again the photograph of the object before, with another quantity."""
    for hour in range(number):
        again = label(str(hour - 1), logged_at=at(hour), as_of=at(hour), quantity=5)
        labels.write(f"2026/11/22/{hour:02}0000-x.jsonl", label(str(hour), logged_at=at(hour), as_of=at(0)), again)


def test_a_slice_has_an_end_and_the_winner_is_that_of_all(labels: Log) -> None:
    fill(labels)
    reading, ended = labels.read(Reading())
    assert (ended, len(reading.slices), reading.watermark) == ("log", 5, at(9))
    found = labels.manifest(reading)
    assert photographs(found) == sorted(["-1", *map(str, range(10))])
    assert [line["quantity"] for line in found if "/9.jpg" in line["image"]["key"]] == [3], "nobody corrected the last"
    assert sum(line["quantity"] == 5 for line in found) == 10


def test_slices_are_cut_by_objects_too(labels: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "OBJECTS", 1)
    fill(labels, 3)
    assert len(labels.read(Reading())[0].slices) == 3


def test_a_deadline_ends_a_slice_early_and_the_next_call_goes_on(labels: Log) -> None:
    fill(labels)
    whole = labels.manifest(labels.read(Reading())[0])
    labels.gets.clear()
    reading, ended, calls = Reading(), "time", 0
    while ended == "time":
        reading, ended = labels.read(reading, deadline=time.monotonic() - 1)
        calls += 1
    assert calls == 11, "an object each, and the end"
    assert labels.manifest(reading) == whole
    assert reading.watermark == at(9)


@pytest.mark.slow
@pytest.mark.parametrize("deadline", [NEVER, 0.0])
def test_stopped_at_any_request_and_tried_again_it_ends_the_same(labels: Log, deadline: float) -> None:
    """Each try stops one request later, in the middle of a slice or between a slice and its place."""
    fill(labels)
    whole = labels.read(Reading())[0]
    expected = labels.manifest(whole)
    for stop_at in itertools.count(1):
        labels.s3.delete_object(Bucket=BUCKET, Key=reading_key(FOLDER))
        labels.requests, labels.stop_at = itertools.count(1), stop_at
        with contextlib.suppress(KeyboardInterrupt):
            labels.read(Reading(), deadline=deadline)
        reached, labels.stop_at = not labels.stop_at, 0
        labels.gets.clear()
        before = load(labels.s3, BUCKET, reading_key(FOLDER)) or Reading()
        reading, ended = labels.read(before)
        assert ended == "log"
        assert labels.manifest(reading) == expected
        assert (reading.watermark, reading.known) == (whole.watermark, whole.known)
        assert not labels.gets.keys() & before.known, "a slice that is stored is not read again"
        if not reached:
            break
    assert stop_at > 5


def test_two_calls_at_once_leave_a_whole_reading(labels: Log) -> None:
    """Step Functions gives a call up and makes another while the first still works: the last one to store counts, with
    slices of its own."""
    fill(labels, 4)
    first, _ = labels.read(Reading(), deadline=0.0)
    labels.write("2026/11/22/000000-y.jsonl", label("late", logged_at=at(0)))  # shifts the slices of the second call
    second, _ = labels.read(Reading())
    assert set(first.slices).isdisjoint(second.slices)
    on_first, _ = labels.read(first)
    assert labels.manifest(on_first) == labels.manifest(second)


def test_what_is_stored_late_is_read_by_the_next_and_alone(labels: Log) -> None:
    """An object may be stored a day after its time: a batch that failed for so long."""
    fill(labels)
    first, _ = labels.read(Reading())
    labels.write("2026/11/21/230000-late.jsonl", label("late", logged_at=at(23, day=21)))
    labels.write("2026/11/22/033000-late.jsonl", label("later", logged_at=at(3)))
    labels.gets.clear()
    second, _ = labels.read(Reading(first.watermark, first.known))
    assert photographs(labels.manifest(second)) == ["late", "later"]
    assert len(labels.gets) == 2
    assert second.watermark == first.watermark
    third, ended = labels.read(Reading(second.watermark, second.known))
    assert (third.labels, ended) == (0, "log")


def test_only_the_days_that_are_listed_again_are_remembered(labels: Log) -> None:
    for day in range(10, 15):
        labels.write(f"2026/11/{day}/120000-x.jsonl", label(str(day), logged_at=at(12, day)))
    reading, _ = labels.read(Reading())
    assert reading.known == {f"labels/2026/11/{day}/120000-x.jsonl" for day in (13, 14)}
    assert labels.read(reading) == (reading, "log")


def test_a_run_is_full_and_the_next_goes_on(labels: Log) -> None:
    fill(labels)
    whole = labels.manifest(labels.read(Reading())[0])
    found: list[list[Label]] = []
    reading, ended = Reading(), "full"
    while ended == "full":
        reading, ended = labels.read(Reading(reading.watermark, reading.known), Limits(labels=3, share=1))
        found.append(labels.manifest(reading))
    assert [len(lines) for lines in found[:-1]] == [3] * (len(found) - 1)
    taken = [line["id"] for lines in found for line in lines]
    assert len(taken) == len(set(taken)) and {line["id"] for line in whole} <= set(taken)
    full, ended = labels.read(Reading(labels=3), Limits(labels=3, share=1))
    assert (full, ended) == (Reading(labels=3), "full"), "a call after the last one reads nothing more"


def test_a_share_of_bins_is_always_the_same_and_people_always_count(labels: Log) -> None:
    half, fewer = Limits(labels=10**6, share=0.5), Limits(labels=10**6, share=0.25)
    bins = [label(bin=f"B{number}") for number in range(400)]
    taken = [one["bin"] for one in bins if half.takes(one)]
    assert 150 < len(taken) < 250
    assert {one["bin"] for one in bins if fewer.takes(one)} < set(taken)
    assert all(half.takes(label(bin=f"B{number}", source="person")) for number in range(400))
    labels.write("2026/11/22/120000-x.jsonl", *bins)
    reading, _ = labels.read(Reading(), Limits(labels=10**6, share=0))
    assert (reading.labels, reading.slices, reading.watermark) == (0, (), NOON), "the watermark passes what is left out"
