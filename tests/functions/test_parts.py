"""A site spread over several partition keys: nothing is lost from its lists, also when the keys become more."""

from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from bintally.aws import items
from bintally.aws.table import Table
from bintally.common import parts
from bintally.common.keys import Place
from bintally.reviewing.desk import Desk, Person

from tests.functions.conftest import World, table
from tests.functions.test_answer import Ask, ask, entry  # noqa: F401
from tests.functions.test_bins import put_bin
from tests.functions.test_overview import TODAY, counted

VIEWER, MANAGER = "/machine/viewer/sites/SEA1/", "/machine/manager/sites/SEA1/"
BINS = [f"B-{number:02}" for number in range(12)]


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch) -> Any:
    def change(number: int) -> None:
        monkeypatch.setenv(parts.VARIABLE, str(number))
        parts.site_parts.cache_clear()

    yield change
    parts.site_parts.cache_clear()


def site_keys() -> set[str]:
    return {item["site_key"] for item in table().scan()["Items"] if item["SK"] == "LATEST"}


def days() -> set[str]:
    return {item["PK"] for item in table().scan()["Items"] if item["SK"].startswith("TOTALS#")}


def test_a_site_stays_whole_when_its_parts_become_more(ask: Ask, world: World, photo: Any, spread: Any) -> None:  # noqa: F811
    def another() -> bytes:
        return bytes(photo(quality=50 + next(qualities)))  # moto does not take one thumbnail from two threads at once

    qualities = count()
    for bin_ in BINS[:4]:
        counted(world, another, bin_, TODAY - timedelta(hours=1))
    assert (site_keys(), len(days())) == ({"SITE#SEA1"}, 1)
    spread(4)
    for bin_ in BINS:  # a newer photograph of the first four, too
        counted(world, another, bin_)
    assert len(site_keys()) > 2 and len(days()) > 2
    assert {key.split("#")[1] for key in site_keys() | days()} == {"SEA1"}

    listed: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = ask(VIEWER + "bins", limit="5", **cursor)[1]
        listed += [item["bin"] for item in page["bins"]]
        if page["cursor"] is None:
            break
        cursor = {"cursor": page["cursor"]}
    assert listed == BINS
    assert ask(MANAGER + "overview", days="1")[1]["all_days"]["counted"] == len(BINS) + 4


def test_reviews_are_counted_in_parts_that_became_more_meanwhile(ask: Ask, spread: Any) -> None:  # noqa: F811
    desk, keys = Desk(Table.named("counts")), [items.bin_key(Place("SEA1", bin_, "")) for bin_ in BINS]

    def kept(prefix: str) -> set[str]:
        return {item["PK"] for item in table().scan()["Items"] if item["SK"].startswith(prefix)}

    for bin_, key in zip(BINS[:4], keys, strict=False):
        put_bin(bin_, 9)
        desk.follow(key, TODAY)
    assert (kept("WAITING#"), len(kept("REVIEWS#"))) == ({"WAITING#SEA1"}, 1)
    spread(4)
    for bin_, key in zip(BINS[4:], keys[4:], strict=True):
        put_bin(bin_, 9)
        desk.follow(key, TODAY)
    assert len(kept("WAITING#")) > 2 and len(kept("REVIEWS#")) > 2
    desk.claim(keys[0], Person("user/ana"), TODAY)
    entered = entry({"bin": BINS[0], "image_version": "v9"}, 3)
    assert ask("/machine/counter/sites/SEA1/recounts", entered)[0] == 200
    said = ask(MANAGER + "overview", days="1")[1]
    assert (said["waiting"], said["all_days"]["opened"], said["all_days"]["recounted"]) == (11, 12, 1)


def test_a_page_stays_within_its_prefix(ask: Ask, world: World, photo: Any, spread: Any) -> None:  # noqa: F811
    spread(3)
    for quality, bin_ in enumerate(("A-1", "B-1", "B-2", "C-1"), 50):
        counted(world, lambda quality=quality: photo(quality=quality), bin_)
    first = ask(VIEWER + "bins", prefix="B-", limit="1")[1]
    assert [item["bin"] for item in first["bins"]] == ["B-1"]
    second = ask(VIEWER + "bins", prefix="B-", limit="1", cursor=first["cursor"])[1]
    assert ([item["bin"] for item in second["bins"]], second["cursor"]) == (["B-2"], None)
    # A cursor of another listing.
    assert ask(VIEWER + "bins", prefix="A-", cursor=first["cursor"])[1]["bins"] == []
    assert len(ask(VIEWER + "bins", prefix="C-", cursor=first["cursor"])[1]["bins"]) == 1


def test_a_bin_is_always_in_the_same_part() -> None:
    keys = {member: parts.part_of("SITE#S", member, 16) for member in map(str, range(500))}
    assert len(set(keys.values())) == 16
    assert keys == {member: parts.part_of("SITE#S", member, 16) for member in keys}
    assert parts.part_of("SITE#S", "B", 1) == "SITE#S" == parts.spread("SITE#S", 16)[0]


def test_every_writer_and_reader_of_totals_is_told() -> None:
    """A part that only some knew of would be missing from sums."""
    from tests.template.test_template import source

    assert source()["Globals"]["Function"]["Environment"]["Variables"][parts.VARIABLE] == {"Ref": "SiteParts"}
    assert int(source()["Parameters"]["SiteParts"]["MaxValue"]) == items.SHARDS
