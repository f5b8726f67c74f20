"""Plots a network's figures against the number of its training photographs, and prints the gain of each doubling.

    for share in 0.125 0.25 0.5 1; do
      python -m training.train --data .data/abid --fold 0 --share $share --out .runs/share-$share
    done
    python -m experiments.curve .runs/share-* --out docs/learning-curve.svg

The runs held out the same photographs and differ in the number of training photographs, and perhaps in epochs, since
fewer photographs make shorter ones. A line in the logarithm of that number extrapolates, as a guess, to the numbers
that others have trained on. Intervals are 95 %, over the photographs held out, by bootstrap over their bins: they do
not include the difference between seeds.
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

from model.answer import probabilities
from training.verdict import metrics
from training.verdict.bootstrap import Floats, Ints, Resamples, interval
from training.verdict.report import COLOURS, STYLE, svg

FIGURES = {
    ("as_shipped", "log_loss"): "log loss, seven answers",
    ("as_published", "accuracy"): "accuracy of six, recorded 0 to 5",
}
PUBLISHED = {
    "reference project": (23_055, 0.31),
    "Martizzi 2022": (40_000, 0.435),
    "ABID challenge": (324_735, 0.557),
}
"""Photographs and accuracy of six, each on its own test set."""
GREY = "#475569"


@dataclass(frozen=True)
class Curve:
    """Runs, fewest photographs first: photographs [R] and epochs [R]; values [R, 2] of FIGURES, and resampled
    ones [draws, R, 2]."""

    photographs: Ints
    epochs: Ints
    values: Floats
    drawn: Floats

    def lines(self, values: Floats) -> Floats:
        """Least squares for values [..., R, 2]: a doubling's gain and the value at one photograph, [2, ..., 2]."""
        stacked = np.moveaxis(values, -2, 0)
        fitted = np.polyfit(np.log2(self.photographs), stacked.reshape(len(stacked), -1), 1)
        return np.asarray(fitted.reshape(2, *stacked.shape[1:]))


def read(runs: list[Path]) -> Curve:
    """Raises `ValueError` if the runs cannot be compared."""
    told = [json.loads((run / "metrics.json").read_text()).get("run") for run in runs]
    if None in told:
        raise ValueError("a run of an older version does not say how many photographs it learned from")
    if len({(run["sizes"], run["judged_at"]) for run in told}) > 1:
        raise ValueError("these runs have other input sizes")
    order = sorted(range(len(runs)), key=lambda k: int(told[k]["photographs"]))
    seen = [metrics.read_predictions(runs[k] / "predictions.csv")["validation"] for k in order]
    if any(list(one.ids) != list(seen[0].ids) for one in seen):
        raise ValueError("these runs did not hold out the same photographs")
    columns = []
    for one in seen:
        p = probabilities(one.logits, metrics.fit_temperature(one.logits, one.quantities))
        columns += [metrics.scores(p, one.quantities)[figure] for figure in FIGURES]
    values, counted = (np.stack(parts, axis=1) for parts in zip(*columns, strict=True))
    means = np.array([column[used].mean() for column, used in zip(values.T, counted.T, strict=True)])
    drawn = Resamples.of(seen[0].groups, 1000).means(values, counted)
    return Curve(
        np.array([told[k]["photographs"] for k in order]),
        np.array([told[k]["epochs"] for k in order]),
        means.reshape(-1, len(FIGURES)),
        drawn.reshape(len(drawn), -1, len(FIGURES)),
    )


def draw(curve: Curve) -> str:
    """Both figures side by side, as SVG."""
    colour, most = COLOURS["challenger"], max(photographs for photographs, _ in PUBLISHED.values())
    with matplotlib.rc_context(STYLE):
        chart = Figure(figsize=(8.4, 3.4), layout="constrained")
        for number, (axes, label) in enumerate(zip(chart.subplots(1, 2), FIGURES.values(), strict=True)):
            gain, start = curve.lines(curve.values)[:, number]
            ends = np.array([curve.photographs[0], curve.photographs[-1], most])
            line = start + gain * np.log2(ends)
            axes.plot(ends[:2], line[:2], color=colour, linewidth=1.2)
            axes.plot(ends[1:], line[1:], color=colour, linewidth=1, linestyle=(0, (4, 3)))
            axes.plot(curve.photographs, curve.values[:, number], "o", color=colour, markersize=5)
            for photographs, drawn in zip(curve.photographs, curve.drawn[:, :, number].T, strict=True):
                axes.plot([photographs] * 2, interval(drawn), color=colour, linewidth=2, alpha=0.35)
            axes.set_xscale("log")
            axes.set_xticks([1_000, 10_000, 100_000], ["1,000", "10,000", "100,000"])
            axes.set_xlabel("photographs learned from", color=GREY)
            axes.set_ylabel(label, color=GREY)
            axes.grid(color="#e2e8f0", linewidth=0.8)
            axes.set_axisbelow(True)
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
        for who, (photographs, value) in PUBLISHED.items():
            axes.plot([photographs], [value], "D", color=COLOURS["champion"], markersize=4)
            place = {"xytext": (-6, -3), "textcoords": "offset points", "ha": "right"}
            axes.annotate(who, (photographs, value), size=8, color=GREY, **place)
        return svg(chart, "Log loss and accuracy against the number of photographs learned from")


def table(curve: Curve) -> str:
    lines = ["photographs  epochs  " + "  ".join(f"{label:<34}" for label in FIGURES.values())]

    def told(values: Floats, drawn: Floats, sign: str = "") -> str:
        found = []
        for value, column in zip(values, drawn.T, strict=True):
            low, high = interval(column)
            found.append(f"{value:{sign}.4f} ({low:{sign}.4f} to {high:{sign}.4f})")
        return "  ".join(f"{one:<34}" for one in found)

    for k, (photographs, epochs) in enumerate(zip(curve.photographs, curve.epochs, strict=True)):
        lines.append(f"{photographs:>11,}  {epochs:>6}  {told(curve.values[k], curve.drawn[:, k])}")
    lines.append(f"{'a doubling':>11}  {'':>6}  {told(curve.lines(curve.values)[0], curve.lines(curve.drawn)[0], '+')}")
    return "\n".join(one.rstrip() for one in lines)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("runs", type=Path, nargs="+", help="folders that training.train wrote")
    flags.add_argument("--out", type=Path, required=True)
    a = flags.parse_args()
    try:
        curve = read(a.runs)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    if len(set(curve.photographs)) < 2:
        raise SystemExit("a curve needs runs with different numbers of photographs")
    a.out.write_text(draw(curve) + "\n")
    print(table(curve))


if __name__ == "__main__":
    main()
