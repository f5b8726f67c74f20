"""Whole numbers and dates as spreadsheets and warehouse systems spell them.

Some spellings have two meanings: 1.000 is one or a thousand, 05/12/2026 is in May or in December. Both are kept until
the rest of the file decides (`Marks`).
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal
from functools import lru_cache
from typing import Generic, TypeVar

from bintally.common.keys import moment

MOST = 999_999_999
LONGEST = 60
"""Characters of a number or a date."""

T = TypeVar("T")


@dataclass(frozen=True)
class Reading(Generic[T]):
    """What a text means under one of two conventions and under the other; None where it means nothing."""

    first: T | None
    second: T | None

    @property
    def certain(self) -> bool:
        return self.first == self.second


@dataclass
class Marks:
    """Which convention a column shows: whether it has a text that only the first, or only the second can read."""

    first: bool = False
    second: bool = False

    @property
    def decided(self) -> int | None:
        """0 for the first, 1 for the second; None when the column shows neither, or both."""
        return None if self.first == self.second else int(self.second)


@dataclass
class Conventions:
    """Of a file: numbers by decimal point (first) or comma, dates by month (first) or day."""

    numbers: Marks = field(default_factory=Marks)
    dates: Marks = field(default_factory=Marks)
    plain: bool = False
    """Whether a quantity is written by digits alone: then none has decimals for show, and 1,000 is a thousand."""


# Numbers

_GROUPS = r"\d{{1,3}}(?:{0}\d{{2,3}})*{0}\d{{3}}"
_NUMBER = {
    mark: re.compile(rf"\+?({'|'.join(_GROUPS.format(each) for each in (group, ' ', chr(39)))}|\d+)(?:{mark}(\d*))?")
    for mark, group in ((r"\.", ","), (",", r"\."))
}


def number(text: str, marks: Marks) -> Reading[Decimal] | None:
    """The number by decimal point, and by decimal comma; None when it is neither. Notes in `marks` which it shows."""
    found, shown = _number_and_marks(text)
    marks.first |= shown.first
    marks.second |= shown.second
    return found


@lru_cache(4096)  # few texts in many rows
def _number_and_marks(text: str) -> tuple[Reading[Decimal] | None, Marks]:
    if len(text) > LONGEST:
        return None, Marks()
    text = re.sub(r"\s", " ", unicodedata.normalize("NFKC", text)).replace("\u2019", "'")
    point, comma = (_number(text, mark) for mark in (r"\.", ","))
    shown = Marks(point is not None and comma is None, comma is not None and point is None)
    if point is None or comma is None:
        only = comma if point is None else point
        return (None if only is None else Reading(only, only)), shown
    return Reading(point, comma), shown


def _number(text: str, mark: str) -> Decimal | None:
    if (found := _NUMBER[mark].fullmatch(text)) is None:
        return None
    whole, fraction = re.sub(r"\D", "", found[1]), found[2] or ""
    if len(found[1]) != len(whole) and whole.startswith("0"):
        return None  # no group starts with a zero
    return Decimal(f"{whole}.{fraction}0")


_CURRENCY = re.compile(r"[^\d.,' +-]+")
MOST_VALUE = Decimal(10) ** 12


def worth(text: str, decided: int | None) -> Decimal | None:
    """The value of one item, with or without a currency, to a millionth; None where it says none. `decided` is the
    file's convention of numbers; without one, a text with two meanings has none."""
    found = number(_CURRENCY.sub("", text[:LONGEST]).strip(), Marks())
    if found is None:
        return None
    value = found.first if found.certain else None if decided is None else (found.first, found.second)[decided]
    return value.quantize(Decimal("1e-6")).normalize() if value is not None and 0 < value <= MOST_VALUE else None


def whole(value: Decimal | None) -> int | None:
    """The quantity, None when it is not a whole number from 0 to MOST."""
    return int(value) if value is not None and value == value.to_integral_value() and value <= MOST else None


# Dates

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_TIME = (
    r"(?:[T ,]+(\d{1,2}):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(?: ?([AaPp])\.?[Mm]\.?)?)?"
    r"(?: ?(Z|UTC|GMT|[+-]\d\d:?\d\d))?"
)
_FORMS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(form + _TIME), order)
    for form, order in (
        (r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})", "ymd"),
        (r"(\d{1,2})\.(\d{1,2})\.(\d{4})", "dmy"),
        (r"(\d{1,2})[-/](\d{1,2})[-/](\d{4})", "either"),
        (r"(\d{1,2})[- .]+([A-Za-z]{3,9})[-, .]+(\d{4})", "dmy"),
        (r"([A-Za-z]{3,9})[ .]+(\d{1,2}),? +(\d{4})", "mdy"),
    )
)


def date(text: str, marks: Marks, zone: tzinfo) -> Reading[datetime] | None:
    """The date and time in UTC with the month first, and with the day first; None when it is none.

    Without a zone it is in `zone`. Two-digit years, serial numbers and names of zones are not read.
    """
    found, shown = _date_and_marks(text, zone)
    marks.first |= shown.first
    marks.second |= shown.second
    return found


@lru_cache(4096)
def _date_and_marks(text: str, zone: tzinfo) -> tuple[Reading[datetime] | None, Marks]:
    if len(text) > LONGEST:
        return None, Marks()
    text = re.sub(r"^[A-Za-z]{3,9}, ", "", " ".join(text.split()))  # Sat, 28 Nov 2026
    for form, order in _FORMS:
        if found := form.fullmatch(text):
            one, two, three, *time = found.groups()
            match order:
                case "ymd":
                    by_month = by_day = _moment(one, two, three, time, zone)
                case "mdy":
                    by_month = by_day = _moment(three, one, two, time, zone)
                case "dmy":
                    by_month = by_day = _moment(three, two, one, time, zone)
                case _:
                    by_month, by_day = _moment(three, one, two, time, zone), _moment(three, two, one, time, zone)
            if by_month is None and by_day is None:
                return None, Marks()
            return Reading(by_month or by_day, by_day or by_month), Marks(by_day is None, by_month is None)
    iso = _quiet(lambda: moment(text, zone))
    return (None if iso is None else Reading(iso, iso)), Marks()


def _moment(year: str, month: str, day: str, time: list[str | None], zone: tzinfo) -> datetime | None:
    hour, minute, second, fraction, half, offset = time
    short = month[:3].lower()
    if not day.isdigit() or (month.isalpha() and short not in _MONTHS):
        return None
    in_year = _MONTHS.index(short) + 1 if month.isalpha() else int(month)
    hours = int(hour or 0)
    if half:
        if not 1 <= hours <= 12:
            return None
        hours = hours % 12 + (12 if half in "Pp" else 0)
    clock = f"{hours:02}:{minute or '00'}:{second or '00'}.{(fraction or '0')[:6].ljust(6, '0')}"
    ending = "" if not offset else offset if offset[0] in "+-" else "+00:00"
    return _quiet(lambda: moment(f"{year}-{in_year:02}-{int(day):02}T{clock}{ending}", zone))


def _quiet(read: Callable[[], datetime]) -> datetime | None:
    try:
        return read()
    except (ValueError, OverflowError):
        return None


EPOCH = moment("1970-01-01")


def microseconds(when: datetime) -> int:
    """Since 1970, exactly."""
    return (when - EPOCH) // timedelta(microseconds=1)
