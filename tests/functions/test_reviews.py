"""Reviews: what the rules allow, what follows, and that the table tells it whole."""

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from bintally.answering.overview import summed
from bintally.aws.items import plain, wire
from bintally.aws.table import Table
from bintally.reviewing import stored
from bintally.reviewing.changes import events_of
from bintally.reviewing.desk import Desk, Entered, Person
from bintally.reviewing.rules import Entry, Outcome, Reason, Refused, Stage
from bintally.reviewing.tallies import reviews_key
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

SITE, BIN = "SEA1", "BIN#SEA1#P-4"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
IDS = (f"entry-{n}" for n in itertools.count())
ANA, BEN, CYD, MAX = Person("ana"), Person("ben"), Person("cyd"), Person("max", manager=True)


def latest(
    version: str = "v1", *, count: int = 5, recorded: int | None = 3, bin_: str = BIN, priority: float = 0.9
) -> Any:
    """Without a record if `recorded` is None."""
    record = {"recorded_quantity": recorded, "recorded_as_of": "2026-11-21T00:00:00.000000Z"}
    return {
        "PK": bin_,
        "SK": "LATEST",
        "site": SITE,
        "bin": bin_.rpartition("#")[2],
        "image": {"bucket": "images", "key": "incoming/SEA1/P-4/a.jpg", "version_id": version, "digest": "d" * 64},
        "captured_at": "2026-11-22T10:00:00.000000Z",
        "counted_at": "2026-11-22T10:00:05.000000Z",
        "order": f"2026-11-22T10:00:00.000000Z#{version}",
        "count": count,
        "probabilities": [0.4 if n == count else 0.1 for n in range(7)],
        "model_version": "2026-11-01-abc",
        "p_record": 1 - priority,
        "priority": priority,
        **({} if recorded is None else record),
    }


def said(person: Person, quantity: int | None = None, **more: Any) -> Entry:
    return Entry(next(IDS), person.name, NOON, quantity, **more)


@pytest.fixture
def desk(world: Any) -> Desk:
    return Desk(Table.named("counts"))


@pytest.fixture
def opened(desk: Desk) -> Desk:
    shows(desk)
    return desk


def shows(desk: Desk, version: str = "v1", **about: Any) -> None:
    """The bin's newest photograph and its record are these."""
    desk.table.put(latest(version, **about))
    desk.follow(about.get("bin_", BIN), NOON)


def review(desk: Desk) -> Any:
    return desk.table.get(stored.review_key(BIN), consistent=True)


def counted(desk: Desk, person: Person, quantity: int | None = None, seen: str = "v1", **more: Any) -> Entered:
    desk.claim(BIN, person, NOON)
    return desk.enter(BIN, said(person, quantity, **more), person, seen, NOON)


def ended(desk: Desk) -> dict[str, int]:
    """How many reviews ended, by their outcomes, as the overview counts them."""
    key = reviews_key(SITE, BIN, "2026-11-22")
    numbers = summed([desk.table.get(key, consistent=True) or {}])
    return {name: n for name, n in numbers.items() if n and name != "OPENED"}


def refusal(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(Refused) as refused:
        call(*arguments, **named)
    return refused.value.code


def test_a_number_that_is_the_records_resolves_it(opened: Desk) -> None:
    assert not counted(opened, ANA, 3).late
    assert (review(opened)["stage"], review(opened)["outcome"]) == ("RESOLVED", "RECORD_RIGHT")
    assert opened.queue(SITE, 50) == []
    assert opened.differences(SITE, NOON, NOON) == []


def test_another_number_asks_a_second_person(opened: Desk) -> None:
    counted(opened, ANA, 5, reason=Reason.PICK_ERROR, note="two behind the box")
    assert review(opened)["stage"] == "SECOND"
    assert refusal(opened.claim, BIN, ANA, NOON) == "SAME_PERSON"
    counted(opened, BEN, 5)
    assert (review(opened)["outcome"], review(opened)["quantity"]) == ("RECORD_WRONG", 5)
    (row,) = opened.differences(SITE, NOON, NOON)
    assert (row["recorded_quantity"], row["counted_quantity"], row["difference"]) == (3, 5, 2)
    assert row["counted_by"] == ["ana", "ben"]


def test_two_who_disagree_need_a_manager_who_is_neither(opened: Desk) -> None:
    counted(opened, MAX, 5)
    counted(opened, BEN, 4)
    assert review(opened)["stage"] == "MANAGER"
    assert refusal(opened.claim, BIN, CYD, NOON) == "NOT_MANAGER"
    assert refusal(opened.claim, BIN, MAX, NOON) == "SAME_PERSON"
    counted(opened, Person("eve", manager=True), 3)
    assert review(opened)["outcome"] == "RECORD_RIGHT"


def test_a_difference_within_the_tolerance_needs_no_second_person(world: Any) -> None:
    desk = Desk(Table.named("counts"), tolerance=1)
    shows(desk)
    counted(desk, ANA, 4)
    assert (review(desk)["outcome"], review(desk)["quantity"]) == ("RECORD_WRONG", 4)


@pytest.mark.parametrize(
    ("value", "tolerated", "stage"),
    [("4.99", "10", "RESOLVED"), ("5.01", "10", "SECOND"), (None, "10", "SECOND"), ("4.99", "0", "SECOND")],
)
def test_a_difference_of_little_value_needs_no_second_person(
    world: Any, value: str | None, tolerated: str, stage: str
) -> None:
    desk = Desk(Table.named("counts"), tolerated_value=Decimal(tolerated))
    priced = {"recorded_value": Decimal(value)} if value else {}
    desk.table.put(latest(recorded=3) | priced)
    desk.follow(BIN, NOON)
    counted(desk, ANA, 5)
    assert review(desk)["stage"] == stage


@pytest.mark.parametrize("outcome", [Outcome.CANNOT_COUNT, Outcome.RETAKE])
def test_what_cannot_be_counted_is_resolved_without_a_number(opened: Desk, outcome: Outcome) -> None:
    counted(opened, ANA, outcome=outcome, reason=Reason.BLURRED)
    assert (review(opened)["stage"], review(opened)["outcome"]) == ("RESOLVED", outcome.value)
    assert [item for item in opened.table.beginning(BIN, "RECOUNT#")] == []


@pytest.mark.parametrize(
    "entry",
    [
        *(said(ANA), said(ANA, -1), said(ANA, 10**9), said(ANA, True), said(ANA, 2.5)),  # type: ignore[arg-type]
        *(said(ANA, 3, outcome=Outcome.RETAKE), said(ANA, outcome=Outcome.RECORD_RIGHT), said(ANA, 3, note="x" * 501)),
    ],
)
def test_what_is_no_entry_is_refused(opened: Desk, entry: Entry) -> None:
    opened.claim(BIN, ANA, NOON)
    assert refusal(opened.enter, BIN, entry, ANA, "v1", NOON) == "WRONG_ENTRY"


def test_one_person_at_a_time_until_the_claim_expires(opened: Desk) -> None:
    opened.claim(BIN, ANA, NOON)
    assert refusal(opened.claim, BIN, BEN, NOON + timedelta(minutes=14)) == "CLAIMED"
    opened.claim(BIN, BEN, NOON + timedelta(minutes=15))
    assert review(opened)["claim"]["person"] == "ben"
    opened.release(BIN, BEN, NOON)
    assert "claim" not in review(opened)
    assert refusal(opened.release, BIN, BEN, NOON) == "NOT_CLAIMED"


def test_an_expired_claim_is_enough_while_nobody_took_the_bin(opened: Desk) -> None:
    opened.claim(BIN, ANA, NOON)
    assert not opened.enter(BIN, said(ANA, 3), ANA, "v1", NOON + timedelta(hours=9)).late


def test_a_number_that_comes_too_late_is_kept_and_changes_nothing(opened: Desk) -> None:
    opened.claim(BIN, ANA, NOON)
    opened.claim(BIN, BEN, NOON + timedelta(hours=1))
    assert opened.enter(BIN, said(ANA, 4), ANA, "v1", NOON).late
    assert review(opened)["stage"] == "FIRST"
    assert review(opened)["claim"]["person"] == "ben"
    (kept,) = opened.table.beginning(BIN, "RECOUNT#")
    assert (kept["quantity"], kept["late"], kept["image"]["version_id"]) == (4, True, "v1")


def test_a_number_that_comes_after_two_others_disagreed_is_kept_too(opened: Desk) -> None:
    counted(opened, ANA, 5)
    opened.claim(BIN, BEN, NOON)
    later = NOON + timedelta(minutes=16)
    opened.claim(BIN, CYD, later)
    opened.enter(BIN, said(CYD, 4), CYD, "v1", later)
    assert review(opened)["stage"] == "MANAGER"
    assert opened.enter(BIN, said(BEN, 5), BEN, "v1", later).late
    assert (review(opened)["stage"], len(review(opened)["entries"])) == ("MANAGER", 2)
    kept = {item["person"]: item["late"] for item in opened.table.beginning(BIN, "RECOUNT#")}
    assert kept == {"ana": False, "cyd": False, "ben": True}
    assert refusal(opened.claim, BIN, BEN, later) == "NOT_MANAGER"


def test_a_number_of_a_photograph_that_is_no_longer_the_newest_labels_that_one(opened: Desk) -> None:
    opened.claim(BIN, ANA, NOON)
    shows(opened, "v2")
    assert opened.enter(BIN, said(ANA, 4), ANA, "v1", NOON).late
    (kept,) = opened.table.beginning(BIN, "RECOUNT#")
    assert kept["image"]["version_id"] == "v1"
    assert refusal(opened.enter, BIN, said(ANA, 4), ANA, "never", NOON) == "ANOTHER_PHOTOGRAPH"


def test_an_entry_that_is_sent_again_is_stored_once(opened: Desk) -> None:
    opened.claim(BIN, ANA, NOON)
    entry = said(ANA, 5)
    first = opened.enter(BIN, entry, ANA, "v1", NOON)
    assert opened.enter(BIN, entry, ANA, "v1", NOON + timedelta(days=1)) == first
    assert len(review(opened)["entries"]) == 1
    other = Entry(entry.id, "ana", NOON, 6)
    assert refusal(opened.enter, BIN, other, ANA, "v1", NOON) == "ID_TAKEN"


def test_undo_takes_back_the_last_entry_and_its_difference_but_not_the_trail(opened: Desk) -> None:
    counted(opened, ANA, 5)
    counted(opened, BEN, 5)
    assert refusal(opened.undo, BIN, CYD, NOON) == "NOTHING_TO_UNDO"
    opened.undo(BIN, BEN, NOON)
    assert review(opened)["stage"] == "SECOND"
    assert opened.differences(SITE, NOON, NOON) == []
    assert [line["action"] for line in opened.trail(BIN)][-2:] == ["ENTERED", "UNDONE"]
    (undone,) = opened.table.beginning(BIN, "UNDONE#")
    (recount,) = (item for item in opened.table.beginning(BIN, "RECOUNT#") if item["person"] == "ben")
    for name in ("image", "captured_at", "quantity", "recounted_at", "person"):
        assert undone[name] == recount[name]
    opened.enter(BIN, said(BEN, 3), BEN, "v1", NOON)
    assert review(opened)["stage"] == "MANAGER"


def test_an_undo_after_the_record_was_corrected_takes_the_difference_back(world: Any) -> None:
    desk = Desk(Table.named("counts"), tolerance=2)
    shows(desk)
    counted(desk, ANA, 5)
    assert [row["difference"] for row in desk.differences(SITE, NOON, NOON)] == [2]
    desk.table.put(latest(recorded=5))
    desk.follow(BIN, NOON + timedelta(minutes=5))
    assert review(desk)["outcome"] == "RECORD_RIGHT"
    assert len(desk.differences(SITE, NOON, NOON)) == 1, "it was found"
    desk.undo(BIN, ANA, NOON + timedelta(minutes=10))
    assert review(desk)["stage"] == "FIRST"
    assert desk.differences(SITE, NOON, NOON) == []
    assert ended(desk) == {}


def test_an_undo_takes_the_difference_of_a_review_of_an_older_version_back(opened: Desk) -> None:
    counted(opened, ANA, 5)
    counted(opened, BEN, 5)
    opened.table.put({name: value for name, value in review(opened).items() if name != "listed_at"})
    opened.undo(BIN, BEN, NOON)
    assert opened.differences(SITE, NOON, NOON) == []


def test_an_undo_that_leaves_a_review_resolved_is_counted_as_that(opened: Desk) -> None:
    """After the record was corrected to the number of both, the first one's is enough."""

    def scored() -> int:
        return sum(int(item["listed"]) for item in opened.table.beginning(f"SCORE#{SITE}", "20"))

    counted(opened, ANA, 5)
    counted(opened, BEN, 5)
    shows(opened, recorded=5)
    assert (ended(opened), scored()) == ({"RECORD_WRONG": 1}, 1)
    opened.undo(BIN, BEN, NOON)
    assert (review(opened)["outcome"], ended(opened)) == ("RECORD_RIGHT", {"RECORD_RIGHT": 1})
    assert (scored(), review(opened)["scored"]["listed_wrong"]) == (1, 0)
    assert opened.differences(SITE, NOON, NOON) == []
    opened.undo(BIN, ANA, NOON)
    assert (review(opened)["stage"], ended(opened), scored()) == ("FIRST", {}, 0)
    told = [event["DetailType"] for line in opened.trail(BIN)[-3:] for event in events_of(line)]
    assert told == ["Bin Discrepancy Resolved", "Bin Discrepancy Resolved", "Bin Discrepancy Reopened"]


@pytest.mark.parametrize("ben", ["claims", "enters"])
def test_a_second_person_keeps_nobody_from_taking_their_number_back(opened: Desk, ben: str) -> None:
    """Or it would say that the number was not the record's. What the second one counted stays a label."""
    counted(opened, ANA, 5)
    opened.claim(BIN, BEN, NOON)
    if ben == "enters":
        opened.enter(BIN, said(BEN, 5), BEN, "v1", NOON)
        assert review(opened)["outcome"] == "RECORD_WRONG"
    opened.undo(BIN, ANA, NOON)
    assert (review(opened)["stage"], review(opened)["entries"]) == ("FIRST", [])
    assert opened.differences(SITE, NOON, NOON) == []
    opened.enter(BIN, said(ANA, 4), ANA, "v1", NOON)
    late = said(BEN, 5)
    assert ben == "enters" or opened.enter(BIN, late, BEN, "v1", NOON).late
    (undone,) = opened.table.beginning(BIN, "UNDONE#")
    assert (undone["person"], undone["quantity"]) == ("ana", 5)
    assert sorted(item["person"] for item in opened.table.beginning(BIN, "RECOUNT#")) == ["ana", "ana", "ben"]
    assert stored.replay(opened.trail(BIN)) == stored.review_of(review(opened))


def test_what_a_manager_has_decided_is_not_taken_back_by_others(opened: Desk) -> None:
    counted(opened, ANA, 5)
    counted(opened, BEN, 4)
    counted(opened, MAX, 5)
    for person in (ANA, BEN):
        assert refusal(opened.undo, BIN, person, NOON) == "TOO_LATE"
    opened.undo(BIN, MAX, NOON)
    assert review(opened)["stage"] == "MANAGER"


def test_an_entry_can_be_taken_back_for_as_long_as_a_claim(opened: Desk) -> None:
    counted(opened, ANA, 3)
    assert refusal(opened.undo, BIN, ANA, NOON + timedelta(minutes=15, seconds=1)) == "TOO_LATE"
    opened.undo(BIN, ANA, NOON + timedelta(minutes=15))
    assert review(opened)["stage"] == "FIRST"


def test_who_has_counted_is_refused_alike_whether_it_was_the_record_or_not(opened: Desk) -> None:
    counted(opened, ANA, 3)
    assert review(opened)["stage"] == "RESOLVED"
    assert refusal(opened.claim, BIN, ANA, NOON) == "SAME_PERSON"
    assert refusal(opened.enter, BIN, said(ANA, 4), ANA, "v1", NOON) == "SAME_PERSON"
    assert refusal(opened.claim, BIN, BEN, NOON) == "RESOLVED"


def test_the_same_pair_asks_once(opened: Desk) -> None:
    counted(opened, ANA, 3)
    shows(opened)
    desk_before = review(opened)
    opened.table.put(latest() | {"recorded_as_of": "2026-11-23T00:00:00.000000Z"})
    opened.follow(BIN, NOON)
    assert review(opened) == desk_before


def test_a_corrected_record_closes_the_loop(opened: Desk) -> None:
    counted(opened, ANA, 4)
    counted(opened, BEN, 4)
    shows(opened, recorded=4)  # the model still says 5
    assert review(opened)["stage"] == "RESOLVED"
    assert opened.trail(BIN)[-1]["action"] == "CORRECTED"


def test_a_record_that_is_put_right_meanwhile_leaves_the_list_at_once(opened: Desk) -> None:
    assert len(opened.queue(SITE, 50)) == 1
    shows(opened, recorded=5)
    assert opened.queue(SITE, 50) == []
    assert review(opened)["outcome"] == "WITHDRAWN"


def test_a_newer_photograph_without_a_record_ends_the_review(opened: Desk) -> None:
    """Or people would go on to find a difference from a record that is no longer the newest photograph's."""
    counted(opened, ANA, 5)
    opened.claim(BIN, BEN, NOON)
    shows(opened, "v2", recorded=None)
    assert (review(opened)["outcome"], review(opened)["image"]["version_id"]) == ("WITHDRAWN", "v1")
    assert opened.queue(SITE, 50) == []
    assert opened.enter(BIN, said(BEN, 5), BEN, "v1", NOON).late
    assert opened.differences(SITE, NOON, NOON) == []
    assert sorted(item["person"] for item in opened.table.beginning(BIN, "RECOUNT#")) == ["ana", "ben"]
    assert list(opened.table.beginning(BIN, "UNDONE#")) == [], "both stay labels"
    assert stored.replay(opened.trail(BIN)) == stored.review_of(review(opened))
    shows(opened, "v2", recorded=3)
    assert (review(opened)["stage"], review(opened)["image"]["version_id"]) == ("FIRST", "v2"), "a record has arrived"


@pytest.mark.parametrize(("about", "stage"), [({"recorded": 9}, "FIRST"), ({"version": "v2"}, "FIRST")])
def test_a_new_photograph_or_record_that_disagrees_asks_again(opened: Desk, about: Any, stage: str) -> None:
    counted(opened, ANA, 3)
    shows(opened, **about)
    assert review(opened)["stage"] == stage
    assert refusal(opened.undo, BIN, ANA, NOON) == "NOTHING_TO_UNDO"


def test_a_bin_without_a_difference_has_no_review(desk: Desk) -> None:
    shows(desk, recorded=5)
    assert review(desk) is None
    assert refusal(desk.claim, BIN, ANA, NOON) == "UNKNOWN"


@pytest.mark.slow
def test_twenty_people_are_given_twenty_bins(desk: Desk) -> None:
    for n in range(25):
        shows(desk, bin_=f"BIN#SEA1#P-{n}", priority=0.9 - n / 100)
    given = [desk.claim_next(SITE, Person(f"person {n}"), NOON) for n in range(20)]
    assert len({item["PK"] for item in given if item}) == 20
    again = desk.claim_next(SITE, Person("person 3"), NOON)
    assert again is not None and given[3] is not None and again["PK"] == given[3]["PK"]
    other = desk.claim_next(SITE, Person("person 3"), NOON, skip={again["PK"]})
    assert other is not None and other["PK"] != again["PK"]


def test_two_who_write_at_once_are_judged_one_after_the_other(opened: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    write, entered = Table.together, threading.Event()

    def ben_first(table: Table, *operations: Any) -> int | None:
        if not entered.is_set():
            entered.set()
            opened.claim(BIN, BEN, NOON)
        return write(table, *operations)

    monkeypatch.setattr(Table, "together", ben_first)
    assert refusal(opened.claim, BIN, ANA, NOON) == "CLAIMED"
    assert review(opened)["claim"]["person"] == "ben"


class Memory:
    """As much of Table as the desk uses, in a dictionary: conditions are `version` and `attribute_not_exists` alone."""

    share = 0.05

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], Any] = {}

    def get(self, key: Any, *, consistent: bool) -> Any:
        return self.items.get((key["PK"], key["SK"]))

    def get_many(self, keys: Any) -> Any:
        return {(key["PK"], key["SK"]): found for key in keys if (found := self.get(key, consistent=True))}

    def put(self, item: Any) -> None:
        self.items[item["PK"], item["SK"]] = plain(wire(item))

    def together(self, *operations: Any) -> int | None:
        changed = [plain(change.get("Item", change.get("Key"))) for each in operations for change in each.values()]
        assert len({(item["PK"], item["SK"]) for item in changed}) == len(changed), "DynamoDB changes an item once"
        for place, each in enumerate(operations):
            if "Put" not in each:
                continue
            standing = self.get(plain(each["Put"]["Item"]), consistent=True)
            wanted = each["Put"].get("ExpressionAttributeValues")
            if "ConditionExpression" in each["Put"] and (
                standing is not None if wanted is None else standing["version"] != plain(wanted)[":before"]
            ):
                return place
        for each in operations:
            if "Put" in each:
                self.put(plain(each["Put"]["Item"]))
            elif "Update" in each:
                key, values = plain(each["Update"]["Key"]), plain(each["Update"]["ExpressionAttributeValues"])
                before = self.items.setdefault((key["PK"], key["SK"]), dict(key))
                for name, number in values.items():
                    before[name[1:]] = before.get(name[1:], 0) + number
            else:
                key = plain(each["Delete"]["Key"])
                self.items.pop((key["PK"], key["SK"]), None)
        return None

    def last(self, pk: str, limit: int) -> list[Any]:
        return [item for key, item in sorted(self.items.items(), reverse=True) if key[0] == pk][:limit]

    def in_index(self, index: str, key: Any, *, descending: bool, limit: int) -> list[Any]:
        found = [item for item in self.items.values() if key.items() <= item.items()]
        return sorted(found, key=lambda item: item["priority"], reverse=descending)[:limit]

    def beginning(self, pk: str, prefix: str) -> Iterator[Any]:
        return (item for key, item in sorted(self.items.items()) if key[0] == pk and key[1].startswith(prefix))


PEOPLE = st.sampled_from([ANA, BEN, CYD, MAX, Person("eve", manager=True)])
SMALL = st.integers(0, 3)


class Reviews(RuleBasedStateMachine):
    """People, photographs and records in any order, with time going on and entries sent again."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory()
        self.desk = Desk(self.memory, tolerance=1)  # type: ignore[arg-type]
        self.now, self.version, self.sent = NOON, 0, list[tuple[Entry, Person, str]]()
        self.accepted: dict[str, Entered] = {}

    def standing(self) -> Any:
        return self.memory.get(stored.review_key(BIN), consistent=True)

    @rule(count=SMALL, recorded=st.sampled_from([0, 1, 2, 3, None]), new=st.booleans())
    def shows(self, count: int, recorded: int | None, new: bool) -> None:
        self.version += new
        self.now += timedelta(microseconds=1)
        self.memory.put(latest(f"v{self.version}", count=count, recorded=recorded))
        self.desk.follow(BIN, self.now)
        before = len(self.memory.items)
        self.desk.follow(BIN, self.now)
        assert len(self.memory.items) == before, "to follow twice is to follow once"
        if (item := self.standing()) and item["stage"] != Stage.RESOLVED:
            assert item["image"]["version_id"] == f"v{self.version}", "people see the newest photograph"

    @rule(minutes=st.integers(0, 20))
    def waits(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    def claims(self, person: Person) -> None:
        holder = stored.review_of(item).holder(self.now) if (item := self.standing()) else None
        try:
            self.desk.claim(BIN, person, self.now)
        except Refused:
            return
        assert holder in (None, person.name)
        assert person.name not in [entry["person"] for entry in self.standing()["entries"]]

    @rule(person=PEOPLE)
    def releases(self, person: Person) -> None:
        self.quietly(self.desk.release, BIN, person, self.now)

    @rule(person=PEOPLE)
    def undoes(self, person: Person) -> None:
        self.now += timedelta(microseconds=1)
        self.quietly(self.desk.undo, BIN, person, self.now)

    @precondition(lambda self: self.standing())
    @rule(person=PEOPLE)
    def claims_and_goes_away(self, person: Person) -> None:
        self.claims(person)

    @precondition(lambda self: self.standing())
    @rule(person=PEOPLE, quantity=SMALL, outcome=st.sampled_from([None, None, None, Outcome.RETAKE]))
    def enters(self, person: Person, quantity: int, outcome: Outcome | None) -> None:
        """As the page does it: the person claims the bin, unless they may not."""
        self.claims(person)
        entry = Entry(next(IDS), person.name, self.now, None if outcome else quantity, outcome)
        self.sent.append((entry, person, self.standing()["image"]["version_id"]))
        self.send(-1)

    @precondition(lambda self: self.sent)
    @rule(place=st.integers(0, 100))
    def sends_again(self, place: int) -> None:
        self.send(place % len(self.sent))

    def send(self, place: int) -> None:
        self.now += timedelta(microseconds=1)  # rows of the export are named by it
        entry, person, seen = self.sent[place]
        try:
            answer = self.desk.enter(BIN, entry, person, seen, self.now)
        except Refused:
            assert entry.id not in self.accepted, "what was stored is never refused afterwards"
            return
        assert self.accepted.setdefault(entry.id, answer) == answer, "the same answer to the same entry"

    def quietly(self, call: Any, *arguments: Any) -> None:
        try:
            call(*arguments)
        except Refused:
            return

    @invariant()
    def nothing_is_lost_or_stored_twice(self) -> None:
        kept = [item["id"] for key, item in self.memory.items.items() if key[1].startswith(("RECOUNT#", "ANSWER#"))]
        assert sorted(kept) == sorted(self.accepted)

    @invariant()
    def the_trail_replays_to_the_review(self) -> None:
        item, trail = self.standing(), self.desk.trail(BIN)
        assert stored.replay(trail) == (stored.review_of(item) if item else None)
        assert [int(line["SK"].partition("#")[2]) for line in trail] == list(range(1, len(trail) + 1))

    @invariant()
    def only_what_is_open_is_in_the_queue(self) -> None:
        if item := self.standing():
            assert ("review_key" in item) == (item["stage"] != Stage.RESOLVED)
            people = [entry["person"] for entry in item["entries"]]
            assert len(people) == len(set(people)), "nobody checks their own number"

    @invariant()
    def a_row_for_each_record_that_people_found_wrong(self) -> None:
        rows = [item for key, item in self.memory.items.items() if key[1].startswith("DIFFERENCE#")]
        item, before, mine = self.standing(), 0, 0
        for line in self.desk.trail(BIN):
            if line["action"] == "OPENED":
                before, mine = before + mine, 0
            wrong = line["review"].get("outcome") == Outcome.RECORD_WRONG
            mine = int(wrong or (mine and line["action"] != "UNDONE"))
        assert len(rows) == before + mine, "an undo takes back that of its own review"
        if item and item.get("outcome") == Outcome.RECORD_WRONG:
            assert max(rows, key=lambda row: row["resolved_at"])["counted_quantity"] == item["quantity"]

    @invariant()
    def the_overview_counts_what_the_trail_says(self) -> None:
        item, ended, told = self.standing(), "", Counter[str]()
        for line in self.desk.trail(BIN):
            resolved, was = line["review"]["stage"] == Stage.RESOLVED, line["stage_before"] == Stage.RESOLVED
            told["OPENED"] += line["action"] == "OPENED"
            told[ended] -= line["action"] == "UNDONE" and was
            if resolved and (line["action"] == "UNDONE" or not was):
                ended = line["review"]["outcome"]
                told[ended] += 1
        assert self.numbers("REVIEWS#") == {name: n for name, n in told.items() if n}
        assert self.numbers("WAITING#") == ({item["stage"]: 1} if item and item["stage"] != Stage.RESOLVED else {})

    def numbers(self, prefix: str) -> dict[str, int]:
        found = [item for key, item in self.memory.items.items() if key[1].startswith(prefix)]
        return {name: n for name, n in summed(found).items() if n}


TestReviews = Reviews.TestCase
TestReviews.settings = settings(max_examples=60, stateful_step_count=40)


def test_who_has_counted_the_first_bins_gets_the_next(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bintally.reviewing.desk.FIRST", 2)
    for number in range(5):
        shows(desk, bin_=f"{BIN}{number}")
    counted = set()
    for _ in range(5):
        item = desk.claim_next(SITE, ANA, NOON)
        assert item is not None
        desk.enter(item["PK"], said(ANA, 7), ANA, item["image"]["version_id"], NOON)
        counted.add(item["PK"])
    assert len(counted) == 5
    assert desk.claim_next(SITE, ANA, NOON) is None
    assert desk.claim_next(SITE, BEN, NOON) is not None
