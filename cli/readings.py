"""Reads counts from the table by Query, and formats them for people."""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from heapq import merge
from itertools import chain
from operator import itemgetter
from typing import Any

from bintally.common.counts import RETAKE
from bintally.common.keys import encode_id
from bintally.common.parts import spread
from boto3.dynamodb.conditions import Attr, Key
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cli.photographs import DEFAULT_SITE, Uploaded

Count = dict[str, Any]

BINS_AT_ONCE = 20
PAUSE_SECONDS = 0.3
FORMULA = ("=", "+", "-", "@", "\t", "\n")
"""A spreadsheet takes a cell that begins so for a formula."""
DOUBTFUL = 1  # evidence above it speaks against the record, whose line is yellow


def pages(table: Any, **query: Any) -> Iterator[Count]:
    while True:
        answer = table.query(**query)
        yield from answer["Items"]
        if "LastEvaluatedKey" not in answer:
            return
        query["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


def sites(s3: Any, bucket: str) -> list[str]:
    """The sites that photographs were uploaded for: the folders of incoming/ in the images bucket, one of several
    whose names look the same."""
    found = set()
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="incoming/", Delimiter="/"):
        found |= {entry["Prefix"].split("/")[1] for entry in page.get("CommonPrefixes", ())}
        found |= {DEFAULT_SITE for _ in page.get("Contents", ())}  # incoming/<bin>.jpg
    by_key = {encode_id(site): site for site in sorted(found, reverse=True)}
    return sorted(site for key, site in by_key.items() if key)


def latest(table: Any, site: str, parts: int = 1) -> Iterator[Count]:
    """The newest count of each bin of a site, sorted by bin. Memory holds one page of each part."""
    keys = spread(f"SITE#{encode_id(site)}", parts)
    listed = (pages(table, IndexName="site", KeyConditionExpression=Key("site_key").eq(key)) for key in keys)
    return merge(*listed, key=itemgetter("PK"))


def rejected(table: Any, site: str) -> Iterator[Count]:
    """The rejected photographs of a site, by bin; of site "" those whose key names no bin. Memory holds one page."""
    listed = pages(table, IndexName="site", KeyConditionExpression=Key("site_key").eq(f"REJECTED#{encode_id(site)}"))
    if site:
        return listed
    # Those of a Bintally that did not list them yet.
    condition = Key("PK").eq("BIN##") & Key("SK").begins_with("COUNT#")
    older = pages(table, KeyConditionExpression=condition, FilterExpression=Attr("site_key").not_exists())
    return chain(listed, older)


def read_history(table: Any, site: str, bin_: str) -> Iterator[Count]:
    """Every count of a bin, including rejected photographs, the newest first. Memory holds one page."""
    condition = Key("PK").eq(f"BIN#{encode_id(site)}#{encode_id(bin_)}") & Key("SK").begins_with("COUNT#")
    return pages(table, KeyConditionExpression=condition, ScanIndexForward=False, ConsistentRead=True)


def history(table: Any, site: str, bin_: str) -> list[Count]:
    return list(read_history(table, site, bin_))


def counted(table: Any, uploads: list[Uploaded], patience: float) -> Iterator[tuple[Uploaded, Count]]:
    """Each upload with its count, as they arrive. Ends early when none arrives for `patience` seconds."""
    waiting = list(uploads)
    last = time.monotonic()
    while waiting and time.monotonic() - last < patience:
        for site, bin_ in dict.fromkeys((u.photograph.site, u.photograph.bin) for u in waiting[:BINS_AT_ONCE]):
            by_version = {count["image"]["version_id"]: count for count in history(table, site, bin_)}
            for upload in [u for u in waiting if u.version_id in by_version]:
                waiting.remove(upload)
                last = time.monotonic()
                yield upload, by_version[upload.version_id]
        time.sleep(PAUSE_SECONDS)


# Output


def seconds_until_counted(upload: Uploaded, count: Count) -> float:
    """From the start of the upload until the count was stored, each by its own machine's clock."""
    return datetime.fromisoformat(count["counted_at"]).timestamp() - upload.sent_at


def plain(value: Any) -> Any:
    """A DynamoDB value as a JSON value."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list) else value


def percent(share: float | Decimal | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def moment(text: str) -> str:
    return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M}"


def address(count: Count) -> str:
    """The photograph's s3:// address."""
    return f"s3://{count['image']['bucket']}/{count['image']['key']}"


CSV_FIELDS = (
    *("site", "bin", "captured_at", "status", "count", "is_minimum", "confidence", "recorded_quantity", "p_record"),
    *(
        "evidence",
        "direction",
        "likely_size",
        "discrepancy",
        "priority",
        "reason",
        "model_version",
        "counted_at",
        "photograph",
        "version_id",
    ),
    *("captured_from", "flags"),
)


def csv_row(count: Count) -> dict[str, Any]:
    """The CSV_FIELDS of a count; a missing field is empty."""
    more = {"photograph": address(count), "version_id": count["image"]["version_id"]}
    more["flags"] = " ".join(count.get("flags", ()))
    return {name: harmless(value) for name, value in (count | more).items() if name in CSV_FIELDS}


def harmless(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula gets an apostrophe before it; true and false in lower case.

    A carriage return becomes a line feed: `csv` writes it without quotes, and a spreadsheet begins a row after it.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if text.startswith(FORMULA) else text


ASKED_FOR = "asked for"
"""Among the flags of a count: a person who was to recount its bin asks for another photograph."""
COLUMNS: dict[str, Callable[[Count], str]] = {
    "Bin": lambda count: f"{count['site']}/{count['bin']}",
    "Taken (UTC)": lambda count: moment(count["captured_at"]),
    "Photograph": lambda count: str(count["image"]["key"]).rsplit("/", 1)[-1],
    "Really": lambda count: str(count.get("really", "-")),
    "Count": lambda count: f"{count['count']}{'+' * count['is_minimum']}" if "count" in count else "-",
    "Confidence": lambda count: percent(count.get("confidence")),
    "Recorded": lambda count: str(count.get("recorded_quantity", "-")),
    "Record\nright": lambda count: percent(count.get("p_record")),
    "New photograph": lambda count: ", ".join(flag for flag in count.get("flags", ()) if flag in (*RETAKE, ASKED_FOR)),
    "Address": address,
    "Took": lambda count: f"{count['seconds']:.{1 if count['seconds'] < 10 else 0}f} s",
}
WORDS = ("Bin", "Photograph", "New photograph", "Address")
"""Columns that are cut when the terminal is too narrow. Figures are never cut."""
LEFT = (*WORDS, "Taken (UTC)")


def table_of(counts: list[Count], title: str, names: Sequence[str]) -> Group:
    """A table for the terminal with the COLUMNS of these names, a row for each count in the order given.

    The reasons of rejected photographs follow below it."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for name in names:
        table.add_column(name, justify="left" if name in LEFT else "right", no_wrap=name not in WORDS)
    for count in counts:
        doubtful = count.get("evidence", 0) > DOUBTFUL
        style = "red" if count["status"] == "REJECTED" else "yellow" if doubtful else ""
        texts = (Text(COLUMNS[name](count), no_wrap=True, overflow="ellipsis") for name in names)
        table.add_row(*texts, style=style)
    reasons = [
        Text(f"{COLUMNS['Photograph'](count)} was rejected: {count['reason']}", style="red")
        for count in counts
        if count["status"] == "REJECTED"
    ]
    return Group(table, *reasons)


def table_of_rejected(counts: list[Count], title: str) -> Table:
    """A row for each rejected photograph: its whole key, since the name of its bin may be the fault, and the reason."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for name in ("Uploaded (UTC)", "Photograph", "Reason"):
        table.add_column(name, no_wrap=name.startswith("Up"), overflow="fold")
    for count in counts:
        table.add_row(moment(count["uploaded_at"]), Text(count["image"]["key"]), Text(count["reason"]))
    return table
