"""Labelled photographs: reading them, splitting them by bin, and varying them for training.

A data folder holds `labels.csv` with the columns `id, quantity, group` (and any others) and the
photographs as `images224/<id>.jpg` or `images/<id>.jpg`. `group` joins photographs of one bin.
"""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from model.answer import AT_LEAST
from model.preprocess import decode, normalise, to_array

STORED_SIZE = 224
BLOCK = 64
"""Consecutive ids kept on one side of a split: neighbours are often one bin although no `group` says so."""


@dataclass(frozen=True)
class Photograph:
    """One labelled photograph; `quantity` is the record's, `label` what the network is to answer."""

    id: str
    path: Path
    quantity: int
    group: str
    block: str
    population: str

    @property
    def label(self) -> int:
        return min(self.quantity, AT_LEAST)

    @property
    def split(self) -> str:
        """Train, validation or test (80, 8 and 12 in a hundred), decided once and for ever by a hash."""
        share = int(hashlib.sha256(self.block.encode()).hexdigest()[:8], 16) / 2**32
        return "test" if share < 0.12 else "validation" if share < 0.20 else "train"


def read(folder: Path) -> list[Photograph]:
    """The photographs of a data folder, in the order of their ids. Raises `FileNotFoundError`, `KeyError`."""
    images = next(f for f in (folder / "images224", folder / "images", folder) if f.is_dir())
    with (folder / "labels.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["id"])
    first_id: dict[str, str] = {}
    for row in rows:
        first_id.setdefault(row["group"], row["id"])

    def block(row: dict[str, str]) -> str:
        first = first_id[row["group"]]
        return str(int(first) // BLOCK) if first.isdecimal() else row["group"]

    return [
        Photograph(
            id=row["id"],
            path=images / f"{row['id']}.jpg",
            quantity=int(row["quantity"]),
            group=row["group"],
            block=block(row),
            population="squashed from the original" if row.get("original_width") else "copy",
        )
        for row in rows
    ]


def digest(photographs: list[Photograph]) -> str:
    """A name for a set of labelled photographs: SHA-256 over ids, labels and the bytes of the pictures."""
    total = hashlib.sha256()
    for photograph in sorted(photographs, key=lambda p: p.id):
        content = hashlib.sha256(photograph.path.read_bytes()).hexdigest()
        total.update(f"{photograph.id},{photograph.quantity},{content}\n".encode())
    return total.hexdigest()


class Training(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Photographs varied anew each epoch; what item (epoch, index) looks like depends on the seed alone.

    An item is float32 [3, size, size] and its label. Decoded photographs are kept in memory
    (150 KB each), since decoding them again each epoch would cost more than varying them.
    """

    def __init__(self, photographs: list[Photograph], seed: int) -> None:
        self.labels = [photograph.label for photograph in photographs]
        self.pictures = np.stack(
            [to_array(decode(p.path.read_bytes(), size=STORED_SIZE), STORED_SIZE) for p in photographs]
        )
        self.seed = seed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[torch.Tensor, int]:
        epoch, index, size = key
        random = np.random.default_rng((self.seed, epoch, index))
        varied = vary(Image.fromarray(self.pictures[index]), size, random)
        return torch.from_numpy(normalise(varied[None])[0]), self.labels[index]


def vary(image: Image.Image, size: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """A random crop, mirrored or not, with other light, sharpness and JPEG quality: uint8 [size, size, 3].

    The two populations of photographs differ in JPEG quality and resampling, and in how full their bins
    are; varying both keeps the network from reading the count off the compression.
    """
    if random.random() < 0.4:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(random.integers(40, 95)))
        image = Image.open(buffer)
    area = image.width * image.height * random.uniform(0.6, 1.0)
    ratio = np.exp(random.uniform(np.log(0.8), np.log(1.25)))
    width = min(np.sqrt(area * ratio), image.width)
    height = min(np.sqrt(area / ratio), image.height)
    left, top = random.uniform(0, image.width - width), random.uniform(0, image.height - height)
    resampling = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.BOX)[random.integers(3)]
    image = image.resize((size, size), resampling, box=(left, top, left + width, top + height))
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(random.uniform(0.7, 1.3))
    return np.asarray(image, dtype=np.uint8)


def evaluation_batch(photographs: list[Photograph], size: int) -> torch.Tensor:
    """Photographs just as they are served: float32 [N, 3, size, size]."""
    pictures = [to_array(decode(p.path.read_bytes(), size=size), size) for p in photographs]
    return torch.from_numpy(normalise(np.stack(pictures)))
