"""What a network is worth against how many photographs it learned from: a picture, and the gain of each doubling.

    for share in 0.125 0.25 0.5 1; do
      python -m training.train --data ../shared/abid --fold 0 --share $share --out .runs/share-$share
    done
    python -m training.curve .runs/share-* --out docs/learning-curve.svg

The runs held out the same photographs. A line through them in the logarithm of their photographs leads on, as a guess,
to as many as the whole data set has, beside what others have published.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from training import metrics
from training.report import COLOURS, STYLE, svg

FIGURES = {
    "log_loss": ("as_shipped", "log loss, seven answers"),
    "accuracy": ("as_published", "accuracy of six, recorded 0 to 5"),
}
PUBLISHED = {
    "reference project": (23_055, 0.31),
    "Martizzi 2022": (40_000, 0.435),
    "ABID challenge": (324_735, 0.557),
}
"""Photographs and six-way accuracy, each on a test set of its own."""


@dataclass(frozen=True)
class Point:
    """A run: photographs it learned from, and for each of FIGURES its value and 95 % interval."""

    photographs: int
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]


def read(runs: list[Path]) -> list[Point]:
    """Fewest photographs first. Raises `ValueError` if the runs did not hold out the same ones."""
    held_out = {tuple(sorted(metrics.read_predictions(run / "predictions.csv")["validation"].ids)) for run in runs}
    if len(held_out) > 1:
        raise ValueError("these runs did not hold out the same photographs")
    points = []
    for run in runs:
        found = json.loads((run / "metrics.json").read_text())
        seen = found["validation"]
        points.append(
            Point(
                found["trained_on"],
                {name: seen[view][name] for name, (view, _) in FIGURES.items()},
                {name: tuple(seen["intervals"][view][name]) for name, (view, _) in FIGURES.items()},
            )
        )
    return sorted(points, key=lambda point: point.photographs)


def line(points: list[Point], name: str) -> tuple[float, float]:
    """Least squares: the gain of each doubling, and the value at one photograph."""
    gain, start = np.polyfit([np.log2(p.photographs) for p in points], [p.values[name] for p in points], 1)
    return float(gain), float(start)


def draw(points: list[Point]) -> str:
    """Both figures side by side, as SVG."""
    colour, most = COLOURS["challenger"], max(photographs for photographs, _ in PUBLISHED.values())
    with matplotlib.rc_context(STYLE):
        chart = Figure(figsize=(8.4, 3.4), layout="constrained")
        for axes, (name, (_, label)) in zip(chart.subplots(1, 2), FIGURES.items(), strict=True):
            gain, start = line(points, name)
            ends = np.array([points[0].photographs, points[-1].photographs, most])
            axes.plot(ends[:2], start + gain * np.log2(ends[:2]), color=colour, linewidth=1.2)
            axes.plot(ends[1:], start + gain * np.log2(ends[1:]), color=colour, linewidth=1, linestyle=(0, (4, 3)))
            for point in points:
                axes.plot([point.photographs] * 2, point.intervals[name], color=colour, linewidth=2, alpha=0.35)
                axes.plot([point.photographs], [point.values[name]], color=colour, marker="o", markersize=5)
            if name == "accuracy":
                for who, (photographs, value) in PUBLISHED.items():
                    axes.plot([photographs], [value], color=COLOURS["champion"], marker="D", markersize=4)
                    axes.annotate(
                        who,
                        (photographs, value),
                        (-6, 0),
                        textcoords="offset points",
                        ha="right",
                        va="center",
                        size=8,
                        color="#475569",
                    )
                axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
            axes.set_xscale("log")
            axes.set_xticks([1_000, 10_000, 100_000], ["1,000", "10,000", "100,000"])
            axes.set_xlabel("photographs learned from", color="#475569")
            axes.set_ylabel(label, color="#475569")
            axes.grid(color="#e2e8f0", linewidth=0.8)
            axes.set_axisbelow(True)
        return svg(chart, "Log loss and accuracy against the number of photographs learned from")


def table(points: list[Point]) -> str:
    lines = ["photographs  " + "  ".join(f"{label:<34}" for _, label in FIGURES.values())]
    for point in points:
        told = [f"{point.values[name]:.4f} ({low:.4f} to {high:.4f})" for name, (low, high) in point.intervals.items()]
        lines.append(f"{point.photographs:>11,}  " + "  ".join(f"{one:<34}" for one in told))
    gains = [f"{line(points, name)[0]:+.4f}" for name in FIGURES]
    lines.append(f"{'a doubling':>11}  " + "  ".join(f"{one:<34}" for one in gains))
    return "\n".join(one.rstrip() for one in lines)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("runs", type=Path, nargs="+", help="folders that training.train wrote")
    flags.add_argument("--out", type=Path, required=True)
    a = flags.parse_args()
    try:
        points = read(a.runs)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    if len({point.photographs for point in points}) < 2:
        raise SystemExit("a curve needs runs with different numbers of photographs")
    a.out.write_text(draw(points) + "\n")
    print(table(points))


if __name__ == "__main__":
    main()
