"""Measures how many photographs the flags `dark`, `blurred` and `colourless` are for, as they are and spoiled.

    PYTHONPATH=functions python -m experiments.clarity .data/abid

Prints quantiles of what `bintally.counting.clarity` measures over the photographs of the training split, from which its
thresholds are chosen, and the share that each of them flags; then the share of 500 of them that is flagged after light,
sharpness or colour is taken.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from bintally.counting import clarity
from PIL import Image, ImageFilter

from model.preprocess import decode
from training.learning import data

SPOILED = 500
QUANTILES = (0, 0.1, 0.2, 0.5, 1, 50)
"""In hundredths."""
WAYS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "every value x 0.5": lambda image: image.point(lambda value: value * 0.5),
    "every value x 0.2": lambda image: image.point(lambda value: value * 0.2),
    "every value x 0.1": lambda image: image.point(lambda value: value * 0.1),
    "blurred by 2 of 224 pixels": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "blurred by 3": lambda image: image.filter(ImageFilter.GaussianBlur(3)),
    "greyscale": lambda image: image.convert("L").convert("RGB"),
}
FLAGS = ("dark", "blurred", "colourless")


def measured(pictures: Sequence[Image.Image]) -> np.ndarray:
    """`clarity.Measures` of each [N, 3]."""
    with ThreadPoolExecutor() as pool:
        return np.array(list(pool.map(clarity.measure, pictures)))


def flagged(pictures: Sequence[Image.Image]) -> dict[str, int]:
    """How many of them each flag is for."""
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(clarity.faults, pictures))
    return {flag: sum(flag in one for one in found) for flag in FLAGS}


def table(pictures: Sequence[Image.Image]) -> str:
    """Markdown: quantiles of all photographs, what is flagged of them, and of the first SPOILED when spoiled."""
    lines = ["| | " + " | ".join(f"{q:g} %" for q in QUANTILES) + " |", "|---" * (len(QUANTILES) + 1) + "|"]
    for name, values in zip(clarity.Measures._fields, measured(pictures).T, strict=True):
        lines.append(f"| {name} | " + " | ".join(f"{v:.1f}" for v in np.percentile(values, QUANTILES)) + " |")
    lines += ["", "| photographs | " + " | ".join(FLAGS) + " |", "|---|---|---|---|"]
    few = pictures[:SPOILED]
    sets = {"as they are": pictures} | {name: [way(one) for one in few] for name, way in WAYS.items()}
    for name, some in sets.items():
        counts = flagged(some)
        lines.append(f"| {name} ({len(some):,}) | " + " | ".join(f"{counts[flag]:,}" for flag in FLAGS) + " |")
    return "\n".join(lines)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("data", type=Path, help="folder of labelled photographs")
    training = [p for p in data.read(flags.parse_args().data) if p.split == "train"]
    chosen = [training[i] for i in np.random.default_rng(0).permutation(len(training))]
    print(table([decode(p.read(), size=clarity.SIDE) for p in chosen]))


if __name__ == "__main__":
    main()
