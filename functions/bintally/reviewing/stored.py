"""The items of reviews. Pure.

REVIEW is a bin's review as it stands. RECOUNT#<id> and ANSWER#<id> are what people said, UNDONE#<id> that they took a
number back, TRAIL#<version> all that happened to the review; these are written once and never changed. DIFFERENCE items
list what a warehouse system has to correct, below their site and day.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from bintally.aws.items import Item
from bintally.common.keys import encode_id, moment, utc
from bintally.reviewing.rules import Claim, Entry, Outcome, Reason, Review, Stage, index_of

SEEN = (
    *("image", "captured_at", "model_version", "count", "evidence", "direction", "likely_size", "p_record", "priority"),
    *("recorded_from", "recorded_as_of", "recorded_value", "flags"),
)
"""What a review takes over from LATEST: the image version that people see, and what the model and the record say."""


def review_key(bin_: str) -> Item:
    return {"PK": bin_, "SK": "REVIEW"}


def entry_key(bin_: str, entry: Entry) -> Item:
    """Only a quantity is a recount, which labels the photograph."""
    kind = "ANSWER" if entry.quantity is None else "RECOUNT"
    return {"PK": bin_, "SK": f"{kind}#{entry.id}"}


def difference_key(site: str, at: str, bin_: str) -> Item:
    """`at` as `utc` spells it; `bin_` is the bin's PK."""
    return {
        "PK": f"DAY#{encode_id(site)}#{at[:10]}",
        "SK": f"DIFFERENCE#{at}#{hashlib.sha256(bin_.encode()).hexdigest()[:16]}",
    }


def queue_key(site: str) -> str:
    """Lists a site's open reviews in the index `review`, by priority."""
    return f"REVIEW#{encode_id(site)}"


def review_item(review: Review, version: int, about: Item, now: datetime) -> Item:
    """`about` is LATEST or the REVIEW before: it says where the bin is and what was seen there."""
    waiting = review.stage is not Stage.RESOLVED
    resolved_at = about.get("resolved_at", utc(now))  # a later line of the trail does not resolve it again
    outcome, found = review.outcome, review.found
    return {
        **review_key(about["PK"]),
        **{name: about[name] for name in ("site", "bin", *SEEN, "scored") if name in about},
        **({"review_key": queue_key(about["site"])} if waiting else {"resolved_at": resolved_at}),
        "version": version,
        "stage": review.stage.value,
        **({} if outcome is None else {"outcome": outcome.value}),
        **({} if found is None else {"quantity": found}),
        "photograph": review.photograph,
        "recorded_quantity": review.recorded,
        "tolerance": review.tolerance,
        "entries": [entry_attributes(entry) for entry in review.entries],
        **({} if review.claim is None else {"claim": claim_attributes(review.claim)}),
        "withdrawn": review.withdrawn,
        "audit": review.audit,
        "audits": review.audits,
    }


def review_of(item: Item) -> Review:
    claimed = item.get("claim")
    return Review(
        photograph=item["photograph"],
        recorded=int(item["recorded_quantity"]),
        tolerance=int(item["tolerance"]),
        entries=tuple(map(entry_of, item["entries"])),
        claim=Claim(claimed["person"], moment(claimed["until"])) if claimed else None,
        withdrawn=item["withdrawn"],
        audit=item.get("audit", ""),  # reviews of older versions have none
        audits=item.get("audits", False),
    )


def entry_attributes(entry: Entry) -> Item:
    return {
        "id": entry.id,
        "person": entry.person,
        "at": utc(entry.at),
        **({} if entry.quantity is None else {"quantity": entry.quantity}),
        **({} if entry.outcome is None else {"outcome": entry.outcome.value}),
        **({} if entry.reason is None else {"reason": entry.reason.value}),
        **({"note": entry.note} if entry.note else {}),
    }


def entry_of(attributes: Mapping[str, Any]) -> Entry:
    return Entry(
        id=attributes["id"],
        person=attributes["person"],
        at=moment(attributes["at"]),
        quantity=int(attributes["quantity"]) if "quantity" in attributes else None,
        outcome=Outcome(attributes["outcome"]) if "outcome" in attributes else None,
        reason=Reason(attributes["reason"]) if "reason" in attributes else None,
        note=attributes.get("note", ""),
    )


def claim_attributes(claim: Claim) -> Item:
    return {"person": claim.person, "until": utc(claim.until)}


def entry_item(entry: Entry, seen: Item, *, late: bool) -> Item:
    """`seen` is the image version that the person looked at, with when it was taken: a label names its photograph.

    `late`: it came when the review had gone on without it. `audits`: the bin was drawn at random, which its label says.
    """
    named: Item = {"recounted_at": utc(entry.at)} if entry.quantity is not None else {}
    named |= {"audits": True} if seen.get("audits") else {}
    return {**entry_key(seen["PK"], entry), **entry_attributes(entry), **named, **of_photograph(seen), "late": late}


def undone_item(before: Item, person: str) -> Item | None:
    """Says of a person's number in a REVIEW that they took it back: its label is withdrawn. None if there was none."""
    (entry,) = [found for found in map(entry_of, before["entries"]) if found.person == person]
    if entry.quantity is None:
        return None
    recount = entry_item(entry, before, late=False)
    names = ("site", "bin", "image", "captured_at", "model_version", "person", "quantity", "recounted_at")
    found = {name: recount[name] for name in names if name in recount}
    return {"PK": before["PK"], "SK": f"UNDONE#{entry.id}", **found}


def of_photograph(about: Item) -> Item:
    return {name: about[name] for name in ("site", "bin", "image", "captured_at", "model_version") if name in about}


def trail_item(action: str, at: datetime, before: Item | None, item: Item, **said: Any) -> Item:
    """One line of a bin's trail: who did what, what they saw, and how the review stands since."""
    kept = (
        "stage",
        "outcome",
        "quantity",
        "photograph",
        "recorded_quantity",
        "tolerance",
        "count",
        "evidence",
        "p_record",
        "priority",
        "audit",
        "audits",
    )
    return {
        "PK": item["PK"],
        "SK": f"TRAIL#{int(item['version']):08d}",
        "action": action,
        "at": utc(at),
        **said,
        **of_photograph(item),
        "review": {name: item[name] for name in kept if name in item},
        "stage_before": before["stage"] if before else "NONE",
    }


def difference_item(item: Item, entry: Entry) -> Item:
    """A row of the export, from a REVIEW that ended in RECORD_WRONG by `entry`."""
    recorded, counted = int(item["recorded_quantity"]), int(item["quantity"])
    return {
        **difference_key(item["site"], item["resolved_at"], item["PK"]),
        **of_photograph(item),
        "recorded_quantity": recorded,
        "counted_quantity": counted,
        "difference": counted - recorded,
        **({"recorded_as_of": item["recorded_as_of"]} if "recorded_as_of" in item else {}),
        **({"reason": entry.reason.value} if entry.reason else {}),
        **({"note": entry.note} if entry.note else {}),
        "counted_by": [each["person"] for each in item["entries"]],
        "resolved_at": item["resolved_at"],
        "id": entry.id,
    }


def begun(said: Mapping[str, Any]) -> Review:
    audit = {"audit": said.get("audit", ""), "audits": said.get("audits", False)}
    return Review(said["photograph"], int(said["recorded_quantity"]), int(said["tolerance"]), **audit)


def replay(trail: Iterable[Item]) -> Review | None:
    """The review to which a bin's trail leads. TRAIL items by their SK."""
    review: Review | None = None
    for line in trail:
        said = line["review"]
        match line["action"]:
            case "OPENED":
                review = begun(said)
            case "CHANGED" | "CORRECTED" if review:
                review = replace(review, recorded=int(said["recorded_quantity"]))
            case "WITHDRAWN":
                review = replace(begun(said), withdrawn=True)
            case "CLAIMED" if review:
                review = replace(review, claim=Claim(line["person"], moment(line["until"])))
            case "RELEASED" if review:
                review = replace(review, claim=None)
            case "ENTERED" if review:
                review = replace(review, entries=(*review.entries, entry_of(line["entry"])), claim=None)
            case "UNDONE" if review:
                back = Claim(line["person"], moment(line["until"]))
                review = replace(review, entries=review.entries[: index_of(review.entries, line["person"])], claim=back)
    return review
