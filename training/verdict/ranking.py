"""How soon an order of recounting finds records that were falsified: for the model card and `bintally bench review`.

The records of the photographs are taken for right, but for a twentieth that is falsified at random. A rule scores a
photograph's record; the greater the score, the sooner it is recounted. Every rule orders the same draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.answer import AT_LEAST
from training.verdict.bootstrap import Floats, Ints, interval

SHARE = 0.05
"""Of records that are falsified."""
DRAWS = 100
RESAMPLES = 200
KINDS = ("±1", "±2", "missing", "extra", "all", "±1 to ±3")
"""missing: 1 to 3 items are gone, so the record is greater; extra: as many too many; all: one of the four."""
FIGURES = ("first 5 %", "at 10 %", "at 20 %", "for 80 %", "area")
CARD = ("random", "1 - p", "bayes")
"""The rules of the model card; the last one is that of Bintally."""

Score = Callable[[int, int], float]
"""What a rule makes of the photograph at this place with this recorded quantity."""
Ratio = Callable[[Sequence[float], int], float]
"""`bintally.common.evidence.weigh(...).ratio`, given by the caller: training imports no functions."""


def falsified(quantity: Ints, kind: str, random: np.random.Generator) -> tuple[NDArray[np.bool_], Ints]:
    """Which records are wrong, and the records. A record is never negative: then it errs the other way."""
    n = len(quantity)
    wrong = np.zeros(n, bool)
    wrong[random.choice(n, round(SHARE * n), replace=False)] = True
    sign, step = random.choice([-1, 1], n), random.integers(1, 4, n)
    off = {"±1": sign, "±2": 2 * sign, "missing": step, "extra": -step, "±1 to ±3": sign * step}
    if kind == "all":
        which = random.integers(0, 4, n)
        off["all"] = np.choose(which, [off[each] for each in KINDS[:4]])
    record = quantity + off[kind]
    record = np.where(record < 0, quantity - off[kind], record)
    return wrong, np.where(wrong, record, quantity)


def drawn(quantity: Ints, kind: str, draws: int) -> Iterator[tuple[NDArray[np.bool_], Ints, Floats]]:
    """For each draw: which records are wrong, the records, and random numbers that break ties of scores [N]."""
    for draw in range(draws):
        chance = np.random.default_rng((draw, KINDS.index(kind)))
        wrong, record = falsified(quantity, kind, chance)
        yield wrong, record, chance.random(len(record))


def weights(groups: NDArray[np.str_] | Ints, resamples: int) -> Floats:
    """How often each photograph counts [1 + resamples, N]: once in the first row, then as its bin group is drawn."""
    names, member = np.unique(groups, return_inverse=True)
    random, n = np.random.default_rng(0), len(names)
    counts = np.stack([np.bincount(random.integers(0, n, n), minlength=n) for _ in range(resamples)])
    return np.concatenate([np.ones((1, len(groups))), counts[:, member]])


def figures(order: Ints, wrong: NDArray[np.bool_], weights: Floats) -> Floats:
    """FIGURES [R, 5] of one order of the bins, for each row of `weights` [R, N], by which bins count."""
    placed, hits = weights[:, order], (weights * wrong)[:, order]
    seen, found = placed.cumsum(1), hits.cumsum(1)
    of, all_wrong = seen[:, -1:], np.maximum(found[:, -1:], 1e-9)

    def until(share: float) -> Floats:
        """Of the bins before this share is recounted: how many wrong ones."""
        at = np.minimum((seen < share * of - 1e-9).sum(1), len(order) - 1)
        found_there: Floats = found[np.arange(len(found)), at]
        return found_there

    needed = seen[np.arange(len(seen)), np.minimum((found < 0.8 * all_wrong - 1e-9).sum(1), len(order) - 1)]
    behind = (of - all_wrong) - (seen - found)  # right records after each place
    area = (hits * behind).sum(1) / np.maximum((all_wrong * (of - all_wrong))[:, 0], 1e-9)
    rows = [until(0.05) / (0.05 * of[:, 0]), until(0.1) / all_wrong[:, 0], until(0.2) / all_wrong[:, 0]]
    return np.stack([*rows, needed / of[:, 0], area], axis=1)


def measure(p: Floats, quantity: Ints, groups: NDArray[np.str_], ratio: Ratio, draws: int = DRAWS) -> dict[str, Any]:
    """FIGURES, each with its 95 % interval, of the rules of the card (`rules`), and what the last one gains over each
    other (`gains`), for probabilities [N, 7] and records falsified by all kinds."""
    scores: dict[str, Score] = {
        "random": lambda at, recorded: 0.0,
        "1 - p": lambda at, recorded: 1 - float(p[at, min(recorded, AT_LEAST)]),
        "bayes": lambda at, recorded: ratio(p[at].tolist(), recorded),
    }
    rows = weights(groups, RESAMPLES)
    sums = {rule: np.zeros((len(rows), len(FIGURES))) for rule in CARD}
    for wrong, record, ties in drawn(quantity, "all", draws):
        for rule in CARD:
            given = np.array([scores[rule](at, int(each)) for at, each in enumerate(record)])
            sums[rule] += figures(np.lexsort((ties, -given)), wrong, rows) / draws

    def told(found: Floats) -> dict[str, Any]:
        return {
            name: {"value": float(column[0]), "interval": interval(column[1:])}
            for name, column in zip(FIGURES, found.T, strict=True)
        }

    best = sums[CARD[-1]]
    return {
        "draws": draws,
        "resamples": RESAMPLES,
        "rules": {rule: told(found) for rule, found in sums.items()},
        "gains": {rule: told(best - sums[rule]) for rule in CARD[:-1]},
    }
