"""Measures training speed in one run: the step alone, the whole loop, the eager step, and the usual loop.

    python -m bench.training_speed --photographs .data/abid/images --size 128 --batch-size 256

- `step`: steps of `training/learning/learner.py` on one random batch on the device; compiled on a GPU, as in a long
  run.
- `loop`: the same steps on photographs as `training/train.py` feeds them.
- `eager`: torch's network without bfloat16, channels-last and compiler (float32 on a CPU; on a GPU torch rounds
  convolutions to TF32).
- `usual`: the loop of torchvision's references/classification/train.py: worker processes that decode and vary each
  photograph with Pillow and torchvision's transforms, eager, SGD.

Subjects alternate in every round; medians are over rounds and ratios within them. The report also contains the step's
shares of two ceilings, both measured here: the arithmetic of the network's convolutions and products (forward and
backward) over a large matrix product's, and the minimum bytes that these operations and the optimiser must move over a
large copy's. Needs only torch, torchvision, numpy and Pillow.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from model import network
from model.preprocess import MEAN, STD
from training.learning import data
from training.learning.learner import Learner, channels_last
from training.learning.processes import Processes
from training.learning.schedule import step_keys

Batch = tuple[torch.Tensor, torch.Tensor]
PEER_PHOTOGRAPHS, PEER_EPOCHS = 23_055, 50
"""Photographs that the reference project trained on, in about 4 hours on two GPUs."""


class Files(Dataset[tuple[torch.Tensor, int]]):
    def __init__(self, files: list[Path], size: int, length: int) -> None:
        self.files, self.length = files, length
        self.vary = transforms.Compose(
            [
                transforms.RandomResizedCrop(size, scale=(0.6, 1.0)),
                transforms.RandomHorizontalFlip(),
                transforms.ColorJitter(0.3, 0.3, 0.3),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path = self.files[index % len(self.files)]
        return self.vary(Image.open(path).convert("RGB")), index % 7


class Bytes(TorchDispatchMode):
    """Counts the bytes that convolutions and matrix products read and write, each operand once."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if any(name in str(func) for name in ("convolution", "mm")):
            tensors = [t for t in (*args, *(out if isinstance(out, tuple) else (out,))) if isinstance(t, torch.Tensor)]
            self.total += sum(t.numel() * t.element_size() for t in tensors)
        return out


def photographs_a_second(step: Callable[[], object], batch: int, steps: int, device: torch.device) -> float:
    synchronise(device)
    started = time.perf_counter()
    for _ in range(steps):
        step()
    synchronise(device)
    return steps * batch / (time.perf_counter() - started)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def usual(files: list[Path], a: argparse.Namespace, device: torch.device) -> Callable[[int], float]:
    """Photographs a second over a number of steps of the usual loop, once its workers' stock of batches is used up."""
    net = network.build().to(device)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)

    def measure(steps: int) -> float:
        ahead = 2 * a.workers  # batches in stock when the first is requested
        loader = DataLoader(
            Files(files, a.size, a.batch_size * (ahead + steps)),
            batch_size=a.batch_size,
            num_workers=a.workers,
            pin_memory=device.type == "cuda",
            shuffle=True,
        )
        batches = iter(loader)

        def step() -> None:
            images, labels = next(batches)
            descend(net, optimiser, images.to(device, non_blocking=True), labels.to(device, non_blocking=True))

        photographs_a_second(step, a.batch_size, ahead, device)
        return photographs_a_second(step, a.batch_size, steps, device)

    return measure


def descend(net: torch.nn.Module, optimiser: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> None:
    loss = torch.nn.functional.cross_entropy(net(images), labels)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()


def ceilings(device: torch.device) -> dict[str, float]:
    """Floating-point operations a second of a large matrix product, and bytes a second of a large copy."""
    cuda = device.type == "cuda"
    kind = torch.bfloat16 if cuda or Processes(0, 1, device).has_bf16 else torch.float32
    edge, numbers = (8192, 2**30) if cuda else (2048, 2**26)
    left, right = (torch.randn(edge, edge, device=device, dtype=kind) for _ in range(2))
    source = torch.randn(numbers, device=device)
    target = torch.empty_like(source)
    products = photographs_a_second(lambda: torch.mm(left, right), 1, 3, device)  # warm-up
    products = max(photographs_a_second(lambda: torch.mm(left, right), 1, 10, device) for _ in range(3))
    copies = max(photographs_a_second(lambda: target.copy_(source), 1, 5, device) for _ in range(3))
    return {"operations_per_second": 2 * edge**3 * products, "bytes_per_second": 8 * numbers * copies}


def cost(a: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """Operations and least bytes of a step on a batch, counted on a network that is not compiled."""
    net = channels_last(network.build(), device)
    images = torch.randn(a.batch_size, 3, a.size, a.size, device=device)
    labels = torch.randint(0, 7, (a.batch_size,), device=device)
    flops, moved = FlopCounterMode(display=False), Bytes()  # type: ignore[no-untyped-call]
    with flops, moved, torch.autocast(device.type, torch.bfloat16, enabled=Processes(0, 1, device).has_bf16):
        torch.nn.functional.cross_entropy(net(images).float(), labels).backward()
    numbers = sum(p.numel() for p in net.parameters())
    # AdamW reads weight, gradient and two moments and writes three of them; the average is read and written.
    return {"operations": float(flops.get_total_flops()), "bytes": moved.total + numbers * 4.0 * (4 + 3 + 3)}


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--photographs", type=Path, required=True, help="folder of JPEGs")
    flags.add_argument("--size", type=int, default=128)
    flags.add_argument("--batch-size", type=int, default=256)
    flags.add_argument("--rounds", type=int, default=5)
    flags.add_argument("--steps", type=int, default=40, help="of a turn")
    flags.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="of the usual loop")
    a = flags.parse_args()
    processes = Processes.join()
    device = processes.device

    files = sorted(a.photographs.rglob("*.jpg"))
    photographs = [
        data.Photograph(path.name, n % 7, "", "", "train", "", path.read_bytes)
        for n, path in enumerate(itertools.islice(itertools.cycle(files), max(len(files), 8 * a.batch_size)))
    ]
    training = data.training_on(device, photographs, seed=0)
    learner = Learner(
        network.build(),
        processes,
        peak=1e-4,
        weight_decay=0.05,
        label_smoothing=0.05,
        compiled=device.type == "cuda",
    )
    epochs = 2 + (a.rounds + 1) * a.steps * a.batch_size // len(photographs)
    order = step_keys(training.labels, [a.size] * epochs, batch=a.batch_size, epoch=0, step=0, seed=0, balanced=False)
    batches: Iterator[Batch] = training.batches(order)
    still = torch.randn(a.batch_size, 3, a.size, a.size, device=device)
    labels = torch.randint(0, 7, (a.batch_size,), device=device)
    plain = network.build().to(device)
    plain_optimiser = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9)

    def timed(step: Callable[[], object]) -> Callable[[int], float]:
        return lambda steps: photographs_a_second(step, a.batch_size, steps, device)

    subjects: dict[str, Callable[[int], float]] = {
        "step": timed(lambda: learner.step(still, labels, 1.0)),
        "loop": timed(lambda: learner.step(*next(batches), 1.0)),
        "eager": timed(lambda: descend(plain, plain_optimiser, still, labels)),
        "usual": usual(files, a, device),
    }
    rows: list[dict[str, Any]] = []
    for turn in range(-1, a.rounds):  # the first one warms up
        names = list(subjects)
        for name in names[turn % 4 :] + names[: turn % 4]:
            speed = subjects[name](a.steps if turn >= 0 else 3)
            if turn >= 0:
                rows.append({"subject": name, "round": turn, "photographs_per_second": speed})

    def ratio(one: str, other: str) -> float:
        pairs = zip(speeds(rows, one), speeds(rows, other), strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)

    medians = {name: statistics.median(speeds(rows, name)) for name in subjects}
    step_cost, limits = cost(a, device), ceilings(device)
    steps_a_second = medians["step"] / a.batch_size
    print(
        json.dumps(
            {
                "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
                "torch": torch.__version__,
                "size": a.size,
                "batch_size": a.batch_size,
                "photographs_per_second": medians,
                "loop_to_step": ratio("loop", "step"),
                "loop_to_usual": ratio("loop", "usual"),
                "step_to_eager": ratio("step", "eager"),
                **limits,
                "share_of_arithmetic": step_cost["operations"] * steps_a_second / limits["operations_per_second"],
                "share_of_bandwidth": step_cost["bytes"] * steps_a_second / limits["bytes_per_second"],
                "minutes_for_the_peer's_run": PEER_PHOTOGRAPHS * PEER_EPOCHS / medians["loop"] / 60,
                "rows": rows,
            }
        )
    )


def speeds(rows: list[dict[str, Any]], subject: str) -> list[float]:
    return [row["photographs_per_second"] for row in rows if row["subject"] == subject]


if __name__ == "__main__":
    main()
