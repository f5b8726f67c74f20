"""The loop that teachers and their student share, the photographs that they are judged on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.answer import AT_LEAST
from training.learning import data
from training.learning.checkpoints import Checkpoint, Done, OtherRun
from training.learning.learner import Learner
from training.learning.schedule import one_cycle, step_keys
from training.verdict import metrics
from training.verdict.bootstrap import Floats

CHECKED = 16
"""Steps after which the loss is checked."""


def read(folder: Path, limit: int | None = None) -> tuple[list[data.Photograph], list[data.Photograph]]:
    """The training and the validation photographs of a data folder, the first `limit` of each. Raises SystemExit."""
    try:
        photographs = data.read(folder)
    except data.BadFolder as error:
        raise SystemExit(str(error)) from error
    training, validation = ([p for p in photographs if p.split == split] for split in ("train", "validation"))
    return training[:limit], validation[:limit]


def figures(p: Floats, quantities: NDArray[np.int64]) -> str:
    """One line about probabilities [N, 7] for photographs with these recorded quantities [N]."""
    shipped, published = metrics.summary(p, quantities).values()
    return (
        f"rps {shipped['rps']:.4f} (mean {shipped['rps'] / AT_LEAST:.4f}) six-way {published['accuracy']:.4f}"
        f" rmse {published['rmse_of_posterior_mean']:.4f} within one {published['within_one']:.4f}"
    )


@dataclass(frozen=True)
class Judge:
    """Validation photographs, their pictures, uint8 [N, S, S, 3], and `data.excess` [7] if logits still contain it."""

    photographs: list[data.Photograph]
    pictures: data.Pixels
    excess: Floats | None = None

    @property
    def quantities(self) -> NDArray[np.int64]:
        return np.array([p.quantity for p in self.photographs])

    def figures(self, logits: NDArray[np.float32]) -> str:
        """For logits [N, 7], and with the prior put back."""
        told = figures(metrics.softmax(logits), self.quantities)
        if self.excess is None:
            return told
        return f"{told}; prior put back: {figures(metrics.softmax(logits - self.excess), self.quantities)}"


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
