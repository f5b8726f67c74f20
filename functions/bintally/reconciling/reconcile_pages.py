"""Compares the image versions in S3 with the counts in the table, and sends those without a count to the count queue.

A page of the listing is the unit of work: its versions are sent before the next page is read, so a run that ends at any
point has lost nothing, and one that repeats a page sends a version twice at most, of which the count function makes one
item.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from bintally.aws.items import Item, digest_of
from bintally.aws.objects import versions_page
from bintally.aws.queues import send_all
from bintally.aws.table import Table
from bintally.aws.telemetry import logger
from bintally.common.arrivals import Arrival, notification, parse_arrival
from bintally.common.errors import Rejected, Transient
from bintally.common.keys import INCOMING, NOWHERE, Place, is_folder_marker, parse_key

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ReadBin = Callable[[Place], dict[str, Item]]


@dataclass(frozen=True)
class Services:
    """The clients and settings that reconciling uses."""

    s3: "S3Client"
    table: Table
    bucket: str
    queue_url: str


@dataclass(frozen=True)
class Span:
    """The uploads that a run checks: from `since`, up to and including `until`."""

    since: datetime
    until: datetime


@dataclass(frozen=True)
class Progress:
    """The place in the listing and the sums so far. The next step starts with it."""

    key: str = ""
    version_id: str = ""
    """The last version that was listed; both empty before the first page."""
    checked: int = 0
    uncounted: int = 0
    """Checked versions that had no COUNT item."""
    requeued: int = 0
    """Uncounted versions that were sent to the count queue."""
    young: int = 0
    """Versions uploaded after the span: they may be on their way."""
    done: bool = False


def reconcile_pages(services: Services, span: Span, progress: Progress, in_time: Callable[[], bool]) -> Progress:
    """Works page by page until the listing ends or `in_time` is False. Raises Transient if the first page fails; when
    a later one does, the pages before it count."""
    # Versions of one bin follow each other in the listing; keys of no pattern, which share a bin, are anywhere.
    read_bin = lru_cache(maxsize=2)(services.table.unmarked_counts)
    start = progress
    while not progress.done:
        try:
            progress = reconcile_page(services, span, progress, read_bin)
        except Transient:
            if progress is start:
                raise
            logger.exception("the next step repeats this page")
            break
        if not in_time():
            break
    return progress


def reconcile_page(services: Services, span: Span, progress: Progress, read_bin: ReadBin) -> Progress:
    """One page of at most 1,000 versions. Raises Transient."""
    page = versions_page(services.s3, services.bucket, INCOMING, progress.key, progress.version_id)
    photographs = [found for found in page.versions if not is_folder_marker(found["Key"], found["Size"])]
    old = [found for found in photographs if found["LastModified"] <= span.until]
    bodies = {
        parse_arrival(body): body
        for found in old
        if found["LastModified"] >= span.since
        for body in [notification(services.bucket, found, services.queue_url)]
    }
    uncounted = list(without_count(services.table, list(bodies), read_bin))
    send_all(services.queue_url, [bodies[arrival] for arrival in uncounted])
    for arrival in uncounted:
        logger.info("sent to the count queue", key=arrival.key, version_id=arrival.version_id, uploaded=arrival.time)
    return replace(
        progress,
        key=page.next_key,
        version_id=page.next_version_id,
        checked=progress.checked + len(bodies),
        uncounted=progress.uncounted + len(uncounted),
        requeued=progress.requeued + len(uncounted),
        young=progress.young + len(photographs) - len(old),
        done=not page.next_key,
    )


def without_count(table: Table, arrivals: Sequence[Arrival], read_bin: ReadBin) -> Iterator[Arrival]:
    """The image versions without a COUNT item. Marks those that a release before 0.2 counted."""
    for arrival in table.uncounted(arrivals):
        if count := read_bin(place_of(arrival.key)).get(digest_of(arrival)):
            table.put_marker(arrival, count)
        else:
            yield arrival


def place_of(key: str) -> Place:
    """The bin under which the count function stores a photograph; its name is left out."""
    try:
        return replace(parse_key(key), name="")
    except Rejected:
        return NOWHERE
