"""The environment of `record`, read once on first use."""

import os
from dataclasses import dataclass
from functools import cache
from zoneinfo import ZoneInfo

from bintally.common.zone import site_zone


@dataclass(frozen=True)
class RecordSettings:
    """The settings of `record`."""

    counts_table: str
    artifacts_bucket: str
    record_queue_url: str
    retry_seconds: int
    site_zone: ZoneInfo
    """Of times without a zone."""


@cache
def record_settings() -> RecordSettings:
    """Raises KeyError, which names the variable, when one is missing, and ValueError for an unknown time zone."""
    return RecordSettings(
        counts_table=os.environ["COUNTS_TABLE"],
        artifacts_bucket=os.environ["ARTIFACTS_BUCKET"],
        record_queue_url=os.environ["RECORD_QUEUE_URL"],
        retry_seconds=int(os.environ["RETRY_SECONDS"]),
        site_zone=site_zone(),
    )
