"""The accounting of `make soak` finds totals that contradict the items, and no others."""

from datetime import timedelta
from typing import Any

import pytest
from bintally.aws.table import Table
from bintally.common.keys import utc
from bintally.reviewing.desk import Desk
from bintally.reviewing.tallies import reviews_key, waiting_key

from bench.soak_totals import Totals, totals_of
from tests.functions.conftest import World, table
from tests.functions.test_record import Inventory, inventory  # noqa: F401
from tests.functions.test_reviews import ANA, BEN, BIN, NOON, counted, latest, shows

pytestmark = pytest.mark.slow
DAY = utc(NOON)[:10]


def found(bin_: str = "P-4", day: str = DAY) -> Totals:
    return totals_of(Table.named("counts"), "SEA1", [bin_], [day])


def add(key: dict[str, Any], **numbers: int) -> None:
    for name, number in numbers.items():
        change = {"UpdateExpression": "ADD #n :n", "ExpressionAttributeNames": {"#n": name}}
        table().update_item(Key=key, ExpressionAttributeValues={":n": number}, **change)


def test_what_reviews_add_up_is_what_their_trails_say(world: World) -> None:
    desk = Desk(Table.named("counts"))
    shows(desk)
    assert (found().opened, found().waiting, found().wrong) == (1, 1, ())
    counted(desk, ANA, 5)
    counted(desk, BEN, 5)
    assert (found().resolved, found().waiting, found().wrong) == (1, 0, ())
    desk.undo(BIN, BEN, NOON)
    assert (found().resolved, found().waiting, found().wrong) == (0, 1, ())
    counted(desk, BEN, 5)
    again = {"captured_at": "2026-11-23T10:00:00.000000Z", "order": "2026-11-23T10:00:00.000000Z#v2"}
    desk.table.put(latest("v2") | again)
    desk.follow(BIN, NOON + timedelta(minutes=1))
    assert (found().opened, found().resolved, found().waiting, found().wrong) == (2, 1, 1, ())

    add(reviews_key("SEA1", BIN, DAY), OPENED=1, RECORD_WRONG=-1)
    add(waiting_key("SEA1", BIN, 1), FIRST=1)
    assert found().wrong == (
        f"{DAY}: 3 OPENED, trails say 2",
        f"{DAY}: 0 RECORD_WRONG, trails say 1",
        "waiting {'FIRST': 2}, reviews say {'FIRST': 1}",
    )


def test_what_photographs_compared_is_within_what_the_items_say(inventory: Inventory, world: World, photo: Any) -> None:  # noqa: F811
    def photograph(number: int) -> str:
        at = utc(NOON + timedelta(hours=number))
        assert (
            world.deliver(world.put(f"incoming/SEA1/P-4/{number}.jpg", photo(quality=60 + number), captured_at=at))
            == []
        )
        Desk(Table.named("counts")).follow(BIN, NOON)
        return str(world.items("COUNT#")[0]["counted_at"])[:10]

    day = photograph(0)
    assert (found(day=day).compared, found(day=day).wrong) == (0, ())
    inventory.read("site,bin,expected_quantity,as_of\nSEA1,P-4,3,2026-11-22T12:30:00Z\n")
    Desk(Table.named("counts")).follow(BIN, NOON)
    assert (found(day=day).compared, found(day=day).agreed, found(day=day).wrong) == (1, 1, ())
    photograph(1)
    assert (found(day=day).compared, found(day=day).wrong) == (2, ()), "the first one's COUNT item does not say so"
    (totals, *_) = world.items("TOTALS#")
    add({"PK": totals["PK"], "SK": totals["SK"]}, compared=1, agreed=-3)
    assert found(day=day).wrong == (
        f"{day}: 3 compared, items say 1 to 2",
        f"{day}: -1 agreed, items say 1 to 2",
    )
