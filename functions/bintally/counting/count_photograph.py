"""Counts one photograph, whatever is wrong with it, and writes the result once."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bintally.aws import endpoint, items, objects
from bintally.aws.table import Table
from bintally.common.arrivals import Arrival
from bintally.common.counts import Count, Counted, Photograph, Recorded, Unusable
from bintally.common.errors import Gone, Rejected
from bintally.common.keys import NOWHERE, captured_at, parse_key, quantity, utc
from bintally.counting import images

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient


@dataclass(frozen=True)
class Services:
    """The clients and settings that counting uses."""

    s3: "S3Client"
    runtime: "SageMakerRuntimeClient"
    table: Table
    endpoint_name: str


def count_photograph(services: Services, arrival: Arrival) -> tuple[Count, bool]:
    """The count, and whether it is new: False when the table already contained this image version.

    A photograph that can never be counted gives a REJECTED count. Raises Transient.
    """
    try:
        place = parse_key(arrival.key)
    except Rejected as error:
        nowhere = Photograph(arrival, NOWHERE, captured=arrival.time, uploaded=arrival.time)
        return _write(services, nowhere, Unusable(str(error)))
    try:
        stored = objects.describe(services.s3, arrival)
    except Gone as error:
        # Its metadata is deleted too. The event's time is the upload time.
        captured, flags = captured_at({}, place, arrival.time)
        gone = Photograph(arrival, place, captured, arrival.time, flags)
        if services.table.is_counted(arrival, place):
            return Count(gone, None, datetime.now(UTC), Unusable(str(error))), False
        return _write(services, gone, Unusable(str(error)))

    captured, date_flags = captured_at(stored.metadata, place, stored.uploaded)
    recorded, record_flags = expected_quantity(stored.metadata, stored.uploaded)
    photograph = Photograph(arrival, place, captured, stored.uploaded, (*date_flags, *record_flags))
    digest = None
    try:
        data = objects.fetch(services.s3, arrival, stored)
        digest = hashlib.sha256(data).hexdigest()
        jpeg = images.prepare(data)
    except Rejected as error:
        return _write(services, photograph, Unusable(str(error)), digest)

    if recorded is None:
        record = services.table.record(place)
        recorded = items.recorded_by(record) if record else None
    answer, latency_ms = endpoint.ask(services.runtime, services.endpoint_name, jpeg)
    return _write(services, photograph, Counted(answer, recorded, latency_ms), digest)


def expected_quantity(metadata: Mapping[str, str], uploaded: datetime) -> tuple[Recorded | None, tuple[str, ...]]:
    """The recorded quantity in the photograph's metadata, dated by the upload, and flags."""
    if (text := metadata.get("expected-quantity")) is None:
        return None, ()
    if (found := quantity(text)) is None:
        return None, ("expected_quantity_unreadable",)
    return Recorded(found, "metadata", utc(uploaded), f"{utc(uploaded)}#{items.METADATA}"), ()


def _write(
    services: Services, photograph: Photograph, outcome: Counted | Unusable, digest: str | None = None
) -> tuple[Count, bool]:
    count = Count(photograph, digest, datetime.now(UTC), outcome)
    return count, services.table.write_count(count)
