"""Numbers of reviews for the overview: how many wait, by stage, and what each day opened and resolved. Pure.

They are added in the transaction that writes a review, to items that SITE_PARTS spreads as it spreads day totals. What
a review has added stays in it, so that each change takes away exactly that: `tallied`, the stage in which it waits,
and `resolved_as`, the day and the outcome of its resolution. A review of an older release, which lacks both, is
counted from its next change on.
"""

import hashlib
from datetime import datetime

from bintally.aws.items import SHARDS, Item, day_key
from bintally.common.keys import encode_id, utc
from bintally.common.parts import part_of, site_parts, spread
from bintally.reviewing.rules import Stage


def waiting_keys(site: str, parts: int) -> list[str]:
    """The partition keys of the numbers of a site's reviews that wait."""
    return spread(f"WAITING#{encode_id(site)}", parts)


def waiting_key(site: str, bin_: str, parts: int) -> Item:
    """The number of a site's reviews that wait to which a bin's belongs."""
    return {"PK": part_of(f"WAITING#{encode_id(site)}", bin_, parts), "SK": f"WAITING#{shard(bin_)}"}


def reviews_key(site: str, bin_: str, day: str) -> Item:
    """What a day opened and resolved, of the bins that share a number with this one."""
    return {"PK": part_of(day_key(site, day), bin_, site_parts()), "SK": f"REVIEWS#{shard(bin_)}"}


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
        stages = {stage: n for stage, n in ((was, -1), (now_is, 1)) if stage}
        added.append((waiting_key(site, bin_, site_parts()), stages))
    if now_is:
        item["tallied"] = now_is
    day = utc(now)[:10]
    if action == "OPENED":
        added.append((reviews_key(site, bin_, day), {"OPENED": 1}))
    elif action == "UNDONE" and "resolved_as" in before:
        done = before["resolved_as"]
        ended = {done["outcome"]: -1}
        if resolved:  # the number that is left agrees with a record that was corrected meanwhile
            item["resolved_as"] = done | {"outcome": item["outcome"]}
            ended[item["outcome"]] = ended.get(item["outcome"], 0) + 1
        added.append((reviews_key(site, bin_, done["day"]), ended))
    elif resolved and before.get("stage") != Stage.RESOLVED:
        item["resolved_as"] = {"day": day, "outcome": item["outcome"]}
        added.append((reviews_key(site, bin_, day), {item["outcome"]: 1}))
    elif resolved and "resolved_as" in before:
        item["resolved_as"] = before["resolved_as"]
    return added
