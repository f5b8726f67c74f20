"""The environment of `report_strays`, read once on first use."""

import os
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class StraysSettings:
    """The settings of `report_strays`."""

    images_bucket: str
    alerts_topic: str


@cache
def strays_settings() -> StraysSettings:
    """Raises KeyError, which names the variable, when one is missing."""
    return StraysSettings(images_bucket=os.environ["IMAGES_BUCKET"], alerts_topic=os.environ["ALERTS_TOPIC"])
