"""The loop that teachers and their student share, the photographs that they are judged on, and the prior."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.answer import AT_LEAST, CLASSES
from training.learning import data
from training.learning.checkpoints import Checkpoint, Done, OtherRun
from training.learning.learner import Learner
from training.learning.schedule import one_cycle, step_keys
from training.verdict import metrics
from training.verdict.bootstrap import Floats

CHECKED = 16
"""Steps after which the loss is checked."""


@dataclass(frozen=True)
class Splits:
    """The training photographs, and the validation photographs that were drawn as they came, not by their class."""

    training: list[data.Photograph]
    validation: list[data.Photograph]
    as_it_came: Floats
    """Frequencies [7] of the classes among training photographs that were drawn as they came."""

    @classmethod
    def of(cls, folder: Path, limit: int | None = None) -> Splits:
        """Reads a data folder; `labels.csv` may have a column `drawn`. Nothing here reads the test split."""
        by_class = {row["id"] for row in data.grouped(folder / "labels.csv") if row.get("drawn") == "by class"}
        photographs = data.read(folder)
        training = [p for p in photographs if p.split == "train"]
        validation = [p for p in photographs if p.split == "validation" and p.id not in by_class]
        prior = frequencies([p for p in training if p.id not in by_class])
        return cls(training[:limit], validation[:limit], prior)


def frequencies(photographs: list[data.Photograph]) -> Floats:
    """Of the classes [7]."""
    counts = np.bincount([p.label for p in photographs], minlength=len(CLASSES))
    found: Floats = counts / counts.sum()
    return found


def log_ratio(wanted: Floats, trained_on: Floats) -> Floats:
    """The shift of logits [7] from the prior of the training photographs to the wanted one (Saerens et al. 2002).

    A class without photographs gets no shift.
    """
    both = (wanted > 0) & (trained_on > 0)
    shift: Floats = np.where(both, np.log(np.where(both, wanted, 1) / np.where(both, trained_on, 1)), 0.0)
    return shift


def figures(p: Floats, quantities: NDArray[np.int64]) -> str:
    """One line about probabilities [N, 7] for photographs with these recorded quantities [N]."""
    shipped, published = metrics.summary(p, quantities).values()
    return (
        f"rps {shipped['rps']:.4f} (mean {shipped['rps'] / AT_LEAST:.4f}) six-way {published['accuracy']:.4f}"
        f" rmse {published['rmse_of_posterior_mean']:.4f} within one {published['within_one']:.4f}"
    )


@dataclass(frozen=True)
class Judge:
    """Validation photographs and their pictures, uint8 [N, S, S, 3], and the shift [7] that puts the prior back."""

    photographs: list[data.Photograph]
    pictures: data.Pixels
    shift: Floats

    @property
    def quantities(self) -> NDArray[np.int64]:
        return np.array([p.quantity for p in self.photographs])

    def figures(self, logits: NDArray[np.float32]) -> str:
        """Without and with the prior put back, from logits [N, 7]."""
        plain, shifted = metrics.softmax(logits), metrics.softmax(logits + self.shift)
        return f"{figures(plain, self.quantities)}; prior put back: {figures(shifted, self.quantities)}"


def train(
    learner: Learner,
    training: data.Training,
    sizes: list[int],
    checkpoint: Checkpoint,
    judge: Judge,
    *,
    batch: int,
    seed: int,
) -> NDArray[np.float32]:
    """Trains the epochs that are left, with a checkpoint after each; returns the average's logits for the judge.

    `sizes` are in pixels by epoch, `batch` is the photographs of one process. A resumed run takes the same steps as
    one that was not interrupted.
    """
    own = learner.processes
    steps = len(training) // (batch * own.world)
    try:
        done = checkpoint.resume(learner, own.device) or Done()
    except OtherRun as error:
        raise SystemExit(str(error)) from error
    batches = training.batches(parts(training, sizes, batch, done.epoch, seed, own.rank, own.world))
    for epoch in range(done.epoch, len(sizes)):
        torch.manual_seed(1000 * seed + epoch)  # of dropout, also in a resumed run
        started, total = time.monotonic(), torch.zeros((), device=own.device)
        for step in range(steps):
            total += learner.step(*next(batches), one_cycle((epoch + step / steps) / len(sizes)))
            if step % CHECKED == 0 or step == steps - 1:
                learner.check()
        seconds = time.monotonic() - started
        logits = learner.predict(judge.pictures)
        if own.rank == 0:
            checkpoint.save(learner, Done(epoch + 1))
            told = f"epoch {epoch} size {sizes[epoch]} loss {total / steps:.4f} seconds {seconds:.0f}"
            print(f"{told} {judge.figures(logits)}", flush=True)
    return learner.predict(judge.pictures)


def parts(
    training: data.Training, sizes: list[int], batch: int, epoch: int, seed: int, rank: int, world: int
) -> Iterator[list[data.Key]]:
    """One process's part of every step from this epoch on."""
    order = step_keys(training.labels, sizes, batch=batch * world, epoch=epoch, step=0, seed=seed, balanced=False)
    return (keys[rank::world] for keys in order)
