"""Compares the image versions in S3 with the counts in the table, and the record files with what was read of them. What
lacks either goes to its queue again.

A page of the listing is the unit of work: its versions are sent before the next page is read, so a run that ends at any
point has lost nothing, and one that repeats a page sends a version twice at most, of which the count function makes one
item, and the record function the same records.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from bintally.aws.items import Item, digest_of
from bintally.aws.objects import versions_page
from bintally.aws.queues import send_all
from bintally.aws.table import Table
from bintally.aws.telemetry import logger
from bintally.common.arrivals import Arrival, notification, parse_arrival
from bintally.common.errors import Rejected, Transient
from bintally.common.keys import INCOMING, NOWHERE, RECORDS, Place, is_folder_marker, parse_key, summaries_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ReadBin = Callable[[Place], dict[str, Item]]
ReadDay = Callable[[str], set[str]]


@dataclass(frozen=True)
class Services:
    """The clients and settings that reconciling uses."""

    s3: "S3Client"
    table: Table
    images_bucket: str
    artifacts_bucket: str
    count_queue_url: str
    record_queue_url: str


@dataclass(frozen=True)
class Span:
    """The uploads that a run checks: from `since`, up to and including `until`."""

    since: datetime
    until: datetime


@dataclass(frozen=True)
class Progress:
    """The place in the listing and the sums so far. The next step starts with it."""

    prefix: str = INCOMING
    """The listing: of photographs, then of record files."""
    key: str = ""
    version_id: str = ""
    """The last version that was listed; both empty before its first page."""
    checked: int = 0
    """Image versions."""
    uncounted: int = 0
    """Checked versions that had no COUNT item."""
    requeued: int = 0
    """Uncounted versions that were sent to the count queue."""
    young: int = 0
    """Versions uploaded after the span, of both listings: they may be on their way."""
    files: int = 0
    """Checked versions of record files."""
    unread: int = 0
    """Those of which nobody had read anything. They were sent to the record queue."""
    done: bool = False


def reconcile_pages(services: Services, span: Span, progress: Progress, in_time: Callable[[], bool]) -> Progress:
    """Works page by page until both listings end or `in_time` is False. Raises Transient if the first page fails; when
    a later one does, the pages before it count."""
    # Versions of one bin follow each other in the listing; keys of no pattern, which share a bin, are anywhere.
    read_bin = lru_cache(maxsize=2)(services.table.unmarked_counts)

    @cache
    def read_day(prefix: str) -> set[str]:
        return read_files(services, prefix)

    start = progress
    while not progress.done:
        try:
            progress = reconcile_page(services, span, progress, read_bin, read_day)
        except Transient:
            if progress is start:
                raise
            logger.exception("the next step repeats this page")
            break
        if not in_time():
            break
    return progress


def reconcile_page(
    services: Services, span: Span, progress: Progress, read_bin: ReadBin, read_day: ReadDay
) -> Progress:
    """One page of at most 1,000 versions. Raises Transient."""
    are_photographs = progress.prefix == INCOMING
    queue = services.count_queue_url if are_photographs else services.record_queue_url
    page = versions_page(services.s3, services.images_bucket, progress.prefix, progress.key, progress.version_id)
    versions = [found for found in page.versions if not is_folder_marker(found["Key"], found["Size"])]
    old = [found for found in versions if found["LastModified"] <= span.until]
    bodies = {
        parse_arrival(body): body
        for found in old
        if found["LastModified"] >= span.since
        for body in [notification(services.images_bucket, found, queue)]
    }
    if are_photographs:
        lost = list(without_count(services.table, list(bodies), read_bin))
        sums = {"checked": len(bodies), "uncounted": len(lost), "requeued": len(lost)}
    else:
        lost = [arrival for arrival in bodies if digest_of(arrival) not in read_day(summaries_of(arrival.time))]
        sums = {"files": len(bodies), "unread": len(lost)}
    send_all(queue, [bodies[arrival] for arrival in lost])
    for arrival in lost:
        logger.info("sent again", key=arrival.key, version_id=arrival.version_id, uploaded=arrival.time)
    ended = not page.next_key
    return replace(
        progress,
        prefix=RECORDS if ended else progress.prefix,
        key=page.next_key,
        version_id=page.next_version_id,
        young=progress.young + len(versions) - len(old),
        done=ended and not are_photographs,
        **{name: getattr(progress, name) + more for name, more in sums.items()},
    )


def without_count(table: Table, arrivals: Sequence[Arrival], read_bin: ReadBin) -> Iterator[Arrival]:
    """The image versions without a COUNT item. Marks those that a release before 0.2 counted."""
    for arrival in table.uncounted(arrivals):
        if count := read_bin(place_of(arrival.key)).get(digest_of(arrival)):
            table.put_marker(arrival, count)
        else:
            yield arrival


def read_files(services: Services, prefix: str) -> set[str]:
    """The digests of the record files below a prefix of summaries. Raises Transient."""
    pages = services.s3.get_paginator("list_objects_v2").paginate(Bucket=services.artifacts_bucket, Prefix=prefix)
    try:
        found = [each["Key"] for page in pages for each in page.get("Contents", ())]
    except (ClientError, BotoCoreError) as error:
        raise Transient(f"S3: {error}") from error
    return {key.removeprefix(prefix).removesuffix(".json") for key in found}


def place_of(key: str) -> Place:
    """The bin under which the count function stores a photograph; its name is left out."""
    try:
        return replace(parse_key(key), name="")
    except Rejected:
        return NOWHERE
