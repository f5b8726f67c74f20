"""Compares a challenger's answers to the test photographs with the champion's: the content of evaluation.json.

Pure: answers in, figures out, each with its interval by bootstrap over bin groups (one site's bin is one group).
Both models and all figures use the same resamples, so differences are paired.
"""

from __future__ import annotations

import csv
import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.answer import AT_LEAST, CLASSES, posterior_median
from training.verdict import metrics
from training.verdict.bootstrap import Floats, Ints, Resamples, interval, simultaneous_lower_bounds

DRAWS = 2000
"""Resamples: a hundred of them are below the 5th percentile."""
FEWEST_BINS = 10
"""Bins that a group of counts needs for bounds of its difference."""
MODELS = ("champion", "challenger")
FALSIFIED_SHARE = 0.1
"""Share of falsified records in the ranking."""

GROUPS: list[tuple[int, int | None]] = [(0, 0), (1, 2), (3, 5), (AT_LEAST, None)]
"""The groups of recorded quantities that are judged separately: from, up to."""
PAIRED = {"rps": 1, "log_loss": 1, "accuracy": -1}
"""Figures as shipped, with the sign of champion minus challenger: positive is always the challenger's advantage."""


@dataclass(frozen=True)
class Answered:
    """The test photographs, sorted by id, and both models' answers."""

    ids: NDArray[np.str_]  # [N]
    sites: NDArray[np.str_]  # [N]
    bins: NDArray[np.str_]  # [N]
    quantities: Ints  # [N], as recorded
    champion: Floats  # [N, 7]
    challenger: Floats  # [N, 7]

    @cached_property
    def groups(self) -> NDArray[np.str_]:
        return np.array([f"{site}/{name}" for site, name in zip(self.sites, self.bins, strict=True)])

    @property
    def labels(self) -> Ints:
        return np.minimum(self.quantities, AT_LEAST)


def compare(seen: Answered, champion: str, challenger: str, *, draws: int = DRAWS) -> dict[str, Any]:
    """The figures of both models, by version, and of the challenger against the champion."""
    found = {
        "champion": {"model_version": champion, **figures(seen.champion, seen, draws)},
        "challenger": {"model_version": challenger, **figures(seen.challenger, seen, draws)},
        "constant": metrics.constant_answer(seen.quantities),
        "paired": paired(seen, draws),
        "groups": groups(seen, draws),
    }
    told: dict[str, Any] = without_nan(found)
    return told


def figures(p: Floats, seen: Answered, draws: int) -> dict[str, Any]:
    """All figures of one model with the answers p [N, 7]."""
    return {
        **metrics.summary(p, seen.quantities),
        "intervals": metrics.intervals(p, seen.quantities, seen.groups, draws),
        "confusion": metrics.confusion(p, seen.labels).tolist(),
        "calibration": metrics.calibration(p, seen.labels, seen.groups, draws),
        "per_class": per_class(p, seen, draws),
        "falsified_records": falsified_records(p, seen, draws),
    }


def per_class(p: Floats, seen: Answered, draws: int) -> list[dict[str, Any]]:
    """By recorded class: recall, precision of that answer, ranked probability score."""
    labels, answered = seen.labels, posterior_median(p)
    recorded = labels[:, None] == np.arange(len(CLASSES))
    said = answered[:, None] == np.arange(len(CLASSES))
    rps = np.tile(metrics.ranked_probability_score(p, labels)[:, None], (1, len(CLASSES)))
    values = np.hstack([said.astype(np.float64), recorded.astype(np.float64), rps])
    counted = np.hstack([recorded, said, recorded])
    drawn = np.split(Resamples.of(seen.groups, draws).means(values, counted), 3, axis=1)
    rows = []
    for k, name in enumerate(CLASSES):
        row: dict[str, Any] = {"class": name, "photographs": int(recorded[:, k].sum())}
        for number, figure in enumerate(("recall", "precision", "rps")):
            column = number * len(CLASSES) + k
            chosen = counted[:, column]
            row[figure] = float(values[chosen, column].mean()) if chosen.any() else None
            row[f"{figure}_interval"] = interval(drawn[number][:, k])
        rows.append(row)
    return rows


def falsified(ids: NDArray[np.str_], quantities: Ints) -> Ints:
    """A wrong record [N] for each photograph, independent of the rest of the set.

    Up and down are equally likely; half of the differences are one item, a quarter two, and so on, as if most wrong
    records were slightly wrong and a few very. A record that would fall below 0 goes up instead.
    """
    wrong = []
    for name, quantity in zip(ids.tolist(), quantities.tolist(), strict=True):
        chance = int(hashlib.sha256(f"falsified {name}".encode()).hexdigest()[:8], 16)
        by = 32 - (chance >> 1).bit_length()  # one more than the leading zeros of 31 random bits
        wrong.append(quantity - by if chance % 2 and by <= quantity else quantity + by)
    return np.array(wrong, dtype=np.int64)


def falsified_records(p: Floats, seen: Answered, draws: int) -> dict[str, Any]:
    """How well sorting by `p_record` finds wrong records if FALSIFIED_SHARE of them were falsified at random.

    This is the expectation over the choice: each photograph counts nine times with its record and once with the
    falsified one. A six falsified to nine cannot be detected, since both are "6 or more"; the figures include that.
    """
    wrong = np.minimum(falsified(seen.ids, seen.quantities), AT_LEAST)
    rows = np.arange(len(p))
    right_p, wrong_p = p[rows, seen.labels], p[rows, wrong]
    resamples = Resamples.of(seen.groups, draws)
    auc, found = ranking(right_p, wrong_p, np.ones((1, len(p))))
    drawn = [ranking(right_p, wrong_p, counts[:, resamples.member]) for counts in resamples.counts()]
    drawn_auc, drawn_found = (np.concatenate(each) for each in zip(*drawn, strict=True))
    return {
        "falsified_share": FALSIFIED_SHARE,
        "auc": float(auc[0]),
        "auc_interval": interval(drawn_auc),
        "found_in_first_tenth": float(found[0]),
        "found_in_first_tenth_interval": interval(drawn_found),
    }


def ranking(right_p: Floats, wrong_p: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Of p_record with the right and with the wrong records [N], photographs weighted [D, N], both [D]:

    the area under the ROC curve, and the share of the wrong records among the first tenth of all, sorted by
    p_record. Ties count half, or in proportion.
    """
    order = np.argsort(np.concatenate([right_p, wrong_p]), kind="stable")
    values = np.concatenate([right_p, wrong_p])[order]
    starts = np.flatnonzero(np.concatenate([[True], values[1:] > values[:-1]]))
    nothing = np.zeros_like(weights)
    right = np.add.reduceat(np.hstack([weights, nothing])[:, order], starts, axis=1)
    wrong = np.add.reduceat(np.hstack([nothing, weights])[:, order], starts, axis=1)
    total = weights.sum(axis=1)
    auc = (wrong * (total[:, None] - np.cumsum(right, axis=1) + right / 2)).sum(axis=1) / total**2

    everyone = (1 - FALSIFIED_SHARE) * right + FALSIFIED_SHARE * wrong
    passed = np.cumsum(everyone, axis=1)
    tenth = 0.1 * total
    last = (passed < tenth[:, None] * (1 - 1e-12)).sum(axis=1)  # the value at which the tenth is full
    rows = np.arange(len(weights))
    part = 1 - (passed[rows, last] - tenth) / everyone[rows, last]
    found = np.cumsum(wrong, axis=1)[rows, last] - (1 - part) * wrong[rows, last]
    return auc, found / total


def advantages(seen: Answered) -> dict[str, Floats]:
    """By figure of PAIRED: the challenger's advantage on each photograph [N]."""
    champion, challenger = (metrics.scores(p, seen.quantities) for p in (seen.champion, seen.challenger))
    return {
        name: sign * (champion["as_shipped", name][0] - challenger["as_shipped", name][0])
        for name, sign in PAIRED.items()
    }


def paired(seen: Answered, draws: int) -> dict[str, Any]:
    """By figure of PAIRED: the challenger's advantage, its 95 % interval and its one-sided 95 % lower bound."""
    found = advantages(seen)
    values = np.stack(list(found.values()), axis=1)
    drawn = Resamples.of(seen.groups, draws).means(values, np.ones_like(values, dtype=bool))
    return {
        name: {
            "difference": float(values[:, k].mean()),
            "interval": interval(drawn[:, k]),
            "lower_bound": float(np.percentile(drawn[:, k], 5)),
        }
        for k, name in enumerate(found)
    }


def groups(seen: Answered, draws: int) -> list[dict[str, Any]]:
    """The challenger's advantage in ranked probability score by group of recorded counts, with simultaneous bounds.

    A group of fewer than FEWEST_BINS bins has no bounds: a bootstrap over so few is meaningless.
    """
    members = np.stack([counted(seen.quantities, low, high) for low, high in GROUPS], axis=1)
    bins = [len(np.unique(seen.groups[chosen])) for chosen in members.T]
    bounded = [k for k, number in enumerate(bins) if number >= FEWEST_BINS]
    advantage = advantages(seen)["rps"]
    estimates = np.array([advantage[chosen].mean() if chosen.any() else np.nan for chosen in members.T])
    bounds = np.full((2, len(GROUPS)), np.nan)
    if bounded:
        values = np.tile(advantage[:, None], (1, len(bounded)))
        drawn = Resamples.of(seen.groups, draws).means(values, members[:, bounded])
        bounds[0, bounded] = simultaneous_lower_bounds(estimates[bounded], drawn)
        bounds[1, bounded] = -simultaneous_lower_bounds(-estimates[bounded], -drawn)
    return [
        {
            "name": group_name(low, high),
            "photographs": int(members[:, k].sum()),
            "bins": bins[k],
            "difference": float(estimates[k]),
            "lower_bound": float(bounds[0, k]),
            "upper_bound": float(bounds[1, k]),
        }
        for k, (low, high) in enumerate(GROUPS)
    ]


def counted(quantities: Ints, low: int, high: int | None) -> NDArray[np.bool_]:
    """Which quantities [N] are from `low` up to `high`: [N]."""
    return (quantities >= low) & (quantities <= (np.inf if high is None else high))


def group_name(low: int, high: int | None) -> str:
    if high is None:
        return f"{low} or more"
    return f"{low}" if low == high else f"{low}-{high}"


def without_nan(value: Any) -> Any:
    """The same with None for figures of no photograph, since JSON has no NaN."""
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def write(file: Path, seen: Answered) -> None:
    """Writes predictions.csv, from which `read` restores the answers, and `compare` computes every figure."""
    wrong = falsified(seen.ids, seen.quantities)
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(
            ["id", "site", "bin", "quantity", "falsified_quantity"]
            + [f"{model}_{name}" for model in MODELS for name in CLASSES]
        )
        described = zip(seen.ids, seen.sites, seen.bins, seen.quantities, wrong, strict=True)
        for row, *answers in zip(described, seen.champion, seen.challenger, strict=True):
            writer.writerow([*row, *(repr(float(x)) for answer in answers for x in answer)])


def read(file: Path) -> Answered:
    """Reads the file that `write` wrote."""
    with file.open(newline="") as rows:
        found = list(csv.DictReader(rows))

    def answers(model: str) -> Floats:
        return np.array([[float(row[f"{model}_{name}"]) for name in CLASSES] for row in found])

    return Answered(
        ids=np.array([row["id"] for row in found]),
        sites=np.array([row["site"] for row in found]),
        bins=np.array([row["bin"] for row in found]),
        quantities=np.array([int(row["quantity"]) for row in found]),
        champion=answers("champion"),
        challenger=answers("challenger"),
    )
