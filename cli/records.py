"""Sends files of inventory records to a stack, and reads what the record function says of them."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from botocore.exceptions import ClientError
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from cli.photographs import DEFAULT_SITE

TABLES = (".csv", ".tsv", ".tab", ".txt")
"""Endings that the record function reads as tables."""
TARGETS = ("site", "bin", "expected_quantity", "as_of", "value", "product")
SUMMARIES = "reports/records/read/"
READERS = 8

Summary = dict[str, Any]


@dataclass(frozen=True)
class Sent:
    """A file in the bucket. `days` are those of which the summary may be: the upload's, or around midnight two."""

    path: Path
    key: str
    version_id: str
    days: frozenset[str]


def key_of(path: Path, site: str | None) -> str:
    """A table keeps its name; a JSON file is the record of the bin of its name. Raises ValueError for other files."""
    if path.suffix.lower() in TABLES:
        return f"records/{path.name}"
    if path.suffix.lower() == ".json":
        return f"records/{site or DEFAULT_SITE}/{path.name}"
    raise ValueError(f"{path} is no table; save it as CSV UTF-8 (endings that are read: {', '.join(TABLES)}, .json)")


def metadata_of(site: str | None, names: Mapping[str, str], dry_run: bool) -> dict[str, str]:
    """S3 keeps metadata in ASCII, so names are percent-encoded."""
    found = {"site": quote(site, safe="") if site else "", "columns": urlencode(names)}
    return {name: text for name, text in found.items() if text} | ({"dry-run": "true"} if dry_run else {})


def send(s3: Any, bucket: str, path: Path, site: str | None, names: Mapping[str, str], *, dry_run: bool) -> Sent:
    """Raises OSError when the file cannot be read, ValueError for one that is no file of records."""
    key = key_of(path, site)
    with path.open("rb") as body:
        answer = s3.put_object(Bucket=bucket, Key=key, Body=body, Metadata=metadata_of(site, names, dry_run))
    said = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = parsedate_to_datetime(said) if said else datetime.now(UTC)
    days = frozenset(f"{now + timedelta(minutes=minutes):%Y/%m/%d}" for minutes in (-1, 0, 1))
    return Sent(path, key, answer["VersionId"], days)


def summary_of(s3: Any, artifacts: str, bucket: str, sent: Sent) -> Summary | None:
    """What the record function says of the file; None while it has not read it."""
    for day in sorted(sent.days):
        if found := _read(s3, artifacts, f"{SUMMARIES}{day}/{digest(bucket, sent.key, sent.version_id)}.json"):
            return found
    return None


def digest(bucket: str, key: str, version_id: str) -> str:
    """The name of a version's summary, as bintally.aws.items.version_digest has it."""
    return hashlib.sha256("\0".join((bucket, key, version_id)).encode()).hexdigest()[:16]


def newest(s3: Any, artifacts: str, number: int, wanted: str = "") -> Iterator[Summary]:
    """The summaries of the newest files, the newest first; of files whose key contains `wanted`."""
    left = number
    with ThreadPoolExecutor(READERS) as readers:
        for day in _days(s3, artifacts):
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=artifacts, Prefix=day)
            entries = sorted((e for page in pages for e in page.get("Contents", ())), key=_age, reverse=True)
            for start in range(0, len(entries), 50):
                keys = [entry["Key"] for entry in entries[start : start + 50]]
                found = [one for one in readers.map(lambda key: _read(s3, artifacts, key), keys) if one]
                for one in sorted(found, key=lambda one: str(one["uploaded_at"]), reverse=True):
                    if wanted in one["file"]["key"]:
                        yield one
                        left -= 1
                    if not left:
                        return


def _age(entry: dict[str, Any]) -> Any:
    return entry["LastModified"]


def _days(s3: Any, artifacts: str) -> Iterator[str]:
    """The folders of days, the newest first. A year has 12 months, and a month at most 31 days."""

    def folders(prefix: str) -> list[str]:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=artifacts, Prefix=prefix, Delimiter="/")
        return sorted((e["Prefix"] for page in pages for e in page.get("CommonPrefixes", ())), reverse=True)

    return (day for year in folders(SUMMARIES) for month in folders(year) for day in folders(month))


def faults_of(s3: Any, summary: Summary) -> tuple[list[dict[str, Any]], int]:
    """All faults of a file, and the number of those that its report leaves out."""
    if "report" not in summary:
        return [], 0
    report = _read(s3, summary["report"]["bucket"], summary["report"]["key"]) or summary
    return report["faults"], report.get("faults_left_out", 0)


def _read(s3: Any, bucket: str, key: str) -> Summary | None:
    try:
        found: Summary = json.load(s3.get_object(Bucket=bucket, Key=key)["Body"])
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
            return None
        raise
    return found


# Output


def outcome(summary: Summary) -> str:
    """3 rows kept for 2 bins (1 has a newer record already), 1 refused; or what a dry run would give."""
    kept = f"{summary['kept']} row{'s' * (summary['kept'] != 1)}"
    bins = f"{summary['bins']} bin{'s' * (summary['bins'] != 1)}"
    verb = "would be kept" if summary["dry_run"] else "kept"
    outdated = summary.get("outdated", 0)  # missing in the summaries of 0.1.0
    newer = f" ({outdated} {'have' if outdated > 1 else 'has'} a newer record already)" if outdated else ""
    return f"{kept} {verb} for {bins}{newer}, {summary['malformed']} refused"


def read_as(summary: Summary) -> str:
    """Read as Windows-1252, separated by ;, site SEA1; columns not used: note."""
    names = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
    found = summary["read_as"]
    parts = [found["encoding"]] if "encoding" in found else []
    parts += [f"separated by {names.get(found['delimiter'], found['delimiter'])}"] if "delimiter" in found else []
    parts += [f"site {found['site']}"] if "site" in found else []
    unused = summary["unknown_columns"]
    return ", ".join(parts) + (f"; columns not used: {', '.join(unused)}" if unused else "")


def rows_of(summary: Summary, faults: list[dict[str, Any]], left_out: int) -> Group:
    """Row by row, by line: what is kept, refused, and no row at all."""
    rows = [
        *(
            (one["line"], f"{one['site']}/{one['bin']}", str(one["quantity"]), one["as_of"][:19].replace("T", " "), "")
            for one in summary["records"]
        ),
        *((one["line"], "", "", f"refused: {one['reason']}", "red") for one in faults),
        *((one["line"], "", "", f"skipped: {one['reason']}", "dim") for one in summary["skipped"]),
    ]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("Line", "Bin", "Recorded", "As of (UTC), or why not"):
        table.add_column(name, justify="right" if name in ("Line", "Recorded") else "left", overflow="fold")
    for line, bin_, quantity, text, style in sorted(rows):
        table.add_row(str(line) if line else "file", Text(bin_), quantity, Text(text), style=style)
    more = []
    if summary["bins"] > len(summary["records"]):
        more.append(f"The first {len(summary['records'])} of {summary['bins']} bins.")
    if left_out:
        more.append(f"{left_out} more refused rows are not in the report.")
    return Group(table, *map(Text, more))


def show(console: Console, s3: Any, summary: Summary, name: str) -> None:
    console.print(Text(f"{name}: {outcome(summary)}", style="bold" if summary["kept"] else "bold red"), soft_wrap=True)
    if text := read_as(summary):
        console.print(Text(f"Read as {text}"), soft_wrap=True)
    console.print(rows_of(summary, *faults_of(s3, summary)))
