"""Reads `labels.csv`, the recorded quantities of photographs, as spreadsheets and people save it.

The columns `id` and `quantity` are needed; others are not read. An id is the photograph's path from the file's folder,
or only its name, each with or without its extension. Excel saves UTF-8 with a mark, UTF-16 or Windows-1252, commas or
semicolons or tabs, whole numbers as `4.0`; people write `File` and `Qty`.
"""

import csv
import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path, PurePosixPath

IDS = ("id", "photograph", "photo", "file", "filename", "file name", "image", "name", "path")
QUANTITIES = ("quantity", "qty", "expected quantity", "expected", "recorded", "recorded quantity", "on hand")
"""Headers of each column, the most certain first."""
SPREADSHEETS = {".xlsx", ".xls", ".ods", ".numbers"}
LEVELS = 3
"""Folders in which a photograph's labels are looked for: its own, and up to two above it."""


def is_labels(file: Path) -> bool:
    return file.stem.lower() == "labels" and file.suffix.lower() in {".csv", *SPREADSHEETS}


def recorded(file: Path) -> int | None:
    """A photograph's quantity in the nearest labels file; None when there is none, or when it does not name it.

    Raises ValueError for a labels file that cannot be read.
    """
    for folder in file.absolute().parents[:LEVELS]:
        if quantities := labels(folder):
            return next((quantities[key] for key in spellings(file, folder) if key in quantities), None)
    return None


def unknown(paths: Iterable[Path], photographs: Iterable[Path]) -> list[str]:
    """Ids, `spelled`, that name none of these photographs, in the labels files of the folders among `paths` and below.

    Labels above the paths may be those of other photographs.
    """
    uploaded = [path.absolute() for path in paths if path.is_dir()]
    named: dict[Path, set[str]] = {}
    for file in photographs:
        folder = next((folder for folder in file.absolute().parents[:LEVELS] if labels(folder)), None)
        if folder and any(folder.is_relative_to(path) for path in uploaded):
            named.setdefault(folder, set()).update(spellings(file, folder))
    return [key for folder, names in named.items() for key in labels(folder) if key not in names]


def spellings(file: Path, folder: Path) -> list[str]:
    """The ids that name a photograph in a folder's labels file, the most certain first."""
    path = PurePosixPath(file.absolute().relative_to(folder).as_posix())
    return [spelled(text) for text in (str(path), str(path.with_suffix("")), path.name, path.stem)]


def spelled(text: str) -> str:
    """An id as it is compared: file systems differ in capitals, accents and slashes."""
    return unicodedata.normalize("NFC", text.strip()).replace("\\", "/").removeprefix("./").casefold()


@cache
def labels(folder: Path) -> dict[str, int]:
    """The quantities by `spelled` id in a folder's labels file; empty when there is none. Raises ValueError."""
    try:
        found = sorted(file for file in folder.iterdir() if is_labels(file) and file.is_file())
    except OSError:
        return {}
    for path in found:
        if path.suffix.lower() == ".csv":
            return read(path)
    if found:
        raise ValueError(f"{found[0]} is a spreadsheet. Save it as CSV, named labels.csv")
    return {}


def read(path: Path) -> dict[str, int]:
    lines = re.split(r"\r\n|\r|\n", decoded(path.read_bytes()))
    first = 1
    while lines and (not lines[0].strip(" ,;\t") or lines[0].lower().startswith("sep=")):
        lines, first = lines[1:], first + 1
    header = lines[0] if lines else ""
    delimiter = max(",;\t", key=header.count)
    names = [
        " ".join(name.lower().replace("_", " ").split()) for name in next(csv.reader([header], delimiter=delimiter), [])
    ]
    id_at, quantity_at = column(names, IDS), column(names, QUANTITIES)
    if id_at is None or quantity_at is None:
        shown = ", ".join(filter(None, names)) or "nothing"
        raise ValueError(f"{path} needs the columns id and quantity in its first line, which names {shown}")
    quantities = {}
    for number, row in enumerate(csv.reader(lines[1:], delimiter=delimiter), start=first + 1):
        cells = [row[at].strip() if at < len(row) else "" for at in (id_at, quantity_at)]
        if not cells[0] or not cells[1]:
            continue  # a row of a photograph that nobody recorded
        if (quantity := whole(cells[1], delimiter)) is None:
            raise ValueError(
                f"{path}, line {number}: quantity is {cells[1]!r}; a whole number from 0 is expected, such as 4000"
            )
        quantities[spelled(cells[0])] = quantity
    return quantities


def decoded(content: bytes) -> str:
    """Text in the encodings in which spreadsheets save CSV."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def column(names: list[str], known: tuple[str, ...]) -> int | None:
    return next((names.index(name) for name in known if name in names), None)


def whole(text: str, delimiter: str = ",") -> int | None:
    """4, 4.0 and 4,00 are whole numbers. None for another text, also for 4.000: 4 or 4000, by the country. So is 4,000,
    unless commas separate the cells: who writes decimal commas separates cells otherwise."""
    text = unicodedata.normalize("NFKC", text).strip()
    if delimiter != "," and re.fullmatch(r"\d{1,3},\d{3}", text, re.ASCII):
        return None
    if re.fullmatch(r"\d{1,3}([, '’]\d{3})+", text, re.ASCII):
        text = re.sub(r"\D", "", text)
    found = re.fullmatch(r"(\d{1,9})(?:[.,]0{0,2})?", text, re.ASCII)
    return int(found[1]) if found else None
