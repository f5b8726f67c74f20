"""The ranking of falsified records: what is falsified, what its figures mean, and the section of the model card."""

import numpy as np
import pytest

from training.verdict.card import RULES, _ranking
from training.verdict.ranking import CARD, FIGURES, KINDS, falsified, figures, measure, weights

QUANTITIES = np.array([0, 1, 2, 3, 6, 9, 45] * 40)


@pytest.mark.parametrize("kind", KINDS)
def test_a_twentieth_is_falsified_as_the_kind_says(kind: str) -> None:
    wrong, record = falsified(QUANTITIES, kind, np.random.default_rng(1))
    assert wrong.sum() == round(0.05 * len(QUANTITIES))
    assert ((record != QUANTITIES) == wrong).all() and (record >= 0).all()
    steps = np.abs(record - QUANTITIES)[wrong]
    assert set(steps) <= {"±1": {1}, "±2": {2}}.get(kind, {1, 2, 3})
    if kind == "missing":
        assert (record >= QUANTITIES).all()


def test_figures_of_a_perfect_and_of_a_useless_order() -> None:
    wrong = np.arange(200) < 10
    weights = np.ones((1, 200))
    (first, tenth, fifth, most, area) = figures(np.arange(200), wrong, weights)[0]
    assert (first, tenth, fifth, most, area) == (1, 1, 1, pytest.approx(8 / 200), 1)
    (first, tenth, fifth, most, area) = figures(np.arange(200)[::-1], wrong, weights)[0]
    assert (first, tenth, fifth, most, area) == (0, 0, 0, pytest.approx(198 / 200), 0)


def test_bins_of_weight_zero_do_not_count() -> None:
    wrong = np.arange(200) < 10
    half = (np.arange(200) % 2 == 0).astype(float)
    chosen = figures(np.arange(200)[::-1], wrong, half[None])[0]
    alone = figures(np.arange(100)[::-1], wrong[::2], np.ones((1, 100)))[0]
    assert chosen == pytest.approx(alone)


def test_groups_are_drawn_as_a_whole() -> None:
    rows = weights(np.array(["a", "b", "a", "c", "b"]), 50)
    assert (rows[0] == 1).all() and (rows[:, 0] == rows[:, 2]).all() and (rows[:, 1] == rows[:, 4]).all()
    assert (rows[1:, [0, 1, 3]].sum(1) == 3).all() and len(rows) == 51


def test_a_counter_that_is_right_finds_all_and_random_order_finds_its_share() -> None:
    sure = 0.94 * np.eye(7)[np.minimum(QUANTITIES, 6)] + 0.06 / 7
    few = QUANTITIES < 4  # an error within "6 or more" cannot be seen
    groups = np.arange(few.sum()).astype(str)
    found = measure(sure[few], QUANTITIES[few], groups, lambda p, recorded: 1 / p[min(recorded, 6)], draws=20)
    for rule in ("bayes", "1 - p"):
        of = [found["rules"][rule][name]["value"] for name in FIGURES]
        assert of == pytest.approx([1, 1, 1, 0.04, 1], abs=0.02)
    random = found["rules"]["random"]
    assert random["area"]["value"] == pytest.approx(0.5, abs=0.1)
    low, high = random["at 20 %"]["interval"]
    assert low < 0.2 < high
    gain = found["gains"]["random"]["area"]
    assert gain["value"] == pytest.approx(1 - random["area"]["value"])
    assert found["gains"]["1 - p"]["area"] == {"value": 0, "interval": [0, 0]}
    table = _ranking(found).splitlines()
    assert len(table) == len(RULES) + len(CARD) - 1
    assert table[0].startswith(f"| {RULES['bayes']} | 100.0 (") and table[-1].endswith("| +0.0 (+0.0 to +0.0) |")
