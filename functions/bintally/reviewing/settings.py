"""The environment of `review` and `answer`, read once on first use."""

import os
from dataclasses import dataclass
from datetime import timedelta
from functools import cache


@dataclass(frozen=True)
class ReviewSettings:
    """The settings of reviews."""

    counts_table: str
    artifacts_bucket: str
    tolerance: int
    claim_length: timedelta


@cache
def review_settings() -> ReviewSettings:
    """Raises KeyError, which names the variable, when one is missing."""
    return ReviewSettings(
        counts_table=os.environ["COUNTS_TABLE"],
        artifacts_bucket=os.environ["ARTIFACTS_BUCKET"],
        tolerance=int(os.environ["RECOUNT_TOLERANCE"]),
        claim_length=timedelta(minutes=float(os.environ["CLAIM_MINUTES"])),
    )
