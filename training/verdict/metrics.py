"""Measures a counter from stored predictions, in both views of the design.

*As shipped*: seven outputs, every record, the posterior median. *As published*: six-way, renormalised
over 0 to 5, photographs recorded at 5 or fewer (this needs the truth: not available in operation).

    python -m training.verdict.metrics .runs/first/predictions.csv
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model.answer import AT_LEAST, CLASSES, posterior_median, probabilities
from training.verdict.bootstrap import Floats, Ints, Resamples, interval


class Held(Protocol):
    """A held-out photograph in stored predictions; see training.learning.data.Photograph."""

    @property
    def id(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def quantity(self) -> int: ...
    @property
    def group(self) -> str: ...
    @property
    def population(self) -> str: ...


@dataclass(frozen=True)
class Predictions:
    """Stored predictions of one split: ids [N], recorded quantities [N], bin groups [N], logits [N, 7]."""

    ids: NDArray[np.str_]
    quantities: Ints
    groups: NDArray[np.str_]
    populations: NDArray[np.str_]
    logits: Floats


def write_predictions(path: Path, photographs: Sequence[Held], logits: NDArray[np.floating]) -> None:
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


def scores(p: Floats, quantities: Ints) -> dict[tuple[str, str], tuple[Floats, NDArray[np.bool_]]]:
    """By view and figure: each photograph's score [N], and whether the figure counts it [N].

    A figure is the mean over the photographs that it counts, `rmse` the root of that.
    """
    labels = np.minimum(quantities, AT_LEAST)
    all_of_them, few = np.ones(len(labels), dtype=bool), quantities < AT_LEAST
    off = np.abs(posterior_median(p) - labels)
    # If all the probability is on "6 or more", as in rounded answers, nothing is left to renormalise.
    six = p[:, :AT_LEAST] / np.maximum(p[:, :AT_LEAST].sum(axis=1, keepdims=True), 1e-12)
    six_off = np.abs(six.argmax(axis=1) - labels)
    mean_off = six @ np.arange(AT_LEAST) - labels
    given_six = np.where(few, six[np.arange(len(labels)), np.minimum(labels, AT_LEAST - 1)], 1.0)
    given = p[np.arange(len(labels)), labels]
    return {
        ("as_shipped", "rps"): (ranked_probability_score(p, labels), all_of_them),
        ("as_shipped", "log_loss"): (-np.log(np.maximum(given, 1e-12)), all_of_them),
        ("as_shipped", "accuracy"): ((off == 0).astype(np.float64), all_of_them),
        ("as_shipped", "within_one"): ((off <= 1).astype(np.float64), all_of_them),
        ("as_shipped", "within_one_of_0_to_5"): ((off <= 1).astype(np.float64), few),
        ("as_published", "accuracy"): ((six_off == 0).astype(np.float64), few),
        ("as_published", "rmse"): (six_off.astype(np.float64) ** 2, few),
        ("as_published", "rmse_of_posterior_mean"): (mean_off**2, few),
        ("as_published", "within_one"): ((six_off <= 1).astype(np.float64), few),
        ("as_published", "log_loss"): (-np.log(np.maximum(given_six, 1e-12)), few),
    }


def summary(p: Floats, quantities: Ints) -> dict[str, dict[str, float]]:
    """Both views' figures for probabilities [N, 7] and recorded quantities [N]; NaN for those of no photograph."""
    few = int((quantities < AT_LEAST).sum())
    result: dict[str, dict[str, float]] = {
        "as_shipped": {"photographs": len(quantities)},
        "as_published": {"photographs": few},
    }
    for (view, name), (values, counted) in scores(p, quantities).items():
        mean = float(values[counted].mean()) if counted.any() else float("nan")
        result[view][name] = mean**0.5 if name.startswith("rmse") else mean
    return result


def constant_answer(quantities: Ints) -> dict[str, dict[str, float]]:
    """The same figures for a constant answer, the best one for each figure.

    Scores of probabilities: each class's frequency in the set itself. Scores of answers: the best single count.
    """
    labels = np.minimum(quantities, AT_LEAST)
    result = summary(np.tile(np.bincount(labels, minlength=len(CLASSES)) / len(labels), (len(labels), 1)), quantities)
    few = labels[quantities < AT_LEAST]
    if not len(few):
        return result
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


def calibration_bins(p: Floats, bins: int = 15) -> list[Ints]:
    """The photographs of each of `bins` steps of confidence, equally many in each."""
    return np.array_split(np.argsort(p.max(axis=1), kind="stable"), min(bins, len(p)))


def calibration_error(p: Floats, labels: Ints, bins: int = 15) -> float:
    """Expected calibration error of the most probable class (Guo et al. 2017), equal-mass bins."""
    confidence, hit = p.max(axis=1), p.argmax(axis=1) == labels
    parts = calibration_bins(p, bins)
    return float(sum(abs(confidence[part].mean() - hit[part].mean()) * len(part) for part in parts) / len(labels))


def perfectly_calibrated(p: Floats, draws: int = 200, seed: int = 0) -> dict[str, float]:
    """The `calibration_error` if the truth is drawn from `p` itself: even then it is not zero."""
    random = np.random.default_rng(seed)
    thresholds = np.cumsum(p, axis=1)
    errors = []
    for _ in range(draws):
        labels = np.minimum((random.random((len(p), 1)) > thresholds).sum(axis=1), p.shape[1] - 1)
        errors.append(calibration_error(p, labels))
    return {"mean": float(np.mean(errors)), "percentile_95": float(np.percentile(errors, 95))}


def calibration(p: Floats, labels: Ints, groups: NDArray[np.str_], draws: int = 1000) -> dict[str, Any]:
    """Expected calibration error, that of a perfectly calibrated model, and the reliability diagram's points.

    `error` is never too small by chance: it contains what chance adds, as the error of a perfectly calibrated model of
    this size does. `corrected` and its `interval` are about the model alone; `error` may be outside.
    """
    confidence, hit = p.max(axis=1), (p.argmax(axis=1) == labels).astype(np.float64)
    parts = calibration_bins(p)
    within = np.zeros((len(p), len(parts)))
    for number, part in enumerate(parts):
        within[part, number] = 1
    sums = Resamples.of(groups, draws).sums(np.hstack([within, within * hit[:, None], within * confidence[:, None]]))
    size, hits, sure = np.split(sums, 3, axis=1)
    error = calibration_error(p, labels)
    low, corrected, high = without_chance((hit - confidence) @ within, hits - sure) / len(p)
    with np.errstate(invalid="ignore"):
        accuracies = hits / size
    return {
        "error": error,
        "corrected": float(corrected),
        "interval": [float(low), float(high)],
        "of_a_perfectly_calibrated_model": perfectly_calibrated(p),
        "reliability": [
            {
                "photographs": len(part),
                "confidence": float(confidence[part].mean()),
                "accuracy": float(hit[part].mean()),
                "interval": interval(drawn),
            }
            for part, drawn in zip(parts, accuracies.T, strict=True)
        ],
    }


def without_chance(excess: Floats, drawn: Floats) -> Floats:
    """The sum of distances of the parts' hits from what was expected, as it would be without chance: lower limit,
    median estimate and upper limit (95 %) [3], from the excess of hits [K] and its resamples [draws, K].

    Distances do not cancel, so chance adds to their sum, most where the true ones are small, and resampling adds as
    much again. The basic bootstrap takes off too little there: it excluded the error of a perfectly calibrated model in
    half of 400 simulated test sets. Therefore a test is inverted (Carpenter 1999, "Test inversion bootstrap confidence
    intervals"): the excess is scaled until its sum, with the resamples' noise, is the observed one at the median and at
    either end. In such simulations 88 to 99 of 100 intervals contain the error of the model.
    """
    scales = np.linspace(0, 3, 301)
    observed, noise = np.abs(excess).sum(), drawn - excess
    sums = np.stack([np.abs(scale * excess + noise).sum(axis=1) for scale in scales])
    ends = np.maximum.accumulate(np.percentile(sums, (97.5, 50, 2.5), axis=1), axis=1)
    return np.array([observed * np.interp(observed, end, scales) for end in ends])


def fit_temperature(logits: NDArray[np.floating], quantities: Ints) -> float:
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
    """95 % intervals of `summary`'s figures by bootstrap over bin groups [N]."""
    found = scores(p, quantities)
    values, counted = (np.stack(columns, axis=1) for columns in zip(*found.values(), strict=True))
    means = Resamples.of(groups, draws).means(values, counted)
    result: dict[str, dict[str, Any]] = {"as_shipped": {}, "as_published": {}}
    for (view, name), drawn in zip(found, means.T, strict=True):
        result[view][name] = interval(np.sqrt(drawn) if name.startswith("rmse") else drawn)
    return result


def report(predictions: dict[str, Predictions]) -> dict[str, Any]:
    """All figures of a model, calibrated on validation and measured on test, with those of constant answers."""
    fitted = predictions["validation"]
    temperature = fit_temperature(fitted.logits, fitted.quantities)
    found = {split: measured(probabilities(seen.logits, temperature), seen) for split, seen in predictions.items()}
    return {"temperature": temperature, **found}


def measured(p: Floats, seen: Predictions) -> dict[str, Any]:
    """All figures of calibrated probabilities [N, 7] for these photographs."""
    labels = np.minimum(seen.quantities, AT_LEAST)
    answered = posterior_median(p)
    return {
        **summary(p, seen.quantities),
        "intervals": intervals(p, seen.quantities, seen.groups),
        "constant": constant_answer(seen.quantities),
        "by_population": {
            str(name): summary(p[seen.populations == name], seen.quantities[seen.populations == name])
            for name in np.unique(seen.populations)
        },
        "balanced": balanced(p, labels),
        "confusion": confusion(p, labels).tolist(),
        "calibration": calibration(p, labels, seen.groups),
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


def confusion(p: Floats, labels: Ints) -> Ints:
    """Photographs by recorded class (row) and answered class (column), [7, 7]."""
    matrix = np.zeros((len(CLASSES), len(CLASSES)), dtype=np.int64)
    np.add.at(matrix, (labels, posterior_median(p)), 1)
    return matrix


def figures(report: dict[str, Any], seen: Predictions) -> dict[str, Any]:
    """The figures of the test split that the registry has of a shipped model, named as in evaluation.json."""
    names = ("as_shipped", "as_published", "intervals", "confusion", "calibration", "per_class")
    test_set = {"photographs": len(seen.quantities), "bins": len(np.unique(seen.groups))}
    return {"test_set": test_set, **{name: report["test"][name] for name in names}}


def balanced(p: Floats, labels: Ints) -> dict[str, float]:
    """Figures in which every recorded class has the same weight, whatever its size: means over the classes."""
    each = {"rps": ranked_probability_score(p, labels), "accuracy": posterior_median(p) == labels}
    return {
        name: float(np.mean([values[labels == k].mean() for k in np.unique(labels)])) for name, values in each.items()
    }


def table(report: dict[str, Any]) -> str:
    """The figures of test, or else of validation, with their intervals and those of the best constant answer."""
    split = "test" if "test" in report else "validation"
    seen = report[split]
    lines = [f"{split + ' split':36}{'model':>8}  {'95 % interval':20}{'constant':>8}"]
    for view in ("as_shipped", "as_published"):
        for name, value in seen[view].items():
            low, high = seen["intervals"][view].get(name, (value, value))
            constant = seen["constant"][view][name]
            reach = "-" if low is None else f"{low:.4g} to {high:.4g}"  # of no photograph
            lines.append(f"{view + ' ' + name:36}{value:8.4g}  {reach:20}{constant:8.4g}")
    calibration = seen["calibration"]
    perfect = calibration["of_a_perfectly_calibrated_model"]
    lines.append(
        f"calibration error {calibration['error']:.3f}; of a perfectly calibrated model"
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
