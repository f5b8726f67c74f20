"""Reads a record file: writes good rows to the table, and the faults of the others to a report."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from bintally.aws import items, objects
from bintally.aws.items import Item
from bintally.aws.table import Table
from bintally.common.arrivals import Arrival
from bintally.common.errors import Rejected, Transient
from bintally.common.keys import Place, parse_records_key, utc
from bintally.records.files import LARGEST_JSON, Fault, Row, Sheet, read_json

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_s3 import S3Client

LARGEST = 64 * 1024**2
"""Bytes, some two million rows. One processor puts 1,800 rows a second, measured without a network; at a third of that
the eight tries of a message, 720 s each (record.WORST_SECONDS), put 3.4 million."""
AT_ONCE = 100  # rows that one request looks up
WRITERS = 8  # within the 10 connections of a client
MOST_FAULTS = 10_000  # faults in a report, 2 MB
SHOWN_FAULTS = 5  # faults in the event, which is limited to 256 KB


@dataclass(frozen=True)
class Services:
    """The clients and settings that recording uses."""

    s3: "S3Client"
    table: Table
    events: "EventBridgeClient"
    artifacts_bucket: str


@dataclass
class Report:
    """The result of reading a file; the same however often the file is read."""

    kept: int = 0
    """Good rows, including those that a later record outdates."""
    malformed: int = 0
    faults: list[Fault] = field(default_factory=list)
    """The first MOST_FAULTS."""
    unknown_columns: list[str] = field(default_factory=list)

    def add(self, fault: Fault) -> None:
        self.malformed += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(fault)


def record_file(services: Services, arrival: Arrival, in_time: Callable[[], bool]) -> Report:
    """Stores the good rows of a file and reports the others. Raises Transient.

    When `in_time` returns False, the file is retried. A retry looks up the rows that are already stored, a hundred in
    one request, and does not write them again: so every try gets further.
    """
    report = Report()
    try:
        place = parse_records_key(arrival.key)
        stored = objects.describe(services.s3, arrival)
        largest = LARGEST if place is None else LARGEST_JSON
        if stored.size > largest:
            raise Rejected(f"the file has {stored.size:,} bytes; at most {largest:,} are read")
        with tempfile.TemporaryFile() as file:
            objects.download(services.s3, arrival, file)
            rows = rows_of(file, place, stored.uploaded, report)
            keep(services, (record_of(row, arrival, stored.uploaded) for row in rows), in_time)
    except Rejected as error:
        report.add(Fault(0, str(error)))
    tell(services, arrival, report)
    return report


def rows_of(file: IO[bytes], place: Place | None, uploaded: datetime, report: Report) -> Iterator[Row]:
    """The good rows; the others are added to the report. Raises Rejected."""
    if place:
        only = read_json(file.read(), place.site, place.bin, uploaded)
        report.kept += 1
        yield only
        return
    sheet = Sheet(file, uploaded)
    report.unknown_columns = sheet.unknown_columns
    for row in sheet.rows():
        if isinstance(row, Fault):
            report.add(row)
        else:
            report.kept += 1
            yield row


def record_of(row: Row, arrival: Arrival, uploaded: datetime) -> Item:
    """The RECORD item. Of two with one effective time the greater `order` wins: the later report or the lower row."""
    return items.record_key(Place(row.site, row.bin, "")) | {
        "site": row.site,
        "bin": row.bin,
        "expected_quantity": row.quantity,
        "as_of": utc(row.as_of),
        "order": f"{items.storage_order(arrival, uploaded)}#{row.line:09}",
        "source": {
            "bucket": arrival.bucket,
            "key": arrival.key,
            "version_id": arrival.version_id,
            "line": row.line,
        },
    }


def keep(services: Services, records: Iterable[Item], in_time: Callable[[], bool]) -> None:
    """Puts every record that is later than the stored one. Raises Transient."""
    with ThreadPoolExecutor(WRITERS) as writers:

        def put_all() -> None:
            if not in_time():
                raise Transient("no time is left for the rest of the file")
            standing = services.table.get_many(latest.values())
            later = [item for item in latest.values() if is_later(item, standing.get((item["PK"], item["SK"])))]
            list(writers.map(services.table.put_record, later))

        latest: dict[str, Item] = {}
        for item in records:
            if is_later(item, latest.get(item["PK"])):
                latest[item["PK"]] = item
            if len(latest) == AT_ONCE:
                put_all()
                latest.clear()
        put_all()


def is_later(record: Item, other: Item | None) -> bool:
    """The condition of Table.put_record, which has the last word."""
    return other is None or (record["as_of"], record["order"]) > (other.get("as_of", ""), other.get("order", ""))


def tell(services: Services, arrival: Arrival, report: Report) -> None:
    """Writes the report if the file had faults, and sends the event in any case. Raises Transient."""
    detail: dict[str, Any] = {
        "file": {"bucket": arrival.bucket, "key": arrival.key, "version_id": arrival.version_id},
        "kept": report.kept,
        "malformed": report.malformed,
        "unknown_columns": report.unknown_columns,
        "faults": [asdict(fault) for fault in report.faults],
    }
    try:
        if report.malformed:
            key = report_key(arrival)
            content = detail | {"faults_left_out": report.malformed - len(report.faults)}
            body = json.dumps(content, indent=1).encode()
            objects.put(services.s3, services.artifacts_bucket, key, body)
            detail["report"] = {"bucket": services.artifacts_bucket, "key": key}
        detail["faults"] = detail["faults"][:SHOWN_FAULTS]
        answer = services.events.put_events(
            Entries=[{"Source": "bintally", "DetailType": "Records Read", "Detail": json.dumps(detail)}]
        )
    except (ClientError, BotoCoreError) as error:
        raise Transient(f"the report of {arrival.key}: {error}") from error
    if answer["FailedEntryCount"]:
        raise Transient(f"the event about {arrival.key}: {answer['Entries']}")


def report_key(arrival: Arrival) -> str:
    """Outside the record files' prefix, or it would be read as a record file. S3 keys have at most 1,024 bytes."""
    key = f"reports/records/{arrival.key}/{arrival.version_id}.json"
    if len(key.encode()) <= 1024:
        return key
    return f"reports/records/sha256-{hashlib.sha256(arrival.key.encode()).hexdigest()}/{arrival.version_id}.json"
