"""The function's environment, read once on first use."""

import os
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Settings:
    counts_table: str
    endpoint_name: str
    count_queue_url: str
    retry_seconds: int
    """First wait before another try; it doubles with each."""


@cache
def settings() -> Settings:
    """Raises KeyError, which names the variable, when one is missing."""
    return Settings(
        counts_table=os.environ["COUNTS_TABLE"],
        endpoint_name=os.environ["ENDPOINT_NAME"],
        count_queue_url=os.environ["COUNT_QUEUE_URL"],
        retry_seconds=int(os.environ["RETRY_SECONDS"]),
    )
