"""The random audit and the list's promise: who is drawn, that nobody can tell, and what is counted."""

import random
from decimal import Decimal
from typing import Any

import pytest
from bintally.aws.table import Table
from bintally.reviewing import stored
from bintally.reviewing.changes import events_of
from bintally.reviewing.desk import Desk
from bintally.reviewing.expectation import audit, expected_wrong
from bintally.reviewing.rules import Outcome
from bintally.reviewing.scores import Scores, interval

from tests.functions.test_reviews import ANA, BEN, BIN, NOON, SITE, counted, latest, refusal, review


@pytest.fixture
def desk(world: Any) -> Desk:
    return Desk(Table.named("counts"), audit_share=1.0)


def shows(desk: Desk, version: str = "v1", **about: Any) -> None:
    desk.table.put(latest(version, **about))
    desk.follow(about.get("bin_", BIN), NOON)


def agrees(desk: Desk, version: str = "v1", **about: Any) -> None:
    """A photograph that speaks for its record of 5."""
    shows(desk, version, recorded=5, **about)


def test_as_many_are_drawn_as_the_share_says_and_always_the_same(world: Any) -> None:
    desk = Desk(Table.named("counts"), audit_share=0.02)

    def drawn(month: str) -> list[int]:
        return [n for n in range(20_000) if desk._audit(f"BIN#S#{n}", f"{month}-07T00:00:00Z")]

    first = drawn("2026-11")
    assert first == drawn("2026-11") != drawn("2026-12")
    assert 330 < len(first) < 470


def test_a_drawn_bin_is_asked_about_once_in_its_month(desk: Desk) -> None:
    agrees(desk)
    assert (review(desk)["stage"], review(desk)["audits"]) == ("FIRST", True)
    agrees(desk, "v2")
    assert review(desk)["audits"], "a newer photograph does not end it"
    counted(desk, ANA, 5, seen="v2")
    (said,) = desk.table.beginning(BIN, "RECOUNT#")
    assert said["audits"], "its label says so"
    agrees(desk, "v3")
    assert review(desk)["stage"] == "RESOLVED"
    desk.table.put(latest("v4", recorded=5) | {"captured_at": "2026-12-01T10:00:00.000000Z"})
    desk.follow(BIN, NOON)
    assert (review(desk)["stage"], review(desk)["audit"]) == ("FIRST", "2026-12")


def test_a_drawn_bin_that_loses_its_record_is_drawn_again_when_it_has_one(desk: Desk) -> None:
    agrees(desk)
    shows(desk, "v2", recorded=None)
    assert (review(desk)["outcome"], desk.queue(SITE, 10)) == ("WITHDRAWN", [])
    agrees(desk, "v3")
    assert (review(desk)["stage"], review(desk)["audits"]) == ("FIRST", True)
    counted(desk, ANA, 5, seen="v3")
    shows(desk, "v4", recorded=None)
    agrees(desk, "v5")
    assert review(desk)["stage"] == "RESOLVED", "and not after people have answered"


def test_what_differs_later_in_the_month_is_no_audit(desk: Desk) -> None:
    agrees(desk)
    counted(desk, ANA, 5)
    shows(desk, "v2", recorded=3)
    assert (review(desk)["stage"], review(desk)["audits"]) == ("FIRST", False)
    counted(desk, ANA, 3, seen="v2")
    assert [said.get("audits", False) for said in desk.table.beginning(BIN, "RECOUNT#")].count(True) == 1


def test_only_a_draw_is_no_discrepancy(desk: Desk) -> None:
    agrees(desk)
    assert list(events_of(desk.trail(BIN)[0])) == []
    shows(desk, recorded=3, bin_="BIN#SEA1#other")
    (event,) = events_of(desk.trail("BIN#SEA1#other")[0])
    assert event["DetailType"] == "Bin Discrepancy Detected"


@pytest.mark.slow
def test_its_place_in_the_queue_is_that_of_any_other(world: Any) -> None:
    table = Table.named("counts")
    for n in range(60):
        desk = Desk(table)
        desk.table.put(latest(bin_=f"BIN#SEA1#x{n}", recorded=3) | {"recorded_value": Decimal(n + 1)})
        desk.follow(f"BIN#SEA1#x{n}", NOON)
    for n in range(12):
        agrees(Desk(table, audit_share=1.0), bin_=f"BIN#SEA1#audit{n}")
    listed = desk.queue(SITE, 100)
    places = [n for n, item in enumerate(listed) if item["audits"]]
    assert len(places) == 12 and max(places) < 62 and max(places) - min(places) > 15
    assert {item["priority"] for item in listed if item["audits"]} <= {
        item["priority"] for item in listed if not item["audits"]
    }


def test_the_trail_of_an_audit_replays(desk: Desk) -> None:
    agrees(desk)
    counted(desk, ANA, 4)
    counted(desk, BEN, 4)
    assert stored.replay(desk.trail(BIN)) == stored.review_of(review(desk))


def test_scores_count_a_review_once_and_an_undo_takes_it_back(desk: Desk) -> None:
    agrees(desk)
    expected = 1 - float(review(desk)["p_record"])
    counted(desk, ANA, 4)
    assert desk.scores(SITE) == Scores()
    counted(desk, BEN, 4)
    after = desk.scores(SITE)
    assert (after.audited, after.audited_wrong, after.audited_model_right, after.listed) == (1, 1, 0, 0)
    assert after.audited_expected == pytest.approx(expected)
    desk.undo(BIN, BEN, NOON)
    assert desk.scores(SITE) == Scores()
    desk.enter(
        BIN,
        entry := stored.entry_of({"id": "x", "person": "ben", "at": "2026-11-22T12:00:00Z", "quantity": 4}),
        BEN,
        "v1",
        NOON,
    )
    desk.enter(BIN, entry, BEN, "v1", NOON)
    assert desk.scores(SITE).audited_wrong == 1


def test_a_corrected_record_stays_a_wrong_one_that_was_found(world: Any) -> None:
    desk = Desk(Table.named("counts"))
    shows(desk, recorded=3)
    counted(desk, ANA, 4)
    counted(desk, BEN, 4)
    shows(desk, recorded=4)
    assert review(desk)["outcome"] == Outcome.RECORD_RIGHT
    assert (desk.scores(SITE).listed, desk.scores(SITE).listed_wrong) == (1, 1)
    shows(desk, "v2", recorded=3)
    assert "scored" not in review(desk), "another episode"
    assert refusal(desk.undo, BIN, BEN, NOON) == "NOTHING_TO_UNDO"


def test_what_nobody_could_count_measures_nothing(desk: Desk) -> None:
    agrees(desk)
    counted(desk, ANA, outcome=Outcome.CANNOT_COUNT)
    assert desk.scores(SITE) == Scores()


def test_the_audit_moves_what_the_list_expects(world: Any) -> None:
    table = Table.named("counts")
    table.put({"PK": "SCORE#SEA1", "SK": "2026-11#00", "audited": 400, "audited_wrong": 80})
    shows(Desk(table), recorded=3)
    with_audit = review(Desk(table))["p_record"]
    table.put({"PK": "SCORE#SEA1", "SK": "2026-11#00", "audited": 400, "audited_wrong": 4})
    shows(Desk(table), recorded=3, bin_="BIN#SEA1#other")
    other = table.get(stored.review_key("BIN#SEA1#other"), consistent=True)
    assert other is not None and other["p_record"] > with_audit
    assert expected_wrong([other]) < expected_wrong([{"p_record": with_audit}])


@pytest.mark.parametrize(("found", "of"), [(0, 0), (3, 30), (40, 1000), (1000, 5000)])
def test_intervals_are_quantiles_of_beta(found: int, of: int) -> None:
    chance = random.Random(found)
    drawn = sorted(chance.betavariate(1 + found, 1 + of - found) for _ in range(40_000))
    assert interval(found, of) == pytest.approx((drawn[1000], drawn[39_000]), abs=0.006)


def test_intervals_without_any_and_with_all() -> None:
    assert interval(0, 30) == pytest.approx((1 - 0.975 ** (1 / 31), 1 - 0.025 ** (1 / 31)))
    assert interval(30, 30) == pytest.approx((0.025 ** (1 / 31), 0.975 ** (1 / 31)))


def test_the_prior_weighs_as_forty_bins() -> None:
    assert Scores().share(0.05) == 0.05
    assert Scores(audited=40, audited_wrong=4).share(0.05) == pytest.approx(0.075)
    said = audit(Scores(audited=200, audited_wrong=10, audited_model_right=80), 0.05)
    assert (said["records_wrong"]["share"], said["model_right"]["share"]) == (0.05, 0.4)


def test_photographs_since_the_record_are_judged_together(world: Any) -> None:
    desk = Desk(Table.named("counts"))

    def photographed(bin_: str, *hours: int) -> float:
        """A bin whose record is of noon on the 21st, with photographs so many hours later; the newest is LATEST."""
        for hour in hours:
            at = f"2026-11-{21 + (12 + hour) // 24}T{(12 + hour) % 24:02}:00:00.000000Z"
            item = latest(f"v{hour}", bin_=bin_) | {"recorded_from": "record", "captured_at": at, "status": "COUNTED"}
            item |= {"recorded_as_of": "2026-11-21T12:00:00.000000Z", "order": f"{at}#{hour}"}
            desk.table.put(item | {"SK": f"COUNT#{at}#{hour}"})
            desk.table.put(item)
        desk.follow(bin_, NOON)
        return float(desk.table.get(stored.review_key(bin_), consistent=True)["p_record"])  # type: ignore[index]

    alone = photographed("BIN#SEA1#a", 5)
    assert photographed("BIN#SEA1#b", 5, 9) < alone, "two say more"
    assert photographed("BIN#SEA1#c", -9, -5, 5) == alone, "older ones say nothing of this record"
    assert photographed("BIN#SEA1#d", *range(1, 9)) == photographed("BIN#SEA1#e", *range(1, 6))
