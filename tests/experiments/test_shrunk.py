"""The experiments behind what shrinking and provisioned units save."""

import numpy as np
import pytest

from experiments import shrunk, units


def answers(group: str, quantity: int, before: int, after: int) -> shrunk.Pair:
    certain = np.eye(7)
    return shrunk.Pair(group, quantity, certain[before], certain[after], before == after, (2, 1))


def test_a_change_is_the_distance_in_thresholds() -> None:
    found = [shrunk.change([answers("a", quantity, min(quantity, 6), 3)])[0] for quantity in (3, 1, 6, 40)]
    assert found == [0, 2, 3, 3]


def test_a_change_is_of_the_photographs_and_its_interval_of_their_groups() -> None:
    pairs = [answers("a", 3, 3, 4), answers("a", 3, 3, 4), answers("b", 2, 2, 2)]
    mean, interval = shrunk.change(pairs)
    assert mean == pytest.approx(2 / 3) and interval == [0, 1]


def test_scaling_uses_most_of_what_an_even_load_gets_and_refuses_none_of_it() -> None:
    share, refused = units.used([1.0] * units.MINUTES, mean=300, most=500)
    assert 0.55 < share <= units.TARGET and refused == 0


def test_a_load_above_the_most_is_refused() -> None:
    share, refused = units.used([1.0] * units.MINUTES, mean=1000, most=500)
    assert share == 1 and refused == 0.5
