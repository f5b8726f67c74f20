"""The environment of `reconcile`, read once on first use."""

import os
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class ReconcileSettings:
    """The settings of `reconcile`."""

    counts_table: str
    images_bucket: str
    artifacts_bucket: str
    count_queue_url: str
    record_queue_url: str


@cache
def reconcile_settings() -> ReconcileSettings:
    """Raises KeyError, which names the variable, when one is missing."""
    return ReconcileSettings(
        counts_table=os.environ["COUNTS_TABLE"],
        images_bucket=os.environ["IMAGES_BUCKET"],
        artifacts_bucket=os.environ["ARTIFACTS_BUCKET"],
        count_queue_url=os.environ["COUNT_QUEUE_URL"],
        record_queue_url=os.environ["RECORD_QUEUE_URL"],
    )
