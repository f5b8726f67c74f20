"""The label log in the artifacts bucket: one line per label, the quantity that a record or a person states.

`follow` writes `labels/<yyyy>/<mm>/<dd>/<name>.jsonl`, by the UTC day of the line's stream record.
Streams and queues deliver at least once, so a line may occur twice, with the same id.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict

from botocore.exceptions import BotoCoreError, ClientError

from bintally.common.errors import BintallyError, Transient

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LOG = "labels/"
ASIDE = "labels/aside/"
"""The quarantine: stream records that can never give a label. It is next to the days of the log."""
OVERLAP = timedelta(days=1)
"""A stream keeps its records for 24 hours, so a line may be written this long after its time."""
READERS = 8  # concurrent reads; within the 10 connections of a client

Source = Literal["record", "person"]


class BrokenLog(BintallyError):
    """An object of the log contains an invalid line; the message names it. Retries cannot help."""


class Image(TypedDict):
    """An image version."""

    bucket: str
    key: str
    version_id: str


class Label(TypedDict):
    """A line of the log. Moments are fixed-width UTC (keys.utc), so that text order is time order."""

    id: str
    image: Image
    site: str
    bin: str
    quantity: int
    source: Source
    as_of: str
    told: NotRequired[str]
    """The RECORD's `order`, or "". Of records with the same effective time the greatest was reported last.
    Older lines lack it."""
    captured_at: str
    logged_at: str
    count: int
    confidence: float
    p_record: float | None
    model_version: str


def label_id(image: Image, source: Source, as_of: str, quantity: int) -> str:
    """32 hex digits of image version, source, effective time and quantity. The separator occurs in none of them."""
    parts = (image["bucket"], image["key"], image["version_id"], source, as_of, str(quantity))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def rank(label: Label) -> tuple[bool, str, str, str]:
    """The label with the greatest rank wins: a person's, then the later effective time, then the one reported later,
    which corrects the earlier one, then the greater id."""
    return label["source"] == "person", label["as_of"], label.get("told", ""), label["id"]


class Winners:
    """One label for each image version, and `newest`, the greatest logged_at seen ("" when there is none).

    Memory grows by about 1 KB for each image version, whatever the number of its labels and of repeats.
    """

    def __init__(self, found: Iterable[Label]) -> None:
        self.newest = ""
        self._lines: dict[bytes, tuple[tuple[bool, str, str, str], bytes]] = {}
        for label in found:
            self.newest = max(self.newest, label["logged_at"])
            image = label["image"]
            version = hashlib.sha256("\0".join((image["bucket"], image["key"], image["version_id"])).encode()).digest()
            best = self._lines.get(version)
            if best is None or best[0] < rank(label):
                self._lines[version] = (rank(label), json.dumps(label).encode())

    def __len__(self) -> int:
        return len(self._lines)

    def lines(self) -> Iterator[Label]:
        """The labels in an order that is always the same for the same log."""
        for version in sorted(self._lines):
            label: Label = json.loads(self._lines[version][1])
            yield label


def winners(s3: "S3Client", bucket: str, since: datetime) -> Winners:
    """The winning label of each image version labelled since then. Raises BrokenLog or Transient."""
    return Winners(read_log(s3, bucket, since))


def read_log(s3: "S3Client", bucket: str, since: datetime) -> Iterator[Label]:
    """Every line since the day before `since`, by day, with repetitions. Raises BrokenLog or Transient.

    Memory holds one page of the listing and the contents of its objects.
    """
    try:
        with ThreadPoolExecutor(READERS) as readers:
            for keys in _pages(s3, bucket, since):
                for key, body in zip(keys, readers.map(lambda key: _body(s3, bucket, key), keys), strict=True):
                    yield from _lines(key, body)
    except (ClientError, BotoCoreError) as error:
        raise Transient(f"the label log in {bucket}: {error}") from error


def day_folder(moment: datetime) -> str:
    """The log's folder of a UTC day."""
    return f"{LOG}{moment.astimezone(UTC):%Y/%m/%d}/"


def _pages(s3: "S3Client", bucket: str, since: datetime) -> Iterator[list[str]]:
    first = day_folder(since - OVERLAP)  # every key of that day comes after it, and none of the day before
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=LOG, StartAfter=first):
        keys = [found["Key"] for found in page.get("Contents", [])]
        yield [key for key in keys if key.endswith(".jsonl") and not key.startswith(ASIDE)]
        if keys and keys[-1] >= ASIDE:
            return  # days start with digits, which sort before it


def _body(s3: "S3Client", bucket: str, key: str) -> bytes:
    return s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def _lines(key: str, body: bytes) -> Iterator[Label]:
    for number, line in enumerate(body.split(b"\n"), start=1):
        if not line:
            continue
        try:
            label: Label = json.loads(line)
            if missing := Label.__required_keys__ - label.keys():
                raise BrokenLog(f"{key}, line {number} lacks {', '.join(sorted(missing))}")
        except (ValueError, AttributeError) as error:
            raise BrokenLog(f"{key}, line {number} is no label: {error}") from error
        yield label
