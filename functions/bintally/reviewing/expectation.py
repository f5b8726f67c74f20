"""What to expect of a list of recounts, and whether it kept what it promised. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from bintally.reviewing.scores import Scores, interval


def expected_wrong(reviews: Iterable[Mapping[str, Any]]) -> float:
    """How many of these records are wrong on average, by their probabilities."""
    return round(sum(1 - float(review["p_record"]) for review in reviews if "p_record" in review), 1)


def so_far(scores: Scores) -> dict[str, Any]:
    """How many of the recounted records of the list were expected to be wrong, and were."""
    found = {"recounted": scores.listed, "expected_wrong": round(scores.listed_expected, 1)}
    return found | {"found_wrong": scores.listed_wrong}


def audit(scores: Scores, given: float) -> dict[str, Any]:
    """What the random audit says of records and model, with 95 % intervals; `given` is the parameter for the share of
    wrong records, which `wrong_share` starts from."""
    return {
        "recounted": scores.audited,
        "records_wrong": measure(scores.audited_wrong, scores.audited),
        "model_right": measure(scores.audited_model_right, scores.audited),
        "expected_wrong": round(scores.audited_expected, 1),
        "wrong_share": round(scores.share(given), 4),
    }


def measure(found: int, of: int) -> dict[str, Any]:
    low, high = interval(found, of)
    return {"found": found, "share": round(found / of, 4) if of else None, "low": round(low, 4), "high": round(high, 4)}
