"""Numbers of reviews for the overview: how many wait, by stage, and what each day opened and resolved. Pure.

They are added in the transaction that writes a review. What a review has added stays in it, so that each change takes
away exactly that: `tallied`, the stage in which it waits, and `resolved_as`, the day and the outcome of its resolution.
A review of an older release, which lacks both, is counted from its next change on.
"""

import hashlib
from datetime import datetime

from bintally.aws.items import SHARDS, Item, day_key
from bintally.common.keys import encode_id, utc
from bintally.reviewing.rules import Stage


def waiting_key(site: str) -> str:
    """Lists the numbers of a site's reviews that wait."""
    return f"WAITING#{encode_id(site)}"


def reviews_key(site: str, bin_: str, day: str) -> Item:
    """A part of what a day opened and resolved."""
    return {"PK": day_key(site, day), "SK": f"REVIEWS#{shard(bin_)}"}


def shard(bin_: str) -> str:
    """One of those that share a number, so that people who write at once seldom wait for each other."""
    return f"{int.from_bytes(hashlib.sha256(bin_.encode()).digest()[:4], 'big') % SHARDS:02d}"


def tally(action: str, before: Item | None, item: Item, now: datetime) -> list[tuple[Item, Item]]:
    """What a change of a review adds: keys, and numbers by attribute. Notes it in `item`, the REVIEW to be written."""
    site, bin_, before = item["site"], item["PK"], before or {}
    resolved = item["stage"] == Stage.RESOLVED
    was, now_is = before.get("tallied", ""), "" if resolved else item["stage"]
    added: list[tuple[Item, Item]] = []
    if was != now_is:
        waiting = {"PK": waiting_key(site), "SK": f"WAITING#{shard(bin_)}"}
        added.append((waiting, {stage: n for stage, n in ((was, -1), (now_is, 1)) if stage}))
    if now_is:
        item["tallied"] = now_is
    day = utc(now)[:10]
    if action == "OPENED":
        added.append((reviews_key(site, bin_, day), {"OPENED": 1}))
    elif action == "UNDONE" and "resolved_as" in before:
        done = before["resolved_as"]
        added.append((reviews_key(site, bin_, done["day"]), {done["outcome"]: -1}))
    elif resolved and before.get("stage") != Stage.RESOLVED:
        item["resolved_as"] = {"day": day, "outcome": item["outcome"]}
        added.append((reviews_key(site, bin_, day), {item["outcome"]: 1}))
    elif resolved and "resolved_as" in before:
        item["resolved_as"] = before["resolved_as"]
    return added
