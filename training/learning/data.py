"""Reads labelled photographs, splits them by bin, and varies them for training.

A data folder holds `labels.csv` with the columns `id, quantity, group` (and any others) and the
photographs as `images224/<id>.jpg` or `images/<id>.jpg`. `group` joins photographs of one bin. In a column `drawn`,
`by class` names photographs that were chosen by their count: those are for training alone. Without the column
`group` it is a folder as `bintally upload` takes it: `<site>/<bin>/<name>`, and `labels.csv` as people save it.
A retraining job has its photographs in shards instead, with an index (`training.dataset.layout`).
"""

from __future__ import annotations

import csv
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from model.answer import AT_LEAST, CLASSES
from model.preprocess import BadImage, decode, normalise, pixels_of, to_array
from training.dataset import layout
from training.dataset.ahead import ahead
from training.dataset.folder import find
from training.learning.vary import draws, sent, vary_batch, vary_one

STORED_SIZE = 224
FOLDS = 5
BLOCK = 64
"""Consecutive ids that are kept on one side of a split: neighbours often show one bin although no `group` says so."""

Pixels = NDArray[np.uint8]
Key = tuple[int, int, int, int]
"""An epoch, a position in it, the index of the photograph at that position, and the size to vary it to."""


@dataclass(frozen=True)
class Photograph:
    """One labelled photograph: `quantity` is its label, `read` returns its bytes."""

    id: str
    quantity: int
    group: str
    block: str
    """Photographs of one block are never separated: one group, or several whose bins may be the same."""
    split: str
    population: str
    """Its origin, for separate figures: a site, or a copy of the public data set."""
    read: Callable[[], bytes]
    by_class: bool = False
    """Whether it was chosen by its count, so that counts among such photographs are as frequent as nowhere else."""

    @property
    def label(self) -> int:
        """The class that the network should answer, 0 to 6."""
        return min(self.quantity, AT_LEAST)


class BadFolder(ValueError):
    """A folder is not one of labelled photographs; the message says in one line what is missing."""


def read(folder: Path) -> list[Photograph]:
    """The photographs of a data folder, in the order of their ids. Raises `BadFolder`."""
    if not folder.is_dir():
        raise BadFolder(f"there is no folder {folder}")
    images = next((f for f in (folder / "images224", folder / "images") if f.is_dir()), folder)
    rows = grouped(folder / "labels.csv")
    return of_rows(rows, images) if rows else of_upload(folder)


def grouped(file: Path) -> list[dict[str, str]]:
    """The rows of a labels.csv that names groups, by id; empty for another. Raises `BadFolder`."""
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
        reader = csv.DictReader(lines)
        if not {"id", "quantity", "group"} <= {*(reader.fieldnames or ())}:
            return []
        rows = sorted(reader, key=lambda row: row["id"])
    if wrong := next((row for row in rows if not (row["quantity"] or "").isdecimal() or not row["group"]), None):
        raise BadFolder(f"{file}: {wrong['id']} needs a whole number as quantity, and a group")
    return rows


def of_rows(rows: list[dict[str, str]], images: Path) -> list[Photograph]:
    """The photographs of these rows, without those chosen by their count whose block is not for training."""
    first_id: dict[str, str] = {}
    for row in rows:
        first_id.setdefault(row["group"], row["id"])

    def block(row: dict[str, str]) -> str:
        first = first_id[row["group"]]
        return str(int(first) // BLOCK) if first.isdecimal() else row["group"]

    found = [
        Photograph(
            id=row["id"],
            quantity=int(row["quantity"]),
            group=row["group"],
            block=block(row),
            split=split_of(block(row)),
            population="squashed from the original" if row.get("original_width") else "copy",
            read=(images / f"{row['id']}.jpg").read_bytes,
            by_class=row.get("drawn") == "by class",
        )
        for row in rows
    ]
    return [p for p in found if p.split == "train" or not p.by_class]


def of_upload(folder: Path) -> list[Photograph]:
    """As `bintally upload` reads a folder; splits are by bin, as in a retraining. Raises `BadFolder`.

    Photographs without a label are left out, and those whose header cannot be read; a line says how many.
    """
    try:
        found = find([folder], None, None)
    except ValueError as error:
        raise BadFolder(str(error)) from error
    if not found:
        raise BadFolder(f"there are no photographs in {folder}")
    if not (labelled := [one for one in found if one.recorded is not None]):
        raise BadFolder(f"{folder} needs a labels.csv (columns id, quantity) that names its photographs")
    kept, bad = list[Photograph](), list[str]()
    for one in labelled:
        id_ = one.path.relative_to(folder).as_posix()
        try:
            pixels_of(one.path.read_bytes())
        except BadImage as error:
            bad.append(f"{id_}: {error}")
            continue
        group, split = f"{one.site}/{one.bin}", layout.split_of(one.site, one.bin)
        kept.append(Photograph(id_, one.recorded or 0, group, group, split, one.site, one.path.read_bytes))
    if len(found) > len(kept):
        why = f"{len(found) - len(labelled)} without a label, {len(bad)} that cannot be read"
        print(f"left out {why}{f', first {bad[0]}' if bad else ''}", flush=True)
    if not kept:
        raise BadFolder(f"none of the {len(labelled)} labelled photographs in {folder} can be read, first {bad[0]}")
    return sorted(kept, key=lambda p: p.id)


def split_of(block: str) -> str:
    """Train, validation or test (80, 8 and 12 in a hundred), fixed for ever by a hash."""
    share = int(hashlib.sha256(block.encode()).hexdigest()[:8], 16) / 2**32
    return "test" if share < 0.12 else "validation" if share < 0.20 else "train"


def hold_out(photographs: list[Photograph], fold: int) -> list[Photograph]:
    """One fold as the validation split and the others for training, without those of the fold that were chosen by
    their count."""
    held_out = [replace(p, split="validation" if fold_of(p) == fold else "train") for p in photographs]
    return [p for p in held_out if p.split == "train" or not p.by_class]


def fold_of(photograph: Photograph) -> int:
    """0 to FOLDS - 1, fixed for ever like the splits, and independent of them."""
    return int(hashlib.sha256(f"fold {photograph.block}".encode()).hexdigest()[:8], 16) % FOLDS


def share_of(photographs: list[Photograph], share: float) -> list[Photograph]:
    """This share of them, in whole blocks except the last; a larger share contains every smaller one."""
    order = sorted(photographs, key=lambda p: (hashlib.sha256(f"share {p.block}".encode()).digest(), p.id))
    return sorted(order[: round(share * len(order))], key=lambda p: p.id)


def excess(photographs: list[Photograph]) -> NDArray[np.float64]:
    """How much more frequent each class is than among the photographs that came as bins are, as a logarithm [7].

    Added to the logits in the loss, it leaves the network the prior of bins as they come (logit adjustment: Menon et
    al. 2021, "Long-tail learning via logit adjustment"). 0 for a class that either lacks.
    """
    trained = np.bincount([p.label for p in photographs], minlength=len(CLASSES))
    came = np.bincount([p.label for p in photographs if not p.by_class], minlength=len(CLASSES))
    both = (trained > 0) & (came > 0)
    ratio = np.where(both, trained, 1) / np.where(both, came, 1) * (max(came.sum(), 1) / max(trained.sum(), 1))
    return np.where(both, np.log(ratio), 0.0)


def prior(photographs: list[Photograph]) -> list[float]:
    """The shares of the classes [7] that a network assumes which learned from these: those among the photographs that
    came as bins are, with one more of each, so that none is 0. Two digits: each count keeps them (test_costs)."""
    came = 1 + np.bincount([p.label for p in photographs if not p.by_class], minlength=len(CLASSES))
    return [float(f"{share:.2g}") for share in came / came.sum()]


def read_shards(index: Path, shards: dict[str, Path]) -> list[Photograph]:
    """The photographs of a retraining job: `index` is its dataset's folder, `shards` the folder of each split's
    photographs. Raises `layout.BadDataset`."""
    examples = itertools.chain.from_iterable(layout.read(index, shards).values())
    return [_of_line(each.line, each.read) for each in examples]


def _of_line(line: layout.Line, read: Callable[[], bytes]) -> Photograph:
    return Photograph(line.id, line.quantity, line.group, line.group, line.split, line.site, read)


def digest(photographs: list[Photograph]) -> str:
    """A name for a set of labelled photographs: SHA-256 over ids, labels and the bytes of the pictures."""
    total = hashlib.sha256()
    for photograph in sorted(photographs, key=lambda p: p.id):
        content = hashlib.sha256(photograph.read()).hexdigest()
        total.update(f"{photograph.id},{photograph.quantity},{content}\n".encode())
    return total.hexdigest()


class Training:
    """Photographs that are varied differently in each epoch; the seed determines each variation.

    Decoded photographs are kept in memory (150 KB each), since decoding them again each epoch would cost more
    than varying them. `strength` scales the variation.
    """

    threads = 1
    """That prepare batches. More help a GPU; a network that learns on the CPU needs the cores itself."""

    def __init__(self, photographs: list[Photograph], seed: int, strength: float = 1.0) -> None:
        self.labels = [photograph.label for photograph in photographs]
        self.pictures = pictures(photographs, STORED_SIZE)
        self.seed, self.strength = seed, strength

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, keys: list[Key]) -> tuple[torch.Tensor, torch.Tensor]:
        """Float32 [B, 3, size, size] and labels [B], for keys of one size."""
        varied = [
            vary_one(
                Image.fromarray(self.pictures[index]),
                size,
                np.random.default_rng((self.seed, epoch, place)),
                self.strength,
            )
            for epoch, place, index, size in keys
        ]
        labels = torch.tensor([self.labels[index] for _, _, index, _ in keys])
        return torch.from_numpy(normalise(np.stack(varied))), labels

    def batches(self, keys: Iterable[list[Key]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All batches in order; threads prepare them while the network trains on earlier ones.

        Threads, not processes: Pillow works without the interpreter's lock, nothing is copied between processes, and
        a signal to the job's processes cannot end a thread before the job.
        """
        with ThreadPoolExecutor(self.threads, "vary") as pool:
            yield from ahead(pool, self.batch, keys, 2 + self.threads)


class OnDevice(Training):
    """The same in a GPU's memory, varied there one batch at a time: only indices and random numbers are sent to it."""

    def __init__(self, photographs: list[Photograph], seed: int, strength: float, device: torch.device) -> None:
        super().__init__(photographs, seed, strength)
        self.there = torch.from_numpy(self.pictures).permute(0, 3, 1, 2).contiguous().to(device)
        self.labels_there = torch.tensor(self.labels, device=device)
        del self.pictures

    def batch(self, keys: list[Key]) -> tuple[torch.Tensor, torch.Tensor]:
        """As above but on the device, which may still be computing; for keys of one epoch and size."""
        epoch, _, _, size = keys[0]
        places, chosen = torch.tensor([(place, index) for _, place, index, _ in keys]).T
        drawn = draws(self.seed, epoch, len(self))[places]
        there = sent(chosen, self.there.device)
        return vary_batch(self.there[there], drawn, size, self.strength), self.labels_there[there]

    def batches(self, keys: Iterable[list[Key]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        yield from map(self.batch, keys)


def training_on(device: torch.device, photographs: list[Photograph], seed: int, strength: float = 1.0) -> Training:
    """In the training GPU's memory, if they fit into half of its free memory; otherwise in the machine's."""
    if device.type == "cuda" and 2 * len(photographs) * 3 * STORED_SIZE**2 < torch.cuda.mem_get_info(device)[0]:
        return OnDevice(photographs, seed, strength, device)
    return Training(photographs, seed, strength)


def pictures(photographs: list[Photograph], size: int) -> Pixels:
    """Photographs squashed as for serving, at any size: uint8 [N, size, size, 3]. Raises `BadImage`, which names it."""
    result = np.empty((len(photographs), size, size, 3), dtype=np.uint8)

    def place(index: int) -> None:
        try:
            result[index] = to_array(decode(photographs[index].read(), size=size), size)
        except BadImage as error:
            raise BadImage(f"{photographs[index].id}: {error}") from error

    with ThreadPoolExecutor(thread_name_prefix="decode") as pool:
        for _ in pool.map(place, range(len(photographs))):
            pass
    return result


def evaluation_batch(photographs: list[Photograph], size: int) -> torch.Tensor:
    """Photographs preprocessed exactly as for serving: float32 [N, 3, size, size]."""
    return torch.from_numpy(normalise(pictures(photographs, size)))
