"""The site's time zone, in which times without a zone are read: a warehouse system or a camera writes its own clock."""

import os
from datetime import UTC, datetime, tzinfo
from functools import cache
from zoneinfo import ZoneInfo

VARIABLE = "SITE_TIMEZONE"


@cache
def site_zone() -> ZoneInfo:
    """The zone that SITE_TIMEZONE names. Raises KeyError without the variable, ValueError for an unknown name."""
    name = os.environ[VARIABLE]
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError; a folder is an OSError
        raise ValueError(f"{VARIABLE} is {name!r}; an IANA name is expected, such as Europe/Berlin or UTC") from error


def as_utc(found: datetime, zone: tzinfo) -> datetime:
    """`found` as UTC; without a zone of its own it is a clock's time in `zone`. Raises OverflowError below year 1.

    When clocks go back, an hour occurs twice: its first occurrence is meant, so that no time is later than it was.
    When they go forward, an hour is missing: a time in it was shown by a clock that nobody had put forward yet, and
    02:30 is half an hour after 02:00 (PEP 495, fold=0, says both).
    """
    return (found.replace(tzinfo=zone, fold=0) if found.tzinfo is None else found).astimezone(UTC)
