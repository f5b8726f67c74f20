"""What recounts found, counted by site and month: whether the list kept its promise, and what the random audit says.
Pure.

SCORE items are sharded as day totals are, and change only in the transaction that resolves a review or takes that back.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from bintally.aws.items import SHARDS, Item
from bintally.common.counts import pooled
from bintally.common.keys import encode_id

LISTED = ("listed", "listed_wrong", "listed_expected")
AUDITED = ("audited", "audited_wrong", "audited_expected", "audited_model_right")
WEIGHT = 40
"""Audited bins that the parameter of the share of wrong records is worth."""
MONTHS = 12
"""Whose scores count."""


@dataclass(frozen=True)
class Scores:
    """Recounts that ended with a number, those of the random audit apart."""

    listed: int = 0
    listed_wrong: int = 0
    listed_expected: float = 0.0
    """The sum of the probabilities with which their records were wrong before."""
    audited: int = 0
    audited_wrong: int = 0
    audited_expected: float = 0.0
    audited_model_right: int = 0
    """The model's count was the number that people found; 6 and more are one."""

    def share(self, given: float) -> float:
        """The share of records that are wrong: the mean of a beta-binomial posterior, whose prior is the parameter with
        the weight of WEIGHT bins."""
        return (given * WEIGHT + self.audited_wrong) / (WEIGHT + self.audited)


def score_key(site: str, bin_: str, month: str) -> Item:
    """`bin_` is the bin's PK; `month` as in 2026-11."""
    shard = int(hashlib.sha256(bin_.encode()).hexdigest()[:8], 16) % SHARDS
    return {"PK": f"SCORE#{encode_id(site)}", "SK": f"{month}#{shard:02d}"}


def score_of(review: Mapping[str, Any]) -> Item:
    """What a REVIEW that ended with a number adds to its site's scores."""
    wrong = int(review["quantity"] != review["recorded_quantity"])
    expected = 1 - Decimal(review["p_record"])
    if not review["audits"]:
        return {"listed": 1, "listed_wrong": wrong, "listed_expected": expected}
    right = int(pooled(int(review["quantity"])) == review["count"])
    return {"audited": 1, "audited_wrong": wrong, "audited_expected": expected, "audited_model_right": right}


def total(items: Iterable[Item]) -> Scores:
    """The sum of SCORE items."""
    found: dict[str, Decimal] = dict.fromkeys((*LISTED, *AUDITED), Decimal(0))
    for item in items:
        for name in found:
            found[name] += item.get(name, 0)
    return Scores(
        **{name: float(value) if name.endswith("expected") else int(value) for name, value in found.items()}  # type: ignore[arg-type]
    )


def interval(found: int, of: int) -> tuple[float, float]:
    """The central 95 % of the share of which `found` of `of` were drawn, before which all shares were as probable.

    The quantiles of Beta(1 + found, 1 + of - found), whose distribution is that of an order statistic: P(share < x) is
    the probability that at least 1 + found of 1 + of uniform numbers are below x (Johnson, Kotz and Balakrishnan,
    Continuous Univariate Distributions 2, 25.2).
    """
    draws = of + 1

    def below(x: float) -> float:
        logs = (
            math.lgamma(draws + 1) - math.lgamma(n + 1) - math.lgamma(draws - n + 1)
            + n * math.log(x) + (draws - n) * math.log1p(-x)
            for n in range(found + 1, draws + 1)
        )  # fmt: skip
        return math.fsum(map(math.exp, logs))

    def quantile(p: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if below(middle) < p else (low, middle)
        return (low + high) / 2

    return quantile(0.025), quantile(0.975)
