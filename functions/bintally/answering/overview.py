"""The overview of a site: what waits, what was counted, how far it agrees with the records, and what recounts found.

It reads the numbers that counts and reviews add up as they are written: as much for a thousand bins as for a million.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from bintally.answering.recounts import midnight, number, uncounted_by
from bintally.answering.requests import Caller
from bintally.aws.items import Item, day_key
from bintally.common.parts import site_parts, spread
from bintally.reviewing.desk import Desk
from bintally.reviewing.expectation import expected_wrong, so_far
from bintally.reviewing.rules import Outcome, Stage, is_settled
from bintally.reviewing.tallies import waiting_keys

MOST_DAYS = 90
FIRST = 30
"""The recounts about which the overview says how many records to expect wrong."""
WORKERS = 8  # within the 10 connections of a client
FEW = 20
"""Comparisons of a day, below which they would say what the model makes of one photograph's record."""
COUNTED = ("counted", "rejected", "compared", "agreed")
"""Photographs by the day on which they were counted: how many have a record to compare with, and agree with it."""
UNCLEAR = "retake"
"""Counted photographs that say too little: a new one is asked for."""
RESOLVED = tuple(outcome.value for outcome in Outcome if outcome is not Outcome.WITHDRAWN)
"""Reviews that people ended, by the day on which they did."""
UNTOLD = {name: None for name in ("recounted", *(outcome.lower() for outcome in RESOLVED))}
"""Of a day about which those who count may not be told."""
WAITING = (Stage.FIRST, Stage.SECOND, Stage.MANAGER)


@dataclass(frozen=True)
class Overview:
    """The answer about one site."""

    desk: Desk
    site: str
    caller: Caller

    def answer(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Days are those of UTC, the oldest first, today the last.

        Only managers see by whom bins are to be counted, how many of the first FIRST records are expected to be wrong,
        and what recounts found that may be taken back: who counts would learn from it whether their number was the
        record's. For the same reason, what waits for them is what they have not counted, MOST_LISTED at most, and the
        comparisons of today, or of a day with fewer than FEW, are managers': they would say it of one photograph.
        """
        self.caller.check("viewer")
        count = number(query.get("days", "30"), "days", 1, MOST_DAYS)
        now = datetime.now(UTC)
        days = [now.date() - timedelta(days=back) for back in reversed(range(count))]
        with ThreadPoolExecutor(WORKERS) as workers:
            waiting = workers.submit(self._for_managers if self.caller.person.manager else self._for_others)
            of_days = list(workers.map(self._day, days))
        open_days = set() if self.caller.person.manager else {day for day in days if not self._is_settled(day, now)}
        for day, each in zip(days, of_days, strict=True):
            if day in open_days:
                for outcome in RESOLVED:
                    del each[outcome]
            if not self.caller.person.manager and (day == now.date() or each["compared"] < FEW):
                del each["compared"], each["agreed"]
        total: Counter[str] = Counter()
        for each in of_days:
            total.update(each)
        return {
            "site": self.site,
            "today": str(now.date()),
            **waiting.result(),
            "days": [
                {"day": str(day), **told(each), **(UNTOLD if day in open_days else {})}
                for day, each in zip(days, of_days, strict=True)
            ],
            "all_days": told(total),
        }

    def _for_managers(self) -> dict[str, Any]:
        parts = waiting_keys(self.site, site_parts())
        by_stage = summed(item for part in parts for item in self.desk.table.between(part, "WAITING#", "WAITING#~"))
        stages = {stage.lower(): by_stage[stage] for stage in WAITING}
        first = self.desk.queue(self.site, FIRST)
        return {
            "waiting": sum(stages.values()),
            "waiting_by_stage": stages,
            "first": len(first),
            "expected_wrong": round(expected_wrong(first), 1),
            "so_far": so_far(self.desk.scores(self.site)),
        }

    def _for_others(self) -> dict[str, Any]:
        return {"waiting": len(uncounted_by(self.caller, self.desk, self.site))}

    def _is_settled(self, day: date, now: datetime) -> bool:
        """Whether no entry of this day can be taken back any more."""
        return is_settled(now, midnight(day + timedelta(days=1)), self.desk.claim_length)

    def _day(self, day: date) -> Counter[str]:
        parts = spread(day_key(self.site, str(day)), site_parts())
        return summed(item for part in parts for item in self.desk.table.between(part, "REVIEWS#", "TOTALS#~"))


def summed(found: Iterable[Item]) -> Counter[str]:
    """The numbers of all items, by attribute."""
    total: Counter[str] = Counter()
    for item in found:
        total.update({name: int(value) for name, value in item.items() if name not in ("PK", "SK")})
    return total


def told(total: Mapping[str, int]) -> dict[str, Any]:
    """Numbers and shares of a day, or of several. A share of nothing is null."""
    resolved = {name.lower(): total.get(name, 0) for name in RESOLVED}
    recounted = sum(resolved.values())
    again = resolved[Outcome.RETAKE.lower()] + resolved[Outcome.CANNOT_COUNT.lower()]
    counted = {name: total.get(name, 0) for name in COUNTED}
    photographs = counted["counted"] + counted["rejected"]
    return {
        **counted,
        "unclear": total.get(UNCLEAR, 0),
        "opened": total.get("OPENED", 0),
        "withdrawn": total.get(Outcome.WITHDRAWN, 0),
        "recounted": recounted,
        **resolved,
        "agreement": share(counted["agreed"], counted["compared"]),
        "rejected_share": share(counted["rejected"], photographs),
        "unclear_share": share(total.get(UNCLEAR, 0), photographs),
        "retake_share": share(again, recounted),
    }


def share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
