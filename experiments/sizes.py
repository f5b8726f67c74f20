"""Counts validation photographs with a package's network at several input sizes, and times each: a table in Markdown.

    OMP_NUM_THREADS=1 python -m experiments.sizes model/pretrained/model.tar.gz --data .data/abid

`int8` is the package's own network, whose ranges were measured at the size it is served at; `float32` has the same
weights and exact activations. Each has its own temperature at each size, fitted on the same photographs. The networks
are timed in turn, one photograph a call, one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import openvino

from experiments.epochs import read
from model import export, package
from model.answer import probabilities
from model.preprocess import SIZE, normalise
from model.restore import restore
from training.learning import data
from training.verdict import metrics
from training.verdict.bootstrap import Resamples

SIZES = (96, 128, 160, 192, 224)
ROUNDS = 200
DRAWS = 2000
FIGURES = (("as_shipped", "rps"), ("as_shipped", "log_loss"), ("as_published", "accuracy"))


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("package", type=Path, help="a model.tar.gz")
    flags.add_argument("--data", type=Path, required=True)
    flags.add_argument("--limit", type=int, help="use only so many photographs (for a trial)")
    a = flags.parse_args()
    training, validation = read(a.data, a.limit)
    seen = {size: data.pictures(validation, size) for size in SIZES}
    with tempfile.TemporaryDirectory() as folder:
        made = package.unpack(a.package, Path(folder))
        served = openvino.Core().read_model(made.network)
        exact = export.convert(restore(made, data.evaluation_batch(training[:64], SIZE).numpy()))
    compiled = {}
    for name, network in (("int8", served), ("float32", exact)):
        for size in SIZES:
            network.reshape([-1, 3, size, size])
            options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
            compiled[name, size] = openvino.Core().compile_model(network, "CPU", options)
    quantities = np.array([p.quantity for p in validation])
    columns = {}
    for (name, size), network in compiled.items():
        logits = np.concatenate([network(normalise(picture[None]))[0] for picture in seen[size]])
        p = probabilities(logits, metrics.fit_temperature(logits, quantities))
        columns[name, size] = metrics.scores(p, quantities)
    times: dict[tuple[str, int], list[float]] = {key: [] for key in compiled}
    for turn in range(ROUNDS):
        for (name, size), network in compiled.items():
            batch = normalise(seen[size][turn % len(validation)][None])
            started = time.perf_counter()
            network(batch)
            times[name, size].append(1000 * (time.perf_counter() - started))
    values, counted = (
        np.stack(part, axis=1)
        for part in zip(*(own[figure] for own in columns.values() for figure in FIGURES), strict=True)
    )
    drawn = Resamples.of(np.array([p.group for p in validation]), DRAWS).means(values, counted)
    means = [float(column[used].mean()) for column, used in zip(values.T, counted.T, strict=True)]
    print("| network | size, px | RPS | difference | log loss | six-way | difference, points | ms | against 160 px |")
    print("|---|---|---|---|---|---|---|---|---|")
    width, keys = len(FIGURES), list(columns)
    for at, (name, size) in enumerate(keys):
        own, base = width * at, width * keys.index(("int8", SIZE))
        (low, high), (down, up) = (np.percentile(drawn[:, own + k] - drawn[:, base + k], (2.5, 97.5)) for k in (0, 2))
        rps, loss, six = means[own : own + width]
        off, points = rps - means[base], 100 * (six - means[base + 2])
        took, usual = np.median(times[name, size]), np.median(times["int8", SIZE])
        print(
            f"| {name} | {size} | {rps:.3f} | {off:+.3f} ({low:+.3f} to {high:+.3f}) | {loss:.3f} | {six:.1%}"
            f" | {points:+.1f} ({100 * down:+.1f} to {100 * up:+.1f}) | {took:.1f} | {took / usual:.2f} |"
        )


if __name__ == "__main__":
    main()
