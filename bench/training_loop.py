"""Times training steps of training/train.py, and the same steps on batches that are already in memory.

python -m bench.training_loop --photographs .data/abid --size 64 --rounds 5

Both alternate, step by step, with the same network and photographs. Needs a Python with torch.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from model import network
from training.learning import data
from training.learning.learner import Learner
from training.learning.processes import Processes
from training.learning.schedule import step_keys

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


def measure(learner: Learner, subjects: dict[str, Batches], steps: int, photographs: int) -> list[dict[str, Any]]:
    """Alternates steps of the two, so that other work on the machine affects both equally.

    Batches are prepared ahead; taking one starts the next, so each step pays for one batch.
    """
    for batches in subjects.values():
        learner.step(*next(batches), 0.0)  # fills the pipeline, as the first step of a run does
    waited, seconds = dict.fromkeys(subjects, 0.0), dict.fromkeys(subjects, 0.0)
    for number in range(steps):
        for name in sorted(subjects, reverse=bool(number % 2)):
            started = time.perf_counter()
            batch = next(subjects[name])
            fetched = time.perf_counter()
            learner.step(*batch, 0.0)
            learner.check()  # waits for a GPU
            waited[name] += fetched - started
            seconds[name] += time.perf_counter() - started
    return [
        {
            "subject": name,
            "images_per_second": steps * photographs / seconds[name],
            "waiting_share": waited[name] / seconds[name],
        }
        for name in subjects
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--photographs", type=Path, required=True, help="folder of JPEGs")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--steps", type=int, default=16, help="of a turn")
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()

    found = sorted(options.photographs.rglob("*.jpg"))
    used = [found[index % len(found)] for index in range(options.batch_size * 4)]
    photographs = [
        data.Photograph(path.name, n % 7, "", "", "train", "", path.read_bytes) for n, path in enumerate(used)
    ]
    processes = Processes.join()
    training = data.training_on(processes.device, photographs, seed=0)
    learner = Learner(network.build(), processes, peak=0.001, weight_decay=0.05, label_smoothing=0.05)

    def keys(turn: int) -> Iterator[list[data.Key]]:
        epochs = 1 + options.steps // 4  # of four steps each
        sizes = [options.size] * epochs
        order = step_keys(training.labels, sizes, batch=options.batch_size, epoch=0, step=0, seed=turn, balanced=False)
        return itertools.islice(order, options.steps + 1)

    rows = []
    for turn in range(options.rounds):
        subjects = {
            "training": training.batches(keys(turn)),
            "in_memory": iter([training.batch(batch) for batch in keys(turn)]),
        }
        measured = measure(learner, subjects, options.steps, options.batch_size)
        rows += [{"round": turn, **row} for row in measured]
    print(json.dumps({"rows": rows, "threads": torch.get_num_threads()}))
