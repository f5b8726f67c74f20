"""Items that the functions of 0.1.0 wrote (items_0_1_0.json, by commit ecd4e11) under the functions of today."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bintally.answering.overview import summed
from bintally.aws import items
from bintally.aws.items import plain
from bintally.aws.table import Table
from bintally.common.keys import utc
from bintally.reviewing.desk import Desk

from tests.functions.conftest import World, table
from tests.functions.test_answer import Ask, ask, entry  # noqa: F401
from tests.functions.test_follow import Stream, stream  # noqa: F401
from tests.functions.test_record import Inventory, inventory  # noqa: F401

ITEMS = [plain(item) for item in json.loads((Path(__file__).parent / "items_0_1_0.json").read_text())]
MANAGER = "/machine/manager/sites/SEA1/"
NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def upgraded(world: World) -> None:
    with table().batch_writer() as batch:
        for item in ITEMS:
            batch.put_item(Item=item)


def latest(bin_: str) -> dict[str, Any]:
    found: dict[str, Any] = table().get_item(Key={"PK": f"BIN#SEA1#{bin_}", "SK": "LATEST"})["Item"]
    return found


def test_they_are_what_an_older_version_wrote() -> None:
    assert len(ITEMS) == 20 and not any(item["PK"].startswith("IMAGE#") for item in ITEMS)
    assert not any("evidence" in item for item in ITEMS)


def test_people_see_the_bins_and_their_history(ask: Ask) -> None:  # noqa: F811
    bins = ask(MANAGER + "bins")[1]["bins"]
    assert [(item["bin"], int(item["count"])) for item in bins] == [("A-1", 3), ("A-2", 3), ("B#1", 3)]
    said = ask(MANAGER + "bins/A-1")[1]
    assert [photograph["captured_at"][:10] for photograph in said["photographs"]] == ["2026-11-21", "2026-11-20"]
    assert int(said["record"]["expected_quantity"]) == 1
    day = Table.named("counts").between(items.day_key("SEA1", "2026-11-20"), "REVIEWS#", "TOTALS#~")
    assert summed(day) == {"counted": 3, "rejected": 1}


def test_a_record_that_is_sent_again_compares_them_and_asks_for_a_recount(inventory: Inventory) -> None:  # noqa: F811
    assert "discrepancy" not in latest("A-2")
    inventory.read("site,bin,expected_quantity,as_of\nSEA1,A-2,6,2026-11-20T09:30:00Z\n")
    Desk(Table.named("counts")).follow("BIN#SEA1#A-2", datetime.now(UTC))  # as `review` does, which the stream invokes
    compared = latest("A-2")
    assert (int(compared["recorded_quantity"]), compared["discrepancy"]) == (6, True)
    assert {"evidence", "direction", "priority"} <= compared.keys()
    desk = Desk(Table.named("counts"))
    desk.follow("BIN#SEA1#A-2", NOW)
    assert [item["bin"] for item in desk.queue("SEA1", 5)] == ["A-2"]


def test_a_newer_photograph_takes_their_place(world: World, photo: Any) -> None:
    before = len(world.items("COUNT#"))
    event = world.put("incoming/SEA1/A-1/3.jpg", photo(), captured_at=utc(NOW - timedelta(minutes=1)))
    assert world.deliver(event) == []
    assert len(world.items("COUNT#")) == before + 1
    assert latest("A-1")["image"]["key"].endswith("3.jpg")
    assert int(latest("A-1")["recorded_quantity"]) == 1  # of the RECORD that 0.1.0 stored


def test_a_label_follows_from_them(stream: Stream) -> None:  # noqa: F811
    record = next(item for item in ITEMS if (item["PK"], item["SK"]) == ("BIN#SEA1#A-2", "RECORD"))
    stream.follow(stream.put(record | {"expected_quantity": 4, "order": f"{record['order']}#"}))
    assert stream.said() == [("1", 4, "record", "2026-11-20T09:00:00.000000Z")]
