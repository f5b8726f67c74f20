"""The rules of a review, the question whether a bin's record is right: who may say what, and what follows. Pure.

A review's entries are what people said, in order; its stage and its outcome follow from them alone, so that the trail
replays to the same state. docs/decisions/reviews.md gives the reasons.

              differs by more than the tolerance        the two differ
    FIRST ─────────────────────────────────────► SECOND ──────────────► MANAGER
      │                                             │                      │
      └── any other number ──► RESOLVED ◄── same ───┴──── any number ──────┘

"Cannot count" and "retake the photograph" resolve a review at any stage.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from bintally.common.errors import BintallyError

LARGEST = 999_999_999
"""The largest quantity, as of records."""
LONGEST_NOTE = 500
"""Characters."""


class Stage(StrEnum):
    """Who is to say something next."""

    FIRST = "FIRST"
    SECOND = "SECOND"
    """A second person, who does not see the first one's number."""
    MANAGER = "MANAGER"
    """Two people disagree."""
    RESOLVED = "RESOLVED"


class Outcome(StrEnum):
    """What a review found."""

    RECORD_RIGHT = "RECORD_RIGHT"
    RECORD_WRONG = "RECORD_WRONG"
    CANNOT_COUNT = "CANNOT_COUNT"
    RETAKE = "RETAKE"
    WITHDRAWN = "WITHDRAWN"
    """The record or the photograph changed, and no longer disagree, or the newest photograph has no record."""


class Reason(StrEnum):
    """Why the record was wrong, or why nobody can count, as far as a person can say."""

    MISPLACED = "MISPLACED"
    PICK_ERROR = "PICK_ERROR"
    RECEIVING_ERROR = "RECEIVING_ERROR"
    DAMAGED = "DAMAGED"
    HIDDEN = "HIDDEN"
    BLURRED = "BLURRED"
    DARK = "DARK"
    OTHER = "OTHER"


class Refused(BintallyError):
    """A rule forbids it. `code` is for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Entry:
    """What a person said: a number, or the outcome CANNOT_COUNT or RETAKE."""

    id: str
    """Made by the client, so that it can send an entry twice."""
    person: str
    at: datetime
    quantity: int | None = None
    outcome: Outcome | None = None
    reason: Reason | None = None
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """One person works on a review."""

    person: str
    until: datetime


@dataclass(frozen=True)
class Review:
    """A review in one episode: one disagreement of a photograph with a record."""

    photograph: str
    """The image version's order (items.order)."""
    recorded: int
    tolerance: int = 0
    """A number that differs from the record by more, in items, needs a second person."""
    entries: tuple[Entry, ...] = ()
    claim: Claim | None = None
    withdrawn: bool = False
    audit: str = ""
    """The last period in which the bin was drawn for the random audit; "" before the first."""
    audits: bool = False
    """The review counts for that audit."""

    @property
    def stage(self) -> Stage:
        return self._conclusion()[0]

    @property
    def outcome(self) -> Outcome | None:
        """None until it is resolved."""
        return self._conclusion()[1]

    @property
    def found(self) -> int | None:
        """The number that people agreed on; None while there is none."""
        counted = self.outcome in (Outcome.RECORD_RIGHT, Outcome.RECORD_WRONG)
        return self.entries[-1].quantity if counted else None

    def holder(self, now: datetime) -> str | None:
        """The person who works on it."""
        return self.claim.person if self.claim and now < self.claim.until else None

    def _conclusion(self) -> tuple[Stage, Outcome | None]:
        if self.withdrawn:
            return Stage.RESOLVED, Outcome.WITHDRAWN
        if not self.entries:
            return Stage.FIRST, None
        if outcome := self.entries[-1].outcome:
            return Stage.RESOLVED, outcome
        numbers = [entry.quantity for entry in self.entries if entry.quantity is not None]
        match numbers:
            case [only] if abs(only - self.recorded) > self.tolerance:
                return Stage.SECOND, None
            case [first, second] if abs(first - second) > self.tolerance:
                return Stage.MANAGER, None
        return Stage.RESOLVED, Outcome.RECORD_RIGHT if numbers[-1] == self.recorded else Outcome.RECORD_WRONG


def follow(
    review: Review | None, photograph: str, recorded: int, *, doubtful: bool, tolerance: int, audit: str = ""
) -> tuple[str, Review] | None:
    """The trail's word and the bin's review, now that its newest photograph and its record are these; None when that
    changes nothing.

    `doubtful`: whether the photograph speaks against the record. People who counted this photograph outrank the model:
    a new record is compared with their number. The same photograph and the same number never ask twice, however often
    an inventory system reports them. `audit` is the period for which the bin is drawn for the random audit, "" if it is
    not: it is asked about once, whatever the photograph says, and stays open for new photographs until people answer.
    """
    last = review.audit if review else ""
    kept = review is not None and review.audits and review.stage is not Stage.RESOLVED
    audits = kept or audit > last
    opened = "OPENED", Review(photograph, recorded, tolerance, audit=max(audit, last), audits=audits)
    withdrawn = "WITHDRAWN", Review(photograph, recorded, tolerance, withdrawn=True, audit=last)
    asks = doubtful or audits
    if review is None:
        return opened if asks else None
    if review.photograph != photograph:
        return opened if asks else withdrawn if review.stage is not Stage.RESOLVED else None
    if review.recorded == recorded:
        return None
    if review.stage is not Stage.RESOLVED:
        return ("CHANGED", replace(review, recorded=recorded)) if review.entries or asks else withdrawn
    if review.found is not None:
        return opened if recorded != review.found else ("CORRECTED", replace(review, recorded=recorded))
    return opened if asks else ("CHANGED", replace(review, recorded=recorded))


def follow_unrecorded(review: Review, photograph: str) -> tuple[str, Review] | None:
    """As `follow`, now that the bin's newest photograph has no record: an open review of an older one is withdrawn,
    since nobody can say of the newest whether its record is right.

    It keeps its pair, so that the newest photograph may ask as soon as it has a record, even one of the same quantity.
    What the audit has drawn and people have not answered may be drawn again.
    """
    if review.photograph == photograph or review.stage is Stage.RESOLVED:
        return None
    audit = "" if review.audits else review.audit
    return "WITHDRAWN", Review(review.photograph, review.recorded, review.tolerance, withdrawn=True, audit=audit)


def claim(review: Review, person: str, now: datetime, length: timedelta, *, manager: bool = False) -> Review:
    """The review with a claim of `person`, renewed if it is theirs. Raises Refused."""
    check_may_work(review, person, manager=manager)
    if review.holder(now) not in (None, person):
        raise Refused("CLAIMED", "another person is counting this bin")
    return replace(review, claim=Claim(person, now + length))


def release(review: Review, person: str) -> Review:
    """The review without the claim of `person`. Raises Refused."""
    check_holds(review, person)
    return replace(review, claim=None)


def enter(review: Review, entry: Entry, *, manager: bool = False) -> Review:
    """The review with what a person said. Raises Refused.

    The person must have claimed it. A claim that has expired is enough while nobody else has claimed the bin: a number
    that someone counted is worth more than the order of the queue.
    """
    check_entry(entry)
    check_may_work(review, entry.person, manager=manager)
    check_holds(review, entry.person)
    return replace(review, entries=(*review.entries, entry), claim=None)


def undo(review: Review, person: str, now: datetime, length: timedelta) -> Review:
    """The review as it was before the entry of `person`, which may be no older than `length`; they hold the claim
    again. Raises Refused.

    What a second person has claimed or entered since goes back too, and their number stays a label: if they could keep
    a person from taking their number back, that would say that it was not the record's, and once they had released the
    bin it could be taken back all the same, for another try. A manager's decision ends that. No counter sees what the
    bin's record says before the time is over (`is_settled`).
    """
    at = index_of(review.entries, person)
    if at is None or review.withdrawn:
        raise Refused("NOTHING_TO_UNDO", "there is no entry of yours about this bin")
    is_decided = at < 2 and len(review.entries) > 2
    if is_settled(now, review.entries[at].at, length) or is_decided:
        raise Refused("TOO_LATE", f"an entry can be taken back for {length.total_seconds() / 60:.0f} minutes")
    return replace(review, entries=review.entries[:at], claim=Claim(person, now + length))


def index_of(entries: Sequence[Entry], person: str) -> int | None:
    """Where a person's entry is among a review's: nobody has two."""
    return next((at for at, entry in enumerate(entries) if entry.person == person), None)


def is_settled(now: datetime, at: datetime, length: timedelta) -> bool:
    """Whether what was said at that time can no longer be taken back."""
    return now - at > length


def check_entry(entry: Entry) -> None:
    """Raises Refused when an entry says nothing, or two things, or something impossible."""
    if (entry.quantity is None) == (entry.outcome is None):
        raise Refused("WRONG_ENTRY", "an entry has either a quantity or an outcome")
    if entry.quantity is not None and (type(entry.quantity) is not int or not 0 <= entry.quantity <= LARGEST):
        raise Refused("WRONG_ENTRY", f"the quantity must be a whole number from 0 to {LARGEST:,}")
    if entry.outcome not in (None, Outcome.CANNOT_COUNT, Outcome.RETAKE):
        raise Refused("WRONG_ENTRY", "the outcome must be CANNOT_COUNT or RETAKE; others follow from the quantities")
    if len(entry.note) > LONGEST_NOTE:
        raise Refused("WRONG_ENTRY", f"a note has at most {LONGEST_NOTE} characters")


def check_may_work(review: Review, person: str, *, manager: bool) -> None:
    """Raises Refused unless the person may count this bin next: nobody checks their own number."""
    # First: it is the same whether their number was the record's or a second person is to count.
    if any(entry.person == person for entry in review.entries):
        raise Refused("SAME_PERSON", "you have counted this bin")
    if review.stage is Stage.RESOLVED:
        raise Refused("RESOLVED", "this bin needs no recount any more")
    if review.stage is Stage.MANAGER and not manager:
        raise Refused("NOT_MANAGER", "two people disagree about this bin: a manager decides")


def check_holds(review: Review, person: str) -> None:
    """Raises Refused unless the last claim is theirs."""
    if review.claim is None or review.claim.person != person:
        raise Refused("NOT_CLAIMED", "claim this bin first; if you did, your claim expired and another person took it")
