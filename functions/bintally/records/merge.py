"""One record of each bin from the rows of a file, wherever they are in it: an export has a row per bin and product.

The rows wait in a temporary SQLite database on disk, sorted by bin and time, so that memory holds one bin. They wait
there, too, until the whole file has shown how it writes numbers and dates. Spellings that the table takes for the same
bin are one here as well: otherwise the record of one would replace that of the other.
"""

import contextlib
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

from bintally.aws.items import bin_key
from bintally.common.keys import Place, utc
from bintally.records.files import Fault, Row, Setting, not_later, two_dates, two_quantities
from bintally.records.values import EPOCH, MOST, Conventions, Reading, microseconds, worth

# The cache is bounded, and what it cannot hold is on disk: "" names a temporary database.
_OPEN = "PRAGMA cache_size=-65536; PRAGMA temp_store=FILE; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
_TABLE = """CREATE TABLE rows (bin_key TEXT, line INTEGER, site TEXT, bin TEXT, product TEXT, quantity INTEGER,
    other_quantity INTEGER, quantity_text TEXT, as_of INTEGER, other_as_of INTEGER, as_of_text TEXT, value TEXT,
    rest BLOB)"""
_COLUMNS, _LINE, _PRODUCT = 13, 1, 4
"""How many columns the table has, and the places of two; the product is NULL for a row that cannot be read."""
_INSERT = f"INSERT INTO rows VALUES ({', '.join('?' * _COLUMNS)})"

T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """What a file says of a bin. `line` is the last of the rows that say it; the first row spells the ids."""

    line: int
    site: str
    bin: str
    quantity: int
    as_of: datetime
    rows: int = 1
    """The rows of the bin that were read, with those of earlier times and those that repeat others."""
    value: Decimal | None = None
    """Of one item; the mean where products have different ones, None where one has none."""


@dataclass(frozen=True)
class _One:
    """A row whose quantity and time have one meaning."""

    line: int
    site: str
    bin: str
    product: str
    quantity: int
    as_of: datetime
    value: Decimal | None
    rest: bytes

    @property
    def says(self) -> tuple[int, bytes]:
        """What rows of one product and time have in common if they are equal."""
        return self.quantity, self.rest


def merge(
    rows: Iterable[Row | Fault], setting: Setting, conventions: Conventions, *, comma_groups: bool
) -> Iterator[Record | Fault]:
    """The records in the order of their keys, and the faults. `conventions` are complete once `rows` are read."""
    with contextlib.closing(sqlite3.connect("")) as db:
        db.executescript(_OPEN)
        db.execute(_TABLE)
        for row in rows:
            if isinstance(row, Fault):
                yield row
                if row.bin:
                    db.execute(_INSERT, _lost(row))
            elif row.as_of.certain and (reason := not_later(_certain(row.as_of), row.as_of_text, setting)):
                fault = Fault(row.line, reason, row.site, row.bin)
                yield fault
                db.execute(_INSERT, _lost(fault))
            else:
                db.execute(_INSERT, _packed(row))
        when = "other_as_of" if conventions.dates.decided == 1 else "as_of"
        found = db.execute(f"SELECT * FROM rows ORDER BY bin_key, {when}, line")
        for _, of_bin in groupby(found, key=itemgetter(0)):
            lost: list[int] = []
            rows_of_bin: list[_One] = []
            for packed in of_bin:
                if packed[_PRODUCT] is None:
                    lost.append(packed[_LINE])
                    continue
                one = _decide(_unpacked(packed), setting, conventions, comma_groups=comma_groups)
                if isinstance(one, _One):
                    rows_of_bin.append(one)
                else:
                    lost.append(one.line)
                    yield one
            if lost:
                yield from (Fault(row.line, _incomplete(row, min(lost))) for row in rows_of_bin)
            else:
                yield from _of_bin(rows_of_bin)


def only(row: Row, setting: Setting) -> Record | Fault:
    """The record of a file that has no other row."""
    one = _decide(row, setting, Conventions(), comma_groups=True)
    if isinstance(one, Fault):
        return one
    return Record(one.line, one.site, one.bin, one.quantity, one.as_of, value=one.value)


def _decide(row: Row, setting: Setting, conventions: Conventions, *, comma_groups: bool) -> _One | Fault:
    """The row in the meaning that its file shows."""
    numbers = conventions.numbers.decided
    if numbers is None and (comma_groups or conventions.plain) and "," in row.quantity_text:
        numbers = 0
    quantity, as_of = _meant(row.quantity, numbers), _meant(row.as_of, conventions.dates.decided)
    if quantity is None:
        return Fault(row.line, two_quantities(row.quantity_text, row.quantity))
    if as_of is None:
        return Fault(row.line, two_dates(row.as_of_text, row.as_of))
    if reason := not_later(as_of, row.as_of_text, setting):
        return Fault(row.line, reason)
    return _One(row.line, row.site, row.bin, row.product, quantity, as_of, worth(row.value, numbers), row.rest)


def _of_bin(rows: Iterable[_One]) -> Iterator[Record | Fault]:
    """The record of one bin, from its rows by time. Rows of one time are summed when they name different products.

    Rows that are equal in all columns are one. Of one product, or of no product, rows with different quantities
    contradict each other, and rows that differ in a column that is not read may be two lots or one line twice. When the
    newest rows lack a product of older ones, nobody can tell whether it is gone or has only not changed.
    """
    newest: dict[str, _One] = {}
    before: dict[str, _One] = {}
    kept: list[_One] = []
    for _, at_once in groupby(rows, key=lambda row: row.as_of):
        group = list(at_once)
        goods: dict[str, _One] = {}
        clash = next((f for row in group if (f := goods.setdefault(row.product, row)).says != row.says), None)
        if clash or ("" in goods and len(goods) > 1):
            yield from (Fault(row.line, _contradiction(group)) for row in group)
            continue
        before |= newest
        newest = goods
        kept += group
    if not newest:
        return
    last = max(newest.values(), key=lambda row: row.line)
    gone = next((row for product, row in before.items() if product not in newest), None)
    if gone and "" not in newest and gone.product:
        yield from (Fault(row.line, _unclear(gone, last)) for row in kept)
        return
    first = min(kept, key=lambda row: row.line)
    total = sum(row.quantity for row in newest.values())
    if total > MOST:
        yield from (Fault(row.line, f"the rows of bin {first.bin!r} sum to more than {MOST:,}") for row in kept)
        return
    line = max(row.line for row in kept if row.as_of == last.as_of)
    yield Record(line, first.site, first.bin, total, last.as_of, len(kept), _mean_value(newest.values()))


def _mean_value(rows: Collection[_One]) -> Decimal | None:
    """Of the items of a bin; of its products, where there are no items."""
    if any(row.value is None for row in rows):
        return None
    of = sum(row.quantity for row in rows)
    together = sum((row.value or 0) * (row.quantity if of else 1) for row in rows)
    return (Decimal(together) / (of or len(rows))).quantize(Decimal("1e-6")).normalize()


def _incomplete(row: _One, lost: int) -> str:
    return f"bin {row.bin!r} was not stored: line {lost} of it cannot be read"


def _contradiction(group: list[_One]) -> str:
    shown = " and ".join(f"{row.quantity} (line {row.line})" for row in group[:3])
    more = ", …" if len(group) > 3 else ""
    goods = {row.product for row in group}
    if len({(row.product, row.quantity) for row in group}) == len(goods) and not ("" in goods and len(goods) > 1):
        return (
            f"bin {group[0].bin!r} has {shown}{more} at one time, {utc(group[0].as_of)}: lines of the same product that"
            " differ in columns that are not read. For different goods, choose the column that names them, such as"
            " product=Description; otherwise keep one of the lines"
        )
    which = "a column such as sku must name the products" if not any(row.product for row in group) else "one row each"
    return (
        f"bin {group[0].bin!r} has {shown}{more} at one time, {utc(group[0].as_of)}: these contradict each other."
        f" Rows of different products are summed; {which}"
    )


def _unclear(gone: _One, last: _One) -> str:
    return (
        f"bin {gone.bin!r} has product {gone.product.replace(chr(31), ' ')!r} at {utc(gone.as_of)} (line {gone.line}),"
        f" but not among its newest rows of {utc(last.as_of)}: it may be gone or unchanged. Give all rows of a bin one"
        " time, or use no times at all (as_of=)"
    )


def _meant(reading: Reading[T], decided: int | None) -> T | None:
    if reading.certain:
        return reading.first
    return None if decided is None else (reading.first, reading.second)[decided]


def _certain(reading: Reading[T]) -> T:
    assert reading.first is not None
    return reading.first


def _packed(row: Row) -> tuple[Any, ...]:
    """Texts are kept only for those who ask which meaning they have."""
    as_of = (None if each is None else microseconds(each) for each in (row.as_of.first, row.as_of.second))
    return (
        bin_key(Place(row.site, row.bin, "")),
        *(row.line, row.site, row.bin, row.product, row.quantity.first, row.quantity.second),
        *("" if row.quantity.certain else row.quantity_text, *as_of, "" if row.as_of.certain else row.as_of_text),
        *(row.value, row.rest),
    )


def _lost(row: Fault) -> tuple[Any, ...]:
    """Of a row that cannot be read, its place among its bin's rows."""
    return bin_key(Place(row.site, row.bin, "")), row.line, *([None] * (_COLUMNS - 2))


def _unpacked(found: tuple[Any, ...]) -> Row:
    _, line, site, bin_, product, quantity, other, quantity_text, as_of, other_as_of, as_of_text, *more = found
    times = (None if each is None else EPOCH + timedelta(microseconds=each) for each in (as_of, other_as_of))
    return Row(line, site, bin_, Reading(quantity, other), Reading(*times), product, quantity_text, as_of_text, *more)
