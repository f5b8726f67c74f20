"""The figures against their definitions, and the shipped ones against the shipped predictions."""

import csv
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tools import ship
from training.verdict import metrics
from training.verdict.bootstrap import Floats, Ints
from training.verdict.card import card

RANDOM = np.random.default_rng(0)
SHIPPED = Path(__file__).parents[2] / "model" / "pretrained"


def test_ranked_probability_score_by_hand() -> None:
    p = np.array([[0.5, 0.5, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1.0]])
    # Cumulative .5 1 1 1 1 1 against 0 0 1 1 1 1; and 0 0 0 0 0 0 against 0 0 0 0 1 1.
    assert metrics.ranked_probability_score(p, np.array([2, 4])).tolist() == [0.25 + 1, 2.0]


def test_both_views_by_hand() -> None:
    p = np.array([[0.1, 0.2, 0.1, 0, 0, 0, 0.6], [0, 0, 0.4, 0.6, 0, 0, 0], [0, 0, 0, 0, 0.2, 0.2, 0.6]])
    found = metrics.summary(p, np.array([1, 2, 17]))
    shipped, published = found["as_shipped"], found["as_published"]
    assert shipped["accuracy"] == pytest.approx(1 / 3)  # answers 6, 3, 6 for 1, 2, 6+
    assert shipped["within_one"] == pytest.approx(2 / 3)
    assert shipped["within_one_of_0_to_5"] == pytest.approx(1 / 2)
    assert shipped["log_loss"] == pytest.approx(-np.log([0.2, 0.4, 0.6]).mean())
    assert published["photographs"] == 2  # the bin recorded at 17 is left out
    assert published["accuracy"] == pytest.approx(1 / 2)  # renormalised, the first answers 1
    assert published["rmse"] == pytest.approx(np.sqrt(1 / 2))
    assert published["rmse_of_posterior_mean"] == pytest.approx(np.sqrt((0.0**2 + 0.6**2) / 2))


def test_temperature_is_found_again() -> None:
    logits = RANDOM.normal(0, 1.5, (20_000, 7))
    p = metrics.softmax(logits)
    labels = (RANDOM.random((len(p), 1)) > np.cumsum(p, axis=1)).sum(axis=1)
    assert metrics.fit_temperature(logits * 1.7, labels) == pytest.approx(1.7, abs=0.05)


def test_calibration_error_tells_overconfidence() -> None:
    p = metrics.softmax(RANDOM.normal(0, 1.5, (3000, 7)))
    labels = (RANDOM.random((len(p), 1)) > np.cumsum(p, axis=1)).sum(axis=1)
    perfect = metrics.perfectly_calibrated(p)
    assert metrics.calibration_error(p, labels) < 2 * perfect["percentile_95"]
    sharpened = p**3 / (p**3).sum(axis=1, keepdims=True)
    assert metrics.calibration_error(sharpened, labels) > 4 * perfect["percentile_95"]


def answers(number: int, sureness: float, seed: int) -> tuple[Floats, Ints]:
    """Probabilities [N, 7] that are right at a sureness of 1 and too sure above it, and labels [N]."""
    random = np.random.default_rng(seed)
    p = metrics.softmax(random.normal(0, 1.2, (number, 7)))
    labels = (random.random((number, 1)) > np.cumsum(p, axis=1)).sum(axis=1).clip(0, 6)
    return p**sureness / (p**sureness).sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("sureness", [1.0, 1.3, 2.0])
def test_the_interval_of_the_calibration_error_holds_the_error_of_the_model(
    sureness: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "perfectly_calibrated", lambda p: {})
    of_the_model = metrics.calibration_error(*answers(200_000, sureness, seed=1))
    groups, held, measured, corrected = np.arange(300).astype(str), 0, 0.0, 0.0
    for seed in range(2, 62):
        found = metrics.calibration(*answers(300, sureness, seed), groups, draws=200)
        low, high = found["interval"]
        assert low <= found["corrected"] <= high
        held += low <= of_the_model <= high
        measured, corrected = measured + found["error"] / 60, corrected + found["corrected"] / 60
    assert held >= 50, "of 60; 95 % are 57, and the basic bootstrap holds 20 at a sureness of 1"
    assert abs(corrected - of_the_model) < max(0.01, 0.4 * (measured - of_the_model))


@pytest.mark.parametrize("number", [1, 2, 20])
def test_few_photographs_have_a_calibration_error_too(number: int) -> None:
    found = metrics.calibration(*answers(number, 1.0, seed=3), np.arange(number).astype(str), draws=50)
    assert 0 <= found["interval"][0] <= found["corrected"] <= found["interval"][1]


def test_constant_answer_is_the_best_constant() -> None:
    found = metrics.constant_answer(np.array([0, 3, 3, 3, 4, 8, 9]))
    assert found["as_published"]["accuracy"] == pytest.approx(3 / 5)  # always 3
    assert found["as_published"]["within_one"] == pytest.approx(4 / 5)
    assert found["as_published"]["rmse"] == pytest.approx(np.sqrt((9 + 0 + 0 + 0 + 1) / 5))
    assert found["as_shipped"]["accuracy"] == pytest.approx(3 / 7)
    assert found["as_shipped"]["within_one"] == pytest.approx(4 / 7)


def test_intervals_hold_the_figure_and_widen_with_groups() -> None:
    quantities = RANDOM.integers(0, 8, 400)
    p = metrics.softmax(RANDOM.normal(0, 1, (400, 7)) + 2 * np.eye(7)[np.minimum(quantities, 6)])
    value = metrics.summary(p, quantities)["as_shipped"]["accuracy"]
    alone = metrics.intervals(p, quantities, np.arange(400).astype(str), draws=200)["as_shipped"]["accuracy"]
    assert alone[0] < value < alone[1]
    # Twenty copies of twenty photographs say no more than twenty photographs do.
    few = np.repeat(np.arange(20), 20)
    joined = metrics.intervals(p[few], quantities[few], few.astype(str), draws=200)["as_shipped"]["accuracy"]
    assert joined[1] - joined[0] > 2 * (alone[1] - alone[0])


def test_the_shipped_figures_follow_from_the_shipped_predictions() -> None:
    with tarfile.open(SHIPPED / "model.tar.gz") as tar:
        file = tar.extractfile("package.json")
        assert file is not None
        recorded = json.load(file)
    predictions = metrics.read_predictions(SHIPPED / "predictions.csv")
    report = metrics.report(predictions)
    assert report["temperature"] == recorded["calibration"]["temperature"]
    for view in ("as_shipped", "as_published"):
        for name, value in recorded["metrics"][view].items():
            assert report["test"][view][name] == pytest.approx(value, rel=1e-6), name
    assert not set(predictions["test"].groups) & set(predictions["validation"].groups)
    with (SHIPPED / "training.csv").open(newline="") as sheet:
        learned = list(csv.DictReader(sheet))
    assert len({one["id"] for one in learned}) == len(learned) >= 7199
    assert not {one["group"] for one in learned} & {*predictions["test"].groups, *predictions["validation"].groups}
    assert (SHIPPED / "README.md").read_text() == card(recorded, ship.report(SHIPPED), trained_on=len(learned))


def test_the_figures_of_the_shipped_model_are_those_of_its_predictions() -> None:
    shipped = Path(__file__).parents[2] / "model" / "pretrained"
    predictions = metrics.read_predictions(shipped / "predictions.csv")
    made = metrics.figures(metrics.report(predictions), predictions["test"])
    stored = json.loads((shipped / "figures.json").read_text())
    assert (stored.keys(), stored["confusion"], stored["test_set"]) == (
        made.keys(),
        made["confusion"],
        made["test_set"],
    )
    for view in ("as_shipped", "as_published"):
        assert stored[view] == pytest.approx(made[view])
    points = made["calibration"]["reliability"]
    for point, again in zip(stored["calibration"]["reliability"], points, strict=True):
        assert point["accuracy"] == pytest.approx(again["accuracy"])
    assert sum(map(sum, made["confusion"])) == made["test_set"]["photographs"]
