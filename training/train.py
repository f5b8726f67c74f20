"""Trains the counting network on labelled photographs.

    python -m training.train --data ../shared/abid --out .runs/first
    torchrun --nproc-per-node 2 -m training.train --data … --out …

As a SageMaker training job it reads its folders from SM_CHANNEL_TRAIN, SM_MODEL_DIR and
SM_CHECKPOINT_DIR instead. It resumes from the last checkpoint by itself. In the output folder it
leaves `network.pt` (the averaged weights), `predictions.csv` (validation and test photographs with
their logits) and `metrics.json`, which `training.metrics` computes from those predictions alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from model import network
from model.answer import CLASSES
from model.preprocess import SIZE
from training import data, metrics

flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
flags.add_argument("--data", type=Path, default=os.environ.get("SM_CHANNEL_TRAIN"), help="labelled photographs")
flags.add_argument("--out", type=Path, default=os.environ.get("SM_MODEL_DIR"))
flags.add_argument("--checkpoints", type=Path, default=os.environ.get("SM_CHECKPOINT_DIR"), help="default: OUT")
flags.add_argument("--epochs", type=int, default=31)
flags.add_argument("--sizes", default="64,96,96,128,128", help="input sizes over equal parts of the epochs")
flags.add_argument("--batch-size", type=int, default=64, help="of one process")
flags.add_argument("--learning-rate", type=float, default=0.001, help="at the peak, for 64 photographs a step")
flags.add_argument("--weight-decay", type=float, default=0.05)
flags.add_argument("--label-smoothing", type=float, default=0.05)
flags.add_argument(
    "--balance",
    choices=("none", "sampler", "loss"),
    default="none",
    help="how class imbalance is corrected: one way, so that it is never corrected twice",
)
flags.add_argument("--imagenet", action="store_true", help="start from ImageNet weights (downloads them)")
flags.add_argument("--limit", type=int, help="use only so many photographs of each split (for a trial)")
flags.add_argument("--workers", type=int, default=1, help="processes that prepare photographs")
flags.add_argument("--seed", type=int, default=0)


def main(arguments: argparse.Namespace) -> None:
    a = arguments
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else torch.device("cpu")
    )
    if world > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    torch.manual_seed(a.seed)

    # Data
    splits: dict[str, list[data.Photograph]] = {"train": [], "validation": [], "test": []}
    for photograph in data.read(a.data):
        splits[photograph.split].append(photograph)
    splits = {name: photographs[: a.limit] for name, photographs in splits.items()}
    training = data.Training(splits["train"], a.seed)
    counts = np.bincount(training.labels, minlength=len(CLASSES))
    steps = len(training) // (a.batch_size * world)
    if steps == 0:
        raise SystemExit(f"{len(training)} training photographs do not fill one batch of {a.batch_size * world}")
    if rank == 0:
        print(f"train {len(training)} {dict(zip(CLASSES, counts.tolist(), strict=True))}", flush=True)
        for name in ("validation", "test"):
            print(
                name,
                len(splits[name]),
                dict(sorted(Counter(p.label for p in splits[name]).items())),
                flush=True,
            )

    # Network, its running average, optimiser. Biases and normalisation are not decayed.
    net = network.build(imagenet=a.imagenet).to(device, memory_format=torch.channels_last)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.998), use_buffers=True)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": a.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    peak = a.learning_rate * a.batch_size * world / 64
    optimiser = torch.optim.AdamW(groups, lr=peak, fused=True)
    weights = None
    if a.balance == "loss":
        weights = torch.tensor(counts.sum() / len(CLASSES) / np.maximum(counts, 1), dtype=torch.float32, device=device)

    # Resume
    checkpoint = (a.checkpoints or a.out) / "checkpoint.pt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    a.out.mkdir(parents=True, exist_ok=True)
    first_epoch = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        net.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        first_epoch = state["epoch"] + 1
        if rank == 0:
            print(f"resumes with epoch {first_epoch}", flush=True)
    stepped: torch.nn.Module = DistributedDataParallel(net) if world > 1 else net

    # Loop
    sizes = [int(size) for size in a.sizes.split(",")]
    for epoch in range(first_epoch, a.epochs):
        size, started, waited, total = sizes[epoch * len(sizes) // a.epochs], time.monotonic(), 0.0, 0.0
        keys = epoch_keys(training.labels, epoch, size, seed=a.seed, balanced=a.balance == "sampler")
        keys = keys[rank::world][: steps * a.batch_size]
        loader = DataLoader(
            training,
            a.batch_size,
            sampler=keys,
            num_workers=a.workers,
            prefetch_factor=4 if a.workers else None,
        )
        stepped.train()
        batches = iter(loader)
        for step in range(steps):
            asked = time.monotonic()
            images, labels = next(batches)
            waited += time.monotonic() - asked
            images, labels = images.to(device, memory_format=torch.channels_last), labels.to(device)
            for group in optimiser.param_groups:
                group["lr"] = peak * one_cycle((epoch + step / steps) / a.epochs)
            with torch.autocast(device.type, torch.bfloat16):
                logits = stepped(images)
            loss = cross_entropy(logits.float(), labels, weights, label_smoothing=a.label_smoothing)
            if not torch.isfinite(loss):
                raise SystemExit(
                    f"loss is {loss.item()} at epoch {epoch}, step {step}: logits up to {logits.abs().max().item()},"
                    f" input up to {images.abs().max().item()}, labels {labels.tolist()}"
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            average.update_parameters(net)
            total += loss.item()
        if rank == 0:
            seconds = time.monotonic() - started
            watched = splits["validation"][:512]
            logits = predict(average, watched, device)
            seen = metrics.summary(metrics.softmax(logits), np.array([p.quantity for p in watched]))
            print(
                f"epoch {epoch} size {size} loss {total / steps:.4f} seconds {seconds:.0f}"
                f" waiting {waited / seconds:.1%} images_per_second {steps * a.batch_size * world / seconds:.1f}"
                f" validation_log_loss {seen['as_shipped']['log_loss']:.4f}"
                f" validation_rps {seen['as_shipped']['rps']:.4f}"
                f" validation_six_way {seen['as_published']['accuracy']:.4f}",
                flush=True,
            )
            state = {
                "network": net.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
                "epoch": epoch,
            }
            torch.save(state, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)

    # Predictions, and metrics from them
    if rank == 0:
        torch.save(average.module.state_dict(), a.out / "network.pt")
        held_out = splits["validation"] + splits["test"]
        metrics.write_predictions(a.out / "predictions.csv", held_out, predict(average, held_out, device))
        report = metrics.report(metrics.read_predictions(a.out / "predictions.csv"))
        (a.out / "metrics.json").write_text(json.dumps(report, indent=1) + "\n")
        print(metrics.table(report))
    if world > 1:
        dist.destroy_process_group()


def epoch_keys(labels: list[int], epoch: int, size: int, *, seed: int, balanced: bool) -> list[tuple[int, int, int]]:
    """The order of an epoch, the same in every process: (epoch, index, size) of each photograph."""
    random = np.random.default_rng((seed, epoch))
    if balanced:
        frequency = np.bincount(labels, minlength=len(CLASSES))[labels]
        order = random.choice(len(labels), len(labels), p=(1 / frequency) / (1 / frequency).sum())
    else:
        order = random.permutation(len(labels))
    return [(epoch, int(index), size) for index in order]


def one_cycle(progress: float, warm_up: float = 0.15) -> float:
    """Share of the peak learning rate: up in a line, then down a cosine to nothing (Smith 2018)."""
    if progress < warm_up:
        return max(progress / warm_up, 0.01)
    return float((1 + np.cos(np.pi * (progress - warm_up) / (1 - warm_up))) / 2)


@torch.inference_mode()
def predict(net: torch.nn.Module, photographs: list[data.Photograph], device: torch.device) -> np.ndarray:
    """Logits [N, 7] for photographs as they are served, in float32."""
    net.eval()
    logits = [
        net(data.evaluation_batch(list(batch), SIZE).to(device, memory_format=torch.channels_last)).cpu()
        for batch in batches_of(photographs, 64)
    ]
    return torch.cat(logits).numpy()


def batches_of(photographs: list[data.Photograph], size: int) -> Iterator[tuple[data.Photograph, ...]]:
    remaining = iter(photographs)
    while batch := tuple(itertools.islice(remaining, size)):
        yield batch


if __name__ == "__main__":
    main(flags.parse_args())
