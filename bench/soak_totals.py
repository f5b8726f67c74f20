"""The numbers of a site that its overview shows, recomputed from its items: each must be what was added up meanwhile.

What a day compared and agreed is known within bounds alone: a photograph that was its bin's newest for a while may have
been compared with a record then, which only the total remembers.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bintally.answering.overview import RESOLVED, summed
from bintally.aws import items
from bintally.aws.table import Table
from bintally.common.keys import Place
from bintally.reviewing.rules import Outcome
from bintally.reviewing.tallies import waiting_keys

Item = Mapping[str, Any]
Days = defaultdict[str, Counter[str]]
KINDS = ("COUNT#", "LATEST", "RECORD", "REVIEW", "TRAIL#")
ADDED = ("OPENED", Outcome.WITHDRAWN.value, *RESOLVED)


@dataclass(frozen=True)
class Totals:
    """What the site's totals say, and each contradiction to its items."""

    compared: int
    agreed: int
    opened: int
    resolved: int
    waiting: int
    wrong: tuple[str, ...]


def totals_of(table: Table, site: str, bins: Iterable[str], days: Iterable[str]) -> Totals:
    """`days` are all on which photographs were counted or reviews changed. For SiteParts=1, its default."""
    least, most, reviews, waiting = Days(Counter), Days(Counter), Days(Counter), Counter[str]()
    for bin_ in bins:
        pk = items.bin_key(Place(site, bin_, ""))
        found = {str(item["SK"]): item for kind in KINDS for item in table.beginning(pk, kind)}
        for day, low, high in agreements(found):
            least[day].update(low)
            most[day].update(high)
        for day, name, number in changes([item for sk, item in sorted(found.items()) if sk.startswith("TRAIL#")]):
            reviews[day][name] += number
        if stage := found.get("REVIEW", {}).get("tallied"):
            waiting[stage] += 1
    said = {day: summed(table.between(items.day_key(site, day), "REVIEWS#", "TOTALS#~")) for day in days}
    wait = +summed(table.between(waiting_keys(site, 1)[0], "WAITING#", "WAITING#~"))
    wrong = [
        f"{day}: {numbers[name]} {name}, items say {least[day][name]} to {most[day][name]}"
        for day, numbers in said.items()
        for name in ("compared", "agreed")
        if not least[day][name] <= numbers[name] <= most[day][name]
    ]
    wrong += [
        f"{day}: {numbers[name]} {name}, trails say {reviews[day][name]}"
        for day, numbers in said.items()
        for name in ADDED
        if numbers[name] != reviews[day][name]
    ]
    wrong += [f"waiting {dict(wait)}, reviews say {dict(waiting)}"] if wait != waiting else []
    total = sum(said.values(), Counter[str]())
    return Totals(
        compared=total["compared"],
        agreed=total["agreed"],
        opened=total["OPENED"],
        resolved=sum(total[name] for name in RESOLVED),
        waiting=sum(wait.values()),
        wrong=tuple(wrong),
    )


def agreements(found: Mapping[str, Item]) -> Iterator[tuple[str, dict[str, int], dict[str, int]]]:
    """Day, and least and most of what each photograph of a bin added."""
    newest = found.get("LATEST", {})
    for sk, item in found.items():
        if not sk.startswith("COUNT#") or item["status"] != "COUNTED":
            continue
        day = str(item["counted_at"])[:10]
        if item["order"] == newest.get("order"):
            exact = items.agreement(dict(newest))
            yield day, exact, exact
        elif "RECORD" not in found:
            exact = items.agreement(dict(item))
            yield day, exact, exact
        else:
            yield day, {"compared": int("discrepancy" in item)}, {"compared": 1, "agreed": 1}


def changes(trail: Iterable[Item]) -> Iterator[tuple[str, str, int]]:
    """Day, name and number of what a review's trail, the oldest line first, opened and resolved."""
    resolved = "", ""
    for line in trail:
        day, review = str(line["at"])[:10], line["review"]
        if line["action"] == "OPENED":
            yield day, "OPENED", 1
        elif line["action"] == "UNDONE" and line["stage_before"] == "RESOLVED":
            yield *resolved, -1
        elif review["stage"] == "RESOLVED" and line["stage_before"] != "RESOLVED":
            resolved = day, str(review["outcome"])
            yield *resolved, 1
