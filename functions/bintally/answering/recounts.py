"""What people and machines do with reviews over the HTTP API.

Counters are blind: no answer to them contains a record, a count, a probability, a priority or another person's number.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from bintally.answering.copies import Copies
from bintally.answering.problems import Problem, wrong
from bintally.answering.requests import Caller, checked, decoded, encoded, place, text_of
from bintally.aws.items import Item, bin_key
from bintally.common.keys import Place
from bintally.reviewing.desk import Desk
from bintally.reviewing.expectation import audit, expected_wrong, so_far
from bintally.reviewing.rules import LONGEST_NOTE, Entry, Outcome, Reason

MOST_DAYS = 31
MOST_LISTED = 100
LONGEST_ENTRY_ID = 64


@dataclass(frozen=True)
class Recounts:
    """The answers about the reviews of one site."""

    desk: Desk
    copies: Copies
    site: str
    caller: Caller

    def listed(self, query: Mapping[str, str]) -> dict[str, Any]:
        """The open reviews page by page; a cursor names the last bin of a page. Managers see those that matter most
        first, and why, and how many records of a page to expect wrong. Others see the MOST_LISTED that matter most by
        their names, since the order would tell which records are most likely wrong, and without those that they have
        counted, since a bin that waits for a second person would tell that their number was not the record's."""
        self.caller.check("viewer")
        limit = number(query.get("limit", "50"), "limit", 1, MOST_LISTED)
        after = self._of_site() + decoded(query["cursor"]) if "cursor" in query else ""
        if self.caller.person.manager:
            more = self.desk.queue(self.site, limit + 1, after)
        else:
            waiting = sorted(uncounted_by(self.caller, self.desk, self.site), key=lambda item: str(item["PK"]))
            more = [item for item in waiting if item["PK"] > after]
        found = more[:limit]
        cursor = {"cursor": encoded(found[-1]["PK"].removeprefix(self._of_site())) if len(more) > limit else None}
        if not self.caller.person.manager:
            return {"recounts": [blind(item) for item in found], **cursor}
        promise = {"expected_wrong": expected_wrong(found), "so_far": so_far(self.desk.scores(self.site))}
        return {"recounts": [whole(item) for item in found], **cursor, **promise}

    def audit(self) -> dict[str, Any]:
        """What the random audit of the last months says of records and model."""
        self.caller.check("manager")
        scores = self.desk.scores(self.site)
        return {"site": self.site, **audit(scores, self.desk.table.share), "so_far": so_far(scores)}

    def claim(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Claims the bin that `bin` names, or one of the first that are not in `skip`.

        `photograph` is null where it was deleted: the person says that they cannot count it, and the queue goes on.
        """
        self.caller.check("counter")
        skip = body.get("skip", [])
        if not isinstance(skip, list) or not all(isinstance(each, str) for each in skip):
            raise wrong("skip must be a list of bins")
        person, now = self.caller.person, datetime.now(UTC)
        if "bin" in body:
            item: Item | None = self.desk.claim(self._bin(body), person, now)
        else:
            item = self.desk.claim_next(self.site, person, now, {bin_key(place(self.site, each)) for each in skip})
        if item is None:
            raise Problem(404, "NOTHING_LEFT", "no bin of this site needs a recount by you now")
        try:
            photograph: str | None = self.copies.link(item["image"])
        except Problem:
            photograph = None
        return blind(item) | {"claimed_until": item["claim"]["until"], "photograph": photograph}

    def release(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self.caller.check("counter")
        self.desk.release(self._bin(body), self.caller.person, datetime.now(UTC))
        return {"released": True}

    def enter(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Stores an entry once; the same entry sent again gets the same answer."""
        self.caller.check("counter")
        now = datetime.now(UTC)
        entry = Entry(
            id=text_of(body, "id", longest=LONGEST_ENTRY_ID),
            person=self.caller.person.name,
            at=now,
            quantity=body.get("quantity"),
            outcome=one_of(Outcome, body, "outcome"),
            reason=one_of(Reason, body, "reason"),
            note=text_of(body, "note", longest=LONGEST_NOTE, default=""),
        )
        seen = text_of(body, "image_version", longest=1024)
        entered = self.desk.enter(self._bin(body), entry, self.caller.person, seen, now)
        return {"id": entered.entry.id, "stored": True, "late": entered.late}

    def undo(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self.caller.check("counter")
        self.desk.undo(self._bin(body), self.caller.person, datetime.now(UTC))
        return {"undone": True}

    def trail(self, query: Mapping[str, str]) -> dict[str, Any]:
        """All that happened to a bin's reviews."""
        self.caller.check("manager")
        bin_ = bin_key(place(self.site, checked(query.get("bin", ""))))
        return {"trail": [shown(line) for line in self.desk.trail(bin_)]}

    def differences(self, query: Mapping[str, str]) -> dict[str, Any]:
        """What a warehouse system has to correct, by the day on which it was resolved (UTC)."""
        self.caller.check("manager")
        last = day(query.get("last"), datetime.now(UTC).date())
        first = day(query.get("first"), last - timedelta(days=6))
        if not 0 <= (last - first).days < MOST_DAYS:
            raise wrong(f"first must be before last, by less than {MOST_DAYS} days")
        found = self.desk.differences(self.site, midnight(first), midnight(last))
        return {"first": str(first), "last": str(last), "differences": [shown(row) for row in found]}

    def _of_site(self) -> str:
        return bin_key(Place(self.site, "", ""))

    def _bin(self, body: Mapping[str, Any]) -> str:
        return bin_key(place(self.site, body.get("bin")))


def uncounted_by(caller: Caller, desk: Desk, site: str) -> list[Item]:
    """Of the MOST_LISTED open reviews that matter most, those in which the caller has said nothing."""
    found = desk.queue(site, MOST_LISTED)
    return [item for item in found if all(entry["person"] != caller.person.name for entry in item["entries"])]


def blind(item: Item) -> dict[str, Any]:
    """A review as anybody may see it."""
    return {
        **{name: item[name] for name in ("site", "bin", "captured_at")},
        "image_version": item["image"]["version_id"],
        "digest": item["image"].get("digest"),
    }


def whole(item: Item) -> dict[str, Any]:
    """A review as a manager sees it."""
    names = (
        "stage",
        "flags",
        "recorded_quantity",
        "count",
        "p_record",
        "direction",
        "likely_size",
        "priority",
        "model_version",
    )
    said = [{name: entry[name] for name in entry if name != "note"} for entry in item["entries"]]
    return blind(item) | {name: item[name] for name in names if name in item} | {"entries": said}


def shown(item: Item) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in ("PK", "SK")}


def one_of(kind: Any, body: Mapping[str, Any], name: str) -> Any:
    """Raises Problem."""
    if (text := body.get(name)) is None:
        return None
    if text not in list(kind):
        raise wrong(f"{name} must be one of {', '.join(kind)}")
    return kind(text)


def number(text: str, name: str, least: int, most: int) -> int:
    """Raises Problem."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise wrong(f"{name} must be a number from {least} to {most}")
    return int(text)


def day(text: str | None, default: date) -> date:
    """Raises Problem."""
    if text is None:
        return default
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise wrong(f"{text[:40]!r} is not a date like 2026-11-22") from error


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
