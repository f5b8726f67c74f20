"""A record that comes after its photograph: the bin's newest count is compared with it. In any order of photographs,
record files and stream records, with repetitions and deaths, LATEST ends the same."""

import itertools
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bintally import record, review
from bintally.aws import clients, items
from bintally.aws.table import Table
from bintally.common.counts import Count
from bintally.common.errors import Transient
from bintally.common.evidence import weigh
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

BINS = itertools.count()
COMPARED = (
    "recorded_quantity",
    "recorded_from",
    "recorded_as_of",
    "recorded_order",
    "recorded_value",
    "discrepancy",
    *("evidence", "direction", "likely_size", "p_record", "priority"),
)
PROBABILITIES = json.loads((Path(__file__).parents[2] / "events" / "endpoint_answer.json").read_bytes())[
    "probabilities"
]

Item = dict[str, Any]


class Killed(BaseException):
    """A function that is killed, as it looks from inside."""


class Bin:
    """A bin of its own: its photographs, its files of records, and the stream behind its table."""

    def __init__(self, world: Any, photo: Callable[..., bytes]) -> None:
        self.world, self.photo = world, photo
        self.name = f"B{next(BINS)}"
        self.key = f"BIN#S#{self.name}"

    def photograph(self, captured: str, sequencer: int = 0, **metadata: str) -> Item:
        event: Item = self.world.put(f"incoming/S/{self.name}/a.jpg", self.photo(), captured_at=captured, **metadata)
        event["detail"]["object"]["sequencer"] = f"00A{sequencer}"
        return event

    def file(self, quantity: int, as_of: str, sequencer: int = 0) -> Item:
        text = f"bin,qty,as_of\n{self.name},{quantity},{as_of}\n"
        event: Item = self.world.put(f"records/S/{self.name}.csv", text.encode())
        event["detail"]["object"]["sequencer"] = f"00B{sequencer}"
        return event

    def deliver(self, event: Item) -> None:
        """Hands an event to the function of its prefix; a message that goes back to the queue is delivered again."""
        for _ in range(2):
            if event["detail"]["object"]["key"].startswith("incoming/"):
                again = self.world.deliver(event)
            else:
                body: Item = {
                    "messageId": "0",
                    "body": json.dumps(event),
                    "receiptHandle": "r",
                    "eventSource": "aws:sqs",
                }
                body |= {"attributes": {"ApproximateReceiveCount": "1"}}
                again = record.handler({"Records": [body]}, context())["batchItemFailures"]
            if not again:
                return
        raise AssertionError("it went back to the queue twice")

    def follow(self, kind: str = "RECORD") -> None:
        """The stream's record about the RECORD, or LATEST, as it is now."""
        if (item := self.item(kind)) is None:
            return
        wire = items.wire(item)
        review.handler({"Records": [{"eventSource": "aws:dynamodb", "dynamodb": {"NewImage": wire}}]}, context())

    def item(self, kind: str) -> Item | None:
        found: Item | None = Table("counts", self.world.dynamodb).get({"PK": self.key, "SK": kind}, consistent=True)
        return found

    def compared(self) -> Item:
        latest = self.item("LATEST") or {}
        return {name: latest[name] for name in COMPARED if name in latest}

    def counts(self) -> list[Item]:
        found = [item for item in self.world.items("COUNT#") if item["PK"] == self.key]
        return sorted(found, key=lambda item: str(item["SK"]))


def context() -> Any:
    return SimpleNamespace(
        function_name="f",
        memory_limit_in_mb=512,
        invoked_function_arn="arn:aws:lambda:us-east-1:000000000000:function:f",
        aws_request_id="a request",
        get_remaining_time_in_millis=lambda: 900_000,
    )


@pytest.fixture
def bins(world: Any, photo: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Bin]]:
    for name, value in {
        "ARTIFACTS_BUCKET": "artifacts",
        "RECORD_QUEUE_URL": world.queue,
    }.items():
        monkeypatch.setenv(name, value)
    world.s3.create_bucket(Bucket="artifacts")
    clients.events()
    yield lambda: Bin(world, photo)


def test_the_newest_count_is_compared_with_a_record_that_comes_after_it(bins: Callable[[], Bin]) -> None:
    here = bins()
    here.deliver(here.photograph("2020-01-01T00:00:00Z"))
    here.deliver(here.photograph("2020-01-02T00:00:00Z"))
    before, latest = here.counts(), here.item("LATEST")
    assert here.compared() == {} and latest is not None
    here.deliver(here.file(2, "2020-01-01T12:00:00Z"))
    here.follow()
    assert here.compared() == {
        **{"recorded_quantity": 2, "recorded_from": "record", "recorded_as_of": "2020-01-01T12:00:00.000000Z"},
        **{"discrepancy": True, **items.assessment(weigh(PROBABILITIES, 2), 0.05, None)},
        "recorded_order": items.record_digest(here.item("RECORD") or {}),
    }
    now = here.item("LATEST") or {}
    assert {name: value for name, value in now.items() if name not in COMPARED} == latest
    assert here.counts() == before


def test_a_record_before_the_photograph_ends_the_same(bins: Callable[[], Bin]) -> None:
    early, late = bins(), bins()
    early.deliver(early.file(3, "2020-01-01"))
    early.deliver(early.photograph("2020-01-02T00:00:00Z"))
    late.deliver(late.photograph("2020-01-02T00:00:00Z"))
    late.deliver(late.file(3, "2020-01-01"))
    late.follow()
    one, other = ({**each.compared(), "recorded_order": None} for each in (early, late))
    assert one == other and one["recorded_quantity"] == 3 and not one["discrepancy"]


@pytest.mark.parametrize(("as_of", "quantity"), [("2020-01-01", 4), (None, 9)])
def test_a_photographs_own_quantity_gives_way_to_a_record_of_a_later_time(
    bins: Callable[[], Bin], as_of: str | None, quantity: int
) -> None:
    for first in (True, False):
        here = bins()
        photograph = here.photograph("2020-01-02T00:00:00Z", expected_quantity="4")
        file = here.file(9, as_of or "")
        if as_of is None:  # moto's clock has whole seconds: the record has the time of the photograph, or a later one
            file = here.file(
                9,
                (here.world.s3.head_object(Bucket="images", Key=f"incoming/S/{here.name}/a.jpg")["LastModified"])
                .replace(microsecond=1)
                .isoformat(),
            )
        for event in (photograph, file) if first else (file, photograph):
            here.deliver(event)
        here.follow()
        assert here.compared()["recorded_quantity"] == quantity
        (count,) = here.counts()
        assert count["recorded_quantity"] == 4


def test_the_value_of_an_item_weighs_what_the_record_is_probably_off_by(bins: Callable[[], Bin]) -> None:
    here = bins()
    here.deliver(here.photograph("2020-01-02T00:00:00Z"))
    here.deliver(here.file(2, "2020-01-01", 0))
    here.follow()
    plain = here.compared()
    text = f"bin,qty,as_of,unit cost\n{here.name},2,2020-01-01,20.5\n"
    event = here.world.put(f"records/S/{here.name}.csv", text.encode())
    event["detail"]["object"]["sequencer"] = "00B1"
    here.deliver(event)
    here.follow()
    valued = here.compared()
    assert (valued["recorded_value"], valued["p_record"]) == (Decimal("20.5"), plain["p_record"])
    assert float(valued["priority"]) == pytest.approx(float(plain["priority"] * plain["likely_size"]) * 20.5, rel=1e-4)
    here.deliver(here.file(2, "2020-01-03", 2))
    here.follow()
    assert "recorded_value" not in here.compared() and here.compared()["priority"] == plain["priority"]


def test_a_record_put_by_hand_is_compared_too(bins: Callable[[], Bin]) -> None:
    here = bins()
    here.deliver(here.photograph("2020-01-02T00:00:00Z"))
    table = Table("counts", here.world.dynamodb)
    for quantity in (1, 2):
        table.put({"PK": here.key, "SK": "RECORD", "expected_quantity": quantity})
        here.follow()
        assert here.compared()["recorded_quantity"] == quantity
        assert "recorded_as_of" not in here.compared()
    for unreadable in ({"expected_quantity": "many"}, {"expected_quantity": 3, "value": "dear"}):
        table.put({"PK": here.key, "SK": "RECORD", **unreadable})
        for kind in ("RECORD", "LATEST"):
            here.follow(kind)
            assert here.compared()["recorded_quantity"] == 2


def test_a_day_whose_totals_others_change_fails_no_comparison(
    bins: Callable[[], Bin], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = bins()
    here.deliver(here.photograph("2020-01-02T00:00:00Z"))
    here.deliver(here.file(1, "2020-01-01"))
    client = clients.dynamodb()
    write, refusals = client.transact_write_items, [None, "TransactionConflict"]

    def refused(**request: Any) -> Any:
        if len(request["TransactItems"]) == 2 and refusals:
            reasons = [{"Code": code or "None"} for code in refusals]
            refusals.clear()
            error: Any = {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": reasons}
            raise client.exceptions.TransactionCanceledException(error, "TransactWriteItems")
        return write(**request)

    monkeypatch.setattr(client, "transact_write_items", refused)
    here.follow()
    assert not refusals and here.compared()["recorded_quantity"] == 1


def test_a_record_that_changes_meanwhile_is_read_again(
    bins: Callable[[], Bin], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at both and the write, someone else compares with a later record."""
    here = bins()
    here.deliver(here.photograph("2020-01-02T00:00:00Z"))
    here.deliver(here.file(1, "2020-01-01", 0))
    later = here.file(5, "2020-01-03", 1)
    compare = Table.compare

    def meanwhile(self: Table, latest: Item, recorded: Any) -> bool:
        monkeypatch.setattr(Table, "compare", compare)
        here.deliver(later)
        here.follow()
        assert here.compared()["recorded_quantity"] == 5
        return compare(self, latest, recorded)

    monkeypatch.setattr(Table, "compare", meanwhile)
    here.follow()
    assert here.compared()["recorded_quantity"] == 5


def test_what_changes_without_end_goes_back_to_the_queue(
    bins: Callable[[], Bin], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = bins()
    here.deliver(here.photograph("2020-01-02T00:00:00Z"))
    here.deliver(here.file(1, "2020-01-01"))
    monkeypatch.setattr(Table, "compare", lambda *_: False)
    with pytest.raises(Transient):
        here.follow()


def test_a_record_that_comes_in_mid_count_is_compared_too(
    bins: Callable[[], Bin], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `count` has read the RECORD, and review has run before LATEST was there."""
    here = bins()
    file, photograph = here.file(2, "2020-01-01"), here.photograph("2020-01-02T00:00:00Z")
    write = Table.write_count

    def meanwhile(self: Table, count: Count) -> bool:
        here.deliver(file)
        here.follow()
        return write(self, count)

    monkeypatch.setattr(Table, "write_count", meanwhile)
    here.deliver(photograph)
    assert here.compared() == {}
    here.follow("LATEST")
    assert here.compared()["recorded_quantity"] == 2 and "recorded_quantity" not in here.counts()[0]


def test_a_batch_reads_its_records_together_and_once(bins: Callable[[], Bin], calls: list[str]) -> None:
    some = [bins() for _ in range(3)]
    for place, here in enumerate(some):
        here.deliver(here.file(place, "2020-01-01"))
    events = [here.photograph("2020-01-02T00:00:00Z") for here in some]
    calls.clear()
    assert some[0].world.deliver("no event", *events) == [0]
    assert calls.count("BatchGetItem") == 1
    assert [here.compared()["recorded_quantity"] for here in some] == [0, 1, 2]


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[tuple[str, str]], list[tuple[str, int]]]:
    """Photographs (day, own quantity or ""), records (day, quantity)."""
    days = st.sampled_from(["2020-01-01", "2020-01-02", "2020-01-03"])
    photographs = draw(st.lists(st.tuples(days, st.sampled_from(["", "", "4"])), min_size=1, max_size=3))
    told = draw(st.lists(st.tuples(days, st.integers(0, 8)), min_size=1, max_size=3))
    return photographs, told


@pytest.mark.slow
@settings(
    max_examples=12, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(stories(), st.data())
def test_any_order_ends_the_same(bins: Callable[[], Bin], story: Any, data: st.DataObject) -> None:
    photographs, told = story
    here = bins()
    events = [
        *(
            here.photograph(f"{day}T06:00:00Z", at, **({"expected_quantity": own} if own else {}))
            for at, (day, own) in enumerate(photographs)
        ),
        *(here.file(quantity, day, at) for at, (day, quantity) in enumerate(told)),
    ]
    steps = [*range(len(events)), *data.draw(st.lists(st.integers(-1, len(events) - 1), max_size=5))]
    steps = data.draw(st.permutations(steps))  # -1: the stream, late or early
    deaths = st.sampled_from(["", "", "compare", "write_count", "put_record"])
    unfinished = []
    for step in steps:
        death = data.draw(deaths)
        with pytest.MonkeyPatch.context() as dying:
            if death:

                def die(*_: Any, **__: Any) -> None:
                    raise Killed

                dying.setattr(Table, death, die)
            try:
                here.follow() if step < 0 else here.deliver(events[step])
            except Killed:
                unfinished.append(step)
    for step in unfinished:
        here.follow() if step < 0 else here.deliver(events[step])
    here.follow("LATEST")  # the stream brings every change of either after the change; the last is enough

    last = max(range(len(told)), key=lambda at: (told[at][0], at))
    newest = max(range(len(photographs)), key=lambda at: (photographs[at][0], at))
    found = here.compared()
    own = photographs[newest][1]  # told at its upload, years after every record
    expected = int(own) if own else told[last][1]
    assert found["recorded_quantity"] == expected
    assert found["recorded_from"] == ("metadata" if own else "record")
    assert found["p_record"] == items.assessment(weigh(PROBABILITIES, expected), 0.05, None)["p_record"]
    assert len(here.counts()) == len(photographs)
