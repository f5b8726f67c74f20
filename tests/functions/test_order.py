"""In any order, with repetitions and crashes, the table ends in the same state."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from bintally.aws import items
from bintally.aws.table import Table
from bintally.common.arrivals import Arrival
from bintally.common.counts import Count
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BINS = itertools.count()
TIMES = ["2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z", "2099-01-01T00:00:00Z"]


class Killed(BaseException):
    """What a function that is killed in mid-batch looks like from inside."""


def dying_before(self: Table, count: Count) -> bool:
    raise Killed


def dying_after(self: Table, count: Count, write: Callable[[Table, Count], bool] = Table.write_count) -> bool:
    write(self, count)
    raise Killed


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[str], list[tuple[list[int], str]]]:
    """When each version was captured, and batches of versions with where the function dies in each."""
    captured = draw(st.lists(st.sampled_from(TIMES), min_size=1, max_size=4))
    versions = list(range(len(captured)))
    every = [*draw(st.permutations(versions)), *draw(st.lists(st.sampled_from(versions), max_size=4))]
    order = draw(st.permutations(every))
    deaths = st.sampled_from(["never", "before the count", "after the count"])
    size = draw(st.integers(1, 5))
    batches = [(order[start : start + size], draw(deaths)) for start in range(0, len(order), size)]
    return captured, batches


@pytest.mark.slow
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deliveries())
def test_any_order_gives_one_state(
    world: Any, photo: Callable[..., bytes], plan: tuple[list[str], list[tuple[list[int], str]]]
) -> None:
    captured, batches = plan
    bin_ = f"B{next(BINS)}"
    key = f"incoming/S/{bin_}/front.jpg"
    events = [world.put(key, photo(), captured_at=text) for text in captured]
    for number, event in enumerate(events):
        event["detail"]["object"]["sequencer"] = f"00A{number}"

    totals_before = world.totals().get("counted", 0)
    waiting = set()
    for batch, death in batches:
        waiting |= set(batch)
        with pytest.MonkeyPatch.context() as dying:
            if death != "never":
                dying.setattr(Table, "write_count", dying_before if death == "before the count" else dying_after)
            try:
                assert world.deliver(*(events[version] for version in batch)) == []
            except Killed:
                continue
        waiting -= set(batch)
    for version in sorted(waiting, reverse=True):  # the queue brings again what nobody finished
        assert world.deliver(events[version], tries=2) == []

    of_bin = [item for item in world.items() if item.get("bin") == bin_]
    counts = [item for item in of_bin if item["SK"].startswith("COUNT#")]
    (latest,) = (item for item in of_bin if item["SK"] == "LATEST")
    assert len(counts) == len(events)
    assert world.totals()["counted"] == totals_before + len(events)
    newest = max(counts, key=lambda item: str(item["order"]))
    assert {**newest, "SK": "LATEST", "site_key": "SITE#S"} == latest


@given(st.lists(st.text("0123456789ABCDEF", min_size=1, max_size=24), min_size=2, max_size=2, unique=True))
def test_sequencers_compare_as_s3_says(sequencers: list[str]) -> None:
    """Right-padded with zeros to the longer of the two, then as text."""
    moment = datetime(2026, 11, 22, tzinfo=UTC)
    width = max(map(len, sequencers))
    padded = [sequencer.ljust(width, "0") for sequencer in sequencers]
    orders = [
        items.order(Arrival("e", moment, "b", "k", "the same", "", sequencer), moment, moment)
        for sequencer in sequencers
    ]
    assert (padded[0] < padded[1]) == (orders[0] < orders[1])
