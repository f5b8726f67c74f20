"""Applies the rules to a bin's review in the table: the review, a line of its trail and what a person said are written
in one transaction.

Two who change a review at once are told apart by its version: one is written, the other reads it again and is judged by
the rules anew.
"""

import hashlib
import random
import time
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from bintally.aws.items import SHARDS, Item, Standing, assessment
from bintally.aws.recorded import to_compare
from bintally.aws.table import Table, adding, putting, removing
from bintally.common.errors import Transient
from bintally.common.evidence import together, weigh
from bintally.common.keys import moment, utc
from bintally.reviewing import rules, scores, stored
from bintally.reviewing.rules import Entry, Outcome, Refused, Review, Stage
from bintally.reviewing.scores import Scores
from bintally.reviewing.tallies import tally

TRIES = 5
FIRST = 50
"""`claim_next` takes one of so many bins at the top of the queue, so that twenty people seldom want the same one."""

DOUBTFUL = 1
"""A photograph speaks against its record if its evidence is greater: then a recount finds a wrong record more often
than one of a bin drawn at random. docs/benchmarks.md says how many bins that are, and how many of the wrong records."""
TOGETHER = 5
"""Photographs of a bin that are judged together: more are worth little, since they are alike."""
FRESH_SECONDS = 60
"""For so long the share of a site's records that are wrong is not read again."""
FOLLOWED = ("LATEST", "RECORD", "REVIEW")
NEW = "attribute_not_exists(PK)"
LATE = {"RESOLVED", "NOT_CLAIMED", "NOT_MANAGER", "ANOTHER_PHOTOGRAPH"}
"""Refusals of a number that was counted in good faith: it is kept as a recount, and the review goes on without it."""


@dataclass(frozen=True)
class Person:
    """Who acts, as the identity provider names them."""

    name: str
    manager: bool = False


@dataclass(frozen=True)
class Entered:
    """What became of an entry."""

    entry: Entry
    late: bool
    """It is kept as a recount, but the review had gone on without it."""


@dataclass(frozen=True)
class Desk:
    """The reviews of a table."""

    table: Table
    claim_length: timedelta = timedelta(minutes=15)
    tolerance: int = 0
    """Of reviews that are opened from now on: see rules.Review."""
    audit_share: float = 0.0
    """Of bins that are drawn for the random audit in a month."""
    tolerated_value: Decimal = Decimal(0)
    """The tolerance as a value, where records name an item's; 0 if it is as many items whatever they cost."""
    shares: dict[str, tuple[float, float]] = field(default_factory=dict, compare=False)
    """By site: until when it holds (time.monotonic()), and the share of records that are wrong."""

    # What photographs and records do

    def standing(self, bins: Iterable[str]) -> Standing:
        """What `follow` reads of bins, by their PKs. Raises Transient."""
        return self.table.get_many({"PK": bin_, "SK": kind} for bin_ in bins for kind in FOLLOWED)

    def follow(self, bin_: str, now: datetime, standing: Standing | None = None) -> None:
        """Opens, changes or withdraws a bin's review (`bin_` is its PK) as its LATEST says. Idempotent.

        Before that, it compares LATEST with the RECORD, unless it is compared with that, or its photograph came with a
        quantity of a later time. It reads both after whichever of them has changed, and writes only if LATEST has not
        changed since: so the two end in one state, in any order and however often it is called. `standing` is what
        was read already. Raises Transient.
        """
        for attempt in range(TRIES):
            found, standing = standing or self.standing([bin_]), None
            latest, record, item = (found.get((bin_, kind)) for kind in FOLLOWED)
            if latest is None:
                return
            if newer := to_compare(record, latest):
                if not self.table.compare(latest, newer):
                    wait(attempt)
                continue
            change = self._followed(latest, item) if "recorded_quantity" in latest else unrecorded(latest, item)
            if change is None:
                return
            action, review, about = change
            if self._write(action, review, item, about, now) is None:
                return
            wait(attempt)
        raise Transient(f"the review of {bin_} changed while it was followed")

    def _followed(self, latest: Item, item: Item | None) -> tuple[str, Review, Item] | None:
        """The trail's word, the review and what it is about, after LATEST was compared with a record; `item` is the
        REVIEW before. None when that changes nothing."""
        recorded = int(latest["recorded_quantity"])
        seen = [(each["probabilities"], each.get("prior")) for each in self._since_record(latest)]
        evidence = weigh(together(seen), recorded)
        change = rules.follow(
            stored.review_of(item) if item else None,
            latest["order"],
            recorded,
            doubtful=evidence.ratio > DOUBTFUL,
            tolerance=self._tolerance(latest),
            audit=self._audit(latest["PK"], latest["captured_at"]),
        )
        if change is None:
            return None
        action, review = change
        about = latest | assessment(evidence, self._share(latest["site"]), latest.get("recorded_value"))
        if review.audits and review.stage is not Stage.RESOLVED:
            about["priority"] = self._inconspicuous(latest["PK"], item, about)
        if action != "OPENED" and item and "scored" in item:
            about["scored"] = item["scored"]
        return action, review, about

    def _since_record(self, latest: Item) -> list[Item]:
        """The counts that say something of the record: the newest one, and those after the record's effective time,
        since when its bin should not have changed."""
        if latest.get("recorded_from") != "record" or "recorded_as_of" not in latest:
            return [latest]
        first, last = moment(latest["recorded_as_of"]), moment(latest["captured_at"])
        older = self.table.newest_between(latest["PK"], first, last, TOGETHER) if first < last else []
        return [latest, *(each for each in older if each["order"] < latest["order"])][:TOGETHER]

    def _tolerance(self, latest: Item) -> int:
        """Items by which a recount may differ from the record without a second person."""
        value = latest.get("recorded_value")
        if not value or not self.tolerated_value:
            return self.tolerance
        return min(int(self.tolerated_value // value), rules.LARGEST)

    def _audit(self, bin_: str, captured_at: str) -> str:
        """The month of a photograph if the bin is drawn for its audit, else "". The same whoever asks, and when."""
        month = captured_at[:7]
        drawn = hashed(f"audit\0{bin_}\0{month}") < self.audit_share
        return month if drawn else ""

    def _share(self, site: str) -> float:
        """The share of the site's records that are wrong, as far as the audit says it. Raises Transient."""
        until, share = self.shares.get(site, (0.0, 0.0))
        if until < time.monotonic():
            share = self.scores(site).share(self.table.share)
            self.shares[site] = time.monotonic() + FRESH_SECONDS, share
        return share

    def _inconspicuous(self, bin_: str, before: Item | None, about: Item) -> Any:
        """The priority of a bin of the audit: that of any of the first, so that neither its place nor the time until
        someone counts it says what it is, and neither depends on its own photograph."""
        if before and "review_key" in before and before.get("audits"):
            return before["priority"]
        others = [item["priority"] for item in self.queue(about["site"], FIRST) if item["PK"] != bin_]
        return (
            others[int(hashed(f"place\0{bin_}\0{about['captured_at']}") * len(others))] if others else about["priority"]
        )

    # What people do

    def claim(self, bin_: str, person: Person, now: datetime) -> Item:
        """Claims a bin (its PK); the REVIEW as it stands then. Raises Refused or Transient."""

        def change(review: Review, _: Item) -> tuple[Review, Item]:
            claimed = rules.claim(review, person.name, now, self.claim_length, manager=person.manager)
            return claimed, {"person": person.name, "until": utc(now + self.claim_length)}

        return self._change("CLAIMED", bin_, now, change)

    def claim_next(self, site: str, person: Person, now: datetime, skip: Container[str] = ()) -> Item | None:
        """Claims one of the site's first FIRST bins that this person may count, or gives the one they hold; None when
        there is none. `skip` holds the PKs of bins that they do not want.

        A person who has counted all of the first FIRST bins, which wait for somebody else now, gets one of the next.
        """
        after = ""
        while found := self.queue(site, FIRST, after):
            waiting = [item for item in found if item["PK"] not in skip]
            mine = [item for item in waiting if stored.review_of(item).holder(now) == person.name]
            start = int(hashed(person.name) * len(waiting))
            for item in mine + waiting[start:] + waiting[:start]:
                try:
                    rules.claim(stored.review_of(item), person.name, now, self.claim_length, manager=person.manager)
                    return self.claim(item["PK"], person, now)
                except Refused:
                    continue
            if len(found) < FIRST:
                break
            after = found[-1]["PK"]
        return None

    def release(self, bin_: str, person: Person, now: datetime) -> Item:
        """Gives a claim back. Raises Refused or Transient."""
        return self._change(
            "RELEASED", bin_, now, lambda review, _: (rules.release(review, person.name), {"person": person.name})
        )

    def enter(self, bin_: str, entry: Entry, person: Person, seen: str, now: datetime) -> Entered:
        """Stores what a person said about a bin once, however often it is sent. Raises Refused or Transient.

        `seen` is the version id of the photograph that they looked at.
        """
        rules.check_entry(entry)
        for attempt in range(TRIES):
            key = stored.entry_key(bin_, entry)
            found = self.table.get_many([stored.review_key(bin_), key])
            if before := found.get((bin_, key["SK"])):
                return replayed(before, entry)
            item = found.get((bin_, "REVIEW"))
            if item is None:
                raise unknown()
            try:
                if item["image"]["version_id"] != seen:
                    raise Refused("ANOTHER_PHOTOGRAPH", "a newer photograph of this bin has arrived")
                review = rules.enter(stored.review_of(item), entry, manager=person.manager)
            except Refused as refusal:
                if refusal.code not in LATE or entry.quantity is None:
                    raise
                if self._keep_late(bin_, item, entry, seen, now):
                    return Entered(entry, late=True)
            else:
                said = putting(stored.entry_item(entry, item, late=False), NEW)
                told = {"person": entry.person, "entry": stored.entry_attributes(entry)}
                if self._write("ENTERED", review, item, item, now, said, **told) is None:
                    return Entered(entry, late=False)
            wait(attempt)
        raise Transient(f"the review of {bin_} changed while an entry was stored")

    def undo(self, bin_: str, person: Person, now: datetime) -> Item:
        """Takes the person's entry back: what they said stays in the trail. Raises Refused or Transient."""

        def change(review: Review, _: Item) -> tuple[Review, Item]:
            undone = rules.undo(review, person.name, now, self.claim_length)
            return undone, {"person": person.name, "until": utc(now + self.claim_length)}

        return self._change("UNDONE", bin_, now, change)

    # What people read

    def queue(self, site: str, limit: int, after: str = "") -> list[Item]:
        """The site's open reviews that matter most, or those that matter less than the review of a bin (`after`, its
        PK), which may have ended since. Raises Refused."""
        key, start = {"review_key": stored.queue_key(site)}, None
        if after:
            item = self.table.get(stored.review_key(after), consistent=False)
            if item is None:
                raise unknown()
            start = stored.review_key(after) | key | {"priority": item["priority"]}
        return self.table.in_index("review", key, descending=True, limit=limit, after=start)

    def scores(self, site: str) -> Scores:
        """What the recounts of the site's last months found."""
        key = scores.score_key(site, "", "")["PK"]
        return scores.total(self.table.last(key, scores.MONTHS * SHARDS))

    def trail(self, bin_: str) -> list[Item]:
        """All that happened to a bin's reviews, the oldest first."""
        return list(self.table.beginning(bin_, "TRAIL#"))

    def differences(self, site: str, first: datetime, last: datetime) -> list[Item]:
        """The site's resolved differences of these days, the oldest first."""
        days = [first + timedelta(days=n) for n in range((last.date() - first.date()).days + 1)]
        keys = [stored.difference_key(site, utc(day), "")["PK"] for day in days]
        return [item for key in keys for item in self.table.beginning(key, "DIFFERENCE#")]

    # How it is written

    def _change(
        self, action: str, bin_: str, now: datetime, change: Callable[[Review, Item], tuple[Review, Item]]
    ) -> Item:
        """Applies a rule to a bin's review; `change` gives the new review and what the trail says."""
        for attempt in range(TRIES):
            item = self.table.get(stored.review_key(bin_), consistent=True)
            if item is None:
                raise unknown()
            review, said = change(stored.review_of(item), item)
            if self._write(action, review, item, item, now, **said) is None:
                return stored.review_item(review, int(item["version"]) + 1, item, now)
            wait(attempt)
        raise Transient(f"the review of {bin_} changed too often")

    def _write(
        self, action: str, review: Review, before: Item | None, about: Item, now: datetime, *more: Item, **said: Any
    ) -> int | None:
        """Writes a review with one line of its trail; None when written, else the place of what has changed since."""
        version = int(before["version"]) + 1 if before else 1
        item = stored.review_item(review, version, about, now)
        scored = self._scored(action, before, item, now)
        listed = self._listed(action, review, before or {}, item)
        tallies = [adding(key, numbers) for key, numbers in tally(action, before, item, now)]
        standing = putting(item, "version = :before", before=version - 1) if before else putting(item, NEW)
        line = putting(stored.trail_item(action, now, before, item, **said), NEW)
        if action == "UNDONE" and before and (undone := stored.undone_item(before, said["person"])):
            listed.append(putting(undone, NEW))
        return self.table.together(standing, line, *more, *listed, *scored, *tallies)

    def _scored(self, action: str, before: Item | None, item: Item, now: datetime) -> list[Item]:
        """The change of the site's scores. What a review added is kept in it, so that an undo takes away the same."""
        if action == "ENTERED" and "quantity" in item:
            key = scores.score_key(item["site"], item["PK"], utc(now)[:7])
            item["scored"] = {"SK": key["SK"], **scores.score_of(item)}
            return [adding(key, scores.score_of(item))]
        if action == "UNDONE" and before and "scored" in before:
            added = dict(before["scored"])
            changes = {added.pop("SK"): {name: -value for name, value in added.items()}}
            key = scores.score_key(item["site"], item["PK"], utc(now)[:7])
            del item["scored"]
            if "quantity" in item:  # by the number of another person, which is left
                item["scored"] = {"SK": key["SK"], **scores.score_of(item)}
                numbers = changes.setdefault(key["SK"], {})
                numbers |= {name: numbers.get(name, 0) + value for name, value in scores.score_of(item).items()}
            return [adding(key | {"SK": each}, numbers) for each, numbers in changes.items()]
        return []

    def _listed(self, action: str, review: Review, before: Item, item: Item) -> list[Item]:
        """The change of the export's rows. When a review's row was listed is kept in it, so that an undo removes that
        row even after the record was corrected."""
        was_wrong = before.get("outcome") == Outcome.RECORD_WRONG
        listed_at = before.get("listed_at", before["resolved_at"] if was_wrong else "")  # older reviews have none
        rows = []
        if review.outcome is Outcome.RECORD_WRONG and (action == "UNDONE" or not was_wrong):
            item["listed_at"] = item["resolved_at"]
            rows.append(putting(stored.difference_item(item, review.entries[-1])))
        elif listed_at and action not in ("OPENED", "UNDONE"):
            item["listed_at"] = listed_at
        if action == "UNDONE" and listed_at and listed_at != item.get("listed_at"):
            rows.append(removing(stored.difference_key(item["site"], listed_at, item["PK"])))
        return rows

    def _keep_late(self, bin_: str, item: Item, entry: Entry, seen: str, now: datetime) -> bool:
        """Keeps a recount that came too late for its review, if it is of a photograph of this bin that people saw."""
        shown = [line for line in [item, *self.trail(bin_)] if line.get("image", {}).get("version_id") == seen]
        if not shown:
            raise Refused("ANOTHER_PHOTOGRAPH", "this photograph was never shown for a recount of this bin")
        said = putting(stored.entry_item(entry, {**shown[0], "PK": bin_}, late=True), NEW)
        told = {"person": entry.person, "entry": stored.entry_attributes(entry)}
        review = stored.review_of(item)
        return self._write("LATE", review, item, item, now, said, **told) is None


def unrecorded(latest: Item, item: Item | None) -> tuple[str, Review, Item] | None:
    """As Desk._followed, for a LATEST without a record. The REVIEW goes on being about what people saw."""
    change = rules.follow_unrecorded(stored.review_of(item), latest["order"]) if item else None
    return (*change, item) if change and item else None


def replayed(item: Item, entry: Entry) -> Entered:
    """The stored entry of this id. Raises Refused when another entry has it."""
    found = stored.entry_of(item)
    if (found.person, found.quantity, found.outcome) != (entry.person, entry.quantity, entry.outcome):
        raise Refused("ID_TAKEN", "another entry has this id: make a new one for each entry")
    return Entered(found, late=item["late"])


def unknown() -> Refused:
    return Refused("UNKNOWN", "there is no recount of this bin")


def hashed(text: str) -> float:
    """From 0 to 1, evenly; always the same for the same text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def wait(attempt: int) -> None:
    time.sleep(random.uniform(0.01, 0.03) * 2**attempt)
