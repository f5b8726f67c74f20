"""Training steps as training/train.py does them, and the same steps on batches that are already in memory.

python bench/training_loop.py --photographs ../shared/abid --size 64 --rounds 5

Both take turns with the same network and photographs. With a Python that has torch.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from model import network
from training import data
from training.learner import Learner
from training.processes import Processes
from training.train import step_keys

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


def measure(learner: Learner, batches: Batches, photographs: int) -> dict[str, float]:
    """All steps but the first, which fills the pipeline, as the first of a run does."""
    learner.step(*next(batches), 0.0)
    waited, seconds, steps = 0.0, 0.0, 0
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        fetched = time.perf_counter()
        if batch is None:
            break
        learner.step(*batch, 0.0)
        waited += fetched - started
        seconds += time.perf_counter() - started
        steps += 1
    return {"images_per_second": steps * photographs / seconds, "waiting_share": waited / seconds}


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
    training = data.Training(photographs, seed=0)
    learner = Learner(network.build(), Processes.join(), peak=0.001, weight_decay=0.05, label_smoothing=0.05)

    def keys(turn: int) -> Iterator[list[data.Key]]:
        epochs = 1 + options.steps // 4  # of four steps each
        sizes = [options.size] * epochs
        order = step_keys(training.labels, sizes, batch=options.batch_size, epoch=0, step=0, seed=turn, balanced=False)
        return itertools.islice(order, options.steps + 1)

    rows = []
    for turn in range(options.rounds):
        ready = [training.batch(batch) for batch in keys(turn)]
        for subject in ("training", "in_memory") if turn % 2 else ("in_memory", "training"):
            batches = iter(ready) if subject == "in_memory" else training.batches(keys(turn))
            rows.append({"subject": subject, "round": turn, **measure(learner, batches, options.batch_size)})
    print(json.dumps({"rows": rows, "threads": torch.get_num_threads()}))
