"""A training's checkpoint: how far it has come, of which run, and all that the next step depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from training.learning.data import Photograph
from training.learning.learner import Learner

LATER = ("drawn", "start")
"""Parts of `of` that a checkpoint of 0.1.0 lacks. It continues all the same: it may be of a spot job whose image was
updated while it was interrupted."""


class OtherRun(ValueError):
    """The checkpoint is of a run that this one cannot continue; the message says by what they differ."""


@dataclass(frozen=True)
class Done:
    """How far training has come: whole epochs, steps of the next one, and the sum of their losses."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """The file, and `of`: what a run cannot change when it continues."""

    path: Path
    of: dict[str, Any]

    def resume(self, learner: Learner, device: torch.device) -> Done | None:
        """How far the run had come; None when there is nothing to continue. Raises OtherRun."""
        if not self.path.exists():
            return None
        state = torch.load(self.path, map_location=device, weights_only=True)
        was = {name: self.of[name] for name in LATER if name in self.of} | state["of"]
        if was != self.of:
            other = ", ".join(sorted(name for name in was | self.of if was.get(name) != self.of.get(name)))
            raise OtherRun(f"{self.path} is of a run with other {other}: choose another folder")
        learner.resume(state)
        return Done(**state["done"])

    def save(self, learner: Learner, done: Done) -> None:
        """Replaces the checkpoint in one move: one that was cut off could not be resumed from."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({**learner.state(), "done": asdict(done), "of": self.of}, self.path.with_suffix(".new"))
        self.path.with_suffix(".new").replace(self.path)


def digest_of(photographs: Sequence[Photograph]) -> str:
    """A name for which photographs these are, and their labels."""
    return hashlib.sha256("".join(f"{p.id},{p.label}\n" for p in photographs).encode()).hexdigest()
