"""`bintally bench review ranking`: how soon each order of recounting finds records that were falsified.

The bins are the shipped model's test bins, with its held-out answers; their records are taken for right, but for a
twentieth that is falsified at random. Every rule orders the same draws. Nothing here was used to choose a rule.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bintally.common.counts import pooled
from bintally.common.evidence import PRIOR, weigh
from numpy.typing import NDArray
from rich.console import Console

from bench.common import Numbers, bare_table, progress_bar
from local.stack import REPOSITORY
from model.answer import posterior_median, probabilities
from training.verdict import metrics
from training.verdict.bootstrap import Floats, Ints
from training.verdict.ranking import DRAWS, FIGURES, KINDS, RESAMPLES, SHARE, Score, drawn, figures, weights

PREDICTIONS = REPOSITORY / "model" / "pretrained" / "predictions.csv"
SUBSETS = ("all records", "0 to 5", "6 and more")
DEFAULT = "bayes"


@dataclass(frozen=True)
class Bins:
    """The photographs: probabilities [N, 7], counts and recorded quantities [N], the groups that are resampled [N]."""

    p: Floats
    count: Ints
    quantity: Ints
    group: Ints


def read(path: Path = PREDICTIONS, split: str = "test") -> Bins:
    """Calibrated as the package is: by the temperature that fits its validation photographs."""
    predictions = metrics.read_predictions(path)
    calibrating, seen = predictions["validation"], predictions[split]
    p = probabilities(seen.logits, metrics.fit_temperature(calibrating.logits, calibrating.quantities))
    _, group = np.unique(seen.groups, return_inverse=True)
    return Bins(p, posterior_median(p), seen.quantities, group.astype(np.int64))


def rules(bins: Bins) -> dict[str, Score]:
    """What each rule makes of the bin at a place with a recorded quantity: the greater, the sooner it is recounted."""

    def confidence(at: int) -> float:
        return float(bins.p[at, bins.count[at]])

    def differs(at: int, recorded: int) -> bool:
        return bool(bins.count[at] != pooled(recorded))

    def ratio(at: int, recorded: int) -> float:
        """The likelihood ratio with any other class by the class prior: the prior divided out, and no more."""
        p, prior = float(bins.p[at, pooled(recorded)]), PRIOR[pooled(recorded)]
        return (1 - p) / (1 - prior) / (max(p, 1e-9) / prior)

    return {
        "random": lambda at, recorded: 0.0,
        "size of the difference": lambda at, recorded: float(abs(bins.count[at] - pooled(recorded))),
        "confidence": lambda at, recorded: confidence(at) if differs(at, recorded) else -confidence(at),
        "1 - p": lambda at, recorded: 1 - float(bins.p[at, pooled(recorded)]),
        "ratio": ratio,
        DEFAULT: lambda at, recorded: weigh(bins.p[at].tolist(), recorded).ratio,
    }


def measure_ranking(console: Console, draws: int = DRAWS, resamples: int = RESAMPLES) -> Numbers:
    """{"rows": by kind, subset and rule, "gains": of the default over 1 - p with intervals, "curves", "promise"}."""
    bins = read()
    scores = rules(bins)
    counted = weights(bins.group, resamples)
    rows, gains, promises, opened = [], [], [], []
    curves: dict[str, Floats] = {}
    with progress_bar(console) as progress:
        task = progress.add_task("Ranking", total=len(KINDS) * draws)
        for kind in KINDS:
            sums = {(subset, rule): np.zeros((len(counted), len(FIGURES))) for subset in SUBSETS for rule in scores}
            found = {rule: np.zeros(len(bins.group)) for rule in scores}
            for wrong, record, ties in drawn(bins.quantity, kind, draws):
                inside = dict(zip(SUBSETS, (record >= 0, record < 6, record > 5), strict=True))
                for rule, score in scores.items():
                    given = np.array([score(at, int(each)) for at, each in enumerate(record)])
                    order = np.lexsort((ties, -given))
                    found[rule] += wrong[order].cumsum() / wrong.sum() / draws
                    for subset, mask in inside.items():
                        sums[subset, rule] += figures(order, wrong, counted * mask) / draws
                    if rule == DEFAULT:
                        chances = SHARE * given / (SHARE * given + 1 - SHARE)
                        first = order[: round(SHARE * len(order))]
                        promises.append((kind, float(chances[first].sum()), int(wrong[first].sum()), len(first)))
                        opened.append(review_rules(bins, record, wrong, given))
                progress.advance(task)
            for (subset, rule), sum_ in sums.items():
                values = dict(zip(FIGURES, map(float, sum_[0]), strict=True))
                rows.append({"kind": kind, "subset": subset, "rule": rule, **values})
                if rule != "1 - p":
                    gain = sum_ - sums[subset, "1 - p"]
                    low, high = np.quantile(gain[1:], [0.025, 0.975], axis=0)
                    gains += [
                        {"kind": kind, "subset": subset, "rule": rule, "figure": name}
                        | {"gain": float(gain[0, at]), "low": float(low[at]), "high": float(high[at])}
                        for at, name in enumerate(FIGURES)
                    ]
            if kind == "all":
                curves = found
    promise = [
        {"kind": kind, "first": next(n for k, _, _, n in promises if k == kind)}
        | {"expected": mean(e for k, e, _, _ in promises if k == kind)}
        | {"found": mean(f for k, _, f, _ in promises if k == kind)}
        for kind in KINDS
    ]
    reviews = {name: [mean(each[name][at] for each in opened) for at in (0, 1)] for name in opened[0]}
    return {"bins": len(bins.group), "rows": rows, "gains": gains, "promise": promise, "reviews": reviews} | {
        "curves": {rule: [float(each) for each in curve] for rule, curve in curves.items()}
    }


def review_rules(bins: Bins, record: Ints, wrong: NDArray[np.bool_], ratio: Floats) -> dict[str, tuple[float, float]]:
    """By what opens a review: the share of bins that have one, and the share of wrong records among those."""
    opening = {
        "the count differs": bins.count != np.minimum(record, 6),
        **{f"ratio above {least}": ratio > least for least in (0.7, 1, 1.5, 2)},
    }
    return {name: (float(which.mean()), float(which[wrong].mean())) for name, which in opening.items()}


def mean(values: Any) -> float:
    return float(np.mean(list(values)))


def show_ranking(console: Console, report: Numbers) -> None:
    for kind in KINDS:
        table = bare_table(f"\nRecords falsified by {kind}", "rule", *FIGURES, "0 to 5: at 10 %", "6 and more: at 10 %")
        of_kind = [row for row in report["rows"] if row["kind"] == kind]
        for row in (each for each in of_kind if each["subset"] == SUBSETS[0]):
            apart = [
                one["at 10 %"]
                for subset in SUBSETS[1:]
                for one in of_kind
                if (one["subset"], one["rule"]) == (subset, row["rule"])
            ]
            table.add_row(row["rule"], *(f"{100 * value:.1f}" for value in (*(row[name] for name in FIGURES), *apart)))
        console.print(table)
    table = bare_table(f"\nGain of {DEFAULT} over 1 - p, points, with 95 % intervals (bins resampled)", "", *FIGURES)
    for kind in KINDS:
        for subset in SUBSETS:
            of_row = [
                gain
                for gain in report["gains"]
                if (gain["kind"], gain["subset"], gain["rule"]) == (kind, subset, DEFAULT)
            ]
            texts = (f"{100 * g['gain']:+.1f} ({100 * g['low']:+.1f} to {100 * g['high']:+.1f})" for g in of_row)
            table.add_row(f"{kind}, {subset}", *texts)
    console.print(table)
    for each in report["promise"]:
        console.print(
            f"{each['kind']}: of the first {each['first']} {each['expected']:.1f} expected wrong,"
            f" {each['found']:.1f} are"
        )
    for name, (bins, found) in report["reviews"].items():
        console.print(f"A review opens where {name}: {bins:.1%} of the bins, {found:.1%} of the wrong records")


COLOURS = ("#999999", "#b07aa1", "#76b7b2", "#e15759", "#f28e2b", "#1f5fa8")


def picture(curves: dict[str, Sequence[float]]) -> str:
    """An SVG: the share of wrong records that were found, by the share of bins that were recounted."""
    width, height, left, top = 560, 340, 50, 16

    def line(curve: Sequence[float]) -> str:
        step = max(1, len(curve) // 140)
        points = [
            (0.0, 0.0),
            *((at / len(curve), curve[at - 1]) for at in range(step, len(curve) + 1, step)),
            (1.0, 1.0),
        ]
        return " ".join(f"{left + x * width:.1f},{top + (1 - y) * height:.1f}" for x, y in points)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 20} {top + height + 44}"'
        ' font-family="sans-serif" font-size="12" role="img">',
        "<title>Wrong records found, by bins recounted</title>",
        f'<rect width="{left + width + 20}" height="{top + height + 44}" fill="white"/>',
    ]
    for tenth in range(0, 11, 2):
        x, y = left + tenth / 10 * width, top + (1 - tenth / 10) * height
        parts.append(f'<path d="M{x:.1f} {top}V{top + height}M{left} {y:.1f}H{left + width}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{top + height + 16}" text-anchor="middle">{tenth * 10} %</text>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tenth * 10} %</text>')
    parts.append(f'<text x="{left + width / 2}" y="{top + height + 36}" text-anchor="middle">bins recounted</text>')
    for place, (rule, curve) in enumerate(curves.items()):
        wide, y = (3 if rule == DEFAULT else 1.5), top + height - 104 + 17 * place
        parts.append(f'<polyline points="{line(curve)}" fill="none" stroke="{COLOURS[place]}" stroke-width="{wide}"/>')
        parts.append(f'<path d="M{left + width - 176} {y}h22" stroke="{COLOURS[place]}" stroke-width="{wide}"/>')
        parts.append(f'<text x="{left + width - 148}" y="{y + 4}">{rule}</text>')
    return "\n".join([*parts, "</svg>", ""])
