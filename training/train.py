"""Trains the counting network on labelled photographs.

    python -m training.train --data .data/abid --out .runs/first
    torchrun --nproc-per-node 2 -m training.train --data … --out …

As a SageMaker training job it takes its hyperparameters for arguments and reads the channels `dataset`, `train` and
`validation`. It starts from the network in service with the channel `champion`, from the only file of the channel
`weights`, or from random weights; on several hosts it starts torchrun by itself. It resumes from its last checkpoint.
It leaves `predictions.csv` (held-out photographs with their logits) and `metrics.json`, which
`training.verdict.metrics` computes from those predictions, and what run they are of; an experiment also `network.pt`
(the averaged weights), and a job a profile and, if asked for, the model package that is served.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from model import network, package
from model.answer import CLASSES, probabilities
from model.preprocess import SIZE, BadImage
from training import container
from training.dataset import layout
from training.learning import data
from training.learning.checkpoints import Checkpoint, Done, OtherRun, digest_of
from training.learning.learner import Learner, NotFinite
from training.learning.processes import Processes, ended_at_once
from training.learning.profile import Profile
from training.learning.schedule import inverse_frequencies, one_cycle, pays_to_compile, sizes_by_epoch, step_keys
from training.verdict import metrics

WATCHED = 512
"""Photographs of the validation split that an epoch is judged on; the last epoch is on all."""
CHECKED = 16
"""Steps after which the loss is looked at."""
CHECKPOINT_SECONDS = 30
"""Between checkpoints of 400 MB: an epoch may take a second."""
BODY_RATE, FROZEN = 0.1, 0.15
"""From weights of another task: the body's share of the learning rate, and the share of the run in which normalisation
keeps the statistics it came with, while the new last layer still sends noise back."""
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
flags.add_argument("--augmentation", type=float, default=1.6, help="how much photographs are varied, 0 to 2")
flags.add_argument(
    "--balance",
    choices=("none", "sampler", "loss"),
    default="none",
    help="how class imbalance is corrected: one way, so that it is never corrected twice",
)
flags.add_argument(
    "--weights",
    metavar="FILE|imagenet",
    help="start from a state dict of torchvision's ResNet50, or download ImageNet's; default: the file of the job's"
    " channel, else random weights",
)
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
class Recipe:
    """How the network is trained."""

    epochs: int
    sizes: str
    batch_size: int
    learning_rate: float
    weight_decay: float
    label_smoothing: float
    augmentation: float
    balance: str
    weights: str | None
    judged_at: int
    seed: int

    @classmethod
    def of(cls, a: argparse.Namespace) -> Recipe:
        return cls(**{field.name: getattr(a, field.name) for field in fields(cls)})

    def kept(self) -> dict[str, Any]:
        """What a run cannot change when it continues from a checkpoint; it may end after other epochs than it meant
        to."""
        names = ("seed", "learning_rate", "weight_decay", "label_smoothing", "augmentation", "balance", "weights")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Packaging:
    """The model package to make of the trained network."""

    folder: Path
    dataset: Path | None
    """Where a job's dataset is described; None outside of a job."""
    parent: str | None
    version: str | None
    """None: date and weights."""
    calibration: int | None
    """Photographs that int8 takes its ranges from; None: the default."""


@dataclass(frozen=True)
class Run:
    """What is ready to train."""

    recipe: Recipe
    processes: Processes
    splits: dict[str, list[data.Photograph]]
    held_out: list[data.Photograph]
    """The validation split, and after it the test split if that is to be judged too."""
    judged: NDArray[np.uint8]
    """The pictures of `held_out`, uint8 [N, S, S, 3]."""
    training: data.Training
    learner: Learner
    sizes: list[int]
    """By epoch, in pixels."""
    batch: int
    """Photographs of a step, of all processes together."""
    checkpoint: Checkpoint
    done: Done
    """How far an earlier process came."""
    profile: Profile | None
    transferred: bool
    """Whether the network started from weights of another task."""

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return len(self.training) // self.batch

    @property
    def first(self) -> bool:
        """Of several processes one speaks and writes."""
        return self.processes.rank == 0

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """This process's part of every step that is left."""
        order = step_keys(
            self.training.labels,
            self.sizes,
            batch=self.batch,
            epoch=self.done.epoch,
            step=self.done.step,
            seed=self.recipe.seed,
            balanced=self.recipe.balance == "sampler",
        )
        return self.training.batches(keys[self.processes.rank :: self.processes.world] for keys in order)


def main(a: argparse.Namespace) -> None:
    job = not a.data
    if job and not a.weights:
        a.weights = weights_of_job()
    recipe = Recipe.of(a)
    torch.manual_seed(recipe.seed)
    processes = Processes.join()
    photographs = read(a.data, a.fold, champion=a.champion)
    out = a.out or container.output()
    out.mkdir(parents=True, exist_ok=True)
    packaging = None
    if a.package == "true":
        packaging = Packaging(
            folder=container.model() if job else out / "package",
            dataset=container.channel("dataset") if job else None,
            parent=None if a.parent == "none" else a.parent,
            version=a.model_version,
            calibration=a.calibration_photographs,
        )
    splits = split(photographs, share=a.share, limit=a.limit)
    check_weights(recipe.weights, splits["train"], a.fold)
    run = prepare(
        recipe,
        processes,
        splits,
        # A recipe is chosen without a look at the test split; a package says how good it is there.
        tested=packaging is not None,
        champion=a.champion or (champion_of_job() if job else None),
        checkpoint=(a.checkpoints or a.out or container.checkpoints()) / "checkpoint.pt",
        profile=out / "profile" if job else None,
    )
    train(run)
    finish(run, out, packaging, keeps_network=not job)


# Prepare


def read(folder: Path | None, fold: int | None, *, champion: Path | None) -> list[data.Photograph]:
    """The photographs of a folder or, without one, of a job's channels."""
    if fold is not None and (champion or not folder):
        raise SystemExit("--fold is for --data, and not with --champion, which may have seen what is held out")
    if folder:
        try:
            everything = data.read(folder)
        except data.BadFolder as error:
            raise SystemExit(str(error)) from error
        return everything if fold is None else data.hold_out(everything, fold)
    folders = {name: container.channel(name) for name in ("dataset", "train", "validation")}
    if missing := [name for name, found in folders.items() if found is None]:
        raise SystemExit(f"neither --data nor a channel {missing[0]}")
    shards = {name: found for name, found in folders.items() if found}
    try:
        return data.read_shards(shards.pop("dataset"), shards)
    except layout.BadDataset as error:
        raise SystemExit(str(error)) from error


def split(photographs: list[data.Photograph], *, share: float, limit: int | None) -> dict[str, list[data.Photograph]]:
    """By split: this share of the training photographs, and only so many of each."""
    splits: dict[str, list[data.Photograph]] = {"train": [], "validation": [], "test": []}
    for photograph in photographs:
        splits[photograph.split].append(photograph)
    splits["train"] = data.share_of(splits["train"], share)
    return {name: found[:limit] for name, found in splits.items()}


def champion_of_job() -> Path | None:
    channel = container.channel("champion")
    return channel / "model.tar.gz" if channel else None


def weights_of_job() -> str | None:
    """The only file of its channel."""
    channel = container.channel("weights")
    files = sorted(file for file in channel.rglob("*") if file.is_file()) if channel else []
    if channel and len(files) != 1:
        raise SystemExit(f"the channel weights needs one file, and contains {len(files)}")
    return str(files[0]) if files else None


def check_weights(weights: str | None, training: list[data.Photograph], fold: int | None) -> None:
    """Refuses the weights of a run that may have learned from what this one holds out. Raises SystemExit."""
    try:
        learned = network.photographs_of(weights) if weights else None
    except network.BadWeights as error:
        raise SystemExit(str(error)) from error
    if learned is None:
        return
    if fold is not None:
        raise SystemExit(f"--fold is not for {weights}, the network of a run, which may have seen what is held out")
    if learned != digest_of(training):
        raise SystemExit(
            f"{weights} was trained on other photographs than this run's, so it may have seen what is held out: give"
            " the network of a run with the same training photographs, or, if it has not, its state dict alone"
        )


def prepare(
    recipe: Recipe,
    processes: Processes,
    splits: dict[str, list[data.Photograph]],
    *,
    tested: bool,
    champion: Path | None,
    checkpoint: Path,
    profile: Path | None,
) -> Run:
    """Decodes the photographs, makes the network, and continues from the checkpoint if there is one."""
    held_out = splits["validation"] + (splits["test"] if tested else [])
    if empty := [name for name in ("train", "validation") if not splits[name]]:
        bins = len({p.group for found in splits.values() for p in found})
        raise SystemExit(
            f"no photographs in the {empty[0]} split. Of 100 bins, 80 are for training, 8 for validation and 12 for the"
            f" test, by a hash of their names: label photographs of more bins than these {bins}"
        )
    try:
        training = data.training_on(processes.device, splits["train"], recipe.seed, recipe.augmentation)
        judged = data.pictures(held_out, recipe.judged_at)
    except (BadImage, FileNotFoundError) as error:
        raise SystemExit(f"a photograph cannot be read: {error}") from error
    batch = recipe.batch_size * processes.world
    if (steps := len(training) // batch) == 0:
        raise SystemExit(
            f"{len(training)} training photographs do not fill one batch of {batch}: give a smaller --batch-size, or"
            " more photographs"
        )
    if processes.rank == 0:
        print(f"gpus {processes.world if processes.device.type == 'cuda' else 0}", flush=True)
    for name, photographs in splits.items() if processes.rank == 0 else ():
        print(name, len(photographs), dict(sorted(Counter(p.label for p in photographs).items())), flush=True)
    sizes = sizes_by_epoch(recipe.sizes, recipe.epochs)
    counts = np.bincount(training.labels, minlength=len(CLASSES))
    net, transferred = initial(champion, splits["train"], recipe.weights)
    learner = Learner(
        net,
        processes,
        peak=recipe.learning_rate * batch / 64,
        weight_decay=recipe.weight_decay,
        label_smoothing=recipe.label_smoothing,
        weights=inverse_frequencies(counts).to(processes.device) if recipe.balance == "loss" else None,
        # Imbalance is corrected one way only.
        excess=torch.from_numpy(data.excess(splits["train"])) if recipe.balance == "none" else None,
        body=BODY_RATE if transferred else 1.0,
        compiled=processes.device.type == "cuda" and pays_to_compile(sizes, steps * recipe.batch_size),
    )
    of = {
        "photographs": digest_of(splits["train"]),
        "drawn": digest_of([p for p in splits["train"] if p.by_class]),
        "start": start_of(champion, recipe.weights),
        "batch": batch,
    }
    kept = Checkpoint(checkpoint, of | recipe.kept())
    try:
        done = kept.resume(learner, processes.device)
    except OtherRun as error:
        raise SystemExit(str(error)) from error
    if done and processes.rank == 0:
        print(f"resumes with epoch {done.epoch}, step {done.step}", flush=True)
    profiled = Profile(profile) if profile and processes.rank == 0 else None
    return Run(
        recipe, processes, splits, held_out, judged, training, learner, sizes, batch, kept, done or Done(), profiled,
        transferred,
    )  # fmt: skip


def initial(archive: Path | None, training: list[data.Photograph], weights: str | None) -> tuple[torch.nn.Module, bool]:
    """The network to begin with, from the champion, these weights or random ones, and whether they are of another
    task."""
    if archive and weights:
        raise SystemExit("training starts from a champion or from --weights: choose one")
    if weights:
        try:
            return network.load(weights)
        except network.BadWeights as error:
            raise SystemExit(str(error)) from error
    if not archive:
        return network.build(), False
    from model.restore import restore  # needs OpenVINO, which a machine that only trains has not

    with tempfile.TemporaryDirectory() as folder:
        try:
            champion = package.unpack(archive, Path(folder))
            return restore(champion, data.evaluation_batch(training[:RESTORED_WITH], SIZE).numpy()), False
        except package.PackageError as error:
            raise SystemExit(f"cannot start from {archive}: {error}") from error


def start_of(archive: Path | None, weights: str | None) -> str | None:
    """The SHA-256 of the file that training starts from; None for random weights and those of torchvision."""
    file = archive or (Path(weights) if weights and weights != network.IMAGENET else None)
    return package.sha256(file) if file else None


# Train


@dataclass
class Clock:
    """Where an epoch's seconds went."""

    seconds: float = 0.0
    waited: float = 0.0
    """For data."""


def train(run: Run) -> None:
    """All epochs that are left. Asked to stop, it leaves a checkpoint and ends the process."""
    stop, saved = threading.Event(), -math.inf
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    batches, start = run.batches(), run.done
    for epoch in range(start.epoch, run.recipe.epochs):
        clock = Clock()
        loss = train_epoch(run, epoch, start, batches, stop, clock)
        trained, start = (run.steps - start.step) * run.batch, Done(epoch + 1)
        last = epoch == run.recipe.epochs - 1
        watched = run.splits["validation"] if last else run.splits["validation"][:WATCHED]
        logits = run.learner.predict(run.judged[: len(watched)])
        if not run.first:
            continue
        # Calibrated, as the models that the verdict compares are: otherwise tuning would prefer trials for their
        # confidence, which the package's temperature corrects anyway.
        quantities = np.array([p.quantity for p in watched])
        p = probabilities(logits, metrics.fit_temperature(logits, quantities))
        seen = metrics.summary(p, quantities)
        report_epoch(epoch, run.sizes[epoch], loss / run.steps, clock, trained, seen)
        if last or time.monotonic() - saved > CHECKPOINT_SECONDS:
            run.checkpoint.save(run.learner, start)
            saved = time.monotonic()
    signal.signal(signal.SIGTERM, end)
    if run.profile:
        run.profile.end()


def train_epoch(
    run: Run,
    epoch: int,
    start: Done,
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    stop: threading.Event,
    clock: Clock,
) -> float:
    """The sum of the steps' losses, those before an interruption included."""
    total = torch.tensor(start.loss, device=run.processes.device)
    for step in range(start.step, run.steps):
        started = time.monotonic()
        images, labels = next(batches)
        fetched = time.monotonic()
        stopping = run.processes.any(stop.is_set())
        try:
            progress = (epoch + step / run.steps) / run.recipe.epochs
            if run.transferred:
                run.learner.freeze_statistics(progress < FROZEN)
            total += run.learner.step(images, labels, one_cycle(progress))
            if stopping or step % CHECKED == 0 or step == run.steps - 1:
                run.learner.check()
        except NotFinite as error:
            raise SystemExit(f"epoch {epoch}, step {step}: {error}") from error
        ended = time.monotonic()
        clock.waited, clock.seconds = clock.waited + fetched - started, clock.seconds + ended - started
        if run.profile:
            run.profile.step(fetched - started, ended - started, run.batch)
        if stopping:
            if run.first:
                run.checkpoint.save(run.learner, Done(epoch, step + 1, float(total)))
                print(f"asked to stop: checkpoint after epoch {epoch}, step {step}", flush=True)
            end()
    return float(total)


def report_epoch(epoch: int, size: int, loss: float, clock: Clock, trained: int, seen: dict[str, Any]) -> None:
    """One line, which the state machine's metric expressions read."""
    seconds = max(clock.seconds, 1e-9)
    print(
        f"epoch {epoch} size {size} loss {loss:.4f} seconds {clock.seconds:.1f}"
        f" waiting {clock.waited / seconds:.4f} images_per_second {trained / seconds:.1f}"
        f" validation_log_loss {seen['as_shipped']['log_loss']:.4f}"
        f" validation_rps {seen['as_shipped']['rps']:.4f}"
        f" validation_accuracy {seen['as_shipped']['accuracy']:.4f}"
        f" validation_six_way {seen['as_published']['accuracy']:.4f}",
        flush=True,
    )


def end(*_: object) -> NoReturn:
    """As a process ends that was asked to: no failure, so no reason is left."""
    raise SystemExit(128 + signal.SIGTERM)


# Finish


def finish(run: Run, out: Path, packaging: Packaging | None, *, keeps_network: bool) -> None:
    """Predictions of what was held out, figures from them, and the package if one is wanted."""
    logits = run.learner.predict(run.judged)
    if not run.first:
        return
    predictions, trained = out / "predictions.csv", run.learner.average.cpu()
    if keeps_network:
        photographs = run.checkpoint.of["photographs"]
        torch.save({"network": trained.state_dict(), "photographs": photographs}, out / "network.pt")
    if packaging:
        even = run.recipe.balance != "none"
        report = make_package(trained, run.splits["train"], run.held_out, packaging, predictions, even=even)
    else:
        metrics.write_predictions(predictions, run.held_out, logits)
        report = metrics.report(metrics.read_predictions(predictions))
    recipe = run.recipe
    told = {"photographs": len(run.training), "epochs": recipe.epochs, "sizes": recipe.sizes}
    report = {"run": told | {"judged_at": recipe.judged_at}, **report}
    (out / "metrics.json").write_text(json.dumps(report, indent=1) + "\n")
    print(metrics.table(report))


def make_package(
    trained: torch.nn.Module,
    training: list[data.Photograph],
    held_out: list[data.Photograph],
    wanted: Packaging,
    predictions: Path,
    *,
    even: bool,
) -> dict[str, Any]:
    """The report of the int8 network, whose package is in its folder then. `even`: its classes were balanced."""
    from training.learning import pack  # needs OpenVINO too

    digest = layout.summary_of(wanted.dataset)["digest"] if wanted.dataset else data.digest(training)
    try:
        return pack.pack(
            trained,
            training,
            held_out,
            wanted.folder,
            predictions=predictions,
            details={"training_data_digest": digest, "parent": wanted.parent}
            | ({"prior": [round(1 / len(CLASSES), 2)] * len(CLASSES)} if even else {}),
            calibration=wanted.calibration or pack.CALIBRATION_PHOTOGRAPHS,
            version=wanted.version,
        ).report
    except pack.Unfaithful as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    with ended_at_once(), container.failure_told():
        container.under_torchrun("training.train", sys.argv[1:])
        main(flags.parse_args([*container.hyperparameters(), *sys.argv[1:]]))
