"""The simulated challengers are worth what they are called, and the rule tells them apart."""

from pathlib import Path

import numpy as np
import pytest
from bintally.retraining.judging import judge
from bintally.retraining.settings import Margins
from samtranslator.yaml_helper import yaml_parse

from experiments import simulate_verdict
from experiments.simulate_verdict import CHALLENGERS, RULES, Challenger, Population
from training.evaluate import AUDITED
from training.verdict import comparison

ROOT = Path(__file__).parents[2]
DEFAULT = RULES["**by 0.10**"]


@pytest.fixture(scope="module")
def population() -> Population:
    return Population(ROOT / "model" / "pretrained" / "predictions.csv")


@pytest.mark.parametrize("challenger", CHALLENGERS, ids=lambda challenger: challenger.name)
def test_a_challenger_is_worth_what_it_is_called(challenger: Challenger, population: Population) -> None:
    random = np.random.default_rng(0)
    seen = population.test_set(40_000, challenger, population.chances(challenger), random)
    gain = comparison.advantages(seen)["rps"]
    assert gain.mean() == pytest.approx(challenger.gain, abs=0.008)
    for number, apart in challenger.apart.items():
        group = comparison.counted(seen.quantities, *comparison.GROUPS[number])
        assert gain[group].mean() == pytest.approx(apart, abs=0.02)
    if challenger.blind:
        assert gain[seen.quantities == 0].mean() < -0.5
    kept = (seen.champion == seen.challenger).all(axis=1).mean()
    assert kept == pytest.approx(1 - challenger.own, abs=0.05)


def promoted(challenger: Challenger, population: Population, photographs: int) -> int:
    """Of 30 test sets."""
    random, chances = np.random.default_rng(1), population.chances(challenger)
    found = (population.test_set(photographs, challenger, chances, random) for _ in range(30))
    return sum(judge(simulate_verdict.evaluation(seen, 200), DEFAULT)["promote"] for seen in found)


def test_the_rule_tells_them_apart(population: Population) -> None:
    assert promoted(Challenger("equal", 0.0), population, 1000) <= 6
    assert promoted(Challenger("better", 0.1), population, 1000) >= 24
    assert promoted(Challenger("worse in 1-2", 0.05, apart={1: -0.15}), population, 1000) <= 3


def test_audited_bins_that_judge_alone_are_enough_for_a_good_challenger_to_win(population: Population) -> None:
    assert promoted(Challenger("better", 0.05), population, AUDITED) >= 9
    page = (ROOT / "docs" / "decisions" / "priority.md").read_text()
    assert f"**The audit judges models once it has {AUDITED:,} bins of the test split.**" in page


def test_the_simulated_rule_is_the_templates() -> None:
    parameters = yaml_parse((ROOT / "template.yaml").read_text())["Parameters"]
    names = ("RetrainMargin", "RetrainGroupMargin", "RetrainLeastBins")
    assert Margins(*(parameters[name]["Default"] for name in names)) == DEFAULT
