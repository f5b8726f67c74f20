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
    audit: NotRequired[bool]
    """By a person, of a bin that was drawn at random for the audit."""
    withdrawn: NotRequired[bool]
    """The person took the label of the same image version and effective time back."""


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


Kept = dict[tuple[Rank, bool], bytes]
"""Lines of one image version by rank and by whether they withdraw: what may yet decide."""


def keep(kept: Kept, label: Label, text: bytes) -> None:
    """Adds a line. Only a person's label is ever withdrawn, so of records the one with the greatest rank is enough."""
    kept[rank(label), label.get("withdrawn", False)] = text
    records = sorted(key for key in kept if not key[0][0])
    for key in records[:-1]:
        del kept[key]


def decided(kept: Kept) -> bytes:
    """The winning label. It carries the effective times of those that were withdrawn: a dataset may contain them. If
    no other is left, it is the last of these, `withdrawn` itself."""
    taken_back = {found for found, withdraws in kept if withdraws}
    ids = {id_ for *_, id_ in taken_back}
    left = [key for key in kept if not key[1] and key[0][-1] not in ids]
    if not taken_back:
        return kept[max(left)]
    label = json.loads(kept[max(left or [key for key in kept if key[1]])])
    return json.dumps(label | {"withdraws": sorted(as_of for _, as_of, _, _ in taken_back)}).encode()


class Winners:
    """One label for each image version, and `newest`, the greatest logged_at seen ("" when there is none).

    Memory grows by about 1 KB for each image version and each label by a person, whatever the number of labels by
    records and of repeats.
    """

    def __init__(self, found: Iterable[Label] = ()) -> None:
        self.newest = ""
        self._lines: dict[bytes, Kept] = {}
        for label in found:
            self.add(label)

    def add(self, label: Label) -> None:
        self.newest = max(self.newest, label["logged_at"])
        keep(self._lines.setdefault(version_of(label), {}), label, json.dumps(label).encode())

    def __len__(self) -> int:
        return len(self._lines)

    def texts(self) -> Iterator[bytes]:
        """What `merged` needs, as JSON in the order of version_of, which is always the same for the same log."""
        for version in sorted(self._lines):
            kept = self._lines[version]
            yield from (kept[key] for key in sorted(kept))

    def lines(self) -> Iterator[Label]:
        """The labels, one for each image version that still has one."""
        for version in sorted(self._lines):
            label: Label = json.loads(decided(self._lines[version]))
            if not label.get("withdrawn"):
                yield label


def merged(several: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    """The winning label of each image version, of several sequences in the order of Winners.texts. Memory holds one
    label of each, and those of one image version."""

    def ranked(texts: Iterable[bytes]) -> Iterator[tuple[bytes, Rank, bool, bytes]]:
        for text in texts:
            label: Label = json.loads(text)
            yield version_of(label), rank(label), label.get("withdrawn", False), text

    for _, rivals in itertools.groupby(heapq.merge(*map(ranked, several)), key=itemgetter(0)):
        kept: Kept = {}
        for _, _, _, text in rivals:
            keep(kept, json.loads(text), text)
        yield decided(kept)


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
