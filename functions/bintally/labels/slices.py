"""Reads the label log in slices, for a run that may be stopped at any time and tried again.

A slice is a file of winning labels, named by its content. After each one, `reading.json` names the slices so far, the
watermark and the objects of the log that were read: whoever reads on starts there, so no line is lost or read twice.
A watermark alone is not enough. The log's keys are in the order of time, but an object is stored up to a day after its
time.
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Literal

from bintally.labels import log
from bintally.labels.log import Label, Winners

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LINES = 200_000
"""Of a slice, and those of the object that reaches it. A reader needs 540 MB in all (docs/benchmarks.md)."""
OBJECTS = 10_000
"""Of a slice: 8 are read at once, so 38 s if each takes 30 ms."""

Ended = Literal["log", "full", "time"]
"""Why reading ended: at the end of the log, with as many labels as a run takes, or at the deadline."""


@dataclass(frozen=True)
class Reading:
    """How far the log is read."""

    watermark: str = ""
    """The greatest logged_at of the lines that were read; "" before the first."""
    known: frozenset[str] = frozenset()
    """The objects that were read, of the days that are listed again."""
    slices: tuple[str, ...] = ()
    """The keys of the run's slices."""
    labels: int = 0
    """Lines of the slices; a photograph has one in each slice that labels it."""

    @property
    def since(self) -> datetime:
        return datetime.fromisoformat(self.watermark) if self.watermark else datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class Limits:
    """What a run takes from the log."""

    labels: int
    """The run is full with the object that reaches this number."""
    share: float
    """The share of bins of which records become labels. A person's recount always does."""

    def takes(self, label: Label) -> bool:
        """Always the same for the same bin. The hash is another than that of the bin's split."""
        if self.share >= 1 or label["source"] == "person":
            return True
        digest = hashlib.sha256(f"share\0{label['site']}\0{label['bin']}".encode()).digest()
        return int.from_bytes(digest[:8]) < self.share * 2**64


@dataclass
class Slice:
    """A slice that is being read."""

    winners: Winners = field(default_factory=Winners)
    keys: set[str] = field(default_factory=set)
    lines: int = 0
    newest: str = ""

    def add(self, key: str, labels: list[Label], limits: Limits) -> None:
        self.keys.add(key)
        self.lines += len(labels)
        for label in labels:
            self.newest = max(self.newest, label["logged_at"])
            if limits.takes(label):
                self.winners.add(label)

    def complete(self) -> bool:
        return self.lines >= LINES or len(self.keys) >= OBJECTS


def read_slices(
    s3: "S3Client", bucket: str, folder: str, before: Reading, limits: Limits, deadline: float
) -> tuple[Reading, Ended]:
    """Reads on after `before` and stores each slice below `folder`. Ends with the first object after `deadline`, a time
    of time.monotonic(), however little is read. Raises BrokenLog or Transient."""
    reading, slice_ = before, Slice()
    if reading.labels >= limits.labels:
        return reading, "full"
    with closing(log.read_log(s3, bucket, reading.since, reading.known)) as objects:
        for key, labels in objects:
            slice_.add(key, labels, limits)
            full, late = reading.labels + len(slice_.winners) >= limits.labels, time.monotonic() > deadline
            if full or late or slice_.complete():
                reading, slice_ = store(s3, bucket, folder, reading, slice_), Slice()
            if full or late:
                return reading, "full" if full else "time"
    return (store(s3, bucket, folder, reading, slice_) if slice_.keys else reading), "log"


def store(s3: "S3Client", bucket: str, folder: str, before: Reading, slice_: Slice) -> Reading:
    """Stores a slice, and then the reading that includes it."""
    slices = before.slices
    if slice_.winners:
        with tempfile.TemporaryFile() as file:
            key = f"{folder}/slices/{write_lines(file, slice_.winners.texts())}.jsonl"
            s3.upload_fileobj(file, bucket, key)
        slices += (key,)
    reading = Reading(max(before.watermark, slice_.newest), frozenset(), slices, before.labels + len(slice_.winners))
    listed = log.first_key(reading.since)
    reading = replace(reading, known=frozenset(key for key in before.known | slice_.keys if key > listed))
    s3.put_object(Bucket=bucket, Key=reading_key(folder), Body=as_json(reading))
    return reading


def keep(s3: "S3Client", bucket: str, folder: str, reading: Reading) -> str:
    """Stores a reading where no other call changes it, not even one that was given up and still works. Returns the
    key."""
    body = as_json(reading)
    key = f"{folder}/slices/{hashlib.sha256(body).hexdigest()[:16]}.json"
    s3.put_object(Bucket=bucket, Key=key, Body=body)
    return key


def load(s3: "S3Client", bucket: str, key: str) -> Reading | None:
    """What `reading.json` says; None if there is none."""
    try:
        found = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    except s3.exceptions.NoSuchKey:
        return None
    return Reading(found["watermark"], frozenset(found["known"]), tuple(found["slices"]), found["labels"])


def as_json(reading: Reading) -> bytes:
    return json.dumps(vars(reading) | {"known": sorted(reading.known)}).encode()


def reading_key(folder: str) -> str:
    return f"{folder}/reading.json"


def merge(s3: "S3Client", bucket: str, reading: Reading, to: str) -> int:
    """Writes one label a photograph, the winner of all slices, as lines of the object `to`. Returns their number.

    The disk holds the slices and the result: 1.3 KB a label.
    """
    with ExitStack() as files, tempfile.TemporaryFile() as result:
        slices = [files.enter_context(tempfile.TemporaryFile()) for _ in reading.slices]
        for key, file in zip(reading.slices, slices, strict=True):
            s3.download_fileobj(bucket, key, file)
            file.seek(0)
        number = 0
        for number, line in enumerate(log.merged(slices), start=1):  # noqa: B007
            result.write(line)
        result.seek(0)
        s3.upload_fileobj(result, bucket, to)
    return number


def write_lines(file: IO[bytes], texts: Iterable[bytes]) -> str:
    """Writes lines and rewinds the file. Returns 16 hex digits of their content."""
    content = hashlib.sha256()
    for text in texts:
        content.update(text)
        file.write(text + b"\n")
    file.seek(0)
    return content.hexdigest()[:16]
