"""Simulates how often the rule of functions/bintally/retraining/judging.py promotes challengers of known gain.

    OPENBLAS_NUM_THREADS=1 PYTHONPATH=functions python -m experiments.simulate_verdict model/pretrained/predictions.csv

Bins are drawn with replacement from the stored predictions, which are the champion's answers. A challenger answers a
share of the photographs (`own`) as the champion answered another photograph of the same recorded count: so it is equal
in distribution, but its errors are independent. A better challenger takes the better of two such answers as often as
its gain requires; a worse one takes the worse. docs/experiments.md contains the results.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from bintally.retraining.judging import judge
from bintally.retraining.settings import Margins

from model.answer import AT_LEAST, probabilities
from training.verdict import comparison, metrics
from training.verdict.bootstrap import Floats, Ints

SIZES = (300, 1000, 3000)
RULES = {
    "better overall, groups left out": Margins(superiority=0.0, noninferiority=9.0, least_bins=1),
    "no group worse by 0.05": Margins(superiority=0.0, noninferiority=0.05, least_bins=50),
    "**by 0.10**": Margins(superiority=0.0, noninferiority=0.10, least_bins=50),
    "by 0.15": Margins(superiority=0.0, noninferiority=0.15, least_bins=50),
    "by 0.10, better by 0.01": Margins(superiority=0.01, noninferiority=0.10, least_bins=50),
    "by 0.10, groups of 100 bins": Margins(superiority=0.0, noninferiority=0.10, least_bins=100),
}


@dataclass(frozen=True)
class Challenger:
    """`gain` in ranked probability score over all photographs; `apart` is the gain in single groups of counts."""

    name: str
    gain: float
    own: float = 1.0
    apart: dict[int, float] = field(default_factory=dict)
    """Gain by number of the group in comparison.GROUPS; the other groups share the rest."""
    blind: bool = False
    """Answers empty bins as if they held three items."""


CHALLENGERS = [
    Challenger("equal", 0.0),
    Challenger("equal, half of the answers the champion's", 0.0, own=0.5),
    Challenger("worse by 0.02", -0.02),
    Challenger("better by 0.01", 0.01),
    Challenger("better by 0.02", 0.02),
    Challenger("better by 0.03", 0.03),
    Challenger("better by 0.05", 0.05),
    Challenger("better by 0.08", 0.08),
    Challenger("better by 0.02, half of the answers the champion's", 0.02, own=0.5),
    Challenger("better by 0.03, half of the answers the champion's", 0.03, own=0.5),
    Challenger("better by 0.03, but worse by 0.10 in 1-2", 0.03, apart={1: -0.10}),
    Challenger("better by 0.03, but worse by 0.10 in 6 or more", 0.03, apart={3: -0.10}),
    Challenger("better by 0.03, but sees three items in empty bins", 0.03, blind=True),
    Challenger("better by 0.03, but worse by 0.05 in 1-2", 0.03, apart={1: -0.05}),
]


class Population:
    """The champion's answers to many photographs, from which test sets and challengers are drawn."""

    def __init__(self, file: Path) -> None:
        splits = metrics.read_predictions(file)
        temperature = metrics.fit_temperature(splits["validation"].logits, splits["validation"].quantities)
        held_out = [splits["validation"], splits["test"]]
        self.p = probabilities(np.concatenate([split.logits for split in held_out]), temperature)
        self.quantities = np.concatenate([split.quantities for split in held_out])
        names = np.concatenate([np.char.add(f"{k}-", split.groups) for k, split in enumerate(held_out)])
        self.labels = np.minimum(self.quantities, AT_LEAST)
        self.rps = metrics.ranked_probability_score(self.p, self.labels)
        self.bins = [np.flatnonzero(names == name) for name in np.unique(names)]
        self.of_label = [np.flatnonzero(self.labels == k) for k in range(AT_LEAST + 1)]
        # The average gain of the better of two answers to photographs of one count, by photograph.
        spread = [np.abs(self.rps[of][:, None] - self.rps[of][None]).mean() / 2 for of in self.of_label]
        self.reach = np.array(spread)[self.labels]

    def group(self, number: int) -> np.ndarray:
        return comparison.counted(self.quantities, *comparison.GROUPS[number])

    def chances(self, challenger: Challenger) -> Floats:
        """By photograph, how often the challenger takes the better of two (negative: the worse), -1 to 1."""
        chance = np.zeros(len(self.labels))
        rest = np.ones(len(self.labels), dtype=bool)
        left = challenger.gain * len(self.labels)
        for number, gain in challenger.apart.items():
            group = self.group(number)
            chance[group] = gain / (challenger.own * self.reach[group].mean())
            rest &= ~group
            left -= gain * group.sum()
        if challenger.blind:
            empty = self.labels == 0
            rest &= ~empty
            as_if = metrics.ranked_probability_score(self.p[self.of_label[3]], np.zeros(len(self.of_label[3]), int))
            left += (as_if.mean() - self.rps[empty].mean()) * empty.sum()
        chance[rest] = left / (challenger.own * self.reach[rest].sum())
        if np.abs(chance).max() > 1:
            raise SystemExit(f"no challenger can be {challenger.name}: chances up to {np.abs(chance).max():.2f}")
        return chance

    def answers(self, challenger: Challenger, chances: Floats, drawn: Ints, random: np.random.Generator) -> Floats:
        """The challenger's answers to the photographs `drawn` [N]: [N, 7]."""
        labels = self.labels[drawn]
        if challenger.blind:
            labels = np.where(labels == 0, 3, labels)
        two = np.stack([self._another(labels, random), self._another(labels, random)])
        order = np.argsort(self.rps[two], axis=0)
        chance, sure = chances[drawn], random.random(len(drawn)) < np.abs(chances[drawn])
        pick = np.where(sure, np.where(chance > 0, order[0], order[1]), 0)
        taken = two[pick, np.arange(len(drawn))]
        kept = random.random(len(drawn)) >= challenger.own
        return self.p[np.where(kept & (self.labels[drawn] == self.labels[taken]), drawn, taken)]

    def _another(self, labels: Ints, random: np.random.Generator) -> Ints:
        result = np.empty(len(labels), dtype=np.int64)
        for k, of in enumerate(self.of_label):
            here = labels == k
            result[here] = random.choice(of, here.sum())
        return result

    def test_set(
        self, photographs: int, challenger: Challenger, chances: Floats, random: np.random.Generator
    ) -> comparison.Answered:
        drawn: list[Ints] = []
        names: list[str] = []
        while len(names) < photographs:
            members = self.bins[random.integers(len(self.bins))]
            names += [f"{len(drawn)}"] * len(members)
            drawn.append(members)
        chosen = np.concatenate(drawn)
        return comparison.Answered(
            ids=np.arange(len(chosen)).astype(str),
            sites=np.full(len(chosen), "site"),
            bins=np.array(names),
            quantities=self.quantities[chosen],
            champion=self.p[chosen],
            challenger=self.answers(challenger, chances, chosen, random),
        )


def evaluation(seen: comparison.Answered, draws: int) -> dict[str, Any]:
    """The part of evaluation.json that the verdict needs."""
    return {
        "paired": comparison.paired(seen, draws),
        "groups": comparison.without_nan(comparison.groups(seen, draws)),
        "golden": {"asked": 1, "faults": []},
        "dataset_digest": "",
        "test_set": {"digest": "", "photographs": len(seen.ids)},
        "champion": {"as_shipped": {"rps": None}},
        "challenger": {"as_shipped": {"rps": None}},
    }


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("predictions", type=Path)
    flags.add_argument("--runs", type=int, default=1000, help="test sets of each size and challenger")
    flags.add_argument("--draws", type=int, default=500, help="resamples of each (evaluate takes 2,000)")
    flags.add_argument("--seed", type=int, default=0)
    a = flags.parse_args()

    population = Population(a.predictions)
    print(f"{len(population.labels)} photographs, ranked probability score {population.rps.mean():.4f}\n")
    print("| challenger | photographs | " + " | ".join(RULES) + " |")
    print("|---" * (2 + len(RULES)) + "|", flush=True)
    for number, challenger in enumerate(CHALLENGERS):
        chances = population.chances(challenger)
        for photographs in SIZES:
            random = np.random.default_rng((a.seed, number, photographs))
            promoted = np.zeros(len(RULES))
            for _ in range(a.runs):
                seen = population.test_set(photographs, challenger, chances, random)
                found = evaluation(seen, a.draws)
                promoted += [judge(found, rule)["promote"] for rule in RULES.values()]
            shares = " | ".join(f"{share:.1%}" for share in promoted / a.runs)
            print(f"| {challenger.name} | {photographs:,} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
