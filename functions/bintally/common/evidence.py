"""What a photograph says about its record: how probable it is that the record is wrong. Pure.

Bayes' rule, with a model of errors. Given a photograph x with class probabilities p(c|x) and a recorded quantity r:

    P(wrong | x, r) = s R / (s R + 1 - s)        R = sum over y != r of p(y|x) e(r|y), divided by p(r|x)

`s` is the share of the site's records that are wrong: its own audit says it, a parameter until there is one. R is the
likelihood ratio of "wrong" against "right" of the pair (x, r). e(r|y) is the probability that a wrong record of y items
says r: it is off by d items in proportion to NEAR ** (d - 1); in ANY of the cases it is the record of any other bin.
Quantities of 6 and more share one class: within it they have the probabilities of the training photographs, which
fall by TAIL from one to the next, so an error that stays in the class is neither seen nor forgotten.

If errors were only of the second kind, R would be the likelihood ratio of the photograph alone, the class prior divided
out: Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities", Neural
Computation 14 (2002). That ranks worse than 1 - p(r|x) at the top of the list, and near errors better
(docs/benchmarks.md, `bintally bench review ranking`). NEAR and ANY were chosen on validation photographs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from bintally.common.counts import OUTPUTS, pooled

NEAR = 0.5
ANY = 0.1
TAIL = 0.76
"""One less the inverse of the mean of 6 and more, counted from 6 as 1: 9.16 - 5."""
PRIOR = (0.016, 0.078, 0.151, 0.181, 0.160, 0.123, 0.291)
"""Of the training photographs of the shipped model, without those that were drawn by their count."""
ALIKE = 9
"""From here on a greater record means the same to a photograph, but for its distance: only the tail of the training
photographs, which is no other warehouse's, would speak against it."""
MOST = 90
"""Quantities that are summed over; TAIL ** 60 is below 1e-7."""
SHARE = 0.05
"""Of records that are wrong, where nobody has measured it."""
LEAST = 1e-6
"""Probabilities have six places."""


Numbers = Sequence[float | Decimal]

LIKENESS = 0.58
"""Correlation of the logarithms of what two photographs of a bin give to its record (docs/experiments.md)."""


@dataclass(frozen=True)
class Evidence:
    """What a photograph says about a record."""

    ratio: float
    """R above, from 0; more than 1 speaks against the record."""
    direction: str
    """Whether the bin has "more" or "fewer" items than recorded, if the record is wrong."""
    size: float
    """By how many items the record is off, if it is wrong: the mean."""

    def p_wrong(self, share: float) -> float:
        """The probability that the record is wrong, where this share of records is."""
        return share * self.ratio / (share * self.ratio + 1 - share)


def weigh(probabilities: Sequence[float | Decimal], recorded: int) -> Evidence:
    """The evidence about a record of `recorded` items. `probabilities` [7] of 0 to 5 and of 6 or more."""
    found = [max(LEAST, float(p)) for p in probabilities]
    known = min(recorded, ALIKE)
    fewer, more, off = 0.0, 0.0, 0.0
    for p, (lower, higher, inside) in zip(found, _weights()[known], strict=True):
        fewer, more, off = fewer + p * lower, more + p * higher, off + p * inside
    below = sum(found[c] * _weights()[known][c][0] for c in range(OUTPUTS - 1))
    off += (recorded - known) * below  # so much further away are these classes than the weights say
    wrong, right = fewer + more, found[pooled(known)] * _within()[known]
    return Evidence(wrong / right, "fewer" if fewer >= more else "more", off / wrong)


def together(answers: Sequence[tuple[Numbers, Numbers | None]]) -> list[float]:
    """The probabilities [7] by several photographs of the same contents, the newest first, from those [7] of each and
    the class prior [7] that these assume (None: PRIOR).

    Their likelihoods multiply, each to the power 1 / (1 + (N - 1) LIKENESS): N alike photographs are worth as many
    independent ones as N equally correlated measurements are (the design effect: Kish, Survey Sampling, 1965). The
    class prior counts once: that of the newest.
    """
    if len(answers) == 1:
        return [float(p) for p in answers[0][0]]
    power = 1 / (1 + (len(answers) - 1) * LIKENESS)
    logs = [_log((answers[0][1] or PRIOR)[c]) for c in range(OUTPUTS)]
    for found, prior in answers:
        logs = [each + power * (_log(found[c]) - _log((prior or PRIOR)[c])) for c, each in enumerate(logs)]
    raised = [math.exp(each - max(logs)) for each in logs]
    return [each / sum(raised) for each in raised]


def _log(p: float | Decimal) -> float:
    return math.log(max(LEAST, float(p)))


@cache
def _within() -> list[float]:
    """The probability of each quantity within its class."""
    tail = [TAIL**place for place in range(MOST - OUTPUTS + 1)]
    return [1.0] * (OUTPUTS - 1) + [each / sum(tail) for each in tail]


@cache
def _weights() -> list[list[tuple[float, float, float]]]:
    """By recorded quantity and true class: the probability that a wrong record of the class says it while there are
    fewer, and while there are more, and the same times the distance."""
    within = _within()
    usual = [PRIOR[pooled(y)] * within[y] for y in range(MOST)]
    both = {y: sum(NEAR ** (abs(y - r) - 1) for r in range(MOST + ALIKE) if r != y) for y in range(MOST)}
    found = []
    for r in range(ALIKE + 1):
        of_class = [(0.0, 0.0, 0.0)] * OUTPUTS
        for y in range(MOST):
            if y == r:
                continue
            e = (1 - ANY) * NEAR ** (abs(y - r) - 1) / both[y] + ANY * usual[r] / (1 - usual[y])
            weight = within[y] * e
            lower, higher, off = of_class[pooled(y)]
            of_class[pooled(y)] = (lower + weight * (y < r), higher + weight * (y > r), off + weight * abs(y - r))
        found.append(of_class)
    return found
