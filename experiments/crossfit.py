"""Evaluates networks on photographs that they never saw, for all photographs, and fits the calibration.

    for fold in 0 1 2 3 4; do python -m training.train --data .data/abid --fold $fold --out .runs/fold-$fold; done
    python -m experiments.crossfit .runs/fold-* --data .data/abid --out .runs/crossfit

Each run held one fold out. Writes `predictions.csv` (all photographs, their logits and their `fold`), `crossfit.json`
(the temperature fitted to all of them; the figures, each fold's with the temperature of the others; how well empty
bins are recognised; the answers of other rules than the posterior median) and `suspects.html`: the photographs with
the least probable records, and every empty bin that the networks missed. That page shows photographs: leave it with
their owner.
"""

from __future__ import annotations

import argparse
import base64
import csv
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from model.answer import AT_LEAST, CLASSES, posterior_median, probabilities
from training.learning import data
from training.verdict import metrics
from training.verdict.bootstrap import Floats, Ints, Resamples, interval
from training.verdict.metrics import Predictions

SUSPECTS = 50
COLUMNS = [field.name for field in fields(Predictions)]


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of all photographs, each by a network that did not see its bin, and each one's fold [N]."""

    seen: Predictions
    fold: np.ndarray

    def calibrated(self) -> Floats:
        """Probabilities [N, 7]; the temperature of each fold was fitted to the others."""
        result = np.empty(self.seen.logits.shape)
        for fold in np.unique(self.fold):
            own = self.fold == fold
            temperature = metrics.fit_temperature(self.seen.logits[~own], self.seen.quantities[~own])
            result[own] = probabilities(self.seen.logits[own], temperature)
        return result


def gather(runs: list[Path], photographs: list[data.Photograph]) -> OutOfFold:
    """Raises `ValueError` unless each run held out one fold of these photographs, and each fold was held out once."""
    found = [metrics.read_predictions(run / "predictions.csv")["validation"] for run in runs]
    came = [p for p in photographs if not p.by_class]
    folds = [{p.id for p in came if data.fold_of(p) == fold} for fold in range(data.FOLDS)]
    held_out = [set(map(str, one.ids)) for one in found]
    if sorted(map(sorted, held_out)) != sorted(map(sorted, folds)):
        raise ValueError(f"these are not the runs of folds 0 to {data.FOLDS - 1}, each once and whole")
    fold = np.repeat(np.arange(len(found)), [len(one.ids) for one in found])
    seen = Predictions(*(np.concatenate([getattr(one, name) for one in found]) for name in COLUMNS))
    order = np.argsort(seen.ids)
    return OutOfFold(Predictions(*(getattr(seen, name)[order] for name in COLUMNS)), fold[order])


def report(found: OutOfFold) -> dict[str, Any]:
    seen, p = found.seen, found.calibrated()
    labels = np.minimum(seen.quantities, AT_LEAST)
    answered = posterior_median(p)
    return {
        "photographs": len(labels),
        "temperature": metrics.fit_temperature(seen.logits, seen.quantities),
        **metrics.measured(p, seen),
        "empty_bins": {
            "recall": share((answered == 0)[labels == 0]),
            "precision": share((labels == 0)[answered == 0]),
            "missed": [str(id_) for id_ in seen.ids[(labels == 0) & (answered != 0)]],
            "seen_where_there_is_something": [str(id_) for id_ in seen.ids[(labels != 0) & (answered == 0)]],
        },
        "rules": rules(p, labels, seen.groups),
    }


def rules(p: Floats, labels: Ints, groups: NDArray[np.str_]) -> dict[str, Any]:
    """Figures of other rules than the posterior median (six or more taken as 6), and their differences from the
    median's, with the 95 % interval by bootstrap over bin groups."""
    answers = {
        "posterior median": posterior_median(p),
        "most probable": p.argmax(axis=1),
        "rounded mean": np.rint(p @ np.arange(len(CLASSES))).astype(np.int64),
    }
    off = np.abs(np.stack(list(answers.values())) - labels)  # [rules, N]
    figures = {"accuracy": off == 0, "within_one": off <= 1, "mean_absolute_error": off}
    resamples = Resamples.of(groups, 1000)
    told: dict[str, Any] = {rule: {} for rule in answers}
    for name, values in figures.items():
        differences = values.T.astype(np.float64) - values[0][:, None]
        drawn = resamples.means(differences, np.ones(differences.shape, bool))
        for k, rule in enumerate(answers):
            told[rule][name] = {"value": float(values[k].mean()), "difference": float(differences[:, k].mean())}
            told[rule][name]["interval"] = interval(drawn[:, k])
    return told


def share(hits: np.ndarray) -> dict[str, Any]:
    """A share with the exact 95 % interval (Clopper and Pearson 1934).

    The interval assumes independent photographs; those of one bin are not quite, so it is a little too narrow.
    """
    right, total = int(hits.sum()), len(hits)
    if total == 0:
        return {"right": 0, "of": 0, "share": None, "interval": [None, None]}
    low, high = binomtest(right, total).proportion_ci(method="exact")
    return {"right": right, "of": total, "share": right / total, "interval": [float(low), float(high)]}


def suspects(found: OutOfFold, number: int = SUSPECTS) -> list[int]:
    """The photographs with the least probable recorded labels, the least probable first (Northcutt et al. 2021)."""
    labels = np.minimum(found.seen.quantities, AT_LEAST)
    given = found.calibrated()[np.arange(len(labels)), labels]
    return [int(index) for index in np.argsort(given, kind="stable")[:number]]


def page(found: OutOfFold, report: dict[str, Any], photographs: dict[str, data.Photograph]) -> str:
    p, seen = found.calibrated(), found.seen

    def entry(index: int) -> dict[str, Any]:
        picture = base64.b64encode(photographs[str(seen.ids[index])].read()).decode()
        return {
            "id": str(seen.ids[index]),
            "recorded": int(seen.quantities[index]),
            "chances": [f"{name}: {value:.0%}" for name, value in zip(CLASSES, p[index], strict=True) if value >= 0.05],
            "picture": f"data:image/jpeg;base64,{picture}",
        }

    place = {str(id_): index for index, id_ in enumerate(seen.ids)}
    empty = report["empty_bins"]
    sections = {
        "Least probable records": suspects(found),
        "Recorded as empty, not counted as empty": [place[id_] for id_ in empty["missed"]],
        "Counted as empty, recorded with items": [place[id_] for id_ in empty["seen_where_there_is_something"]],
    }
    shown = {title: [entry(index) for index in indices] for title, indices in sections.items()}
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
    return templates.get_template("suspects.html.jinja").render(sections=shown, photographs=len(seen.ids))


def write_predictions(path: Path, found: OutOfFold) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "fold", "quantity", "group", "population", *(f"logit_{name}" for name in CLASSES)])
        seen = found.seen
        for row in zip(seen.ids, found.fold, seen.quantities, seen.groups, seen.populations, seen.logits, strict=True):
            writer.writerow([*row[:-1], *(f"{x:.5f}" for x in row[-1])])


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("runs", type=Path, nargs="+", help="folders that training.train --fold wrote")
    flags.add_argument("--data", type=Path, required=True)
    flags.add_argument("--out", type=Path, required=True)
    a = flags.parse_args()
    photographs = data.read(a.data)
    try:
        found = gather(a.runs, photographs)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    a.out.mkdir(parents=True, exist_ok=True)
    told = report(found)
    write_predictions(a.out / "predictions.csv", found)
    (a.out / "crossfit.json").write_text(json.dumps(told, indent=1) + "\n")
    (a.out / "suspects.html").write_text(page(found, told, {p.id: p for p in photographs}))
    empty = told["empty_bins"]
    print(f"{told['photographs']} photographs, temperature {told['temperature']}")
    for name, (low, high) in told["intervals"]["as_shipped"].items():
        print(f"{name:<22}{told['as_shipped'][name]:.4f}  ({low:.4f} to {high:.4f})")
    for rule, figures in told["rules"].items():
        for name, one in figures.items():
            low, high = one["interval"]
            compared = f"  {one['difference']:+.4f} ({low:+.4f} to {high:+.4f})" if low or high else ""
            print(f"{rule + ', ' + name:<40}{one['value']:.4f}{compared}")
    for name in ("recall", "precision"):
        one = empty[name]
        low, high = one["interval"]
        shown = "none" if one["share"] is None else f"{one['share']:.1%} ({low:.1%} to {high:.1%})"
        print(f"empty bins, {name:<10}{one['right']} of {one['of']}: {shown}")


if __name__ == "__main__":
    main()
