"""The overview of a site: what waits, what was counted, how far it agrees with the records, and what recounts found.

It reads the numbers that counts and reviews add up as they are written: as much for a thousand bins as for a million.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from bintally.answering.recounts import number
from bintally.answering.requests import Caller
from bintally.aws.items import Item, day_key
from bintally.common.parts import site_parts, spread
from bintally.reviewing.desk import Desk
from bintally.reviewing.expectation import expected_wrong, so_far
from bintally.reviewing.rules import Outcome, Stage
from bintally.reviewing.tallies import waiting_key

MOST_DAYS = 90
FIRST = 30
"""The recounts about which the overview says how many records to expect wrong."""
WORKERS = 8  # within the 10 connections of a client
COUNTED = ("counted", "rejected", "compared", "agreed")
"""Photographs by the day on which they were counted: how many have a record to compare with, and agree with it."""
UNCLEAR = "retake"
"""Counted photographs that say too little: a new one is asked for."""
RESOLVED = tuple(outcome.value for outcome in Outcome if outcome is not Outcome.WITHDRAWN)
"""Reviews that people ended, by the day on which they did."""
WAITING = (Stage.FIRST, Stage.SECOND, Stage.MANAGER)


@dataclass(frozen=True)
class Overview:
    """The answer about one site."""

    desk: Desk
    site: str
    caller: Caller

    def answer(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Days are those of UTC, the oldest first, today the last.

        Only managers see by whom bins are to be counted, and how many of the first FIRST records are expected to be
        wrong: who counts would learn from it that their number was not the record's.
        """
        self.caller.check("viewer")
        count = number(query.get("days", "30"), "days", 1, MOST_DAYS)
        today = datetime.now(UTC).date()
        days = [today - timedelta(days=back) for back in reversed(range(count))]
        with ThreadPoolExecutor(WORKERS) as workers:
            waiting = workers.submit(self.desk.table.between, waiting_key(self.site), "WAITING#", "WAITING#~")
            of_days = list(workers.map(self._day, days))
        by_stage = summed(waiting.result())
        stages = {stage.lower(): by_stage[stage] for stage in WAITING}
        total: Counter[str] = Counter()
        for each in of_days:
            total.update(each)
        return {
            "site": self.site,
            "today": str(today),
            "waiting": sum(stages.values()),
            **(self._for_managers(stages) if self.caller.person.manager else {}),
            "days": [{"day": str(day), **told(each)} for day, each in zip(days, of_days, strict=True)],
            "all_days": told(total),
        }

    def _for_managers(self, stages: Mapping[str, int]) -> dict[str, Any]:
        first = self.desk.queue(self.site, FIRST)
        expected = {"first": len(first), "expected_wrong": round(expected_wrong(first), 1)}
        return {"waiting_by_stage": stages, **expected, "so_far": so_far(self.desk.scores(self.site))}

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
