"""How good a counter is, recomputed from stored predictions, in both views of the design.

*As shipped*: seven outputs, every record, the posterior median. *As published*: six-way, renormalised
over 0 to 5, photographs recorded at 5 or fewer (this needs the truth: not available in operation).

    python -m training.metrics .runs/first/predictions.csv
"""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model.answer import AT_LEAST, CLASSES, posterior_median, probabilities

if TYPE_CHECKING:  # it needs torch, which reading metrics does not
    from training.data import Photograph

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Predictions:
    """Stored predictions of one split: ids [N], recorded quantities [N], bin groups [N], logits [N, 7]."""

    ids: NDArray[np.str_]
    quantities: Ints
    groups: NDArray[np.str_]
    populations: NDArray[np.str_]
    logits: Floats


def write_predictions(path: Path, photographs: list[Photograph], logits: NDArray[np.floating]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "split", "quantity", "group", "population", *(f"logit_{name}" for name in CLASSES)])
        for p, row in zip(photographs, logits, strict=True):
            writer.writerow([p.id, p.split, p.quantity, p.group, p.population, *(f"{x:.5f}" for x in row)])


def read_predictions(path: Path) -> dict[str, Predictions]:
    """Stored predictions by split."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    result = {}
    for split in sorted({row["split"] for row in rows}):
        chosen = [row for row in rows if row["split"] == split]
        result[split] = Predictions(
            ids=np.array([row["id"] for row in chosen]),
            quantities=np.array([int(row["quantity"]) for row in chosen]),
            groups=np.array([row["group"] for row in chosen]),
            populations=np.array([row["population"] for row in chosen]),
            logits=np.array([[float(row[f"logit_{name}"]) for name in CLASSES] for row in chosen]),
        )
    return result


def softmax(logits: NDArray[np.floating]) -> Floats:
    return probabilities(logits)


def ranked_probability_score(p: Floats, labels: Ints) -> Floats:
    """Epstein 1969: the squared distance of the two cumulative distributions, per photograph [N]."""
    truth = np.arange(p.shape[1]) >= labels[:, None]
    score: Floats = ((np.cumsum(p, axis=1) - truth) ** 2)[:, :-1].sum(axis=1)
    return score


def summary(p: Floats, quantities: Ints) -> dict[str, dict[str, float]]:
    """Both views' figures for probabilities [N, 7] and recorded quantities [N]."""
    labels = np.minimum(quantities, AT_LEAST)
    answered = posterior_median(p)
    few = quantities < AT_LEAST
    six = p[few, :AT_LEAST] / p[few, :AT_LEAST].sum(axis=1, keepdims=True)
    truth = quantities[few]
    return {
        "as_shipped": {
            "photographs": len(labels),
            "rps": float(ranked_probability_score(p, labels).mean()),
            "log_loss": float(-np.log(np.maximum(p[np.arange(len(labels)), labels], 1e-12)).mean()),
            "accuracy": float((answered == labels).mean()),
            "within_one": float((np.abs(answered - labels) <= 1).mean()),
            "within_one_of_0_to_5": float((np.abs(answered - labels) <= 1)[few].mean()),
        },
        "as_published": {
            "photographs": int(few.sum()),
            "accuracy": float((six.argmax(axis=1) == truth).mean()),
            "rmse": float(np.sqrt(((six.argmax(axis=1) - truth) ** 2).mean())),
            "rmse_of_posterior_mean": float(np.sqrt(((six @ np.arange(AT_LEAST) - truth) ** 2).mean())),
            "within_one": float((np.abs(six.argmax(axis=1) - truth) <= 1).mean()),
            "log_loss": float(-np.log(np.maximum(six[np.arange(len(truth)), truth], 1e-12)).mean()),
        },
    }


def constant_answer(quantities: Ints) -> dict[str, dict[str, float]]:
    """The same figures for what always says the same, for each figure the best there is.

    Scores of probabilities: each class's frequency in the set itself. Scores of answers: the best single count.
    """
    labels = np.minimum(quantities, AT_LEAST)
    result = summary(np.tile(np.bincount(labels, minlength=len(CLASSES)) / len(labels), (len(labels), 1)), quantities)
    few = labels[quantities < AT_LEAST]
    for view, seen, name in (
        ("as_shipped", labels, "accuracy"),
        ("as_shipped", labels, "within_one"),
        ("as_shipped", few, "within_one_of_0_to_5"),
        ("as_published", few, "accuracy"),
        ("as_published", few, "within_one"),
    ):
        reach = 0 if name == "accuracy" else 1
        result[view][name] = max(float((np.abs(seen - k) <= reach).mean()) for k in range(len(CLASSES)))
    result["as_published"]["rmse"] = min(float(np.sqrt(((few - k) ** 2).mean())) for k in range(AT_LEAST))
    return result


def calibration_error(p: Floats, labels: Ints, bins: int = 15) -> float:
    """Expected calibration error of the most probable class (Guo et al. 2017), equal-mass bins."""
    confidence, hit = p.max(axis=1), p.argmax(axis=1) == labels
    parts = np.array_split(np.argsort(confidence), bins)
    return float(sum(abs(confidence[part].mean() - hit[part].mean()) * len(part) for part in parts) / len(labels))


def perfectly_calibrated(p: Floats, draws: int = 200, seed: int = 0) -> dict[str, float]:
    """What `calibration_error` gives if the truth is drawn from `p` itself: even then it is not zero."""
    random = np.random.default_rng(seed)
    thresholds = np.cumsum(p, axis=1)
    errors = []
    for _ in range(draws):
        labels = np.minimum((random.random((len(p), 1)) > thresholds).sum(axis=1), p.shape[1] - 1)
        errors.append(calibration_error(p, labels))
    return {"mean": float(np.mean(errors)), "percentile_95": float(np.percentile(errors, 95))}


def fit_temperature(logits: Floats, quantities: Ints) -> float:
    """The temperature of least log loss (Guo et al. 2017), by golden-section search."""
    labels = np.minimum(quantities, AT_LEAST)

    def loss(temperature: float) -> float:
        p = probabilities(logits, temperature)
        return float(-np.log(np.maximum(p[np.arange(len(labels)), labels], 1e-12)).mean())

    low, high, golden = 0.3, 5.0, (5**0.5 - 1) / 2
    while high - low > 1e-3:
        a, b = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    return round((low + high) / 2, 3)


def intervals(p: Floats, quantities: Ints, groups: NDArray[np.str_], draws: int = 1000) -> dict[str, Any]:
    """95 % intervals of `summary`'s figures by bootstrap over bin groups."""
    random = np.random.default_rng(0)
    _, index = np.unique(groups, return_inverse=True)
    members = np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index))[:-1])
    drawn = []
    for _ in range(draws):
        rows = np.concatenate([members[i] for i in random.integers(len(members), size=len(members))])
        drawn.append(summary(p[rows], quantities[rows]))
    return {
        view: {
            name: [float(x) for x in np.percentile([d[view][name] for d in drawn], (2.5, 97.5))]
            for name in drawn[0][view]
            if name != "photographs"
        }
        for view in ("as_shipped", "as_published")
    }


def report(predictions: dict[str, Predictions]) -> dict[str, Any]:
    """Everything said about a model: calibrated on validation, measured on test, beside the constants."""
    fitted = predictions["validation"]
    temperature = fit_temperature(fitted.logits, fitted.quantities)
    result: dict[str, Any] = {"temperature": temperature}
    for split, seen in predictions.items():
        p = probabilities(seen.logits, temperature)
        labels = np.minimum(seen.quantities, AT_LEAST)
        answered = posterior_median(p)
        result[split] = {
            **summary(p, seen.quantities),
            "intervals": intervals(p, seen.quantities, seen.groups),
            "constant": constant_answer(seen.quantities),
            "by_population": {
                str(name): summary(p[seen.populations == name], seen.quantities[seen.populations == name])
                for name in np.unique(seen.populations)
            },
            "calibration": {
                "expected_calibration_error": calibration_error(p, labels),
                "of_a_perfectly_calibrated_model": perfectly_calibrated(p),
            },
            "per_class": [
                {
                    "class": CLASSES[k],
                    "photographs": int((labels == k).sum()),
                    "recall": float((answered[labels == k] == k).mean()) if (labels == k).any() else None,
                    "precision": float((labels[answered == k] == k).mean()) if (answered == k).any() else None,
                }
                for k in range(len(CLASSES))
            ],
        }
    return result


def table(report: dict[str, Any]) -> str:
    """The test figures with their intervals, and the best constant answer's beside them."""
    seen = report["test"]
    lines = [f"{'test split':36}{'model':>8}  {'95 % interval':20}{'constant':>8}"]
    for view in ("as_shipped", "as_published"):
        for name, value in seen[view].items():
            low, high = seen["intervals"][view].get(name, (value, value))
            constant = seen["constant"][view][name]
            lines.append(f"{view + ' ' + name:36}{value:8.4g}  {f'{low:.4g} to {high:.4g}':20}{constant:8.4g}")
    calibration = seen["calibration"]
    perfect = calibration["of_a_perfectly_calibrated_model"]
    lines.append(
        f"calibration error {calibration['expected_calibration_error']:.3f}; of a perfectly calibrated model"
        f" {perfect['mean']:.3f} (95th percentile {perfect['percentile_95']:.3f})"
    )
    lines.append("class       photographs  recall  precision")
    for row in seen["per_class"]:
        shown = [f"{row[k]:.3f}" if row[k] is not None else "-" for k in ("recall", "precision")]
        lines.append(f"{row['class']:12}{row['photographs']:11}{shown[0]:>8}{shown[1]:>11}")
    return "\n".join(lines)


if __name__ == "__main__":
    found = report(read_predictions(Path(sys.argv[1])))
    print(table(found), file=sys.stderr)
    print(json.dumps(found, indent=1))
