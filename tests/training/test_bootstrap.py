"""Resampling by sums against resampling itself, and what its bounds hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.verdict.bootstrap import AT_ONCE, Resamples, interval, simultaneous_lower_bounds


@settings(max_examples=25)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 2 * AT_ONCE + 3), st.integers(0, 99))
def test_sums_are_those_of_the_photographs_drawn(photographs: int, bins: int, draws: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    groups = random.integers(bins, size=photographs).astype(str)
    columns = random.normal(size=(photographs, 3))
    resamples = Resamples.of(groups, draws, seed)
    names = np.unique(groups)
    expected = []
    for counts in np.concatenate(list(resamples.counts())):
        assert counts.sum() == len(names)  # as many bins as there are, some often, some not at all
        drawn = np.concatenate([np.flatnonzero(groups == name) for name in np.repeat(names, counts.astype(int))])
        expected.append(columns[drawn].sum(axis=0))
    assert resamples.sums(columns) == pytest.approx(np.array(expected))


def test_the_same_resamples_are_drawn_again_whatever_is_summed() -> None:
    groups = np.array(["a", "b", "b", "c"])
    one = Resamples.of(groups, 200).sums(np.array([[1.0], [2.0], [3.0], [4.0]]))
    other = Resamples.of(groups, 200).sums(np.array([[9.0, 1.0], [9.0, 2.0], [9.0, 3.0], [9.0, 4.0]]))
    assert (one[:, 0] == other[:, 1]).all()


def test_means_count_only_what_counts() -> None:
    groups = np.array(["a", "a", "b"])
    values = np.array([[1.0], [3.0], [7.0]])
    counted = np.array([[True], [True], [False]])
    means = Resamples.of(groups, 100).means(values, counted)[:, 0]
    assert set(means[np.isfinite(means)]) == {2.0}
    assert np.isnan(means).any()  # both draws were b
    assert interval(means) == [2.0, 2.0] and interval(np.array([np.nan])) == [None, None]


def test_bounds_hold_as_often_as_they_say() -> None:
    """Four groups of unequal size and spread, in bins of two photographs that are alike."""
    random = np.random.default_rng(0)
    bins = np.repeat(np.arange(200), 2)
    member = np.repeat(np.arange(4), [20, 80, 200, 100])[:, None] == np.arange(4)
    spread = np.array([0.2, 1.0, 0.5, 2.0])
    one_by_one, all_four = np.zeros(4), 0.0
    for number in range(400):
        noise = np.repeat(random.normal(size=200), 2)
        values = np.tile((noise * (member @ spread))[:, None], (1, 4))
        estimates = (values * member).sum(axis=0) / member.sum(axis=0)
        drawn = Resamples.of(bins.astype(str), 200, seed=number).means(values, member)
        bounds = simultaneous_lower_bounds(estimates, drawn)
        one_by_one += bounds <= 0  # the true means
        all_four += float((bounds <= 0).all())
    assert 0.90 <= all_four / 400 <= 0.98
    assert (one_by_one / 400 >= all_four / 400).all() and (one_by_one / 400).mean() > 0.965


def test_a_figure_without_spread_is_its_own_bound() -> None:
    drawn = np.column_stack([np.full(50, 0.5), np.random.default_rng(0).normal(size=50)])
    bounds = simultaneous_lower_bounds(np.array([0.5, 0.0]), drawn)
    assert bounds[0] == 0.5 and bounds[1] < -1
