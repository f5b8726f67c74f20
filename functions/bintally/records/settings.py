"""The environment of `record`, read once on first use."""

import os
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class RecordSettings:
    """The settings of `record`."""

    counts_table: str
    artifacts_bucket: str
    record_queue_url: str
    retry_seconds: int


@cache
def record_settings() -> RecordSettings:
    """Raises KeyError, which names the variable, when one is missing."""
    return RecordSettings(
        counts_table=os.environ["COUNTS_TABLE"],
        artifacts_bucket=os.environ["ARTIFACTS_BUCKET"],
        record_queue_url=os.environ["RECORD_QUEUE_URL"],
        retry_seconds=int(os.environ["RETRY_SECONDS"]),
    )
