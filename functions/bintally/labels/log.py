"""The label log in the artifacts bucket: one line per label, the quantity that a record or a person states.

`follow` writes `labels/<yyyy>/<mm>/<dd>/<name>.jsonl`, by the UTC day of the line's stream record.
Streams and queues deliver at least once, so a line may occur twice, with the same id.
"""

import hashlib
import heapq
import itertools
import json
from collections import deque
from collections.abc import Container, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from operator import itemgetter
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
LARGEST = 10_000
"""Lines of an object, 7 MB: a change of a record has a line for each photograph of its bin near its time."""
READERS = 8  # concurrent reads; within the 10 connections of a client

Source = Literal["record", "person"]
Rank = tuple[bool, str, str, str]


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


def version_of(label: Label) -> bytes:
    """32 bytes that name the image version."""
    image = label["image"]
    return hashlib.sha256("\0".join((image["bucket"], image["key"], image["version_id"])).encode()).digest()


def rank(label: Label) -> Rank:
    """The label with the greatest rank wins: a person's, then the later effective time, then the one reported later,
    which corrects the earlier one, then the greater id."""
    return label["source"] == "person", label["as_of"], label.get("told", ""), label["id"]


class Winners:
    """One label for each image version, and `newest`, the greatest logged_at seen ("" when there is none).

    Memory grows by about 1 KB for each image version, whatever the number of its labels and of repeats.
    """

    def __init__(self, found: Iterable[Label] = ()) -> None:
        self.newest = ""
        self._lines: dict[bytes, tuple[Rank, bytes]] = {}
        for label in found:
            self.add(label)

    def add(self, label: Label) -> None:
        self.newest = max(self.newest, label["logged_at"])
        version = version_of(label)
        best = self._lines.get(version)
        if best is None or best[0] < rank(label):
            self._lines[version] = (rank(label), json.dumps(label).encode())

    def __len__(self) -> int:
        return len(self._lines)

    def texts(self) -> Iterator[bytes]:
        """The labels as JSON in the order of version_of, which is always the same for the same log."""
        for version in sorted(self._lines):
            yield self._lines[version][1]

    def lines(self) -> Iterator[Label]:
        """The labels of `texts`."""
        yield from map(json.loads, self.texts())


def merged(several: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    """The winning label of each image version, of several sequences in the order of Winners.texts. Memory holds one
    label of each."""

    def ranked(texts: Iterable[bytes]) -> Iterator[tuple[bytes, Rank, bytes]]:
        for text in texts:
            label: Label = json.loads(text)
            yield version_of(label), rank(label), text

    for _, rivals in itertools.groupby(heapq.merge(*map(ranked, several)), key=itemgetter(0)):
        yield max(rivals)[2]


def winners(s3: "S3Client", bucket: str, since: datetime) -> Winners:
    """All of read_log at once. Raises BrokenLog or Transient."""
    return Winners(label for _, labels in read_log(s3, bucket, since) for label in labels)


def read_log(
    s3: "S3Client", bucket: str, since: datetime, known: Container[str] = ()
) -> Generator[tuple[str, list[Label]]]:
    """Each object of the log and its lines since the day before `since`, in the order of the keys, which is the order
    of time, without the `known` keys. Lines occur again in other objects. Raises BrokenLog or Transient.

    Memory holds one page of the listing and the contents of READERS + 1 objects.
    """
    try:
        for key, body in _bodies(s3, bucket, (key for key in _keys(s3, bucket, since) if key not in known)):
            yield key, list(_lines(key, body))
    except (ClientError, BotoCoreError) as error:
        raise Transient(f"the label log in {bucket}: {error}") from error


def day_folder(moment: datetime) -> str:
    """The log's folder of a UTC day."""
    return f"{LOG}{moment.astimezone(UTC):%Y/%m/%d}/"


def first_key(since: datetime) -> str:
    """Comes before every key that may be written after a line of `since` was, and after those of earlier days."""
    return day_folder(since - OVERLAP)


def _keys(s3: "S3Client", bucket: str, since: datetime) -> Iterator[str]:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=LOG, StartAfter=first_key(since)):
        for found in page.get("Contents", []):
            if found["Key"] >= ASIDE:
                return  # days start with digits, which sort before it
            if found["Key"].endswith(".jsonl"):
                yield found["Key"]


def _bodies(s3: "S3Client", bucket: str, keys: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """The objects in the order of `keys`, READERS of them read ahead."""
    ahead: deque[tuple[str, Future[bytes]]] = deque()
    with ThreadPoolExecutor(READERS) as readers:
        for key in keys:
            ahead.append((key, readers.submit(_body, s3, bucket, key)))
            if len(ahead) > READERS:
                first, body = ahead.popleft()
                yield first, body.result()
        for first, body in ahead:
            yield first, body.result()


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
