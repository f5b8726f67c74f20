"""Trains the counting network on labelled photographs.

    python -m training.train --data ../shared/abid --out .runs/first
    torchrun --nproc-per-node 2 -m training.train --data … --out …

As a SageMaker training job it takes its hyperparameters for arguments and reads the channels `dataset`, `train`,
`validation` and, to start from the network in service, `champion`; on several hosts it starts torchrun by itself. It
resumes from its last checkpoint. It leaves `predictions.csv` (held-out photographs with their logits) and
`metrics.json`, which `training.verdict.metrics` computes from those predictions, and what run they are of; an
experiment also `network.pt` (the averaged weights), and a job a profile and, if asked for, the model package that is
served.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from model import network, package
from model.answer import CLASSES
from model.preprocess import SIZE
from training import container
from training.dataset import layout
from training.learning import data
from training.learning.learner import Learner, NotFinite
from training.learning.processes import Processes, ended_at_once
from training.learning.profile import Profile
from training.verdict import metrics

WATCHED = 512
"""Photographs of the validation split that an epoch is judged on; the last epoch is on all."""
CHECKED = 16
"""Steps after which the loss is looked at."""
CHECKPOINT_SECONDS = 30
"""Between checkpoints of 400 MB: an epoch may take a second."""
COMPILED_FROM = 600_000
"""Photographs that a process learns from at an input size, from which it pays to compile for it: docs/benchmarks.md."""
RESTORED_WITH = 64
"""Training photographs that the restored champion's statistics are measured on."""

flags = container.Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
flags.add_argument("command", nargs="?", choices=("train",), help="what SageMaker calls a training container with")
flags.add_argument("--data", type=Path, help="folder of labelled photographs, outside of a job")
flags.add_argument("--out", type=Path, help="folder for what is made, outside of a job")
flags.add_argument("--checkpoints", type=Path, help="default: OUT")
flags.add_argument("--champion", type=Path, help="a model.tar.gz to start from; default: its channel, else nothing")
flags.add_argument("--epochs", type=int, default=31)
flags.add_argument("--sizes", default="64,96,96,128,128", help="input sizes over equal parts of the epochs")
flags.add_argument("--batch-size", type=int, default=64, help="of one process")
flags.add_argument("--learning-rate", type=float, default=0.001, help="at the peak, for 64 photographs a step")
flags.add_argument("--weight-decay", type=float, default=0.05)
flags.add_argument("--label-smoothing", type=float, default=0.05)
flags.add_argument("--augmentation", type=float, default=1.0, help="how much photographs are varied, 0 to 2")
flags.add_argument(
    "--balance",
    choices=("none", "sampler", "loss"),
    default="none",
    help="how class imbalance is corrected: one way, so that it is never corrected twice",
)
flags.add_argument("--imagenet", action="store_true", help="start from ImageNet weights (downloads them)")
flags.add_argument("--fold", type=int, choices=range(data.FOLDS), help="hold out this fifth of all photographs instead")
flags.add_argument("--share", type=float, default=1.0, help="of the training photographs, for a learning curve")
flags.add_argument("--judged-at", type=int, default=SIZE, help="input size of held-out photographs; default: as served")
flags.add_argument("--limit", type=int, help="use only so many photographs of each split (for a trial)")
flags.add_argument("--seed", type=int, default=0)
flags.add_argument("--package", choices=("true", "false"), default="false", help="make a model package of it")
flags.add_argument("--model-version", help="of the package; default: date and weights")
flags.add_argument("--parent", help="version of the package that training started from, or none")
flags.add_argument("--calibration-photographs", type=int, help="that int8 takes its ranges from; default: 512")


@dataclass(frozen=True)
class Done:
    """How far training has come: whole epochs, steps of the next one, and the sum of their losses."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0


def main(a: argparse.Namespace) -> None:
    torch.manual_seed(a.seed)
    processes = Processes.join()
    first = processes.rank == 0

    # Data
    splits: dict[str, list[data.Photograph]] = {"train": [], "validation": [], "test": []}
    for photograph in read(a):
        splits[photograph.split].append(photograph)
    splits["train"] = data.share_of(splits["train"], a.share)
    splits = {name: photographs[: a.limit] for name, photographs in splits.items()}
    # A recipe is chosen without a look at the test split; a package says how good it is there.
    held_out = splits["validation"] + (splits["test"] if a.package == "true" else [])
    if not splits["validation"]:
        raise SystemExit("no photographs in the validation split")
    training = data.training_on(processes.device, splits["train"], a.seed, a.augmentation)
    judged = data.pictures(held_out, a.judged_at)
    counts = np.bincount(training.labels, minlength=len(CLASSES))
    batch = a.batch_size * processes.world
    steps = len(training) // batch
    if steps == 0:
        raise SystemExit(f"{len(training)} training photographs do not fill one batch of {batch}")
    for name, photographs in splits.items() if first else ():
        print(name, len(photographs), dict(sorted(Counter(p.label for p in photographs).items())), flush=True)

    # Network
    sizes = [int(size) for size in a.sizes.split(",")]
    sizes = [sizes[epoch * len(sizes) // a.epochs] for epoch in range(a.epochs)]
    learner = Learner(
        initial(a, splits["train"]),
        processes,
        peak=a.learning_rate * batch / 64,
        weight_decay=a.weight_decay,
        label_smoothing=a.label_smoothing,
        weights=inverse_frequencies(counts).to(processes.device) if a.balance == "loss" else None,
        compiled=processes.device.type == "cuda" and pays_to_compile(sizes, steps * a.batch_size),
    )

    # Resume
    out, checkpoint = a.out or container.output(), (a.checkpoints or a.out or container.checkpoints()) / "checkpoint.pt"
    out.mkdir(parents=True, exist_ok=True)
    done, of = Done(), {"photographs": digest_of(splits["train"]), "batch": batch, **recipe(a)}
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=processes.device, weights_only=True)
        if state["of"] != of:
            other = ", ".join(sorted(name for name in of if state["of"].get(name) != of[name]))
            raise SystemExit(f"{checkpoint} is of a run with other {other}: choose another folder")
        learner.resume(state)
        done = Done(**state["done"])
        if first:
            print(f"resumes with epoch {done.epoch}, step {done.step}", flush=True)
    profile = Profile(out / "profile") if first and not a.data else None

    # Loop
    order = step_keys(
        training.labels,
        sizes,
        batch=batch,
        epoch=done.epoch,
        step=done.step,
        seed=a.seed,
        balanced=a.balance == "sampler",
    )
    batches = training.batches(keys[processes.rank :: processes.world] for keys in order)
    stop, saved = threading.Event(), -math.inf
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    for epoch in range(done.epoch, a.epochs):
        total, waited, seconds = torch.tensor(done.loss, device=processes.device), 0.0, 0.0
        for step in range(done.step, steps):
            started = time.monotonic()
            images, labels = next(batches)
            fetched = time.monotonic()
            stopping = processes.any(stop.is_set())
            try:
                total += learner.step(images, labels, one_cycle((epoch + step / steps) / a.epochs))
                if stopping or step % CHECKED == 0 or step == steps - 1:
                    learner.check()
            except NotFinite as error:
                raise SystemExit(f"epoch {epoch}, step {step}: {error}") from error
            ended = time.monotonic()
            waited, seconds = waited + fetched - started, seconds + ended - started
            if profile:
                profile.step(fetched - started, ended - started, batch)
            if stopping:
                if first:
                    save(checkpoint, learner, Done(epoch, step + 1, float(total)), of)
                    print(f"asked to stop: checkpoint after epoch {epoch}, step {step}", flush=True)
                end()
        trained, done = (steps - done.step) * batch, Done(epoch + 1)
        watched = splits["validation"] if epoch == a.epochs - 1 else splits["validation"][:WATCHED]
        logits = learner.predict(judged[: len(watched)])
        if first:
            seen = metrics.summary(metrics.softmax(logits), np.array([p.quantity for p in watched]))
            print(
                f"epoch {epoch} size {sizes[epoch]} loss {float(total) / steps:.4f} seconds {seconds:.1f}"
                f" waiting {waited / max(seconds, 1e-9):.4f} images_per_second {trained / max(seconds, 1e-9):.1f}"
                f" validation_log_loss {seen['as_shipped']['log_loss']:.4f}"
                f" validation_rps {seen['as_shipped']['rps']:.4f}"
                f" validation_accuracy {seen['as_shipped']['accuracy']:.4f}"
                f" validation_six_way {seen['as_published']['accuracy']:.4f}",
                flush=True,
            )
            if epoch == a.epochs - 1 or time.monotonic() - saved > CHECKPOINT_SECONDS:
                save(checkpoint, learner, done, of)
                saved = time.monotonic()
    signal.signal(signal.SIGTERM, end)
    if profile:
        profile.end()

    # Predictions, metrics from them, and the package
    logits = learner.predict(judged)
    if first:
        predictions, trained = out / "predictions.csv", learner.average.cpu()
        if a.data:
            torch.save({"network": trained.state_dict(), "photographs": of["photographs"]}, out / "network.pt")
        if a.package == "true":
            report = make_package(a, trained, splits["train"], held_out, predictions)
        else:
            metrics.write_predictions(predictions, held_out, logits)
            report = metrics.report(metrics.read_predictions(predictions))
        run = {"photographs": len(training), "epochs": a.epochs, "sizes": a.sizes, "judged_at": a.judged_at}
        report = {"run": run, **report}
        (out / "metrics.json").write_text(json.dumps(report, indent=1) + "\n")
        print(metrics.table(report))


def make_package(
    a: argparse.Namespace,
    trained: torch.nn.Module,
    training: list[data.Photograph],
    held_out: list[data.Photograph],
    predictions: Path,
) -> dict[str, Any]:
    """The report of the int8 network; its package lies in the job's model folder, or beside the predictions."""
    from training.learning import pack  # needs OpenVINO, which a machine that only trains has not

    folder = container.channel("dataset")
    digest = layout.summary_of(folder)["digest"] if folder and not a.data else data.digest(training)
    try:
        return pack.pack(
            trained,
            training,
            held_out,
            predictions.with_name("package") if a.data else container.model(),
            predictions=predictions,
            details={"training_data_digest": digest, "parent": None if a.parent == "none" else a.parent},
            calibration=a.calibration_photographs or pack.CALIBRATION_PHOTOGRAPHS,
            version=a.model_version,
        ).report
    except pack.Unfaithful as error:
        raise SystemExit(str(error)) from error


def read(a: argparse.Namespace) -> list[data.Photograph]:
    """The photographs of a folder or of a job's channels."""
    if a.fold is not None and (a.champion or not a.data):
        raise SystemExit("--fold is for --data, and not with --champion, which may have seen what is held out")
    if a.data:
        everything = data.read(a.data)
        return everything if a.fold is None else data.hold_out(everything, a.fold)
    folders = {name: container.channel(name) for name in ("dataset", "train", "validation")}
    if missing := [name for name, folder in folders.items() if folder is None]:
        raise SystemExit(f"neither --data nor a channel {missing[0]}")
    found = {name: folder for name, folder in folders.items() if folder}
    try:
        return data.read_shards(found.pop("dataset"), found)
    except layout.BadDataset as error:
        raise SystemExit(str(error)) from error


def initial(a: argparse.Namespace, training: list[data.Photograph]) -> torch.nn.Module:
    """The network to begin with: the champion's, ImageNet's, or random weights."""
    channel = container.channel("champion")
    archive = a.champion or (channel / "model.tar.gz" if channel and not a.data else None)
    if archive is None:
        return network.build(imagenet=a.imagenet)
    from model.restore import restore  # needs OpenVINO too

    with tempfile.TemporaryDirectory() as folder:
        try:
            champion = package.unpack(archive, Path(folder))
            return restore(champion, data.evaluation_batch(training[:RESTORED_WITH], SIZE).numpy())
        except package.PackageError as error:
            raise SystemExit(f"cannot start from {archive}: {error}") from error


def pays_to_compile(sizes: list[int], photographs: int) -> bool:
    """Whether a process learns from enough of them, so many in each epoch at these sizes, to compile for each size."""
    return photographs * len(sizes) >= COMPILED_FROM * len(set(sizes))


def inverse_frequencies(counts: np.ndarray) -> torch.Tensor:
    """A weight for each class, mean 1 over the photographs; none for a class that has none."""
    seen = counts > 0
    return torch.tensor(np.where(seen, counts.sum() / seen.sum() / np.maximum(counts, 1), 0), dtype=torch.float32)


def step_keys(
    labels: list[int], sizes: list[int], *, batch: int, epoch: int, step: int, seed: int, balanced: bool
) -> Iterator[list[data.Key]]:
    """The photographs of each step from this one of this epoch on, `batch` for all processes together."""
    for number in range(epoch, len(sizes)):
        order = epoch_keys(labels, number, sizes[number], seed=seed, balanced=balanced)
        for start in range(step * batch if number == epoch else 0, len(order) - batch + 1, batch):
            yield order[start : start + batch]


def epoch_keys(labels: list[int], epoch: int, size: int, *, seed: int, balanced: bool) -> list[data.Key]:
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


def recipe(a: argparse.Namespace) -> dict[str, Any]:
    """What a run cannot change when it goes on from a checkpoint; it may end after other epochs than it meant to."""
    names = ("seed", "learning_rate", "weight_decay", "label_smoothing", "augmentation", "balance", "imagenet")
    return {name: getattr(a, name) for name in names}


def digest_of(photographs: list[data.Photograph]) -> str:
    """A name for which photographs these are, and their labels."""
    return hashlib.sha256("".join(f"{p.id},{p.label}\n" for p in photographs).encode()).hexdigest()


def save(checkpoint: Path, learner: Learner, done: Done, of: dict[str, Any]) -> None:
    """Replaces the checkpoint in one move: one that was cut off could not be resumed from."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**learner.state(), "done": asdict(done), "of": of}, checkpoint.with_suffix(".new"))
    checkpoint.with_suffix(".new").replace(checkpoint)


def end(*_: object) -> NoReturn:
    """As a process ends that was asked to: no failure, so no reason is left."""
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    with ended_at_once(), container.failure_told():
        container.under_torchrun("training.train", sys.argv[1:])
        main(flags.parse_args([*container.hyperparameters(), *sys.argv[1:]]))
