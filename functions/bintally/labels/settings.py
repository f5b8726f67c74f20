"""The environment of `follow`, read once on first use."""

import os
from dataclasses import dataclass
from datetime import timedelta
from functools import cache


@dataclass(frozen=True)
class FollowSettings:
    """The settings of `follow`."""

    counts_table: str
    artifacts_bucket: str
    pairing: timedelta


@cache
def follow_settings() -> FollowSettings:
    """Raises KeyError, which names the variable, when one is missing."""
    return FollowSettings(
        counts_table=os.environ["COUNTS_TABLE"],
        artifacts_bucket=os.environ["ARTIFACTS_BUCKET"],
        pairing=timedelta(hours=float(os.environ["PAIRING_HOURS"])),
    )
