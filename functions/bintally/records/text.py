"""A table's text: finds out its encoding, and splits it into rows of cells, however a spreadsheet wrote it.

Memory holds one row, and the lines that a quotation mark may still close.
"""

import codecs
import csv
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO

LONGEST_LINE = 8192
"""Characters of a line, so that none exhausts memory."""
MOST_LINES = 50
"""Lines of a row whose cells contain line breaks."""
SAMPLE = 4096  # bytes that tell UTF-16 without a mark

_MARKS = {
    codecs.BOM_UTF8: "UTF-8",
    codecs.BOM_UTF32_LE: "UTF-32LE",  # before UTF-16's, with which it begins
    codecs.BOM_UTF32_BE: "UTF-32BE",
    codecs.BOM_UTF16_LE: "UTF-16LE",
    codecs.BOM_UTF16_BE: "UTF-16BE",
}
_SPACES = " \t\r\n\v\f\xa0\u2007\u202f\u200b\ufeff"


@dataclass(frozen=True)
class Line:
    """A line with its end. `text` is None for a line of more than LONGEST_LINE characters. Numbers start at 1."""

    number: int
    text: str | None

    @property
    def cut(self) -> bool:
        """Whether the file ends within this line."""
        return self.text is not None and not self.text.endswith("\n")


def opened(file: IO[bytes]) -> tuple[io.TextIOWrapper, str]:
    """The file as text, and the name of its encoding.

    What is not UTF-8 in a file without a mark becomes lone surrogates, which `legible` reads as Windows-1252.
    """
    sample = file.read(SAMPLE)
    mark = next((mark for mark in _MARKS if sample.startswith(mark)), b"")
    encoding = _MARKS.get(mark) or _by_zeros(sample)
    file.seek(len(mark))
    errors = "surrogateescape" if encoding == "UTF-8" else "replace"
    return io.TextIOWrapper(file, encoding=encoding, errors=errors, newline=None), encoding


def _by_zeros(sample: bytes) -> str:
    """UTF-16 without a mark: of its first two letters, and of most others, every other byte is zero."""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if max(even, odd) * 3 >= len(sample) // 2 and min(even, odd) * 10 <= max(even, odd):
        if not any(sample[1:4:2]) and all(sample[0:4:2]):
            return "UTF-16LE"
        if not any(sample[0:4:2]) and all(sample[1:4:2]):
            return "UTF-16BE"
    return "UTF-8"


def legible(cell: str) -> str | None:
    """The cell without spaces around it, nor the ="…" and '… by which spreadsheets keep text; None if no encoding fits.

    A cell that is not UTF-8 is Windows-1252, as Excel saves CSV files in the western world. Each cell decides alone:
    one damaged description changes no other cell.
    """
    if not cell.isascii() and not is_utf8(cell):
        try:
            cell = cell.encode(errors="surrogateescape").decode("cp1252")
        except UnicodeError:
            return None
    if "\ufffd" in cell:
        return None
    cell = cell.strip(_SPACES)
    if cell.startswith('="') and cell.endswith('"') and len(cell) > 2:
        cell = cell[2:-1].strip(_SPACES)
    return cell.removeprefix("'")


def is_utf8(text: str) -> bool:
    """Whether it has no lone surrogates, which are bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Lines:
    """The lines of a text, one after the other; lines may be put back."""

    def __init__(self, text: io.TextIOBase) -> None:
        self._text, self._back, self._number = text, deque[Line](), 0

    def next(self) -> Line | None:
        """None at the end."""
        if self._back:
            return self._back.popleft()
        text = self._text.readline(LONGEST_LINE + 1)
        if not text:
            return None
        self._number += 1
        if len(text) <= LONGEST_LINE or text.endswith("\n"):
            return Line(self._number, text)
        while text and not text.endswith("\n"):
            text = self._text.readline(LONGEST_LINE)
        return Line(self._number, None)

    def put_back(self, lines: Iterable[Line]) -> None:
        self._back.extendleft(reversed(list(lines)))

    def row(self, delimiter: str, is_row: Callable[[list[str]], bool]) -> tuple[list[Line], list[str]] | None:
        """The next row: its lines and its cells; no cells for a line that is too long. None at the end.

        A quotation mark that opens a cell is closed on one of the next lines if that gives a well-formed row of which
        no line is a row by itself, as `is_row` judges. Otherwise the mark is part of its own line, and the others
        are rows of their own: one inch sign loses no other row.
        """
        if (line := self.next()) is None:
            return None
        if line.text is None:
            return [line], []
        if '"' in line.text and _is_open([line.text], delimiter):
            more = list(self._until_closed(line.text, delimiter))
            whole = _strict([line.text, *(one.text or "" for one in more)], delimiter)
            if more and whole and not any(is_row(cells(one.text or "", delimiter)) for one in more):
                return [line, *more], whole
            self.put_back(more)
        return [line], cells(line.text, delimiter)

    def _until_closed(self, text: str, delimiter: str) -> Iterator[Line]:
        texts = [text]
        while len(texts) < MOST_LINES and (line := self.next()) is not None:
            yield line
            if line.text is None:
                return
            texts.append(line.text)
            if '"' in line.text and not _is_open(texts, delimiter):
                return


def cells(line: str, delimiter: str) -> list[str]:
    """The cells of one line. A quotation mark that does not enclose a cell is part of it."""
    if '"' not in line:
        return line.rstrip("\n").split(delimiter)
    return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])


def _is_open(texts: list[str], delimiter: str) -> bool:
    """Whether a cell goes on in the next line: then a line more is no row more."""
    try:
        return len(list(csv.reader([*texts, "x\n"], delimiter=delimiter, skipinitialspace=True))) == 1
    except csv.Error:  # a cell of more than 128 KB
        return True


def _strict(texts: list[str], delimiter: str) -> list[str] | None:
    """The cells if the lines are exactly one well-formed row."""
    try:
        rows = list(csv.reader(texts, delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 else None
