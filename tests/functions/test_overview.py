"""The overview: numbers that are added up as things happen, and read the same for any number of bins."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bintally.aws import items
from bintally.aws.table import Table
from bintally.common.keys import Place, utc
from bintally.reviewing.desk import Desk, Person
from bintally.reviewing.tallies import waiting_keys

from tests.functions.conftest import World, table
from tests.functions.test_answer import Ask, ask, entry  # noqa: F401
from tests.functions.test_bins import put_bin, read  # noqa: F401

COUNTER, MANAGER = "/machine/counter/sites/SEA1/", "/machine/manager/sites/SEA1/"
TODAY = datetime.now(UTC)


def record_of(bin_: str, quantity: int, as_of: str = "2026-11-20T00:00:00.000000Z") -> dict[str, Any]:
    place = Place("SEA1", bin_, "")
    item = {"site": "SEA1", "bin": bin_, "expected_quantity": quantity, "as_of": as_of, "order": as_of}
    return items.record_key(place) | item


def counted(world: World, photo: Any, name: str, at: datetime = TODAY, **metadata: str) -> None:
    key = f"incoming/SEA1/{name}/{at:%H%M%S%f}.jpg"
    assert world.deliver(world.put(key, photo(), captured_at=utc(at - timedelta(seconds=1)), **metadata)) == []


def test_an_empty_site_has_no_shares(ask: Ask) -> None:  # noqa: F811
    said = ask(MANAGER + "overview")[1]
    assert (said["waiting"], len(said["days"]), said["all_days"]["agreement"]) == (0, 30, None)
    assert said["days"][-1]["day"] == said["today"]
    assert [ask(MANAGER + "overview", days=days)[0] for days in ("0", "91", "-1", "x", "1")] == [
        400,
        400,
        400,
        400,
        200,
    ]


def test_agreement_follows_records_that_come_later_and_change(ask: Ask, world: World, photo: Any) -> None:  # noqa: F811
    def today() -> list[int]:
        day = ask(MANAGER + "overview", days="1")[1]["days"][-1]
        return [day[name] for name in ("counted", "rejected", "compared", "agreed")]

    counted(world, photo, "A", expected_quantity="3")
    counted(world, photo, "B")
    world.deliver(world.put("incoming/SEA1/C/broken.jpg", b"broken", captured_at=utc(TODAY - timedelta(seconds=9))))
    right = int(world.items("LATEST")[0]["count"])
    before = today()
    assert before[:3] == [2, 1, 1] and before[3] == (right == 3)
    counts, pk = Table.named("counts"), items.bin_key(Place("SEA1", "B", ""))
    agreed = []
    for as_of, quantity in enumerate((right, right + 1, right + 1, right)):
        counts.put(record_of("B", quantity, f"2026-11-2{as_of}T00:00:00.000000Z"))
        for _ in range(2):  # events come more than once
            Desk(counts).follow(pk, TODAY)
        now = today()
        assert now[:3] == [2, 1, 2]
        agreed.append(now[3] - before[3])
    assert agreed == [1, 0, 0, 1]


def test_who_counts_reads_no_comparison_of_one_photograph(ask: Ask) -> None:  # noqa: F811
    """Nor of today, which two answers would tell apart."""
    for back, compared in ((0, 50), (1, 19), (2, 20)):
        key = items.day_key("SEA1", str((TODAY - timedelta(days=back)).date()))
        Table.named("counts").put({"PK": key, "SK": "TOTALS#0", "counted": 60, "compared": compared, "agreed": 10})
    told = {role: ask(f"/machine/{role}/sites/SEA1/overview", days="3")[1] for role in ("counter", "manager")}
    names = ("compared", "agreed", "agreement")
    assert [[day[name] for name in names] for day in told["counter"]["days"]] == [
        [20, 10, 0.5],
        [0, 0, None],
        [0, 0, None],
    ]
    assert [day["compared"] for day in told["manager"]["days"]] == [20, 19, 50]
    assert (told["counter"]["all_days"]["compared"], told["counter"]["all_days"]["counted"]) == (20, 180)


def test_the_overview_tells_what_waits_and_what_recounts_found(ask: Ask) -> None:  # noqa: F811
    desk = Desk(Table.named("counts"))
    for bin_ in ("P-1", "P-2", "P-3"):
        put_bin(bin_, 9)
        desk.follow(items.bin_key(Place("SEA1", bin_, "")), TODAY)
    for bin_, said in (
        ("P-1", {"quantity": 3}),
        ("P-2", {"quantity": None, "outcome": "RETAKE"}),
        ("P-3", {"quantity": 8}),
    ):
        desk.claim(items.bin_key(Place("SEA1", bin_, "")), Person("user/ana"), TODAY)
        body = {"id": bin_, "bin": bin_, "image_version": "v9"} | {n: v for n, v in said.items() if v is not None}
        assert ask(COUNTER + "recounts", body)[0] == 200
    seen = ask(MANAGER + "overview", days="2")[1]
    assert (seen["waiting"], seen["waiting_by_stage"]) == (1, {"first": 0, "second": 1, "manager": 0})
    assert seen["first"] == 1 and 0 < seen["expected_wrong"] <= 1
    day = seen["days"][-1]
    assert [day[name] for name in ("opened", "recounted", "record_right", "retake", "record_wrong")] == [3, 2, 1, 1, 0]
    assert (day["retake_share"], seen["all_days"]) == (0.5, {n: v for n, v in day.items() if n != "day"})
    assert ask(COUNTER + "undos", {"bin": "P-2"})[0] == 200
    assert ask(MANAGER + "overview", days="1")[1]["days"][0]["retake"] == 0
    seen = ask(COUNTER + "overview", days="1")[1]
    assert (seen["waiting"], seen["days"][0]["retake"], seen["all_days"]["record_right"]) == (1, None, 0)
    assert not any(word in json.dumps(seen) for word in ("stage", "second", "expected"))


def test_a_review_of_an_older_release_is_counted_from_its_next_change_on(ask: Ask) -> None:  # noqa: F811
    desk = Desk(Table.named("counts"))
    put_bin("P-1", 9)
    pk = items.bin_key(Place("SEA1", "P-1", ""))
    desk.follow(pk, TODAY)
    table().update_item(Key={"PK": pk, "SK": "REVIEW"}, UpdateExpression="REMOVE tallied")
    for item in Table.named("counts").between(waiting_keys("SEA1", 1)[0], "W", "X"):
        table().delete_item(Key={"PK": item["PK"], "SK": item["SK"]})
    assert ask(MANAGER + "overview")[1]["waiting"] == 0
    desk.claim(pk, Person("user/ana"), TODAY)
    assert ask(MANAGER + "overview")[1]["waiting"] == 1
    assert ask(COUNTER + "recounts", entry({"bin": "P-1", "image_version": "v9"}, 3))[0] == 200
    assert ask(MANAGER + "overview")[1]["waiting"] == 0


@pytest.mark.slow
def test_the_overview_reads_the_same_whatever_the_number_of_bins(ask: Ask, read: Any) -> None:  # noqa: F811
    desk, used = Desk(Table.named("counts")), []
    for more in (range(32), range(32, 70)):
        for number in more:
            put_bin(f"P-{number:03}", 9)
            desk.follow(items.bin_key(Place("SEA1", f"P-{number:03}", "")), TODAY)
        read.clear()
        said = ask(MANAGER + "overview", days="2")[1]
        assert said["waiting"] == said["days"][-1]["opened"] == more[-1] + 1
        used.append(sorted(read))
    assert [units for units, _ in used[0]] == [units for units, _ in used[1]]
    assert max(found for _, found in used[1]) <= 30


@pytest.mark.parametrize("role", ["viewer", "counter"])
def test_the_overview_of_another_site_shows_none_of_this_one(ask: Ask, role: str) -> None:  # noqa: F811
    put_bin("P-1", 9)
    Desk(Table.named("counts")).follow(items.bin_key(Place("SEA1", "P-1", "")), TODAY)
    for site in ("SEA", "SEA1%23", "~U0VBMSM"):  # the last is SEA1#
        said = ask(f"/machine/{role}/sites/{site}/overview")[1]
        assert said.get("waiting", 0) == 0
