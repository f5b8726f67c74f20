"""Reads record files row by row, with the faults of each row. Pure: bytes in, rows out.

    site,bin,expected_quantity,as_of
    SEA1,P-4-B217,4,2026-11-22T06:00:00Z

`as_of`, the effective time, may be missing or empty: then the file's upload time is used. Columns come in any order.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any

from bintally.common.errors import Rejected
from bintally.common.keys import CLOCK_TOLERANCE, moment, quantity

LARGEST_JSON = 1024**2
"""Bytes. The public data set's files have a few thousand."""
LONGEST_LINE = 8192
"""Characters of a row, so that no line exhausts memory."""
NEEDED = ("site", "bin", "expected_quantity")
COLUMNS = (*NEEDED, "as_of")


@dataclass(frozen=True)
class Row:
    """One valid row. `line` counts from 1, as editors do."""

    line: int
    site: str
    bin: str
    quantity: int
    as_of: datetime


@dataclass(frozen=True)
class Fault:
    """A row that was not stored, and the reason."""

    line: int
    reason: str


class Sheet:
    """A CSV file, open at its first row. Raises Rejected when its header cannot be used.

    A row is a line: an unclosed quotation mark invalidates its own line, not the rest of the file.
    """

    def __init__(self, file: IO[bytes], uploaded: datetime) -> None:
        self._uploaded = uploaded
        # Bytes that are not UTF-8 become lone surrogates, which UTF-8 never gives: only their line is faulty.
        self._text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline=None)
        try:
            names = [name.lower() for name in _fields(self._text.readline(LONGEST_LINE))]
        except ValueError as error:
            raise Rejected(f"the first line cannot be read: {error}") from error
        missing = [name for name in NEEDED if name not in names]
        if missing or any(names.count(name) > 1 for name in COLUMNS):
            raise Rejected(f"the first line must name the columns {', '.join(NEEDED)} and optionally as_of, each once")
        self.unknown_columns = [name for name in names if name not in COLUMNS]
        self._names = names

    def rows(self) -> Iterator[Row | Fault]:
        """Every row that is not empty, in file order."""
        line = 1
        while text := self._text.readline(LONGEST_LINE + 1):
            line += 1
            if len(text) > LONGEST_LINE and not text.endswith("\n"):
                while text and not text.endswith("\n"):
                    text = self._text.readline(LONGEST_LINE)
                yield Fault(line, f"the line has more than {LONGEST_LINE:,} characters")
                continue
            try:
                if any(fields := _fields(text)):
                    yield self._row(line, fields)
            except ValueError as error:
                yield Fault(line, str(error))

    def _row(self, line: int, fields: list[str]) -> Row:
        """Raises ValueError, which says what is wrong."""
        if len(fields) != len(self._names):
            raise ValueError(f"{len(fields)} fields; the first line names {len(self._names)}")
        found = dict(zip(self._names, fields, strict=True))
        for name in ("site", "bin"):
            if not found[name] or "/" in found[name]:
                raise ValueError(f"{name} is {_shown(found[name])}; no photograph's key can contain that")
        if (expected := quantity(found["expected_quantity"])) is None:
            raise ValueError(_no_quantity(found["expected_quantity"]))
        as_of = _as_of(found.get("as_of"), self._uploaded)
        return Row(line, found["site"], found["bin"], expected, as_of)


def read_json(data: bytes, site: str, bin_: str, uploaded: datetime) -> Row:
    """`{"expected_quantity": 3, "as_of": "…"}`, or a file in the public data set's form, whose quantity is
    EXPECTED_QUANTITY. Raises Rejected."""
    try:
        document = json.loads(data)
        if not isinstance(document, dict):
            raise ValueError("it contains no object")
        expected: Any = document.get("expected_quantity", document.get("EXPECTED_QUANTITY"))
        if type(expected) is not int or quantity(str(expected)) is None:
            raise ValueError(_no_quantity(expected))
        as_of = document.get("as_of")
        if not isinstance(as_of, str | None):
            raise ValueError(f"as_of is {_shown(as_of)}; a date and time are expected")
        return Row(1, site, bin_, expected, _as_of(as_of, uploaded))
    except (ValueError, RecursionError) as error:
        raise Rejected(f"not a record in JSON: {error}") from error


def _fields(line: str) -> list[str]:
    """Raises ValueError."""
    try:
        line.encode()
        (fields,) = csv.reader([line.rstrip("\n")], strict=True, skipinitialspace=True)
    except UnicodeEncodeError as error:
        raise ValueError("the line is not UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"the line is not CSV: {error}") from error
    return [field.strip() for field in fields]


def _as_of(text: str | None, uploaded: datetime) -> datetime:
    """Raises ValueError, also for a date after the upload: a record dated 2099 would otherwise stay for ever."""
    if not text:
        return uploaded
    try:
        found = moment(text)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"as_of is {_shown(text)}; a date and time are expected") from error
    if found > uploaded + CLOCK_TOLERANCE:
        raise ValueError(f"as_of is {_shown(text)}, later than the file's upload")
    return found


def _no_quantity(value: object) -> str:
    return f"expected_quantity is {_shown(value)}; a whole number from 0 to 999,999,999 is expected"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
