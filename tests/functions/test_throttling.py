"""A table that throttles, by an error of its own or as the reason for which it cancels a transaction, is tried again
later by all that write to it."""

from collections.abc import Callable
from typing import Any

import pytest
from bintally.aws import clients
from bintally.aws import table as tables
from bintally.aws.table import Table, adding, putting
from bintally.common.errors import Transient
from bintally.reviewing.desk import Desk

from tests.functions.test_count import KEY
from tests.functions.test_review import Deliver, deliver, desk  # noqa: F401 - fixtures
from tests.functions.test_reviews import latest

ERRORS = ("ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded")
REASONS = ("ProvisionedThroughputExceeded", "ThrottlingError")
CANCELLED = "TransactionCanceledException"
ITEM, OTHER = {"PK": "A", "SK": "one"}, {"PK": "A", "SK": "two"}
OF_OTHER: Any = {"only_if": "#n = :n", "names": {"#n": "n"}, "values": {":n": 1}}
WRITES: dict[str, tuple[str, Callable[[Table], object]]] = {
    "put": ("PutItem", lambda table: table.put(ITEM, only_if="attribute_not_exists(PK)")),
    "delete": ("DeleteItem", lambda table: table.delete(ITEM, only_if="attribute_exists(PK)")),
    "together": ("TransactWriteItems", lambda table: table.together(putting(ITEM), adding(OTHER, {"n": 1}))),
    "put_and_delete": ("TransactWriteItems", lambda table: table.put_and_delete(ITEM, OTHER, **OF_OTHER)),
}
READS: dict[str, tuple[str, Callable[[Table], object]]] = {
    "get": ("GetItem", lambda table: table.get(ITEM, consistent=True)),
    "get_many": ("BatchGetItem", lambda table: table.get_many([ITEM])),
    "beginning": ("Query", lambda table: list(table.beginning("A", "o"))),
    "in_index": ("Query", lambda table: table.in_index("site", {"site_key": "S"}, descending=False, limit=1)),
}


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("name", [*WRITES, *READS])
def test_every_request_may_be_throttled(world: Any, refuse: Any, name: str, code: str) -> None:
    operation, ask = (WRITES | READS)[name]
    refuse(clients.dynamodb(), operation, code)
    with pytest.raises(Transient, match=code):
        ask(Table.named("counts"))
    assert world.items() == []


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("name", ["together", "put_and_delete"])
def test_a_transaction_may_be_cancelled_for_it(world: Any, refuse: Any, name: str, reason: str) -> None:
    operation, ask = WRITES[name]
    refuse(clients.dynamodb(), operation, CANCELLED, CancellationReasons=[{"Code": reason}, {"Code": "None"}])
    with pytest.raises(Transient):
        ask(Table.named("counts"))
    assert world.items() == []


@pytest.mark.parametrize("times", [tables.TRIES - 1, tables.TRIES])
@pytest.mark.parametrize("reason", REASONS)
def test_a_photograph_waits_in_the_queue_if_that_lasts(
    world: Any, photo: Callable[[], bytes], refuse: Any, reason: str, times: int
) -> None:
    reasons = [{"Code": code} for code in ("None", reason, "None", reason)]
    refuse(clients.dynamodb(), "TransactWriteItems", CANCELLED, times=times, CancellationReasons=reasons)
    event = world.put(KEY, photo())
    assert world.deliver(event) == ([] if times < tables.TRIES else [0])
    assert world.deliver(event, tries=2) == []
    assert world.totals() == {"counted": 1, "rejected": 0}


@pytest.mark.parametrize("reason", REASONS)
def test_the_stream_brings_a_review_again(desk: Desk, deliver: Deliver, refuse: Any, reason: str) -> None:  # noqa: F811
    desk.table.put(latest())
    recover = refuse(
        clients.dynamodb(), "TransactWriteItems", CANCELLED, CancellationReasons=[{"Code": reason}, {"Code": "None"}]
    )
    with pytest.raises(Transient):
        deliver(latest())
    assert desk.queue("SEA1", 10) == []
    recover()
    deliver(latest())
    assert len(desk.queue("SEA1", 10)) == 1
