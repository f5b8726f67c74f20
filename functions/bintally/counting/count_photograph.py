"""Counts one photograph, whatever is wrong with it, and writes the result once."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from threading import Lock
from typing import TYPE_CHECKING

from bintally.aws import endpoint, items, objects
from bintally.aws.items import Item
from bintally.aws.recorded import recorded_by
from bintally.aws.table import Table
from bintally.common.arrivals import Arrival
from bintally.common.counts import Count, Counted, Photograph, Recorded, Unusable
from bintally.common.errors import Gone, Rejected, Transient
from bintally.common.keys import NOWHERE, Place, fold, parse_key, quantity, utc
from bintally.counting import images
from bintally.counting.pixels import File
from bintally.counting.taken import taken_at

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

# The photographs of a batch are counted at once, each in a thread. But one is decoded at a time, since it takes about
# 1 GB at the pixel limit, and the endpoint is asked about one at a time, since CountConcurrency is its concurrency too.
DECODING, ASKING = Lock(), Lock()


@dataclass(frozen=True)
class Services:
    """The clients and settings that counting uses."""

    s3: "S3Client"
    runtime: "SageMakerRuntimeClient"
    table: Table
    endpoint_name: str
    zone: tzinfo = UTC
    """Of times without a zone."""


class Records:
    """The RECORD items of a batch's bins, read together once the first of them is needed, by whichever thread that is.
    Where they cannot be read, no photograph that needs them is counted."""

    def __init__(self, keys: Iterable[Item]) -> None:
        self.keys = list(keys)
        self.found: Mapping[tuple[str, str], Item] | str | None = None
        """Or why they cannot be read: an error itself would keep a thread's photograph."""
        self.reading = Lock()

    def of(self, table: Table, place: Place) -> Recorded | None:
        """What the inventory system says of a bin, one of the batch's; None when it says nothing that can be read.
        Raises Transient."""
        with self.reading:
            if self.found is None:
                try:
                    self.found = table.get_many(self.keys, consistent=False)
                except Transient as error:
                    self.found = str(error)
        if isinstance(self.found, str):
            raise Transient(self.found)
        return recorded_by(self.found.get((items.bin_key(place), "RECORD")))


def count_photograph(services: Services, arrival: Arrival, records: Records) -> tuple[Count, bool]:
    """The count, and whether it is new: False when the table already contained this image version.

    A photograph that can never be counted gives a REJECTED count. Raises Transient.
    """
    try:
        place = parse_key(arrival.key)
    except Rejected as error:
        nowhere = Photograph(arrival, NOWHERE, captured=arrival.time, uploaded=arrival.time)
        return _write(services, nowhere, Unusable(str(error)))
    try:
        stored, body = objects.fetch(services.s3, arrival)
    except Gone as error:
        # Its metadata is deleted too. The event's time is the upload time.
        taken = taken_at({}, place.name, None, arrival.time, services.zone)
        gone = Photograph(arrival, place, taken.at, arrival.time, taken.flags, taken.source)
        return _write(services, gone, Unusable(str(error)))

    recorded, record_flags = expected_quantity(stored.metadata, stored.uploaded)
    digest, file, prepared = _prepare(stored, body)
    taken = taken_at(stored.metadata, place.name, file, stored.uploaded, services.zone)
    del file  # up to 30 MB, and others of the batch are decoded while this one waits
    flags = (*taken.flags, *record_flags)
    photograph = Photograph(arrival, place, taken.at, stored.uploaded, flags, taken.source)
    if isinstance(prepared, Unusable):
        return _write(services, photograph, prepared, digest)
    photograph = replace(photograph, flags=(*flags, *prepared.flags))

    recorded = recorded or records.of(services.table, place)
    with ASKING:
        answer, latency_ms = endpoint.ask(services.runtime, services.endpoint_name, prepared.jpeg)
    return _write(services, photograph, Counted(answer, recorded, latency_ms), digest)


def _prepare(
    stored: objects.Stored, body: "StreamingBody"
) -> tuple[str | None, File | None, images.Prepared | Unusable]:
    """Digest and parts of a photograph's file, as far as it can be read, and a JPEG of it or what is wrong with it."""
    digest = file = None
    try:
        data = objects.read(stored, body)
        digest = hashlib.sha256(data).hexdigest()
        with DECODING:
            file = images.read(data)
            return digest, file, images.prepare(data, file)
    except Rejected as error:
        return digest, file, Unusable(str(error))  # the error itself would keep the decoded picture for the collector


def expected_quantity(metadata: Mapping[str, str], uploaded: datetime) -> tuple[Recorded | None, tuple[str, ...]]:
    """The recorded quantity in the photograph's metadata, dated by the upload, and flags."""
    said = {name.lower().replace("_", "-"): text for name, text in metadata.items()}
    if (text := said.get("expected-quantity")) is None:
        return None, ()
    if (found := quantity(fold(text))) is None:
        return None, ("expected_quantity_unreadable",)
    return Recorded(found, "metadata", utc(uploaded), f"{utc(uploaded)}#{items.METADATA}"), ()


def _write(
    services: Services, photograph: Photograph, outcome: Counted | Unusable, digest: str | None = None
) -> tuple[Count, bool]:
    count = Count(photograph, digest, datetime.now(UTC), outcome)
    return count, services.table.write_count(count)
