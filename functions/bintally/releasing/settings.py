"""The environment of `expire_logs`, read once on first use."""

import os
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class LogsSettings:
    """The settings of `expire_logs`."""

    stack_name: str
    retention_days: int


@cache
def logs_settings() -> LogsSettings:
    """Raises KeyError, which names the variable, when one is missing."""
    return LogsSettings(os.environ["STACK_NAME"], int(os.environ["RETENTION_DAYS"]))
