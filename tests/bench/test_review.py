"""The benchmark of recounts: what it falsifies, what its figures mean, and that it finds who works wrongly."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from bintally.aws.table import Table
from bintally.reviewing.desk import Desk
from click.testing import CliRunner
from moto import mock_aws
from rich.console import Console

from bench import people, ranking
from cli.errors import CliError
from cli.main import main
from training.verdict.ranking import falsified, figures


def test_the_list_promises_what_recounts_find_on_falsified_records() -> None:
    """The figures that docs/benchmarks.md shows, with few draws: within a fifth, and no order is better by chance."""
    bins = ranking.read()
    given = ranking.rules(bins)
    expected = found = 0.0
    areas: dict[str, list[float]] = {"bayes": [], "1 - p": []}
    for draw in range(6):
        random = np.random.default_rng(draw)
        wrong, record = falsified(bins.quantity, "all", random)
        for rule, area in areas.items():
            scores = np.array([given[rule](at, int(each)) for at, each in enumerate(record)])
            order = np.argsort(-scores, kind="stable")
            area.append(float(figures(order, wrong, np.ones((1, len(wrong))))[0, -1]))
            if rule == "bayes":
                first = order[:110]
                expected += float((0.05 * scores[first] / (0.05 * scores[first] + 0.95)).sum())
                found += int(wrong[first].sum())
    assert expected == pytest.approx(found, rel=0.25)
    assert np.mean(areas["bayes"]) > np.mean(areas["1 - p"]) + 0.03


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "t",
        "AWS_SECRET_ACCESS_KEY": "t",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        yield Desk(people.made_table())


@pytest.mark.slow
def test_people_who_count_every_bin_leave_nothing_and_lose_nothing(desk: Desk) -> None:
    for number in range(6):
        desk.table.put(people.latest(number))
        desk.follow(people.latest(number)["PK"], people.now())
    counters = [people.Counting(desk, name) for name in ("ana", "ben", "cyd")]
    for _ in range(2):
        for each in counters:
            each.work(lambda: None, patience=1)
    report = people.audited(desk, 6, counters)
    assert [report[name] for name in ("claimed_by_two", "lost", "unknown", "trail_differs", "unresolved")] == [0] * 5
    assert report["entries"] >= 9, "every second record is wrong and asks a second person"


def test_it_finds_a_lost_entry_and_a_bin_that_two_claimed(desk: Desk) -> None:
    desk.table.put(people.latest(0))
    desk.follow(people.latest(0)["PK"], people.now())
    lying = people.Counting(desk, "ana")
    lying.accepted["never stored"] = people.latest(0)["PK"]
    assert people.audited(desk, 1, [lying])["lost"] == 1
    lines: list[Any] = [{"action": "CLAIMED", "person": "ana"}, {"action": "CLAIMED", "person": "ben"}]
    assert people.claimed_twice(lines) == 1
    assert people.claimed_twice([lines[0], {"action": "RELEASED", "person": "ana"}, lines[1]]) == 0


@pytest.mark.slow
def test_what_pages_read_is_noted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """For who counts a bin's photographs and what stands of it; for a manager its trail as well."""

    @contextlib.contextmanager
    def a_table() -> Iterator[Callable[[], Table]]:
        yield lambda: desk.table

    monkeypatch.setattr(people, "table_of_its_own", a_table)
    rows = people.measure_queue(Console(quiet=True), (7,))["rows"]
    assert [(row["page"], row["role"], row["items"], row["requests"]) for row in rows] == [
        ("queue", "counter", 7, 1),
        ("bin", "counter", 2, 2),
        ("queue", "manager", 7, 2),
        ("bin", "manager", 2, 3),
    ]
    assert all(row["units"] >= row["requests"] / 2 for row in rows)


def test_a_page_that_reads_more_of_more_bins_is_an_error() -> None:
    row = {"page": "bin", "role": "counter", "items": 2, "requests": 2}
    report = {"rows": [row | {"bins": 10, "units": 1.5}, row | {"bins": 20, "units": 1.5}]}
    people.show_queue(Console(quiet=True), report)
    report["rows"][1]["units"] = 3
    with pytest.raises(CliError, match="the page bin of a counter reads more where there are more bins"):
        people.show_queue(Console(quiet=True), report)


def test_the_picture_has_a_line_for_each_rule() -> None:
    drawn = ranking.picture({"random": [0.5, 1.0], "bayes": [0.9, 1.0]})
    assert drawn.count("<polyline") == 2 and "bayes" in drawn


def test_parts_that_do_not_exist_are_named() -> None:
    shown = CliRunner().invoke(main, ["bench", "review", "speed"])
    assert shown.exit_code == 2 and "ranking" in shown.output
