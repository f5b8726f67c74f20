"""Measures what shrinking a photograph for the endpoint changes in its answer.

    PYTHONPATH=functions python -m experiments.shrunk labels.csv originals/ package/

Every photograph that the count function shrinks is counted as it came and as the function sends it. Printed are the
mean sizes, the share of counts that stay, how far probabilities move, and what the ranked probability score gains or
loses, with 95 % intervals (bin groups drawn 1,000 times): for all, and for those the model did not learn from.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bintally.counting import images
from numpy.typing import NDArray

from model import package, serve
from model.answer import CLASSES
from training.verdict.bootstrap import Resamples, interval
from training.verdict.metrics import ranked_probability_score

DRAWS = 1000


@dataclass(frozen=True)
class Pair:
    """A photograph's answers as it came and as the function sends it, each [7]."""

    group: str
    quantity: int
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    same_count: bool
    sizes: tuple[int, int]


def pair(counter: serve.Counter, data: bytes, group: str, quantity: int) -> Pair | None:
    """None for a photograph that is passed on as it is. Raises Rejected."""
    sent = images.prepare(data, images.read(data)).jpeg
    if sent is data:
        return None
    one, other = counter.count(data), counter.count(sent)
    before, after = (np.array(each["probabilities"]) for each in (one, other))
    return Pair(group, quantity, before, after, one["count"] == other["count"], (len(data), len(sent)))


def change(pairs: Sequence[Pair]) -> tuple[float, list[float | None]]:
    """Of the ranked probability score: mean, and the 95 % interval."""
    quantities = np.array([min(one.quantity, len(CLASSES) - 1) for one in pairs])
    before, after = (np.stack([getattr(one, name) for one in pairs]) for name in ("before", "after"))
    changed = ranked_probability_score(after, quantities) - ranked_probability_score(before, quantities)
    resamples = Resamples.of(np.array([one.group for one in pairs]), DRAWS)
    return float(changed.mean()), interval(resamples.means(changed[:, None], np.ones((len(pairs), 1), bool)))


def line(name: str, pairs: Sequence[Pair]) -> str:
    moved = np.array([abs(one.after - one.before) for one in pairs])
    before, after = np.mean([one.sizes for one in pairs], axis=0) / 1000
    same = np.mean([one.same_count for one in pairs])
    mean, (low, high) = change(pairs)
    return (
        f"| {name}, {len(pairs)} | {before:.0f} | {after:.0f} | {same:.1%} | {moved.mean():.4f} | {moved.max():.3f} "
        f"| {mean:+.4f} ({low:+.4f} to {high:+.4f}) |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, help="CSV with id, quantity and group")
    parser.add_argument("photographs", type=Path, help="folder of <id>.jpg")
    parser.add_argument("package", type=Path, help="folder of an unpacked model.tar.gz")
    parser.add_argument("--training", type=Path, default=Path("model/pretrained/training.csv"))
    options = parser.parse_args()
    counter = serve.Counter(package.load(options.package), serve.cores())
    with options.training.open() as file:
        learned = {row["id"] for row in csv.DictReader(file)}
    pairs: dict[str, Pair] = {}
    with options.labels.open() as file:
        for row in csv.DictReader(file):
            photograph = options.photographs / f"{row['id']}.jpg"
            if photograph.exists() and (
                found := pair(counter, photograph.read_bytes(), row["group"], int(row["quantity"]))
            ):
                pairs[row["id"]] = found
    print("| photographs | kB | sent | same count | mean change of a probability | largest | RPS |")
    print("|---|---|---|---|---|---|---|")
    print(line("all", list(pairs.values())))
    print(line("not learned from", [one for id, one in pairs.items() if id not in learned]))


if __name__ == "__main__":
    main()
