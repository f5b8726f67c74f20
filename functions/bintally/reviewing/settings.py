"""The environment of `review` and `answer`, read once on first use."""

import os
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import cache

from bintally.aws.table import Table
from bintally.reviewing.desk import Desk


@dataclass(frozen=True)
class ReviewSettings:
    """The settings of reviews."""

    counts_table: str
    artifacts_bucket: str
    tolerance: int
    tolerated_value: Decimal
    """Of a difference, where records name an item's value; 0 if `tolerance` applies to all."""
    wrong_share: float
    """Of records that are wrong, until the audit says it."""
    audit_share: float
    """Of bins that are drawn for the random audit in a month."""
    claim_length: timedelta


@cache
def review_settings() -> ReviewSettings:
    """Raises KeyError, which names the variable, when one is missing."""
    return ReviewSettings(
        counts_table=os.environ["COUNTS_TABLE"],
        artifacts_bucket=os.environ["ARTIFACTS_BUCKET"],
        tolerance=int(os.environ["RECOUNT_TOLERANCE"]),
        tolerated_value=Decimal(os.environ["RECOUNT_TOLERANCE_VALUE"]),
        wrong_share=float(os.environ["RECORD_WRONG_SHARE"]),
        audit_share=float(os.environ["AUDIT_SHARE"]),
        claim_length=timedelta(minutes=float(os.environ["CLAIM_MINUTES"])),
    )


@cache
def trail_bucket() -> str:
    """Of `review` alone; empty without TrailLockDays. Raises KeyError, which names the variable, when it is missing."""
    return os.environ["TRAIL_BUCKET"]


def desk_of(settings: ReviewSettings) -> Desk:
    table = Table.named(settings.counts_table, settings.wrong_share)
    return Desk(table, settings.claim_length, settings.tolerance, settings.audit_share, settings.tolerated_value)
