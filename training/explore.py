"""Trains several networks side by side on one GPU: what seeds and levers are worth there.

    python -m training.explore --data DATA --plan plan.jsonl --state NETWORKS --out OUT --seconds 450

A line of the plan names a run: its seed, sizes, weight decay and mixup's alpha. Each gets the same share of the
seconds, measured in steps that are timed first, so that runs of larger pictures have fewer epochs.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from model import network
from model.answer import CLASSES
from model.preprocess import MEAN, STD
from training import data, metrics
from training.learner import Learner
from training.processes import Processes
from training.train import epoch_keys, one_cycle

JUDGED_AT = (128, 160, 192, 224)
WATCHED_AT = 160


@dataclass(frozen=True)
class Run:
    name: str
    seed: int = 0
    sizes: str = "64,96,128,128"
    batch: int = 128
    peak: float = 0.001
    weight_decay: float = 0.05
    smoothing: float = 0.05
    mixup: float = 0.0
    augmentation: float = 1.0
    epochs: int = 0


class Photographs:
    def __init__(self, folder: Path, device: torch.device, limit: int | None) -> None:
        everything = data.read(folder)
        self.train = [p for p in everything if p.split == "train"][:limit]
        self.held_out = [p for p in everything if p.split == "validation"][:limit]
        self.training = data.OnDevice(self.train, 0, 1.0, device)
        self.quantities = np.array([p.quantity for p in self.held_out])
        self.judged = {
            size: torch.from_numpy(data.pictures(self.held_out, size)).to(device).permute(0, 3, 1, 2)
            for size in JUDGED_AT
        }

    def varied(self, run: Run) -> data.OnDevice:
        training = copy.copy(self.training)
        training.seed, training.strength = run.seed, run.augmentation
        return training


def logits(net: torch.nn.Module, pictures: Tensor, mirrored: bool = False) -> np.ndarray:
    mean, std = (255 * torch.tensor(v, device=pictures.device)[:, None, None] for v in (MEAN, STD))
    rows = []
    with torch.inference_mode():
        for part in pictures.split(256):
            images = ((part.float() - mean) / std).contiguous(memory_format=torch.channels_last)
            rows.append(net(images.flip(3) if mirrored else images).float().cpu())
    return torch.cat(rows).numpy()


def judged(found: np.ndarray, quantities: np.ndarray) -> dict[str, float]:
    temperature = metrics.fit_temperature(found, quantities)
    seen = metrics.summary(metrics.probabilities(found, temperature), quantities)
    named = {
        "rps": seen["as_shipped"]["rps"],
        "log_loss": seen["as_shipped"]["log_loss"],
        "accuracy": seen["as_shipped"]["accuracy"],
        "six_way": seen["as_published"]["accuracy"],
        "rmse": seen["as_published"]["rmse_of_posterior_mean"],
        "within_one": seen["as_published"]["within_one"],
        "temperature": temperature,
    }
    return {name: round(float(value), 4) for name, value in named.items()}


def epochs_of(run: Run, photographs: Photographs) -> Iterator[dict[str, Any]]:
    """Trains, an epoch at a time; yields what there is to say of each."""
    torch.manual_seed(run.seed)
    training, processes = photographs.varied(run), Processes(0, 1, photographs.training.there.device)
    learner = Learner(
        network.build(),
        processes,
        peak=run.peak,
        weight_decay=run.weight_decay,
        label_smoothing=run.smoothing,
        compiled=processes.device.type == "cuda",
    )
    sizes = [int(size) for size in run.sizes.split(",")]
    for epoch in range(run.epochs):
        size = sizes[epoch * len(sizes) // run.epochs]
        keys = epoch_keys(training.labels, epoch, size, seed=run.seed, balanced=False)
        steps, total = len(keys) // run.batch, torch.zeros((), device=processes.device)
        random = np.random.default_rng((run.seed, epoch))
        for step in range(steps):
            part = keys[step * run.batch : (step + 1) * run.batch]
            images, labels = training.batch(part)
            targets = one_hot(labels, len(CLASSES)).float()
            if run.mixup:
                share = float(random.beta(run.mixup, run.mixup))
                images = share * images + (1 - share) * images.flip(0)
                targets = share * targets + (1 - share) * targets.flip(0)
            total += learner.step(images, targets, one_cycle((epoch + step / steps) / run.epochs))
        last = epoch == run.epochs - 1
        one = {"epoch": epoch, "size": size, "net": learner.average, "steps": steps, "total": total}
        if last or epoch % max(run.epochs // 6, 1) == 0:
            learner.check()
            found = logits(learner.average, photographs.judged[WATCHED_AT])
            one["watched"] = {"loss": round(float(total) / steps, 4), **judged(found, photographs.quantities)}
        yield one


def step_seconds(runs: list[Run], photographs: Photographs) -> dict[int, float]:
    """Of a step at each size, measured after it is compiled."""
    device = photographs.training.there.device
    learner = Learner(
        network.build(),
        Processes(0, 1, device),
        peak=1e-4,
        weight_decay=0.05,
        label_smoothing=0.05,
        compiled=device.type == "cuda",
    )
    seconds = {}
    for size in sorted({int(size) for run in runs for size in run.sizes.split(",")}):
        keys = epoch_keys(photographs.training.labels, 0, size, seed=0, balanced=False)[: runs[0].batch]

        def step(keys: list[data.Key] = keys) -> None:
            images, labels = photographs.training.batch(keys)
            learner.step(images, one_hot(labels, len(CLASSES)).float(), 1.0)

        started = time.monotonic()
        for _ in range(6):
            step()
        synchronise(device)
        compiled = time.monotonic()
        count = 40 if device.type == "cuda" else 1
        for _ in range(count):
            step()
        synchronise(device)
        seconds[size] = (time.monotonic() - compiled) / count
        print(
            f"size {size}: {compiled - started:.1f} s to compile, {runs[0].batch / seconds[size]:.0f} photographs/s",
            flush=True,
        )
    return seconds


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def with_epochs(runs: list[Run], photographs: Photographs, left: float, seconds: dict[int, float]) -> list[Run]:
    result = []
    for run in runs:
        sizes = [int(size) for size in run.sizes.split(",")]
        epoch = len(photographs.train) // run.batch * sum(seconds[size] for size in sizes) / len(sizes)
        result.append(replace(run, epochs=run.epochs or max(int(left / len(runs) / epoch), len(sizes))))
        print(f"{run.name}: {result[-1].epochs} epochs", flush=True)
    return result


def train_all(runs: list[Run], photographs: Photographs, a: argparse.Namespace) -> None:
    going = {run.name: epochs_of(run, photographs) for run in runs}
    curves: dict[str, list[dict[str, Any]]] = {run.name: [] for run in runs}
    started, round_ = time.monotonic(), 0
    while going:
        # Side by side in the share of their epochs, so that what is cut off is cut off of all.
        name = min(going, key=lambda name: len(curves[name]) / next(r.epochs for r in runs if r.name == name))
        run = next(r for r in runs if r.name == name)
        one = next(going[name])
        curves[name].append({k: v for k, v in one.items() if k not in ("net", "total")})
        round_ += 1
        if "watched" in one:
            print(
                f"{time.monotonic() - started:6.1f} s {name} {one['epoch']} at {one['size']}: {one['watched']}",
                flush=True,
            )
        if len(curves[name]) == run.epochs:
            finish(run, one["net"], photographs, curves[name], a)
            del going[name]


def finish(run: Run, net: torch.nn.Module, photographs: Photographs, curve: list[Any], a: argparse.Namespace) -> None:
    state = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    torch.save(state, a.state / f"{run.name}.pt")
    found = {f"{size}": logits(net, pictures) for size, pictures in photographs.judged.items()}
    found |= {f"{size} mirrored": logits(net, pictures, True) for size, pictures in photographs.judged.items()}
    np.savez_compressed(a.state / f"{run.name}.npz", **found)
    (a.state / f"{run.name}.epochs").write_text(str(run.epochs))
    told = {size: judged(found[str(size)], photographs.quantities) for size in JUDGED_AT}
    print(run.name, json.dumps(told), flush=True)
    with (a.out / "runs.jsonl").open("a") as file:
        file.write(json.dumps({"run": asdict(run), "judged": told, "curve": curve}) + "\n")


def split(archive: Path, out: Path) -> None:
    """Leaves a network in parts that are small enough to travel."""
    content = archive.read_bytes()
    for number, start in enumerate(range(0, len(content), 15_500_000)):
        (out / f"{archive.stem}.pt.{number}").write_bytes(content[start : start + 15_500_000])


def main() -> None:
    started = time.monotonic()
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "state", "out", "plan"):
        flags.add_argument(f"--{name}", type=Path, required=True)
    flags.add_argument("--seconds", type=float, required=True)
    flags.add_argument("--limit", type=int)
    a = flags.parse_args()
    a.state.mkdir(parents=True, exist_ok=True)
    a.out.mkdir(parents=True, exist_ok=True)
    device = Processes.join().device
    torch._dynamo.config.recompile_limit = 64
    photographs = Photographs(a.data, device, a.limit)
    print(f"{len(photographs.train)} to learn from after {time.monotonic() - started:.1f} s", flush=True)
    runs = [Run(**json.loads(line)) for line in a.plan.read_text().splitlines() if line.strip()]
    seconds = step_seconds(runs, photographs)
    runs = with_epochs(runs, photographs, a.seconds - 30 - (time.monotonic() - started), seconds)
    train_all(runs, photographs, a)
    print("graphs", dict(torch._dynamo.utils.counters["stats"]), flush=True)
    best = min(
        (json.loads(line) for line in (a.out / "runs.jsonl").read_text().splitlines()),
        key=lambda one: one["judged"]["160"]["rps"],
    )
    everything = {}
    for run in runs:
        with np.load(a.state / f"{run.name}.npz") as found:
            everything |= {f"{run.name} {key}": found[key] for key in found}
    np.savez_compressed(a.out / "runs.npz", **everything)
    split(a.state / f"{best['run']['name']}.pt", a.out)
    print(f"{best['run']['name']} goes along; {time.monotonic() - started:.1f} s in all", flush=True)


if __name__ == "__main__":
    main()
