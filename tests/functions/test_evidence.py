"""What a photograph says about its record: the formula against a count of cases, and what must hold for any answer."""

import random

import pytest
from bintally.common.counts import pooled
from bintally.common.evidence import ANY, NEAR, PRIOR, TAIL, together, weigh
from hypothesis import given
from hypothesis import strategies as st

SHARP = [0.9 if n == 2 else 0.1 / 6 for n in range(7)]
answers = st.lists(st.integers(0, 1000), min_size=7, max_size=7).filter(any)


def test_the_probability_is_the_share_of_such_records_that_are_wrong() -> None:
    """Draws bins, photographs and records by the model of errors, and counts how many of each kind are wrong."""
    chance = random.Random(1)
    share = 0.3
    kinds: dict[tuple[int, int], tuple[int, int]] = {}
    classes = [[0.7 if n == c else 0.05 for n in range(7)] for c in range(7)]  # p(answer | class), rows sum to 1
    tails = [TAIL**n for n in range(40)]

    def any_bin() -> int:
        found = chance.choices(range(7), PRIOR)[0]
        return found if found < 6 else 6 + chance.choices(range(40), tails)[0]

    for _ in range(60_000):
        true = any_bin()
        seen = chance.choices(range(7), classes[pooled(true)])[0]
        recorded, wrong = true, chance.random() < share
        if wrong and chance.random() < ANY:
            while recorded == true:
                recorded = any_bin()
        elif wrong:
            near = [n for n in range(max(0, true - 12), true + 13) if n != true]
            recorded = chance.choices(near, [NEAR ** (abs(n - true) - 1) for n in near])[0]
        of, found = kinds.get((seen, recorded), (0, 0))
        kinds[seen, recorded] = of + 1, found + wrong
    checked = 0
    for (seen, recorded), (of, found) in kinds.items():
        if of < 500 or recorded > 9:
            continue
        joint = [PRIOR[c] * classes[c][seen] for c in range(7)]
        p = weigh([each / sum(joint) for each in joint], recorded).p_wrong(share)
        spread = 4 * (p * (1 - p) / of) ** 0.5
        assert found / of == pytest.approx(p, abs=spread), (seen, recorded)
        checked += 1
    assert checked > 15


@given(answers, st.integers(0, 10**9), st.floats(0.001, 0.5))
def test_any_answer_gives_a_probability_and_a_finite_size(weights: list[int], recorded: int, share: float) -> None:
    found = weigh([weight / sum(weights) for weight in weights], recorded)
    assert 0 < found.p_wrong(share) < 1
    assert 0.99 < found.size < max(40, recorded) + 40
    assert found.direction in ("more", "fewer")


@given(answers, st.integers(0, 40))
def test_the_more_probable_the_recorded_number_the_less_speaks_against_it(weights: list[int], recorded: int) -> None:
    more = list(weights)
    more[pooled(recorded)] += 200
    one, other = (weigh([each / sum(part) for each in part], recorded) for part in (weights, more))
    assert other.ratio <= one.ratio * 1.0001


def test_near_errors_are_likelier_than_far_ones() -> None:
    assert weigh(SHARP, 3).ratio > weigh(SHARP, 2).ratio
    beside, far = weigh([0, 0.01, 0.9, 0.09, 0, 0, 0], 3), weigh([0, 0.9, 0.01, 0.09, 0, 0, 0], 3)
    assert beside.ratio > far.ratio > 1


def test_within_six_and_more_an_error_is_not_seen_and_not_forgotten() -> None:
    certain = [0, 0, 0, 0, 0, 0, 1.0]
    for recorded in (8, 20, 45, 10**6):
        found = weigh(certain, recorded)
        assert 0.03 < found.p_wrong(0.05) < 0.05 and found.ratio < 1
    assert weigh(SHARP, 45).p_wrong(0.05) > 0.2, "a record of 45 and a picture of two items"


def test_direction_and_size_follow_from_what_is_seen() -> None:
    empty, full = [0.97] + [0.005] * 6, [0.005] * 6 + [0.97]
    fewer, more = weigh(empty, 4), weigh(full, 2)
    assert (fewer.direction, more.direction) == ("fewer", "more")
    assert fewer.size == pytest.approx(4, abs=0.6) and more.size > 3.5
    assert weigh(empty, 500).size == pytest.approx(500, rel=0.1)


def test_several_photographs_say_more_than_one_and_less_than_as_many_independent_ones() -> None:
    one = weigh(SHARP, 4).ratio
    both = weigh(together([(SHARP, None)] * 2), 4).ratio
    assert together([(SHARP, None)]) == SHARP
    products = [p * p / prior for p, prior in zip(SHARP, PRIOR, strict=True)]
    independent = weigh([each / sum(products) for each in products], 4).ratio
    assert one < both < independent
    five, fifty = (weigh(together([(SHARP, None)] * number), 4).ratio for number in (5, 50))
    assert both < five < fifty < independent


@given(st.lists(answers, min_size=1, max_size=5))
def test_what_several_say_is_a_probability_in_any_order(given_: list[list[int]]) -> None:
    each = [([weight / sum(weights) for weight in weights], None) for weights in given_]
    assert sum(together(each)) == pytest.approx(1)
    assert together(each) == pytest.approx(together(each[::-1]))


def test_photographs_that_say_nothing_change_nothing() -> None:
    assert together([(PRIOR, None)] * 2) == pytest.approx([p / sum(PRIOR) for p in PRIOR])
    other = [0.05, 0.4, 0.3, 0.12, 0.06, 0.04, 0.03]
    assert together([(other, other), (PRIOR, None)]) == pytest.approx(other), "the newest model's prior, once"
    assert together([(other, None)] * 2) != pytest.approx(other)
