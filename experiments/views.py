"""What teachers are asked and their student sees: folds of the training split, views of it, the stored answers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.learning import data
from training.learning.vary import view

FOLDS = 3


def fold_of(photograph: data.Photograph) -> int:
    """0 to FOLDS - 1, by the hash of its block: photographs of one bin, and runs of ids, are in one fold."""
    return int(hashlib.sha256(f"teacher {photograph.block}".encode()).hexdigest()[:8], 16) % FOLDS


def learned_from(training: list[data.Photograph], fold: int) -> list[data.Photograph]:
    """The training photographs of the teachers that leave `fold` out."""
    return [p for p in training if fold_of(p) != fold]


@dataclass(frozen=True)
class Views:
    """`number` views of each training photograph, the same ones for teachers and student."""

    number: int
    strength: float
    """Of `training.learning.vary.view`."""
    seed: int

    def of(self, picture: Image.Image, index: int, number: int, size: int) -> NDArray[np.uint8]:
        """One view of the photograph at this place among those of training: uint8 [size, size, 3].

        The part that is seen does not depend on `size`.
        """
        random = np.random.default_rng((self.seed, number, index))
        return np.asarray(view(picture, size, random, self.strength), dtype=np.uint8)


@dataclass(frozen=True)
class Answers:
    """Probabilities [N, K, 7] of K views of the N training photographs with these ids."""

    ids: list[str]
    views: Views
    probabilities: NDArray[np.float16]

    def mean(self) -> NDArray[np.float64]:
        """Over the views: [N, 7]."""
        found: NDArray[np.float64] = self.probabilities.mean(axis=1, dtype=np.float64)
        return found

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.probabilities.tobytes()).hexdigest()

    def save(self, path: Path) -> None:
        number, strength, seed = map(np.array, (self.views.number, self.views.strength, self.views.seed))
        np.savez_compressed(
            path, ids=np.array(self.ids), probabilities=self.probabilities, number=number, strength=strength, seed=seed
        )

    @classmethod
    def read(cls, path: Path, training: list[data.Photograph]) -> Answers:
        """Raises `ValueError` unless they are of these photographs, in this order."""
        with np.load(path) as kept:
            views = Views(int(kept["number"]), float(kept["strength"]), int(kept["seed"]))
            found = cls([str(id_) for id_ in kept["ids"]], views, kept["probabilities"])
        if found.ids != [p.id for p in training]:
            raise ValueError(f"{path} has the answers for other photographs than the training split of --data")
        return found
