"""The environment of `count`, read once on first use."""

import os
from dataclasses import dataclass
from functools import cache
from zoneinfo import ZoneInfo

from bintally.common.zone import site_zone


@dataclass(frozen=True)
class CountSettings:
    """The settings of `count`."""

    counts_table: str
    endpoint_name: str
    count_queue_url: str
    retry_seconds: int
    """Seconds before the first retry; doubles with each."""
    low_confidence_share: float
    """Share of low-confidence counts that is still usual."""
    disagreement_limit: float
    """Share of counts disagreeing with the record that is still usual."""
    wrong_share: float
    """Of records that are wrong, as far as nobody knows better."""
    site_zone: ZoneInfo
    """Of times without a zone."""
    is_traced: bool
    """Whether X-Ray samples calls."""
    logs_photographs: bool
    """Whether each photograph has a line in the log, also if nothing is wrong."""


@cache
def count_settings() -> CountSettings:
    """Raises KeyError, which names the variable, when one is missing, and ValueError for an unknown time zone."""
    return CountSettings(
        counts_table=os.environ["COUNTS_TABLE"],
        endpoint_name=os.environ["ENDPOINT_NAME"],
        count_queue_url=os.environ["COUNT_QUEUE_URL"],
        retry_seconds=int(os.environ["RETRY_SECONDS"]),
        low_confidence_share=float(os.environ["LOW_CONFIDENCE_SHARE"]),
        disagreement_limit=float(os.environ["DISAGREEMENT_LIMIT"]),
        wrong_share=float(os.environ["RECORD_WRONG_SHARE"]),
        site_zone=site_zone(),
        is_traced=os.environ["TRACING"] == "Active",
        # An update of a stack may bring code before its variables.
        logs_photographs=os.environ.get("COUNT_LOG_LEVEL") != "WARN",
    )
