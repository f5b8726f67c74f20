"""The partition keys over which a site's day totals and its list of bins are spread: SITE_PARTS of them.

DynamoDB takes 1,000 write units a second for one partition key. The first of several keys is the one that a site with a
single key has, so an item stays where readers look when there are more keys; with fewer, readers would miss items.
"""

import hashlib
import os
from functools import cache

VARIABLE = "SITE_PARTS"


@cache
def site_parts() -> int:
    """1 without the variable."""
    return int(os.environ.get(VARIABLE, "1"))


def spread(key: str, parts: int) -> list[str]:
    """All partition keys; encoded ids contain no #."""
    return [key, *(f"{key}#{number}" for number in range(1, parts))]


def part_of(key: str, member: str, parts: int) -> str:
    """The partition key of one member, always the same while `parts` is."""
    return spread(key, parts)[int.from_bytes(hashlib.sha256(member.encode()).digest()[:4], "big") % parts]
