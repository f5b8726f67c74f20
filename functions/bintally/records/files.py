"""Reads record files row by row, with the faults of each row. Pure: bytes in, rows out.

    site,bin,expected_quantity,as_of
    SEA1,P-4-B217,4,2026-11-22T06:00:00Z

`as_of`, the effective time, may be missing or empty: then the file's upload time is used. Columns come in any order,
under the names of `columns`, in the encodings of `text`; numbers and dates are spelled as in `values`.
"""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import IO, Any

from bintally.common.errors import Rejected
from bintally.common.keys import CLOCK_TOLERANCE, utc
from bintally.records import columns
from bintally.records.columns import Columns, Wanted
from bintally.records.text import LONGEST_LINE, Line, Lines, is_utf8, legible, opened
from bintally.records.values import Conventions, Marks, Reading, date, number, whole

LARGEST_JSON = 1024**2
"""Bytes. The public data set's files have a few thousand."""
DELIMITERS = ",;\t|"
MOST_PREAMBLE = 30
"""Lines before the one that names the columns: a report's title, its date, its filters."""
MOST_SKIPPED = 20
SAMPLE = 20  # rows that show with how many delimiters all of them end
TOTALS = {
    *("total", "totals", "grandtotal", "subtotal", "sum", "sumtotal", "overalltotal", "alltotal", "totalgeneral"),
    *("gesamt", "summe", "gesamtsumme", "totaal", "totale", "soma", "suma"),
}
_ROUNDED = re.compile(r"\d(?:[.,]\d+)?E\+\d{2,}", re.IGNORECASE | re.ASCII)
_BROKEN = re.compile(r"#+|#N/A|#NV|#¿?[^\W\d_]+(?:/0)?[!?]")
"""#REF!, in the languages of spreadsheets, and ####, which stands for what does not fit into a narrow column."""
EXAMPLE = "2026-11-22T06:00:00+01:00"
SIGNATURES = {
    b"PK\x03\x04": "an Excel workbook or another archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x1f\x8b": "compressed (gzip)",
    b"%PDF": "a PDF",
}
"""First bytes of what is no text, whatever the name of its file ends with."""


@dataclass(frozen=True)
class Row:
    """One row. `line` counts from 1, as editors do. Of a reading with two meanings the whole file decides which."""

    line: int
    site: str
    bin: str
    quantity: Reading[int]
    as_of: Reading[datetime]
    product: str = ""
    """Which goods of the bin; "" when the row names none."""
    quantity_text: str = ""
    as_of_text: str = ""
    value: str = ""
    """Of one item, as it is written; no row is refused for it."""
    rest: bytes = b""
    """A digest of the cells that say none of the above and of the value: lines that differ there are not equal."""


@dataclass(frozen=True)
class Fault:
    """A row that was not stored, and the reason."""

    line: int
    reason: str
    site: str = ""
    bin: str = ""
    """The bin whose record lacks this row; "" when nobody can tell."""


@dataclass(frozen=True)
class Skipped:
    """A line that is no row: before the names of the columns, their repetition, or a total."""

    line: int
    reason: str


@dataclass(frozen=True)
class Setting:
    """What rows leave unsaid."""

    uploaded: datetime
    zone: tzinfo
    """Of times without a zone."""
    site: Callable[[], str]
    """Of files without a column for it. Raises Rejected when there may be several."""
    wanted: Wanted = field(default_factory=Wanted)


class Sheet:
    """A table, open at its first row. Raises Rejected when no line names its columns."""

    def __init__(self, file: IO[bytes], setting: Setting) -> None:
        start = file.read(4)
        if kind := next((kind for first, kind in SIGNATURES.items() if start.startswith(first)), None):
            raise Rejected(f"the file is {kind}; save the table as CSV UTF-8 and upload that")
        file.seek(0)
        text, self.encoding = opened(file)
        self._lines, self._setting = Lines(text), setting
        self.conventions = Conventions()
        self.skipped: list[Skipped] = []
        self.delimiter, names, self.columns = self._head()
        self._names = _without_end(names)
        places = self.columns.places.items()
        used = {*self.columns.product, *(place for target, place in places if target != "value")}
        self._rest = [at for at in range(len(self._names)) if at not in used]
        self._site = setting.site() if "site" not in self.columns.places else None
        self._total = 0
        self._above = ("", "")  # site and bin of the row above
        self._rows = 0  # that could be read
        self._part = 0  # their sum since the last subtotal
        self._shortest = 0  # cells of the shortest row so far
        self._widest = sys.maxsize  # cells of a row, while `_usual_width` reads some
        self._widest = max(len(names), self._usual_width())

    @property
    def comma_groups(self) -> bool:
        """Whether 1,000 is a thousand where the file shows nothing else: only where commas separate the cells, for who
        writes decimal commas separates cells otherwise (SAP by tabs, with three decimals: 4,000 is four)."""
        return self.delimiter == ","

    def _head(self) -> tuple[str, list[str], Columns]:
        """The delimiter is the one with which a line names the columns. The names are those of all of its cells."""
        delimiters, nearest = DELIMITERS, (0, 1, [""])
        for _ in range(MOST_PREAMBLE):
            first = self._lines.next()
            if first is None:
                break
            said = (first.text or "").strip().strip('"').casefold()
            if said.startswith("sep=") and len(said) <= 5:  # Excel's; of a tab nothing is left after the strip
                delimiters = (said[4:] or "\t") + DELIMITERS  # a line that names the columns is a better proof
                continue
            for delimiter in delimiters:
                self._lines.put_back([first])
                lines, found = self._lines.row(delimiter, lambda _: False) or ([first], [])
                names = [legible(cell) or "" for cell in found]
                if (known := columns.find(names, self._setting.wanted)) is not None:
                    return delimiter, names, known
                near = columns.nearness(names, self._setting.wanted)
                more = first.number == nearest[1] and near == nearest[0] and len(names) > len(nearest[2])
                if near > nearest[0] or more or not any(nearest[2]):
                    nearest = (near, first.number, names)
                self._lines.put_back(lines[1:])
            if (first.text or "").strip():
                self._skip(first.number, "it is above the line that names the columns")
        raise Rejected(columns.explain(nearest[2], nearest[1], self._setting.wanted))

    def _usual_width(self) -> int:
        """The cells that each of the first rows has at least: all may end with delimiters that the names do not. Of one
        row nobody can tell, and three digits behind the quantity may be a part of it: 1,250."""
        behind = self.columns.places["expected_quantity"] + 1
        read: list[Line] = []
        widths: list[int] = []
        for _ in range(SAMPLE):
            if (found := self._lines.row(self.delimiter, self._is_row)) is None:
                break
            read += found[0]
            values = [legible(cell) for cell in found[1]]
            next_ = "".join(value or "" for value in values[behind : behind + 1])
            in_parts = self.delimiter == "," and len(next_) == 3 and next_.isdigit()
            if self._is_row(found[1]) and len(values) >= len(self._names) and not in_parts:
                widths.append(len(values))
        self._lines.put_back(read)
        return min(widths) if len(widths) > 1 else 0

    def rows(self) -> Iterator[Row | Fault]:
        """Every row that is not empty, in file order."""
        while (found := self._lines.row(self.delimiter, self._is_row)) is not None:
            lines, texts = found
            number_ = lines[0].number
            if not texts:
                if lines[0].text is None:
                    self._above = ("", "")
                    yield Fault(number_, f"the line has more than {LONGEST_LINE:,} characters")
                continue
            values = [legible(cell) for cell in texts]
            if self.encoding == "UTF-8" and not is_utf8("".join(texts)):
                self.encoding = "Windows-1252"
            if not any(value or value is None for value in values) or self._is_no_row(number_, values):
                continue
            try:
                row = self._row(number_, values, cut=lines[-1].cut)
            except ValueError as error:
                self._above, of = self._bin_of(values)
                yield Fault(number_, str(error), *of)
            else:
                self._above = row.site, row.bin
                self._rows += 1
                self._total += row.quantity.first or 0
                self._part += row.quantity.first or 0
                self._shortest = min(self._shortest or len(values), len(values))
                yield row

    def _is_row(self, texts: list[str]) -> bool:
        try:
            self._row(0, [legible(cell) for cell in texts], cut=False, conventions=Conventions())
        except ValueError:
            return False
        return True

    def _is_no_row(self, line: int, values: Sequence[str | None]) -> bool:
        """Whether the line repeats the names of the columns, or is a total: one beside an empty bin or site, or one
        whose quantity is the sum of all rows above it."""
        if _without_end(values) == self._names:
            return self._skip(line, "it repeats the names of the columns")
        first = next((value for value in values if value), "")
        if first.replace(" ", "").rstrip(":").casefold() not in TOTALS:
            return False
        bin_, site = self._cell(values, "bin"), self._cell(values, "site")
        quantity = number(self._cell(values, "expected_quantity") or "", Marks())
        sums = quantity is not None and self._total in (quantity.first, quantity.second)
        if not bin_ or ("site" in self.columns.places and not site) or sums:
            return self._skip(line, "it is a total")
        return False

    def _bin_of(self, values: Sequence[str | None]) -> tuple[tuple[str, str], tuple[str, str]]:
        """Site and bin of a row that cannot be read, for the rows below it, and for itself.

        A report that names a bin, or a site, only once leaves it empty in the rows below. A row without a bin is of
        the bin above when it names a product, or a quantity that is not the sum of all rows above, or of those since
        the last such sum.
        """
        nowhere = "", ""
        site = self._cell(values, "site") if self._site is None else self._site
        bin_, quantity = self._cell(values, "bin"), self._cell(values, "expected_quantity")
        of = site or self._above[0], bin_ or self._above[1]
        if site is None or bin_ is None or not all(of) or any("/" in each for each in of):
            return nowhere, nowhere
        if len(values) == 1 and not bin_:
            return of, nowhere  # a title, or a footer such as (25 rows)
        if bin_ or any(values[at] for at in self.columns.product if at < len(values)):
            return of, of
        sums = number(quantity or "", Marks())
        is_total = (
            self._rows > 1 and sums is not None and not {sums.first, sums.second}.isdisjoint((self._total, self._part))
        )
        if is_total:
            self._part = 0
        return of, nowhere if quantity == "" or is_total else of

    def _skip(self, line: int, reason: str) -> bool:
        if len(self.skipped) < MOST_SKIPPED:
            self.skipped.append(Skipped(line, reason))
        return True

    def _cell(self, values: Sequence[str | None], target: columns.Target) -> str | None:
        """ "" when the table has no such column, or the row no such cell; None when it cannot be decoded."""
        place = self.columns.places.get(target)
        return values[place] if place is not None and place < len(values) else ""

    def _row(
        self, line: int, values: Sequence[str | None], *, cut: bool, conventions: Conventions | None = None
    ) -> Row:
        """Raises ValueError, which says what is wrong."""
        conventions = conventions or self.conventions
        width = len(self._names)
        # A comma in a cell moves those after it. Behind an empty last cell that does not show in what is beyond the
        # names. Where nothing is behind the needed cells, nothing has moved: one of them would be empty.
        places = self.columns.places
        needed = 1 + max(places["bin"], places["expected_quantity"])
        first_extra = needed if len(values) > self._widest else width
        if any(value or value is None for value in values[first_extra:]):
            raise ValueError(
                f"{len(values)} fields; the columns have {width} names. Put quotation marks around a text, or a"
                f" number, that contains {self.delimiter!r}"
            )
        if cut and len(values) < min(self._shortest, width):
            raise ValueError(
                f"the file ends within this row: {len(values)} fields; the rows above have {self._shortest}"
            )
        found: dict[str, str] = {}
        targets: tuple[columns.Target, ...] = ("site", "bin", "expected_quantity", "as_of")
        for target in targets:
            if (cell := self._cell(values, target)) is None:
                raise ValueError(f"{target} cannot be decoded as {self.encoding}; save the file as CSV UTF-8")
            found[target] = cell
        if self._site is not None:
            found["site"] = self._site
        goods = [values[at] if at < len(values) else "" for at in self.columns.product]
        lost = [_no_id("product", each) for each in goods if each]
        reasons = _no_id("site", found["site"]), _no_id("bin", found["bin"]), *(lost[:1] if all(lost) else ())
        if reason := next(filter(None, reasons), None):
            raise ValueError(reason)
        for name in ("site", "bin"):
            if not found[name] or "/" in found[name]:
                raise ValueError(f"{name} is {_shown(found[name])}; no photograph's key can contain that")
        quantity = quantity_of(found["expected_quantity"], conventions.numbers)
        conventions.plain |= self.delimiter != ";" and found["expected_quantity"].isdigit()
        as_of = as_of_of(found["as_of"], self._setting, conventions.dates, self.columns.zone or self._setting.zone)
        product = "\x1f".join(value or "" for value in goods).casefold() if any(goods) else ""
        texts = found["expected_quantity"], found["as_of"], self._cell(values, "value") or ""
        rest = self._digest_of_rest(values) if self._rest else b""
        if any(lost):  # what tells two lots apart may be lost with one of several ids: no row is equal to another
            rest += str(line).encode()
        return Row(line, found["site"], found["bin"], quantity, as_of, product, *texts, rest)

    def _digest_of_rest(self, values: Sequence[str | None]) -> bytes:
        """Eight bytes: of a bin's few rows of one product and quantity, no two have the same by chance."""
        rest = "\x1f".join([(values[at] or "") if at < len(values) else "" for at in self._rest])
        return hashlib.blake2b(rest.casefold().encode(), digest_size=8).digest()


def read_json(data: bytes, site: str, bin_: str, setting: Setting) -> Row:
    """`{"expected_quantity": 3, "as_of": "…"}`, or a file in the public data set's form, whose quantity is
    EXPECTED_QUANTITY. Raises Rejected."""
    conventions = Conventions()
    try:
        document = json.loads(_text(data))
        if not isinstance(document, dict):
            raise ValueError("it contains no object")
        names = list(document)
        places = columns.of_object(names, setting.wanted)
        expected: Any = document[names[places["expected_quantity"]]] if "expected_quantity" in places else None
        as_of: Any = document[names[places["as_of"]]] if "as_of" in places else None
        if isinstance(expected, float) and expected.is_integer():
            expected = int(expected)
        if isinstance(expected, bool) or not isinstance(expected, int | str):
            raise ValueError(no_quantity(expected))
        text = legible(str(expected)) or ""
        quantity = quantity_of(text, conventions.numbers)
        if not isinstance(as_of, str | None):
            raise ValueError(f"as_of is {_shown(as_of)}; a date and time are expected, such as {EXAMPLE}")
        when = as_of_of((as_of or "").strip(), setting, conventions.dates, setting.zone)
        value = str(document[names[places["value"]]]) if "value" in places else ""
        return Row(1, site, bin_, quantity, when, "", text, as_of or "", value)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"not a record in JSON: {error}") from error


def _text(data: bytes) -> str | bytes:
    """json.loads finds out UTF-8, UTF-16 and UTF-32 by itself."""
    try:
        data.decode(json.detect_encoding(data))
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")
    return data


def _without_end(values: Sequence[str | None]) -> list[str | None]:
    """Without the empty cells that spreadsheets leave at the end."""
    found = list(values)
    while found and not found[-1]:
        del found[-1]
    return found


def _no_id(name: str, text: str) -> str | None:
    """The reason against an id that a spreadsheet lost: of several that are rounded to one, the rows would be summed or
    taken as one."""
    if "+" in text and _ROUNDED.fullmatch(text):
        return (
            f"{name} is {_shown(text)}, a number that a spreadsheet rounded: format the column as text and export again"
        )
    if text.startswith("#") and _BROKEN.fullmatch(text):
        return (
            f"{name} is {_shown(text)}, which a spreadsheet writes for a text that it lost: correct it and export again"
        )
    return None


def quantity_of(text: str, marks: Marks) -> Reading[int]:
    """Raises ValueError."""
    found = number(text, marks)
    if found is None:
        raise ValueError(no_quantity(text))
    quantity = Reading(whole(found.first), whole(found.second))
    if quantity.first is None and quantity.second is None:
        raise ValueError(no_quantity(text))
    return quantity


def as_of_of(text: str, setting: Setting, marks: Marks, zone: tzinfo) -> Reading[datetime]:
    """Raises ValueError. Whether the date is after the upload is checked when it has one meaning (`not_later`)."""
    if not text:
        return Reading(setting.uploaded, setting.uploaded)
    if (found := date(text, marks, zone)) is None:
        raise ValueError(f"as_of is {_shown(text)}; a date and time are expected, such as {EXAMPLE}")
    return found


def no_quantity(value: object) -> str:
    return f"expected_quantity is {_shown(value)}; a whole number from 0 to 999,999,999 is expected, such as 4"


def two_quantities(text: str, reading: Reading[int]) -> str:
    meanings = " or ".join(
        str(each) if each is not None else "no whole number" for each in (reading.first, reading.second)
    )
    return f"expected_quantity is {_shown(text)}, which may be {meanings}; write it without a separator, such as 1000"


def two_dates(text: str, reading: Reading[datetime]) -> str:
    meanings = " or ".join(f"{each:%-d %B %Y}" for each in (reading.first, reading.second) if each)
    return f"as_of is {_shown(text)}, which may be {meanings}; write the year first, such as {EXAMPLE}"


def not_later(when: datetime, text: str, setting: Setting) -> str | None:
    """The reason against a date after the upload: a record dated 2099 would otherwise stay for ever."""
    if when <= setting.uploaded + CLOCK_TOLERANCE:
        return None
    return (
        f"as_of is {_shown(text)}, read as {utc(when)}, later than the file's upload at {utc(setting.uploaded)}."
        f" A time without a zone is in {setting.zone} (SiteTimezone); with one it looks like {EXAMPLE}"
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
