"""Reads object keys, and finds a photograph's capture time."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from bintally.common.errors import Rejected
from bintally.common.zone import as_utc

EXPECTED = "incoming/<site>/<bin>/<name> or incoming/<bin>.<ext>"
EXPECTED_RECORDS = "records/<site>/<bin>.json or records/*.csv (also .tsv, .txt)"
TABLES = (".csv", ".tsv", ".tab", ".txt")
DEFAULT_SITE = "default"
CLOCK_TOLERANCE = timedelta(minutes=5)
LONGEST_ID = 400
"""Bytes of an id in a table key: two of them fit in the 1,024 bytes of an index's sort key."""

_TIMESTAMP = re.compile(
    r"(?<!\d)(\d{4})-?(\d\d)-?(\d\d)[T_ -]?(\d\d)[:._-]?(\d\d)[:._-]?(\d\d)(?:[.,](\d{1,6})\d*)?"
    r"(Z|[+-]\d\d:?\d\d)?(?!\d)",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True)
class Place:
    """The place of a photograph. Both ids are empty when the key names none; no real id is empty."""

    site: str
    bin: str
    name: str


NOWHERE = Place("", "", "")


def parse_key(key: str) -> Place:
    """The place that a raw (not percent-encoded) object key names. Raises Rejected with the expected pattern."""
    match key.split("/"):
        case ["incoming", site, bin_, name] if site and bin_ and name:
            return Place(site, bin_, name)
        case ["incoming", name] if all(parts := name.rpartition(".")):
            return Place(DEFAULT_SITE, parts[0], name)
    raise Rejected(f"the key fits no pattern; expected {EXPECTED}")


def parse_records_key(key: str) -> Place | None:
    """The bin of a record file; None for a table, whose rows name their bins.

    Raises Rejected with the expected pattern.
    """
    match key.split("/"):
        case ["records", *_, name] if name.lower().endswith(TABLES):
            return None
        case ["records", site, name] if site and name.lower().endswith(".json") and name.lower() != ".json":
            return Place(site, name[: -len(".json")], name)
    raise Rejected(f"the key fits no pattern; expected {EXPECTED_RECORDS}")


def encode_id(text: str) -> str:
    """An id as used in a table key: `#` and `%` are percent-encoded, so that no two ids give the same key.

    An id of more than LONGEST_ID bytes is replaced by its digest after a bare `%`, which no encoded id contains.
    """
    encoded = text.replace("%", "%25").replace("#", "%23")
    if len(encoded.encode()) <= LONGEST_ID:
        return encoded
    return f"%sha256-{hashlib.sha256(text.encode()).hexdigest()}"


def utc(moment: datetime) -> str:
    """Fixed width, so that text order is time order: 2026-11-22T10:15:00.000000Z."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def quantity(text: str) -> int | None:
    """The number of items in a text, None when it is not one: digits only, nine at most."""
    text = text.strip()
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def captured_at(metadata: Mapping[str, str], place: Place, uploaded: datetime) -> tuple[datetime, tuple[str, ...]]:
    """The capture time and flags. It comes from the metadata, else from the file name, else from the upload time.

    A time that cannot be read, or that is more than five minutes after the upload, is flagged and the upload time is
    used: otherwise one photograph dated 2099 would remain a bin's latest for ever.
    """
    if (text := metadata.get("captured-at")) is not None:
        try:
            found = moment(text.strip())
        except (ValueError, OverflowError):
            return uploaded, ("captured_at_unreadable",)
    elif (in_name := _timestamp_in(place.name)) is not None:
        found = in_name
    else:
        return uploaded, ()
    if found > uploaded + CLOCK_TOLERANCE:
        return uploaded, ("captured_at_after_upload",)
    return found, ()


def moment(text: str, zone: tzinfo = UTC) -> datetime:
    """ISO 8601 as UTC; without a zone of its own it is in `zone`. Raises ValueError or OverflowError."""
    return as_utc(datetime.fromisoformat(text), zone)


def _timestamp_in(name: str) -> datetime | None:
    if (found := _TIMESTAMP.search(name)) is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    text = f"{year}-{month}-{day}T{hour}:{minute}:{second}.{(fraction or '0').ljust(6, '0')}{(zone or 'Z').upper()}"
    try:
        return moment(text)
    except (ValueError, OverflowError):
        return None
