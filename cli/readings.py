"""Counts as they stand in the table: reading them by Query, and saying them to a person."""

import hashlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from boto3.dynamodb.conditions import Key
from rich.markup import escape
from rich.table import Table

from cli.photographs import DEFAULT_SITE, Uploaded

Count = dict[str, Any]

AT_LEAST = 6  # the last answer of seven means this many or more
LONGEST_ID = 400  # bytes
BINS_AT_ONCE = 20
A_GUESS = 1 / 7  # a record less likely than a blind guess among seven answers is shown in yellow


def encoded(identity: str) -> str:
    """A site or bin as it stands in a key: `#` divides there, and a very long one is its digest."""
    text = identity.replace("%", "%25").replace("#", "%23")
    if len(text.encode()) <= LONGEST_ID:
        return text
    return f"%sha256-{hashlib.sha256(identity.encode()).hexdigest()}"


def pages(table: Any, **query: Any) -> Iterator[Count]:
    while True:
        answer = table.query(**query)
        yield from answer["Items"]
        if "LastEvaluatedKey" not in answer:
            return
        query["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


def sites(s3: Any, bucket: str) -> list[str]:
    """The sites that photographs were uploaded for: the folders of incoming/ in the images bucket."""
    found = set()
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="incoming/", Delimiter="/"):
        found |= {entry["Prefix"].split("/")[1] for entry in page.get("CommonPrefixes", ())}
        found |= {DEFAULT_SITE for _ in page.get("Contents", ())}  # incoming/<bin>.jpg
    return sorted(found)


def latest(table: Any, site: str) -> list[Count]:
    """The newest count of each bin of a site."""
    return list(pages(table, IndexName="site", KeyConditionExpression=Key("site_key").eq(f"SITE#{encoded(site)}")))


def history(table: Any, site: str, bin_: str) -> list[Count]:
    """Every count of a bin, rejected photographs too, the newest first."""
    condition = Key("PK").eq(f"BIN#{encoded(site)}#{encoded(bin_)}") & Key("SK").begins_with("COUNT#")
    return list(pages(table, KeyConditionExpression=condition, ScanIndexForward=False, ConsistentRead=True))


def counted(table: Any, uploads: list[Uploaded], patience: float) -> Iterator[tuple[Uploaded, Count]]:
    """Each upload with its count, as they come. Ends early when none came for `patience` seconds."""
    waiting = list(uploads)
    last = time.monotonic()
    while waiting and time.monotonic() - last < patience:
        for site, bin_ in dict.fromkeys((u.photograph.site, u.photograph.bin) for u in waiting[:BINS_AT_ONCE]):
            by_version = {count["image"]["version_id"]: count for count in history(table, site, bin_)}
            for upload in [u for u in waiting if u.version_id in by_version]:
                waiting.remove(upload)
                last = time.monotonic()
                yield upload, by_version[upload.version_id]
        time.sleep(0.1)


# Saying it


def said(count: Count) -> str:
    """3, or 6+ for six or more."""
    return f"{count['count']}{'+' if count['is_minimum'] else ''}"


def chance_record_is_right(count: Count) -> float | None:
    """The probability that the model gives to the recorded quantity; None where nothing is recorded."""
    quantity = count.get("recorded_quantity")
    return None if quantity is None else float(count["probabilities"][min(int(quantity), AT_LEAST)])


def seconds_until_counted(upload: Uploaded, count: Count) -> float:
    return datetime.fromisoformat(count["counted_at"]).timestamp() - upload.sent_at


def plain(value: Any) -> Any:
    """A DynamoDB value as JSON takes it."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list) else value


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def moment(text: str) -> str:
    return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def table_of(counts: list[Count], *, title: str, seconds: list[float] | None = None) -> Table:
    """A table for the terminal, a row for each count in the order given."""
    rejected = any(count["status"] == "REJECTED" for count in counts)
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    table.add_column("Site")
    table.add_column("Bin")
    table.add_column("Taken (UTC)")
    table.add_column("Photograph", overflow="fold")
    for name in ("Count", "Confidence", "Recorded", "Record right"):
        table.add_column(name, justify="right")
    if seconds:
        table.add_column("Counted in", justify="right")
    if rejected:
        table.add_column("Rejected because", overflow="fold", style="red")
    for number, count in enumerate(counts):
        row = [count["site"], count["bin"], moment(count["captured_at"]), count["image"]["key"].rsplit("/", 1)[-1]]
        right = None
        if count["status"] == "REJECTED":
            row += ["-", "-", "-", "-"]
        else:
            right = chance_record_is_right(count)
            recorded = count.get("recorded_quantity")
            row += [said(count), percent(float(count["confidence"])), "-" if recorded is None else str(recorded)]
            row += [percent(right)]
        if seconds:
            row.append(f"{seconds[number]:.1f} s")
        if rejected:
            row.append(count.get("reason", ""))
        table.add_row(*map(escape, row), style="yellow" if right is not None and right < A_GUESS else "")
    return table
