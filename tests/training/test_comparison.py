"""The figures against scikit-learn's, and what must hold for them whatever the answers are."""

import json
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from model.answer import AT_LEAST, posterior_median
from training.verdict import comparison, metrics
from training.verdict.bootstrap import Floats, Ints
from training.verdict.comparison import FALSIFIED_SHARE, Answered

DRAWS = 100


def answered(
    seed: int, photographs: int, *, bins: int | None = None, better: float = 0.0, highest: int = 9
) -> Answered:
    """Random records, and answers that know something of them; the challenger knows more by `better`."""
    random = np.random.default_rng(seed)
    quantities = random.integers(0, highest + 1, photographs)
    truth = np.eye(7)[np.minimum(quantities, AT_LEAST)]

    def answers(knows: float) -> Floats:
        return metrics.softmax(random.normal(size=(photographs, 7)) + knows * truth).round(6)

    return Answered(
        ids=np.array([f"{k:016x}" for k in range(photographs)]),
        sites=random.choice(["AUS2", "BFI4"], photographs),
        bins=(np.arange(photographs) if bins is None else random.integers(bins, size=photographs)).astype(str),
        quantities=quantities,
        champion=answers(1.0),
        challenger=answers(1.0 + better),
    )


some = st.builds(answered, st.integers(0, 999), st.integers(2, 120))


@settings(max_examples=40)
@given(some)
def test_figures_are_those_of_scikit_learn(seen: Answered) -> None:
    p, labels = seen.champion, seen.labels
    shipped = metrics.summary(p, seen.quantities)["as_shipped"]
    scaled = p / p.sum(axis=1, keepdims=True)  # rounded to six digits, as the endpoint does
    assert shipped["log_loss"] == pytest.approx(sklearn.metrics.log_loss(labels, scaled, labels=range(7)), abs=1e-5)
    assert shipped["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels, posterior_median(p)))
    expected = sklearn.metrics.confusion_matrix(labels, posterior_median(p), labels=range(7))
    assert (metrics.confusion(p, labels) == expected).all()
    # Epstein's score is the sum of the Brier scores of "at most k".
    at_most = np.clip(np.cumsum(scaled, axis=1), 0, 1)
    briers = [sklearn.metrics.brier_score_loss(labels <= k, at_most[:, k], pos_label=True) for k in range(6)]
    assert shipped["rps"] == pytest.approx(sum(briers), abs=1e-4)
    few = seen.quantities < AT_LEAST
    if few.any():
        six = p[few, :6].argmax(axis=1)
        published = metrics.summary(p, seen.quantities)["as_published"]
        assert published["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels[few], six))
        assert published["rmse"] == pytest.approx(sklearn.metrics.root_mean_squared_error(labels[few], six))


@settings(max_examples=40)
@given(some)
def test_recall_and_precision_are_those_of_scikit_learn(seen: Answered) -> None:
    recall = sklearn.metrics.recall_score(
        seen.labels, posterior_median(seen.champion), labels=range(7), average=None, zero_division=np.nan
    )
    precision = sklearn.metrics.precision_score(
        seen.labels, posterior_median(seen.champion), labels=range(7), average=None, zero_division=np.nan
    )
    for k, row in enumerate(comparison.per_class(seen.champion, seen, 5)):
        for name, expected in (("recall", recall[k]), ("precision", precision[k])):
            assert row[name] is None if np.isnan(expected) else row[name] == pytest.approx(expected)


@settings(max_examples=40)
@given(some, st.integers(0, 99), st.sampled_from([1, 2, 6]))
def test_the_ranking_is_that_of_scikit_learn(seen: Answered, seed: int, digits: int) -> None:
    p = seen.champion.round(digits)  # with one digit nearly all are ties
    rows, wrong = np.arange(len(p)), np.minimum(comparison.falsified(seen.ids, seen.quantities), AT_LEAST)
    right_p, wrong_p = p[rows, seen.labels], p[rows, wrong]
    weights = np.random.default_rng(seed).integers(0, 4, (3, len(p))).astype(float)
    weights[:, 0] += 1
    auc, found = comparison.ranking(right_p, wrong_p, weights)
    is_wrong = np.repeat([0, 1], len(p))
    for k in range(3):
        both = np.concatenate([weights[k], weights[k]])
        expected = sklearn.metrics.roc_auc_score(is_wrong, -np.concatenate([right_p, wrong_p]), sample_weight=both)
        assert auc[k] == pytest.approx(expected)
        # Ranking all: what a curve of found against looked-at gives at a tenth.
        rate = sklearn.metrics.roc_curve(
            is_wrong, -np.concatenate([right_p, wrong_p]), sample_weight=both, drop_intermediate=False
        )
        looked_at = (1 - FALSIFIED_SHARE) * rate[0] + FALSIFIED_SHARE * rate[1]
        assert found[k] == pytest.approx(np.interp(0.1, looked_at, rate[1]))


def test_ranking_at_its_ends() -> None:
    def ranked(right: float, wrong: float) -> object:
        return comparison.ranking(np.full(50, right), np.full(50, wrong), np.ones((1, 50)))

    assert ranked(0.9, 0.1) == (1.0, pytest.approx(1.0))
    assert ranked(0.1, 0.9) == (0.0, 0.0)
    assert ranked(0.5, 0.5) == (0.5, pytest.approx(0.1))


def test_falsified_records_are_wrong_by_a_little_and_stay_the_same() -> None:
    ids = np.array([f"{k:x}" for k in range(20_000)])
    quantities = np.random.default_rng(0).integers(0, 12, len(ids))
    wrong = comparison.falsified(ids, quantities)
    assert (wrong >= 0).all() and (wrong != quantities).all()
    off = wrong[quantities > 8] - quantities[quantities > 8]
    assert [(np.abs(off) == k).mean() for k in (1, 2, 3)] == pytest.approx([0.5, 0.25, 0.125], abs=0.02)
    assert (off > 0).mean() == pytest.approx(0.5, abs=0.02)
    assert (comparison.falsified(ids[100:200], quantities[100:200]) == wrong[100:200]).all()


@settings(max_examples=15)
@given(st.integers(0, 999), st.integers(2, 150))
def test_changing_sides_changes_signs(seed: int, photographs: int) -> None:
    seen = answered(seed, photographs, better=0.5)
    swapped = replace(seen, champion=seen.challenger, challenger=seen.champion)
    one, other = comparison.paired(seen, DRAWS), comparison.paired(swapped, DRAWS)
    for name in one:
        assert one[name]["difference"] == pytest.approx(-other[name]["difference"])
        assert one[name]["interval"] == pytest.approx([-x for x in reversed(other[name]["interval"])])
        assert one[name]["interval"][0] <= one[name]["lower_bound"] <= one[name]["interval"][1]
    for group, mirrored in zip(comparison.groups(seen, DRAWS), comparison.groups(swapped, DRAWS), strict=True):
        assert group["lower_bound"] == pytest.approx(-mirrored["upper_bound"], nan_ok=True)


def test_a_better_challenger_shows_in_every_figure() -> None:
    found = comparison.compare(answered(1, 1500, better=1.0), "old", "new", draws=DRAWS)
    for name, figure in found["paired"].items():
        assert 0 < figure["lower_bound"] < figure["difference"], name
    assert all(group["lower_bound"] > 0 for group in found["groups"])
    assert found["challenger"]["falsified_records"]["auc"] > found["champion"]["falsified_records"]["auc"]
    assert found["champion"]["as_shipped"]["rps"] - found["challenger"]["as_shipped"]["rps"] == pytest.approx(
        found["paired"]["rps"]["difference"]
    )


def test_the_champion_against_itself_is_exactly_equal() -> None:
    seen = answered(2, 300)
    same = replace(seen, challenger=seen.champion)
    found = comparison.compare(same, "old", "old", draws=DRAWS)
    assert all(figure == {"difference": 0, "interval": [0, 0], "lower_bound": 0} for figure in found["paired"].values())
    assert all(group["lower_bound"] == group["upper_bound"] == 0 for group in found["groups"])
    assert found["champion"] == found["challenger"]


def test_groups_cover_every_photograph_once_and_few_bins_have_no_bounds() -> None:
    quantities = np.concatenate([[0] * 9, [1, 2] * 10, [3, 4, 5] * 10, [6, 40] * 10])
    seen = answered(3, len(quantities))
    seen = replace(seen, quantities=quantities)
    groups = comparison.groups(seen, DRAWS)
    assert [(g["name"], g["photographs"]) for g in groups] == [("0", 9), ("1-2", 20), ("3-5", 30), ("6 or more", 20)]
    assert np.isnan(groups[0]["lower_bound"]) and np.isnan(groups[0]["upper_bound"])
    for group in groups[1:]:
        assert group["lower_bound"] < group["difference"] < group["upper_bound"]
    advantage = comparison.advantages(seen)["rps"]
    weighted = sum(g["photographs"] * g["difference"] for g in groups) / len(quantities)
    assert weighted == pytest.approx(advantage.mean())


def test_photographs_of_one_bin_count_as_one() -> None:
    alone = answered(4, 200)
    copies = np.repeat(np.arange(200), 5)
    joined = Answered(**{each.name: getattr(alone, each.name)[copies] for each in fields(Answered)})
    one, other = comparison.paired(alone, 400), comparison.paired(joined, 400)
    assert other["rps"]["lower_bound"] == pytest.approx(one["rps"]["lower_bound"])


def test_a_perfectly_calibrated_model_is_told_from_a_sure_one() -> None:
    random = np.random.default_rng(5)
    p = metrics.softmax(random.normal(0, 1.5, (3000, 7)))
    labels = (random.random((3000, 1)) > np.cumsum(p, axis=1)).sum(axis=1)
    sharp = p**3 / (p**3).sum(axis=1, keepdims=True)
    seen = answered(5, 3000)
    right, sure = (metrics.calibration(each, labels, seen.groups, DRAWS) for each in (p, sharp))
    assert right["interval"][0] < right["of_a_perfectly_calibrated_model"]["mean"]
    assert sure["interval"][0] > sure["of_a_perfectly_calibrated_model"]["percentile_95"]
    for found in (right, sure):
        points = found["reliability"]
        assert sum(point["photographs"] for point in points) == 3000
        error = sum(point["photographs"] * abs(point["confidence"] - point["accuracy"]) for point in points) / 3000
        assert error == pytest.approx(found["error"])


@pytest.mark.parametrize("quantities", [[0], [7, 8, 9], [3] * 20])
def test_odd_test_sets_have_figures_too(quantities: list[int]) -> None:
    seen = answered(6, len(quantities))
    seen = replace(seen, quantities=np.array(quantities))
    found = comparison.compare(seen, "old", "new", draws=20)
    json.dumps(found, allow_nan=False)
    assert found["champion"]["as_published"]["photographs"] == sum(q < 6 for q in quantities)


def test_all_of_it_follows_from_the_stored_predictions(tmp_path: Path) -> None:
    seen = answered(7, 150, bins=90, better=0.3)
    comparison.write(tmp_path / "predictions.csv", seen)
    again = comparison.read(tmp_path / "predictions.csv")
    assert comparison.compare(again, "a", "b", draws=DRAWS) == comparison.compare(seen, "a", "b", draws=DRAWS)
    header, first = (tmp_path / "predictions.csv").read_text().splitlines()[:2]
    columns = dict(zip(header.split(","), first.split(","), strict=True))
    wrong: Ints = comparison.falsified(seen.ids, seen.quantities)
    assert int(columns["falsified_quantity"]) == wrong[0] and float(columns["challenger_6+"]) == seen.challenger[0, 6]


def test_ten_thousand_photographs_take_seconds() -> None:
    seen = answered(8, 10_000, bins=8000)
    started = time.process_time()
    comparison.compare(seen, "a", "b", draws=1000)
    assert time.process_time() - started < 30
