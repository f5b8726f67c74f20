"""What to expect of the first bins of `bintally counts --recount`, and which of them people have settled."""

from collections.abc import Iterable, Iterator
from typing import Any

from bintally.common.keys import encode_id
from bintally.reviewing.expectation import so_far
from bintally.reviewing.scores import MONTHS, Scores, total
from boto3.dynamodb.conditions import Key

from cli.readings import Count, pages
from cli.recounts import kept

SHARDS_OF_MONTHS = MONTHS * 16
UNCOUNTABLE = ("CANNOT_COUNT", "RETAKE")
"""Outcomes that ask for a new photograph."""


def scores_of(table: Any, site: str) -> Scores:
    """What the recounts of a site's last months found."""
    query = {"KeyConditionExpression": Key("PK").eq(f"SCORE#{encode_id(site)}"), "ScanIndexForward": False}
    return total(table.query(**query, Limit=SHARDS_OF_MONTHS)["Items"])


def reviewed(table: Any, count: Count) -> tuple[str, int | None]:
    """What people have said by this very photograph: the outcome, "" if there is none, and the record that they judged.
    A request."""
    review = next(pages(table, KeyConditionExpression=Key("PK").eq(count["PK"]) & Key("SK").eq("REVIEW")), None)
    if review is None or review["photograph"] != count["order"]:
        return "", None
    return review.get("outcome", ""), review["recorded_quantity"]


def unsettled(table: Any, counts: Iterable[Count]) -> Iterator[Count]:
    """The counts but for those by whose very photograph people have judged the record, or could not: nothing is left
    to recount."""
    for count in counts:
        outcome, recorded = reviewed(table, count)
        judged = outcome in ("RECORD_RIGHT", "RECORD_WRONG") and recorded == count["recorded_quantity"]
        if not judged and outcome not in UNCOUNTABLE:
            yield count


def is_asked_for(table: Any, count: Count) -> bool:
    """Whether a person asks for another photograph than this. A request, if its bin can have been recounted."""
    return "priority" in count and reviewed(table, count)[0] in UNCOUNTABLE


def sentences(counts: list[Count], scores: dict[str, Scores]) -> Iterator[str]:
    """Of the first so many about so many are wrong; and whether such promises were kept. `scores` by site."""
    expected = sum(p_wrong(count, scores[count["site"]]) for count in counts)
    yield f"Of these {len(counts)} records, about {expected:.0f} are wrong."
    found = [so_far(each) for each in scores.values()]
    names = ("recounted", "expected_wrong", "found_wrong")
    yield kept({name: sum(each[name] for each in found) for name in names})


def p_wrong(count: Count, scores: Scores) -> float:
    """The probability that the record is wrong, with the share of wrong records that the site's audit says."""
    wrong = 1 - float(count["p_record"])
    evidence = float(count.get("evidence", 0))
    if not 0 < wrong < 1 or not evidence:
        return wrong  # of an older version
    given = wrong / (wrong + (1 - wrong) * evidence)
    odds = (share := scores.share(given)) / (1 - share) * evidence
    return odds / (1 + odds)
