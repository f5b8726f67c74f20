"""Drift is told where there is some and, at the promised rate, not where there is none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from training.dataset import drift
from training.dataset.layout import Line

MIX = np.array([0.02, 0.08, 0.15, 0.17, 0.15, 0.12, 0.31])
"""Labels as in the public photographs."""


def line(site: str, bin_: str, **other: object) -> Line:
    values: dict[str, object] = {
        "quantity": 3, "source": "record", "as_of": "", "captured_at": "", "split": "train", "object": "", "id": "",
        "member": "", "pixels": "", "brightness": 0.5, "blur": 180.0, "width": 4, "height": 3, "count": 3,
        "confidence": 0.5, "p_record": 0.5, "model_version": "v", **other,
    }  # fmt: skip
    return Line(site=site, bin=bin_, **values)  # type: ignore[arg-type]


def drawn(random: np.random.Generator, bins: int, each: int = 1, shift: int = 0) -> tuple[list[int], int]:
    """A histogram of labels of so many bins, `each` photographs a bin that all show the same, and that number."""
    labels = np.minimum(random.choice(7, bins, p=MIX) + shift, 6)
    return (np.bincount(labels, minlength=7) * each).tolist(), bins


@pytest.mark.parametrize("degrees", range(1, 12))
def test_the_quantile_is_scipys(degrees: int) -> None:
    assert drift.chi_square_quantile(0.99, degrees) == pytest.approx(chi2.ppf(0.99, degrees), rel=0.01)


@pytest.mark.parametrize(("bins", "each"), [(5, 1), (30, 1), (100, 1), (100, 10), (1000, 1), (1000, 3)])
def test_chance_is_flagged_at_most_once_in_a_hundred(bins: int, each: int) -> None:
    random = np.random.default_rng(0)
    flagged = 0
    for _ in range(2000):
        (reference, n), (new, m) = drawn(random, 3000), drawn(random, bins, each)
        flagged += drift.compare(reference, new, n, m)["flagged"]
    assert flagged <= 30  # 20 on average; at 1 %, 30 is exceeded once in a hundred times


def test_the_limit_of_small_samples_is_chances_own() -> None:
    """Where 0.1 does not decide, about one in a hundred is flagged, not none: the limit is no wider than it must be."""
    random = np.random.default_rng(1)
    flagged = 0
    for _ in range(2000):
        (reference, n), (new, m) = drawn(random, 300), drawn(random, 60)
        flagged += drift.compare(reference, new, n, m)["flagged"]
    assert 4 <= flagged <= 30


@pytest.mark.parametrize(("bins", "shift", "direction"), [(40, 2, 1), (200, 1, 1)])
def test_other_labels_are_flagged(bins: int, shift: int, direction: int) -> None:
    random = np.random.default_rng(2)
    found = [drift.compare(*_pair(random, bins, shift)) for _ in range(100)]
    assert sum(one["flagged"] for one in found) >= 95
    assert {one["direction"] for one in found} == {direction}


def _pair(random: np.random.Generator, bins: int, shift: int) -> tuple[list[int], list[int], int, int]:
    (reference, n), (new, m) = drawn(random, 3000), drawn(random, bins, shift=shift)
    return reference, new, n, m


def test_large_samples_are_flagged_from_the_customary_limit_on() -> None:
    even, slightly, clearly = [5000, 5000], [5700, 4300], [6700, 3300]
    assert drift.compare(even, slightly, 10_000, 10_000)["limit"] == 0.1
    assert not drift.compare(even, slightly, 10_000, 10_000)["flagged"]
    assert drift.compare(even, clearly, 10_000, 10_000)["psi"] == pytest.approx(
        0.17 * np.log(67 * 50 / 33 / 50), abs=2e-3
    )
    assert drift.compare(even, clearly, 10_000, 10_000)["flagged"]


@given(
    st.lists(st.integers(0, 500), min_size=2, max_size=12).flatmap(
        lambda one: st.tuples(st.just(one), st.lists(st.integers(0, 500), min_size=len(one), max_size=len(one)))
    ),
    st.integers(0, 800),
    st.integers(0, 800),
)
def test_any_two_histograms_can_be_compared(two: tuple[list[int], list[int]], n: int, m: int) -> None:
    reference, new = two
    found = drift.compare(reference, new, n, m)
    same = drift.compare(reference, reference, n, n)
    assert found["psi"] is None or found["psi"] >= 0
    assert found["psi"] is None or found["limit"] >= 0.1
    assert found["flagged"] == (found["psi"] is not None and found["psi"] > found["limit"])
    assert not same["flagged"] and same["psi"] in (None, 0)
    assert drift.compare(new, reference, m, n)["psi"] == found["psi"]


def test_a_cell_that_only_the_new_ones_have_is_seen() -> None:
    assert drift.compare([0, 5000, 0], [40, 0, 0], 5000, 40)["flagged"]


def test_a_profile_counts_by_site_and_over_all() -> None:
    lines = [
        line("AUS2", "P-1", quantity=9, count=6, brightness=0.05, confidence=0.95, blur=1e6),
        line("AUS2", "P-1", quantity=2, count=3, brightness=0.1),
        line("SEA1", "P-1", quantity=2, count=None, confidence=None, brightness=1.0),
        line("SEA1", "P-2", quantity=2, count=2, source="person"),
    ]
    found = drift.profile(lines, {"AUS2": 1, "SEA1": 2})
    assert list(found) == ["", "AUS2", "SEA1"]
    assert [found[site]["photographs"] for site in found] == [4, 2, 2]
    assert [found[site]["bins"] for site in found] == [3, 1, 2]
    assert found["AUS2"]["label"] == [0, 0, 1, 0, 0, 0, 1]
    assert found[""]["brightness"] == [1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert found["AUS2"]["blur"][-1] == 1
    assert found[""]["confidence"] == [0, 0, 0, 0, 0, 2, 0, 0, 0, 1]
    assert found[""]["six_or_more"] == [2, 1]
    assert found["AUS2"]["agreement"] == [1, 1]
    assert found["SEA1"]["agreement"] == [0, 0]  # a person's count is no record, and the other was not counted


def reports(new: list[Line], old: list[Line], **other: object) -> dict[str, object]:
    def seen(lines: list[Line]) -> dict[str, drift.Profile]:
        sites = {one.site for one in lines}
        return drift.profile(lines, {site: len({one.bin for one in lines if one.site == site}) for site in sites})

    reference = {"digest": "d", "edges": drift.EDGES, "profile": seen(old), **other}
    return drift.report(seen(new), reference)


def test_a_site_that_became_dark_is_told_in_one_sentence() -> None:
    old = [line(site, f"P-{n}", brightness=0.3 + n % 40 / 100) for site in ("AUS2", "SEA1") for n in range(400)]
    new = [line("AUS2", f"P-{n}", brightness=0.1 + n % 20 / 100) for n in range(100)]
    new += [line("SEA1", f"P-{n}", brightness=0.3 + n % 40 / 100) for n in range(120)]
    found = reports(new, old)
    assert found["flagged"] == ["", "AUS2"]
    site = found["sites"]["AUS2"]  # type: ignore[index]
    assert site["flagged"] == ["brightness"]
    assert site["sentence"].startswith(
        "AUS2: 100 new photographs of 100 bins differ from the reference: brightness darker (PSI "
    )
    assert found["sites"]["SEA1"]["sentence"].startswith(  # type: ignore[index]
        "SEA1: 120 new photographs of 120 bins show no drift from the reference; a PSI above 0."
    )


def test_a_new_site_is_compared_with_all_of_the_reference() -> None:
    found = reports(
        [line("NEW1", f"P-{n}") for n in range(50)], [line("AUS2", f"P-{n}", quantity=n % 5) for n in range(90)]
    )
    site = found["sites"]["NEW1"]  # type: ignore[index]
    assert site["compared_with"] == ""
    assert "differ from all sites of the reference, as this one is new to it: labels higher" in site["sentence"]


def test_two_photographs_are_too_few() -> None:
    found = reports([line("AUS2", "P-1"), line("AUS2", "P-2")], [line("AUS2", f"P-{n}") for n in range(90)])
    assert found["sites"]["AUS2"]["sentence"] == "AUS2: 2 new photographs of 2 bins are too few to compare."  # type: ignore[index]


def test_a_reference_with_other_cells_is_none() -> None:
    found = reports([line("AUS2", "P-1")], [line("AUS2", "P-1")], edges={"brightness": [0.5]})
    assert found["reference"] is None
    assert "no reference" in found["sites"]["AUS2"]["sentence"]  # type: ignore[index]


def test_without_photographs_nothing_is_told() -> None:
    assert reports([], [line("AUS2", "P-1")])["sites"] == {}
