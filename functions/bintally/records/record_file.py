"""Reads a record file: writes good rows to the table, and the faults of the others to a report."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime, tzinfo
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote

from botocore.exceptions import BotoCoreError, ClientError

from bintally.aws import items, objects
from bintally.aws.items import Item
from bintally.aws.objects import Stored
from bintally.aws.table import Table
from bintally.common.arrivals import Arrival
from bintally.common.errors import Rejected, Transient
from bintally.common.keys import DEFAULT_SITE, Place, encode_id, parse_records_key, summaries_of, utc
from bintally.records.columns import Wanted
from bintally.records.files import LARGEST_JSON, Fault, Row, Setting, Sheet, Skipped, read_json
from bintally.records.merge import Record, merge, only

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_s3 import S3Client

LARGEST = 64 * 1024**2
"""Bytes, some two million rows. One processor reads and sorts them in 75 s (37 us a row, in 190 MB) and then puts 1,800
a second, measured without a network; at a third of that the eight tries of a message, 635 s each after the reading
(record.WORST_SECONDS), put 3 million. The rows and their sorting take below 1 GB of disk (EphemeralStorage)."""
AT_ONCE = 100  # rows that one request looks up
WRITERS = 8  # within the 10 connections of a client
MOST_FAULTS = 10_000  # faults in a report, 4 MB
SHOWN_FAULTS = 5  # faults in the event, which is limited to 256 KB
MOST_NAMES = 100  # unused columns in a report
SHOWN_RECORDS = 100  # records in the summary
MOST_SITES = 1000
SHOWN_SITES = 10  # in a reason


@dataclass(frozen=True)
class Services:
    """The clients and settings that recording uses."""

    s3: "S3Client"
    table: Table
    events: "EventBridgeClient"
    artifacts_bucket: str
    zone: tzinfo
    """Of times without a zone."""


@dataclass
class Report:
    """The result of reading a file; the same however often the file is read, but for `outdated`."""

    uploaded: datetime
    kept: int = 0
    """Good rows, including those that a later record outdates."""
    outdated: int = 0
    """Bins, of those kept, that have a newer record already: nothing changed there. A dry run does not look."""
    malformed: int = 0
    faults: list[Fault] = field(default_factory=list)
    """The first MOST_FAULTS."""
    skipped: list[Skipped] = field(default_factory=list)
    unknown_columns: list[str] = field(default_factory=list)
    read_as: dict[str, str] = field(default_factory=dict)
    """How the file was understood: encoding, delimiter, site."""
    records: list[Record] = field(default_factory=list)
    """The first SHOWN_RECORDS."""
    bins: int = 0
    dry_run: bool = False
    """Whether the records were only read, as the file's metadata `dry-run` asked."""
    is_folder: bool = False
    """Whether it is only what the S3 console creates for a new folder. It is not reported."""

    def add(self, found: Record | Fault) -> None:
        if isinstance(found, Record):
            self.kept += found.rows
            self.bins += 1
            if len(self.records) < SHOWN_RECORDS:
                self.records.append(found)
            return
        self.malformed += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(found)


def record_file(services: Services, arrival: Arrival, in_time: Callable[[], bool]) -> Report:
    """Stores the good rows of a file and reports the others. Raises Transient.

    When `in_time` returns False, the file is retried. A retry looks up the rows that are already stored, a hundred in
    one request, and does not write them again: so every try gets further.
    """
    report = Report(arrival.time)
    try:
        stored = objects.describe(services.s3, arrival)
        if arrival.key.endswith("/") and not stored.size:
            report.is_folder = True
            return report
        place = parse_records_key(arrival.key)
        report.uploaded, report.dry_run = stored.uploaded, stored.metadata.get("dry-run") == "true"
        largest = LARGEST if place is None else LARGEST_JSON
        if stored.size > largest:
            raise Rejected(f"the file has {stored.size:,} bytes; at most {largest:,} are read")
        with tempfile.TemporaryFile() as file:
            objects.download(services.s3, arrival, file)
            setting = setting_of(services, arrival, stored, report)
            found = records_of(file, place, setting, report, unquote(stored.metadata.get("only-site", "")))
            if report.dry_run:
                for _ in found:
                    pass
            else:
                items_of_file = (item_of(record, arrival, stored.uploaded) for record in found)
                report.outdated = keep(services, items_of_file, in_time)
            if not report.kept and not report.malformed:
                raise Rejected("the file has no rows")
    except Rejected as error:
        report.add(Fault(0, str(error)))
    report.faults.sort(key=lambda fault: fault.line)
    tell(services, arrival, report)
    return report


def setting_of(services: Services, arrival: Arrival, stored: Stored, report: Report) -> Setting:
    """What the file's metadata, its folder and the stack say about its rows. Raises Rejected."""

    def site() -> str:
        report.read_as["site"] = site_of(services, arrival, stored)
        return report.read_as["site"]

    return Setting(stored.uploaded, services.zone, site, Wanted.parse(stored.metadata.get("columns", "")))


def site_of(services: Services, arrival: Arrival, stored: Stored) -> str:
    """The site of a file without a column for it: the metadata `site`, the folder records/<site>/ unless there are
    photographs and none of that site, else the only site that has photographs, spelled as in their keys.

    Raises Rejected when there are several or the folder may have another meaning, and Transient.
    """
    if named := unquote(stored.metadata.get("site", "")):
        if "/" in named:
            raise Rejected(f"the metadata `site` is {named!r}; no photograph's key can contain that")
        return named
    found = objects.sites(services.s3, arrival.bucket, at_most=MOST_SITES)
    match arrival.key.split("/"):
        case ["records", folder, _] if site := next((s for s in found if encode_id(s) == encode_id(folder)), ""):
            return site
        case ["records", folder, _] if not found:
            return folder
        case ["records", _] | ["records", _, _, *_, _] if len(found) < 2:
            return found[0] if found else DEFAULT_SITE
    raise Rejected(
        f"no column names the site, and there are photographs of {', '.join(found[:SHOWN_SITES])}. Add a column site,"
        " or upload the file to records/<site>/"
    )


def records_of(
    file: IO[bytes], place: Place | None, setting: Setting, report: Report, only_site: str = ""
) -> Iterator[Record]:
    """The records; what is no record is added to the report. `only_site`: the site for which the sender may speak; ""
    for all. Raises Rejected."""
    for found in _read(file, place, setting, report, only_site):
        report.add(found)
        if isinstance(found, Record):
            yield found


def _read(
    file: IO[bytes], place: Place | None, setting: Setting, report: Report, only_site: str
) -> Iterator[Record | Fault]:
    if place:
        yield only(read_json(file.read(), place.site, place.bin, setting), setting)
        return
    sheet = Sheet(file, setting)
    report.unknown_columns, report.skipped = list(sheet.columns.unused), sheet.skipped
    report.read_as |= {"encoding": sheet.encoding, "delimiter": sheet.delimiter}
    rows = (checked_site(row, only_site) for row in sheet.rows()) if only_site else sheet.rows()
    yield from merge(rows, setting, sheet.conventions, comma_groups=sheet.comma_groups)
    report.read_as["encoding"] = sheet.encoding  # known for certain at the end


def checked_site(row: Row | Fault, only_site: str) -> Row | Fault:
    if isinstance(row, Fault) or encode_id(row.site) == encode_id(only_site):
        return row
    return Fault(row.line, f"the row is of site {row.site!r}, and the file was sent for site {only_site!r}")


def item_of(row: Record, arrival: Arrival, uploaded: datetime) -> Item:
    """The RECORD item. Of two with one effective time the greater `order` wins: the later report or the lower row."""
    return items.record_key(Place(row.site, row.bin, "")) | {
        "site": row.site,
        "bin": row.bin,
        "expected_quantity": row.quantity,
        "as_of": utc(row.as_of),
        "order": f"{items.storage_order(arrival, uploaded)}#{row.line:09}",
        **({} if row.value is None else {"value": row.value}),
        "source": {
            "bucket": arrival.bucket,
            "key": arrival.key,
            "version_id": arrival.version_id,
            "line": row.line,
        },
    }


def keep(services: Services, records: Iterable[Item], in_time: Callable[[], bool]) -> int:
    """Puts every record that is later than the stored one; how many bins have a later one. Raises Transient."""
    outdated = 0
    with ThreadPoolExecutor(WRITERS) as writers:

        def put_all() -> int:
            if not in_time():
                raise Transient("no time is left for the rest of the file")
            standing = services.table.get_many(latest.values())
            later = [item for item in latest.values() if is_later(item, standing.get((item["PK"], item["SK"])))]
            list(writers.map(services.table.put_record, later))
            # A record that an earlier try stored is not later than itself.
            return sum(is_later(standing.get((item["PK"], item["SK"]), {}), item) for item in latest.values())

        latest: dict[str, Item] = {}
        for item in records:
            if is_later(item, latest.get(item["PK"])):
                latest[item["PK"]] = item
            if len(latest) == AT_ONCE:
                outdated += put_all()
                latest.clear()
        return outdated + put_all()


def is_later(record: Item, other: Item | None) -> bool:
    """The condition of Table.put_record, which has the last word."""
    if other is None:
        return True
    one, two = ((item.get("as_of", ""), item.get("order", "")) for item in (record, other))
    return one > two


def tell(services: Services, arrival: Arrival, report: Report) -> None:
    """Writes the report if the file had faults, and its summary and the event in any case. Raises Transient.

    A file of which nothing was kept has an event of its own. A dry run has none.
    """
    detail: dict[str, Any] = {
        "file": {"bucket": arrival.bucket, "key": arrival.key, "version_id": arrival.version_id},
        "kept": report.kept,
        "bins": report.bins,
        "outdated": report.outdated,
        "malformed": report.malformed,
        "read_as": report.read_as,
        "unknown_columns": report.unknown_columns[:MOST_NAMES],
        "skipped": [asdict(line) for line in report.skipped],
        "faults": [{"line": fault.line, "reason": fault.reason} for fault in report.faults],
    }
    entry = {"Source": "bintally", "DetailType": "Records Read"}
    try:
        if report.malformed:
            key = report_key(arrival)
            content = detail | {"faults_left_out": report.malformed - len(report.faults)}
            body = json.dumps(content, indent=1).encode()
            objects.put(services.s3, services.artifacts_bucket, key, body)
            detail["report"] = {"bucket": services.artifacts_bucket, "key": key}
        detail["faults"] = detail["faults"][:SHOWN_FAULTS]
        objects.put(services.s3, services.artifacts_bucket, summary_key(arrival, report), summary(detail, report))
        if report.dry_run:
            return
        entries = [entry | {"Detail": json.dumps(detail)}]
        if not report.kept:
            entries.append(entries[0] | {"DetailType": "Records Refused"})
        answer = services.events.put_events(Entries=entries)  # type: ignore[arg-type]
    except (ClientError, BotoCoreError) as error:
        raise Transient(f"the report of {arrival.key}: {error}") from error
    if answer["FailedEntryCount"]:
        raise Transient(f"the event about {arrival.key}: {answer['Entries']}")


def summary(detail: dict[str, Any], report: Report) -> bytes:
    """What `bintally records status` shows: the event, and the first records."""
    records = [
        {"line": row.line, "site": row.site, "bin": row.bin, "quantity": row.quantity, "as_of": utc(row.as_of)}
        for row in report.records
    ]
    more = {"uploaded_at": utc(report.uploaded), "dry_run": report.dry_run, "records": records}
    return json.dumps(detail | more, indent=1).encode()


def summary_key(arrival: Arrival, report: Report) -> str:
    """By the day of the upload, for `bintally records status`; one for each version."""
    return f"{summaries_of(report.uploaded)}{items.digest_of(arrival)}.json"


def report_key(arrival: Arrival) -> str:
    """Outside the record files' prefix, or it would be read as a record file. S3 keys have at most 1,024 bytes."""
    key = f"reports/records/{arrival.key}/{arrival.version_id}.json"
    if len(key.encode()) <= 1024:
        return key
    return f"reports/records/sha256-{hashlib.sha256(arrival.key.encode()).hexdigest()}/{arrival.version_id}.json"
