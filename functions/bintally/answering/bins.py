"""What people read of bins: a site's bins page by page, and the history of one.

People who count are blind. Of a bin they see its photographs and when these were taken, and nothing else until people
have found in a review of its newest photograph what its present record should say, and nobody can take that back any
more: a bin that nobody reviews now, or that nobody could count, may be drawn for recount next, so its record and counts
are not shown either. Managers see everything.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import Any

from bintally.answering.copies import Copies
from bintally.answering.problems import Problem, wrong
from bintally.answering.recounts import number, shown
from bintally.answering.requests import Caller, decoded, encoded
from bintally.aws import items
from bintally.aws.items import Item, bin_key
from bintally.aws.recorded import to_compare
from bintally.aws.table import Table
from bintally.common.keys import Place, encode_id, fold, moment
from bintally.common.parts import site_parts, spread
from bintally.reviewing.rules import is_settled

MOST_BINS = 100
MOST_PHOTOGRAPHS = 50
MOST_LINES = 100
"""Of a trail, the newest."""
LONGEST_PREFIX = 100
"""Characters."""
WORKERS = 8  # within the 10 connections of a client
COUNTED = (
    *("status", "reason", "flags", "count", "is_minimum", "expected_capped", "confidence", "probabilities"),
    *("recorded_quantity", "recorded_from", "recorded_as_of", "recorded_value", "p_record", "direction", "likely_size"),
    *("discrepancy", "model_version", "counted_at"),
)
"""What the model and the record say of a photograph."""
RECORDED = ("expected_quantity", "as_of", "value", "source")
REVIEWED = ("stage", "outcome", "quantity", "recorded_quantity", "priority", "resolved_at", "claim")


@dataclass(frozen=True)
class Bins:
    """The answers about the bins of one site."""

    table: Table
    copies: Copies
    site: str
    caller: Caller
    claim_length: timedelta
    """For so long an entry can be taken back."""

    def listed(self, query: Mapping[str, str]) -> dict[str, Any]:
        """The bins that have a count, by their ids, with their newest photograph."""
        self.caller.check("viewer")
        limit = number(query.get("limit", "25"), "limit", 1, MOST_BINS)
        prefix = query.get("prefix", "")
        if len(prefix) > LONGEST_PREFIX:
            raise wrong(f"prefix has at most {LONGEST_PREFIX} characters")
        of_site = bin_key(Place(self.site, "", ""))
        begin = of_site + (encode_id(prefix) if fold(prefix) else "")
        first = max(begin, of_site + decoded(query["cursor"]) + "\0") if "cursor" in query else begin
        parts = spread(items.site_key(self.site), site_parts())
        listed = [self.table.bins(part, first, begin + "\U0010ffff", limit + 1) for part in parts]
        merged = list(islice(merge(*listed, key=itemgetter("PK")), limit + 1))
        found, more = merged[:limit], len(merged) > limit
        thumbnails = self._links(self.copies.thumbnail, found)
        return {
            "bins": [
                {"bin": item["bin"], "captured_at": item["captured_at"], "thumbnail": thumbnail}
                | (chosen(item, COUNTED) if self.caller.person.manager else {})
                for item, thumbnail in zip(found, thumbnails, strict=True)
            ],
            "cursor": encoded(found[-1]["PK"].removeprefix(of_site)) if more else None,
        }

    def one(self, bin_: str, query: Mapping[str, str]) -> dict[str, Any]:
        """A bin's photographs, the newest first, and what may be told of them.

        The photographs are read before the review: none that is newer than what people reviewed is shown.
        """
        self.caller.check("viewer")
        limit = number(query.get("limit", "10"), "limit", 1, MOST_PHOTOGRAPHS)
        pk = bin_key(Place(self.site, bin_, ""))
        after = {"PK": pk, "SK": f"COUNT#{decoded(query['cursor'])}"} if "cursor" in query else None
        found, more = self.table.page(pk, "COUNT#", limit, after=after, newest=True)
        standing = self.table.get_many({"PK": pk, "SK": kind} for kind in ("LATEST", "RECORD", "REVIEW"))
        latest, record, review = (standing.get((pk, kind)) for kind in ("LATEST", "RECORD", "REVIEW"))
        if not found and latest is None and record is None:
            raise Problem(404, "UNKNOWN", "there is no photograph and no record of this bin")
        until = self._told_until(latest, record, review)
        copies = self._links(self.copies.link, found)
        thumbnails = self._links(self.copies.thumbnail, found)
        answer: dict[str, Any] = {
            "site": self.site,
            "bin": next((item["bin"] for item in (latest, *found, record) if item), bin_),
            "photographs": [
                photograph(item, copy, thumbnail) | (chosen(item, COUNTED) if item["order"] <= until else {})
                for item, copy, thumbnail in zip(found, copies, thumbnails, strict=True)
            ],
            "cursor": encoded(found[-1]["SK"].removeprefix("COUNT#")) if more else None,
            "blind": not until,
        }
        if until:
            lines, _ = self.table.page(pk, "TRAIL#", MOST_LINES, newest=True)
            answer |= {
                "record": chosen(record, RECORDED) if record else None,
                "review": chosen(review, REVIEWED) if review else None,
                "trail": [shown(line) for line in reversed(lines)],
            }
        return answer

    def _told_until(self, latest: Item | None, record: Item | None, review: Item | None) -> str:
        """The order of the newest photograph about which the caller may be told; "" when of none."""
        if self.caller.person.manager:
            return "~"  # after every digit
        if latest is None or review is None or "quantity" not in review:
            return ""
        if not is_settled(datetime.now(UTC), moment(review["resolved_at"]), self.claim_length):
            return ""
        reviewed = (review["photograph"], int(review["recorded_quantity"]))
        if reviewed != (latest["order"], latest.get("recorded_quantity")) or to_compare(record, latest):
            return ""
        return str(review["photograph"])

    def _links(self, link: Callable[[Mapping[str, Any]], str], found: Sequence[Item]) -> Iterable[str | None]:
        """None for a photograph that cannot be shown."""

        def or_none(item: Item) -> str | None:
            try:
                return link(item["image"])
            except Problem:
                return None

        with ThreadPoolExecutor(WORKERS) as workers:
            return list(workers.map(or_none, found))


def sites(table: Table, caller: Caller) -> dict[str, Any]:
    """The caller's sites: those that have counts, and those that the caller's groups name."""
    caller.check("viewer")
    counted = [str(item["site"]) for item in table.beginning(items.SITES, "SITE#")]
    named = {fold(site): site for site in (*caller.named, *counted) if caller.may_see(site)}
    return {"sites": [{"site": named[key]} for key in sorted(named)]}


def photograph(item: Item, copy: str | None, thumbnail: str | None) -> dict[str, Any]:
    """A photograph as anybody may see it."""
    return {
        **chosen(item, ("captured_at", "uploaded_at")),
        "image_version": item["image"]["version_id"],
        "digest": item["image"].get("digest"),
        "photograph": copy,
        "thumbnail": thumbnail,
    }


def chosen(item: Item, names: Iterable[str]) -> dict[str, Any]:
    return {name: item[name] for name in names if name in item}
