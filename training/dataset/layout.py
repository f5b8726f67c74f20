"""The files of retraining datasets: their format, writing and reading.

    index.jsonl            one line per photograph, sorted by id: `Line`. Labels are stored only here
    dataset.json           digests, numbers of photographs and classes, the profile that drift compares
    <split>.manifest       the objects of datasets/ in a split, in the form of SageMaker's ManifestFile
    train/<digest>.tar     shards of train and validation: `<id>.<jpg|png|webp>`, the photographs' own bytes
    test/<id>.<jpg|png|…>  test photographs, single objects, since batch transform sends them one by one

A shard is named by its bytes and written once; a new label of a photograph in it changes only the index.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from model.answer import AT_LEAST

SPLITS = ("train", "validation", "test")
SHARES = {"test": 0.12, "validation": 0.20}
"""Shares of all bins: below the first are test bins, below the second validation bins."""


class BadDataset(ValueError):
    """A dataset's files are missing or contradict each other; the message names them."""


@dataclass(frozen=True, slots=True)
class Line:
    """One photograph of a dataset: a line of index.jsonl."""

    id: str
    site: str
    bin: str
    quantity: int
    """The labelled quantity, any number."""
    source: str
    """The label's source: `record` or `person`."""
    as_of: str
    captured_at: str
    split: str
    object: str
    """The shard, or the photograph itself, below the folder that contains `datasets/`."""
    member: str
    """The photograph's name in the shard."""
    pixels: str
    """32 hex digits of the decoded upright picture and its size."""
    brightness: float
    """Mean, 0 to 1."""
    blur: float
    """Variance of the Laplacian; the less, the more blurred."""
    width: int
    height: int
    count: int | None
    """The model's answer when the photograph arrived, like the next three fields; None if it was not asked."""
    confidence: float | None
    p_record: float | None
    model_version: str | None
    told: str = ""
    """Of records with the same effective time, the one reported later has the greater value."""
    audit: bool = False
    """A person counted it, since the bin was drawn at random for the audit."""

    @property
    def label(self) -> int:
        """The class that the network should answer, 0 to 6."""
        return min(self.quantity, AT_LEAST)

    @property
    def group(self) -> str:
        """The bin. Photographs of one bin are not independent: they are never split, and always resampled together."""
        return f"{self.site}/{self.bin}"

    @classmethod
    def of(cls, text: str | bytes) -> Line:
        """Raises `BadDataset`."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise BadDataset(f"not a line of an index: {error}") from error

    def json(self) -> str:
        return json.dumps({name: getattr(self, name) for name in self.__slots__}, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Example:
    """A photograph of a dataset and the place of its bytes: `size` bytes from `offset` on in `file`."""

    line: Line
    file: Path
    offset: int
    size: int

    def read(self) -> bytes:
        with self.file.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def split_of(site: str, bin: str) -> str:
    """Train, validation or test (80, 8 and 12 in a hundred), fixed for ever by the bin alone."""
    share = int(hashlib.sha256(f"{site}/{bin}".encode()).hexdigest()[:8], 16) / 2**32
    return next((split for split, below in SHARES.items() if share < below), "train")


def read(dataset: Path, folders: Mapping[str, Path]) -> dict[str, list[Example]]:
    """The photographs of the splits that `folders` names, each in the order of their ids.

    `folders` gives the folder of a split's objects: a job's channel, or `datasets/<split>`. This reads only the
    headers of the shards; `Example.read` reads a photograph's bytes. Raises `BadDataset`.
    """
    found: dict[str, list[Example]] = {split: [] for split in folders}
    places = {split: dict(_places(folder)) for split, folder in folders.items()}
    for line in read_index(dataset / "index.jsonl"):
        if line.split not in found:
            continue
        place = places[line.split].get((Path(line.object).name, line.member))
        if place is None:
            raise BadDataset(f"{line.member} of {line.object} is not in {folders[line.split]}")
        found[line.split].append(Example(line, *place))
    return found


def _places(folder: Path) -> Iterator[tuple[tuple[str, str], tuple[Path, int, int]]]:
    """(object, member) and (file, offset, size) of each photograph in a folder, in a shard or on its own."""
    for path in folder.rglob("*"):
        if path.suffix == ".tar":
            try:
                with tarfile.open(path) as tar:
                    for member in tar:
                        yield (path.name, member.name), (path, member.offset_data, member.size)
            except tarfile.TarError as error:
                raise BadDataset(f"{path} is not a shard: {error}") from error
        elif path.is_file():
            yield (path.name, path.name), (path, 0, path.stat().st_size)


def read_index(file: Path) -> Iterator[Line]:
    """Raises `BadDataset`."""
    if not file.is_file():
        raise BadDataset(f"there is no {file}")
    with file.open("rb") as lines:
        yield from map(Line.of, lines)


def digest(lines: Iterable[Line]) -> str:
    """A name for a set of labelled photographs, in the order of their ids: SHA-256 over their contents."""
    total = hashlib.sha256()
    for line in lines:
        total.update(f"{line.id},{line.split},{line.quantity},{line.pixels}\n".encode())
    return total.hexdigest()


def manifest(prefix: str, objects: Iterable[str]) -> str:
    """SageMaker's ManifestFile form: `objects` are below `prefix`, which ends with a slash."""
    return json.dumps([{"prefix": prefix}, *objects], indent=0) + "\n"


class Shard:
    """A tar that is being written. The same photographs in the same order give the same bytes, and so the same name.

    `file` should be unbuffered: each photograph is one write.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def add(self, member: str, data: bytes) -> None:
        header = tarfile.TarInfo(member)
        header.size = len(data)
        self._write(header.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE))

    def close(self) -> str:
        """16 hex digits of the shard's SHA-256."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        return self._digest.hexdigest()[:16]

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)


def summary_of(dataset: Path) -> dict[str, Any]:
    """dataset.json. Raises `BadDataset`."""
    try:
        found: dict[str, Any] = json.loads((dataset / "dataset.json").read_bytes())
    except (OSError, ValueError) as error:
        raise BadDataset(f"no dataset.json in {dataset}: {error}") from error
    return found
