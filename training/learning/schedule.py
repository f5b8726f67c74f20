"""The order and the rates of a training: which photographs each step takes, how fast it learns, what classes count."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from model.answer import CLASSES
from training.learning.data import Key

COMPILED_FROM = 600_000
"""Photographs that a process learns from at an input size, from which it pays to compile for it: docs/benchmarks.md."""


def sizes_by_epoch(sizes: str, epochs: int) -> list[int]:
    """The input size of each epoch: "96,128" is 96 for the first half and 128 for the second."""
    parts = [int(size) for size in sizes.split(",")]
    return [parts[epoch * len(parts) // epochs] for epoch in range(epochs)]


def step_keys(
    labels: list[int], sizes: list[int], *, batch: int, epoch: int, step: int, seed: int, balanced: bool
) -> Iterator[list[Key]]:
    """The photographs of each step from this one of this epoch on, `batch` for all processes together."""
    for number in range(epoch, len(sizes)):
        order = epoch_keys(labels, number, sizes[number], seed=seed, balanced=balanced)
        for start in range(step * batch if number == epoch else 0, len(order) - batch + 1, batch):
            yield order[start : start + batch]


def epoch_keys(labels: list[int], epoch: int, size: int, *, seed: int, balanced: bool) -> list[Key]:
    """The order of an epoch, the same in every process: the key of each place."""
    random = np.random.default_rng((seed, epoch))
    if balanced:
        frequency = np.bincount(labels, minlength=len(CLASSES))[labels]
        order = random.choice(len(labels), len(labels), p=(1 / frequency) / (1 / frequency).sum())
    else:
        order = random.permutation(len(labels))
    return [(epoch, place, int(index), size) for place, index in enumerate(order)]


def one_cycle(progress: float, warm_up: float = 0.15) -> float:
    """Share of the peak learning rate: up in a line, then down a cosine to nothing (Smith 2018)."""
    if progress < warm_up:
        return max(progress / warm_up, 0.01)
    return float((1 + np.cos(np.pi * (progress - warm_up) / (1 - warm_up))) / 2)


def pays_to_compile(sizes: list[int], photographs: int) -> bool:
    """Whether a process learns from enough of them, so many in each epoch at these sizes, to compile for each size."""
    return photographs * len(sizes) >= COMPILED_FROM * len(set(sizes))


def inverse_frequencies(counts: np.ndarray) -> torch.Tensor:
    """A weight for each class, mean 1 over the photographs; none for a class that has none."""
    seen = counts > 0
    return torch.tensor(np.where(seen, counts.sum() / seen.sum() / np.maximum(counts, 1), 0), dtype=torch.float32)
