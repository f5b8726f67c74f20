"""When a photograph was taken: from all that cameras, phones and tools write, in an order of trust.

1. `captured-at`, the object's metadata: somebody said it to Bintally.
2. A time with a zone in the file's name (`2026-11-22T10:15:00Z.jpg`; Pixel phones write UTC): named for Bintally, or
   by the phone.
3. EXIF DateTimeOriginal, then XMP's: the camera's clock when the shutter opened.
4. GPS time: exact, but of the last fix.
5. EXIF DateTimeDigitized, XMP CreateDate, a PNG's Creation Time: when the file was made.
6. A time without a zone in the file's name.
7. EXIF DateTime, XMP ModifyDate, a PNG's tIME: when the file was last changed.
8. `modified-at` or `mtime`, the object's metadata: when the uploading machine's file was last changed.
9. The upload.

The first that is believed is used. One that is not believed flags the photograph. A time without a zone is the site's,
unless EXIF's GPS time tells the camera's zone.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from email.utils import parsedate_to_datetime

from PIL import Image

from bintally.common.keys import CLOCK_TOLERANCE, moment
from bintally.common.zone import as_utc
from bintally.counting.pixels import BROKEN, File

EARLIEST = datetime(2000, 1, 2, tzinfo=UTC)
"""A clock that nobody set starts in 1970, 1980 or at the beginning of 2000, and none of them later in any zone."""
UNREADABLE, NOT_SET, LATER = "captured_at_unreadable", "captured_at_clock_not_set", "captured_at_after_upload"

Found = tuple[str, datetime | None]
"""A source, and its time in UTC; None when it is unreadable."""


@dataclass(frozen=True)
class Taken:
    """The time at which a photograph was taken, its source, and flags of the times that were not believed."""

    at: datetime
    source: str
    flags: tuple[str, ...] = ()


def taken_at(
    metadata: Mapping[str, str], name: str, file: File | None, uploaded: datetime, zone: tzinfo = UTC
) -> Taken:
    """`metadata` of the object, `name` and content of the file; `file` is None when it was not read.

    A time more than five minutes after the upload is not believed: otherwise one photograph dated 2099 would remain a
    bin's latest for ever.
    """
    flags: dict[str, None] = {}
    for source, found in _sources(metadata, name, file, zone):
        if fault := _fault(found, uploaded):
            flags[fault] = None
        elif found:
            return Taken(found, source, tuple(flags))
    return Taken(uploaded, "upload", tuple(flags))


def _fault(found: datetime | None, uploaded: datetime) -> str:
    if found is None:
        return UNREADABLE
    if found < EARLIEST:
        return NOT_SET
    return LATER if found > uploaded + CLOCK_TOLERANCE else ""


def _sources(metadata: Mapping[str, str], name: str, file: File | None, zone: tzinfo) -> Iterator[Found]:
    said = {key.lower().replace("_", "-"): value for key, value in metadata.items()}
    if "captured-at" in said:
        yield "metadata", _said(said["captured-at"], zone)
    named, has_zone = _named(name, zone)
    if named and has_zone:
        yield "name", named
    made, changed = _written(file, zone) if file else ([], [])
    yield from made
    if named and not has_zone:
        yield "name", named
    yield from changed
    for key in ("modified-at", "mtime"):
        if key in said:
            yield "file", _said(said[key], zone)


# The object's metadata and name


def _said(text: str, zone: tzinfo) -> datetime | None:
    """ISO 8601, EXIF's form, or seconds or milliseconds since 1970."""
    text = text.strip()
    with suppress(ValueError, OverflowError):
        since = re.fullmatch(r"(\d{1,10})(\d{3})?(\.\d+)?", text, re.ASCII)
        if since and (len(since[1]) > 8 or since[3]):
            return datetime.fromtimestamp(int(since[1]), UTC)
        return moment(text, zone)
    with suppress(ValueError, OverflowError):
        return _clock(text, zone)
    return _named(text, zone)[0]


_NAMED = re.compile(
    r"(?<!\d)((?:19|20)\d\d)-?(\d\d)-?(\d\d)(?:[T_ -]| at |, )?(\d\d)[:._-]?(\d\d)[:._-]?(\d\d)"
    r"(?:[.,](\d{1,6})\d*|(\d{3}))?(?: ?([AP])\.?M\b)?(Z|[+-](?:0\d|1[0-4]):?(?:00|15|30|45))?(?!\d)",
    re.ASCII | re.IGNORECASE,
)
_SINCE_1970 = re.compile(r"(?:mmexport|FB_IMG_|wx_camera_)(1\d{12})(?!\d)", re.ASCII)
"""Milliseconds. Only after these words: thirteen digits are also a product's number."""


def _named(name: str, zone: tzinfo) -> tuple[datetime | None, bool]:
    """The time in a file's name, and whether it has a zone there."""
    name = unicodedata.normalize("NFKC", name)  # macOS writes a narrow space before AM
    with suppress(ValueError, OverflowError):
        if since := _SINCE_1970.search(name):
            return datetime.fromtimestamp(int(since[1]) / 1000, UTC), False
        if found := _NAMED.search(name):
            *numbers, fraction, thousandths, half, offset = found.groups()
            year, month, day, hour, minute, second = map(int, numbers)
            if half:
                hour = hour % 12 + 12 * (half in "Pp")
            micro = int((fraction or thousandths or "0").ljust(6, "0"))
            there = _zone_of(offset) or (UTC if name.startswith("PXL_") else None)
            local = datetime(year, month, day, hour, minute, second, micro, there)
            return as_utc(local, zone), there is not None
    return None, False


# The file

_CLOCK = re.compile(
    r"(\d{4})[:/.-](\d\d?)[:/.-](\d\d?)[T ]+(\d\d?):(\d\d)(?::(\d\d))?(?:[.,](\d{1,6})\d*)?\s*(Z|UTC|[+-]\d\d:?\d\d)?",
    re.ASCII | re.IGNORECASE,
)
_IN_XMP = r"""%s(?:\s*=\s*["']|>)([^"'<]{0,40})"""


def _written(file: File, zone: tzinfo) -> tuple[list[Found], list[Found]]:
    """The times at which the file was made and last changed, the most trusted first."""
    exif, of_gps = _exif(file.exif), None
    original, digitized, changed = (exif.get(name, "") for name in ("original", "digitized", "changed"))
    with suppress(*BROKEN):
        of_gps = _gps(file.exif)
    there = _zone_by(original, of_gps) or zone
    xmp = file.xmp.decode("utf-8", "replace")
    texts = {keyword.lower().replace(" ", ""): text for keyword, text in file.texts}
    made: list[tuple[str, str, tzinfo]] = [
        ("exif", original, there),
        ("xmp", _in_xmp(xmp, "exif:DateTimeOriginal") or _in_xmp(xmp, "photoshop:DateCreated"), there),
        ("gps", of_gps.isoformat() if of_gps else "", UTC),
        ("exif", digitized, there),
        ("xmp", _in_xmp(xmp, "xmp:CreateDate"), there),
        ("png", texts.get("creationtime", ""), there),
    ]
    edited: list[tuple[str, str, tzinfo]] = [
        ("exif", changed, there),
        ("xmp", _in_xmp(xmp, "xmp:ModifyDate"), there),
        ("png", "{}-{}-{} {:02}:{:02}:{:02}".format(*file.modified) if file.modified else "", UTC),
    ]
    return list(_read(made)), list(_read(edited))


def _read(texts: list[tuple[str, str, tzinfo]]) -> Iterator[Found]:
    """A blank or zero time is one that nobody wrote; a date without a time tells too little."""
    for source, text, zone in texts:
        if re.search(r"[1-9]", text) and not re.fullmatch(r"\d{4}([:/-]\d\d?){0,2}", text):
            try:
                yield source, _clock(text, zone)
            except (ValueError, OverflowError):
                yield source, None


def _clock(text: str, zone: tzinfo) -> datetime:
    """A time as EXIF, XMP and PNG write it, in UTC. Raises ValueError or OverflowError."""
    if found := _CLOCK.match(text.strip()):
        year, month, day, hour, minute, second = (int(number or 0) for number in found.groups()[:6])
        micro = int((found[7] or "0").ljust(6, "0"))
        return as_utc(datetime(year, month, day, hour, minute, second, micro, _zone_of(found[8])), zone)
    try:
        return as_utc(parsedate_to_datetime(text), zone)  # what the PNG specification recommends
    except (TypeError, IndexError) as error:
        raise ValueError(f"not a time: {text!r}") from error


def _zone_of(offset: str | None) -> tzinfo | None:
    """Raises ValueError for an offset that no zone has."""
    if not offset:
        return None
    if offset.upper() in ("Z", "UTC"):
        return UTC
    digits = offset[1:].replace(":", "")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 14 or minutes > 59:
        raise ValueError(f"no zone is {offset} from UTC")
    return timezone(timedelta(hours=hours, minutes=minutes) * (-1 if offset[0] == "-" else 1))


def _zone_by(original: str, of_gps: datetime | None) -> tzinfo | None:
    """The camera's zone if its clock and GPS differ by whole half hours: a stale fix seldom does."""
    if of_gps is None:
        return None
    with suppress(ValueError, OverflowError):
        ahead = _clock(original, UTC) - of_gps
        offset = timedelta(minutes=30) * round(ahead / timedelta(minutes=30))
        if abs(ahead - offset) <= timedelta(minutes=2) and abs(offset) <= timedelta(hours=14):
            return timezone(offset)
    return None


def _exif(exif: bytes) -> dict[str, str]:
    """EXIF's times with their offsets, as text; those that can be read."""
    found: dict[str, str] = {}
    read = Image.Exif()
    with suppress(*BROKEN):
        read.load(exif)
    for name, time, part, offset in (
        ("original", 0x9003, 0x9291, 0x9011),
        ("digitized", 0x9004, 0x9292, 0x9012),
        ("changed", 0x0132, 0x9290, 0x9010),
    ):
        with suppress(*BROKEN):
            inner = read.get_ifd(0x8769)
            text = _plain(read.get(time) if name == "changed" else inner.get(time))
            parts, zone = (_plain(inner.get(tag)) for tag in (part, offset))
            parts = f".{parts}" if parts.isdigit() and ":" in text[-3:] else ""
            found[name] = text + parts + (zone if re.fullmatch(r"[+-]\d\d:?\d\d|Z", zone) else "")
    return found


def _gps(exif: bytes) -> datetime | None:
    """The GPS time, in UTC."""
    read = Image.Exif()
    read.load(exif)
    gps = read.get_ifd(0x8825)
    if 0x1D not in gps or 7 not in gps:
        return None
    year, month, day = map(int, re.split(r"[:/-]", _plain(gps[0x1D])))
    hour, minute, second = (float(part) for part in gps[7])
    return datetime(year, month, day, tzinfo=UTC) + timedelta(hours=hour, minutes=minute, seconds=int(second))


def _plain(value: object) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""
    return text.strip("\0 \t")


def _in_xmp(xmp: str, name: str) -> str:
    found = re.search(_IN_XMP % re.escape(name), xmp)
    return found[1].strip() if found else ""
