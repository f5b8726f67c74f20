"""Reads object keys: the ids in them, and which spellings of an id are the same bin."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from bintally.common.errors import Rejected
from bintally.common.zone import as_utc

INCOMING = "incoming/"
"""The prefix of photographs."""
RECORDS = "records/"
"""The prefix of record files."""
EXPECTED = "incoming/<site>/<bin>/<name> or incoming/<bin>.<ext>"
EXPECTED_RECORDS = "records/<site>/<bin>.json or records/*.csv (also .tsv, .txt)"
TABLES = (".csv", ".tsv", ".tab", ".txt")
DEFAULT_SITE = "default"
CLOCK_TOLERANCE = timedelta(minutes=5)
LONGEST_ID = 400
"""Bytes of an id in a table key: two of them fit in the 1,024 bytes of an index's sort key."""


@dataclass(frozen=True)
class Place:
    """The place of a photograph. Both ids are empty when the key names none; no real id is empty."""

    site: str
    bin: str
    name: str


NOWHERE = Place("", "", "")


_SYSTEM_FILES = {
    *("@eadir", "#recycle", "@recycle", "#snapshot", "@recently-snapshot", ".@__thumb", "lost+found"),
    *(".ds_store", ".appledouble", ".trashes", ".spotlight-v100", ".fseventsd", ".temporaryitems", "__macosx"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
}
"""In lower case: what a NAS, macOS and Windows keep among a person's files."""


def parse_key(key: str) -> Place:
    """The place that a raw (not percent-encoded) object key names. Raises Rejected, which says what is wrong and the
    expected pattern. The ids are as written; `fold` says which are the same."""
    if fault := _fault(key, "incoming"):
        raise Rejected(f"{fault}; expected {EXPECTED}")
    match key.split("/"):
        case ["incoming", site, bin_, name] if fold(site) and fold(bin_):
            return Place(site, bin_, name)
        case ["incoming", name] if all(parts := name.rpartition(".")) and fold(parts[0]):
            return Place(DEFAULT_SITE, parts[0], name)
    raise Rejected(f"the key fits no pattern; expected {EXPECTED}")


def parse_records_key(key: str) -> Place | None:
    """The bin of a record file; None for a table, whose rows name their bins.

    Raises Rejected, which says what is wrong and the expected pattern.
    """
    if fault := _fault(key, "records"):
        raise Rejected(f"{fault}; expected {EXPECTED_RECORDS}")
    match key.split("/"):
        case ["records", *_, name] if name.lower().endswith(TABLES):
            return None
        case ["records", site, name] if site and name.lower().endswith(".json") and name.lower() != ".json":
            return Place(site, name[: -len(".json")], name)
    raise Rejected(f"the key fits no pattern; expected {EXPECTED_RECORDS}")


def is_folder_marker(key: str, size: int | None) -> bool:
    """Whether an object only stands for a folder: the console's `Create folder` and Hadoop put empty ones."""
    return size == 0 and key.endswith(("/", "_$folder$"))


def _fault(key: str, folder: str) -> str:
    """What makes a key name no bin, or a bin that nobody meant; empty when nothing does."""
    parts = key.split("/")
    if "\\" in key:
        return "the key contains a backslash; on Windows too, keys are joined with /"
    if not parts[0]:
        return "the key begins with a slash"
    if parts[0] != folder and parts[0].lower() == folder:
        return f"the key begins with {parts[0]}/ instead of {folder}/: capitals matter"
    if "" in parts:
        return "the key ends with a slash" if parts.index("") == len(parts) - 1 else "a part of the key is empty (//)"
    if not {".", ".."}.isdisjoint(parts):
        return "the key contains . or .. as a part, which keys do not resolve"
    for part in parts:
        if part.lower() in _SYSTEM_FILES or part.startswith("._"):
            return f"{part} is a system's own file or folder (of a NAS, macOS or Windows)"
    return ""


_DASHES = "\u2212\u2043"
"""Minus and bullet; the others are in Unicode's category of dashes."""
_QUOTES = str.maketrans("‘’‚‛ʼ“”„‟", "'''''\"\"\"\"")
_LETTERS = str.maketrans("АВЕКМНОРСТУХІЈЅΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "ABEKMHOPCTYXIJSABEZHIKMNOPTYX")
"""Cyrillic and Greek capitals that look like Latin ones: which a keyboard wrote, no person sees."""
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Characters of other categories than `_seen` leaves out that are drawn as nothing: variation selectors, fillers."""


def fold(text: str) -> str:
    """The one spelling of all ids that a person would take for the same: what table keys are made of.

    NFKC (full-width and compatibility characters), no invisible characters, one kind of dash, quotation mark and
    space, single spaces and none at the ends, capitals, and Latin letters for Cyrillic and Greek ones of the same
    form. An id of plain capitals, digits and dashes is its own. docs/decisions/ids.md gives the reasons.
    """
    if text.isascii() and text.isprintable():  # most ids; files of records have millions, and this takes a tenth
        return " ".join(text.upper().split())
    text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    text = "".join(map(_seen, text)).translate(_QUOTES).upper()
    return " ".join(unicodedata.normalize("NFKC", text).translate(_LETTERS).split())


def _seen(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Pd" or character in _DASHES:
        return "-"
    return "" if category == "Cf" or (category == "Cc" and not character.isspace()) else character


def encode_id(text: str) -> str:
    """An id as used in a table key: folded; `#` and `%` are percent-encoded, so that no two ids give the same key
    unless they look the same (`fold`).

    An id of more than LONGEST_ID bytes is replaced by its digest after a bare `%`, which no encoded id contains.
    """
    text = fold(text)
    if text == fold(DEFAULT_SITE):
        return DEFAULT_SITE  # its key before ids were folded
    encoded = text.replace("%", "%25").replace("#", "%23")
    if len(encoded.encode()) <= LONGEST_ID:
        return encoded
    return f"%sha256-{hashlib.sha256(text.encode()).hexdigest()}"


def utc(moment: datetime) -> str:
    """Fixed width, so that text order is time order: 2026-11-22T10:15:00.000000Z."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def summaries_of(uploaded: datetime) -> str:
    """The prefix, in the artifacts bucket, of what was read of the record files that were uploaded on a day: one object
    for each version, which its digest names (items.version_digest)."""
    return f"reports/records/read/{utc(uploaded)[:10].replace('-', '/')}/"


def quantity(text: str) -> int | None:
    """The number of items in a text, None when it is not one: digits only, nine at most."""
    text = text.strip()
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def moment(text: str, zone: tzinfo = UTC) -> datetime:
    """ISO 8601 as UTC; without a zone of its own it is in `zone`. Raises ValueError or OverflowError."""
    return as_utc(datetime.fromisoformat(text), zone)
