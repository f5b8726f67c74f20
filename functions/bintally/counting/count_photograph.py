"""Counts one photograph, whatever is wrong with it, and writes that once."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bintally.aws import endpoint, objects, table
from bintally.aws.arrivals import Arrival
from bintally.common.errors import Gone, Rejected
from bintally.common.keys import NOWHERE, captured_at, parse_key
from bintally.counting import images, items
from bintally.counting.items import Photograph, Recorded

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient


@dataclass(frozen=True)
class Services:
    """What counting needs of the outside."""

    s3: "S3Client"
    runtime: "SageMakerRuntimeClient"
    dynamodb: "DynamoDBClient"
    counts_table: str
    endpoint_name: str


def count_photograph(services: Services, arrival: Arrival) -> tuple[dict[str, Any], bool]:
    """The item, and whether it is new: False when this image version stood in the table already.

    A photograph that can never be counted gives a REJECTED item. Raises Transient.
    """
    try:
        place = parse_key(arrival.key)
    except Rejected as error:
        nowhere = Photograph(arrival, NOWHERE, captured=arrival.time, uploaded=arrival.time)
        return _write(services, nowhere, items.rejected(nowhere, str(error), digest=None, now=datetime.now(UTC)))
    try:
        stored = objects.describe(services.s3, arrival)
    except Gone as error:
        # Its metadata is gone with it. The event's time is that of the upload.
        captured, flags = captured_at({}, place, arrival.time)
        gone = Photograph(arrival, place, captured, arrival.time, flags)
        item = items.rejected(gone, str(error), digest=None, now=datetime.now(UTC))
        if table.is_counted(services.dynamodb, services.counts_table, arrival, place):
            return item, False
        return _write(services, gone, item)

    captured, date_flags = captured_at(stored.metadata, place, stored.uploaded)
    recorded, record_flags = items.expected_quantity(stored.metadata, stored.uploaded)
    photograph = Photograph(arrival, place, captured, stored.uploaded, (*date_flags, *record_flags))
    digest = None
    try:
        data = objects.fetch(services.s3, arrival, stored)
        digest = hashlib.sha256(data).hexdigest()
        jpeg = images.prepare(data)
    except Rejected as error:
        item = items.rejected(photograph, str(error), digest=digest, now=datetime.now(UTC))
        return _write(services, photograph, item)

    if recorded is None:
        record = table.record(services.dynamodb, services.counts_table, place)
        recorded = Recorded(int(record["expected_quantity"]), "record", record.get("as_of")) if record else None
    answer, latency_ms = endpoint.ask(services.runtime, services.endpoint_name, jpeg)
    item = items.counted(photograph, answer, recorded, digest=digest, latency_ms=latency_ms, now=datetime.now(UTC))
    return _write(services, photograph, item)


def _write(services: Services, photograph: Photograph, item: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    totals = table.totals_key(photograph.arrival, photograph.place, photograph.captured)
    return item, table.write_count(services.dynamodb, services.counts_table, item, totals)
