"""Times without a zone are read in the site's, also where a clock shows an hour twice or never."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from bintally.common.keys import moment
from bintally.common.zone import as_utc, site_zone

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("local", "utc"),
    [
        ("2026-11-28 10:00:00", "2026-11-28T09:00:00Z"),
        ("2026-07-28T10:00:00", "2026-07-28T08:00:00Z"),
        ("2026-10-25T02:30:00", "2026-10-25T00:30:00Z"),  # occurs twice: the first, summer time
        ("2026-03-29T02:30:00", "2026-03-29T01:30:00Z"),  # does not occur: half an hour after 02:00 in winter time
        ("2026-11-28T10:00:00+09:00", "2026-11-28T01:00:00Z"),
        ("2026-11-28T10:00:00Z", "2026-11-28T10:00:00Z"),
        ("2026-11-28", "2026-11-27T23:00:00Z"),
    ],
)
def test_a_time_without_a_zone_is_the_sites(local: str, utc: str) -> None:
    assert moment(local, BERLIN) == datetime.fromisoformat(utc)


def test_a_second_occurrence_is_never_meant() -> None:
    assert as_utc(datetime(2026, 10, 25, 2, 30, fold=1), BERLIN) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


def test_no_time_before_the_first_year_is_made_up() -> None:
    with pytest.raises(OverflowError):
        as_utc(datetime.min, ZoneInfo("Asia/Tokyo"))


def test_the_environment_names_the_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_TIMEZONE", "Asia/Tokyo")
    assert site_zone() == ZoneInfo("Asia/Tokyo")


@pytest.mark.parametrize("name", ["", "Mars/Base", "../etc/passwd", "/etc/localtime", "Europe", "MESZ"])
def test_an_unknown_zone_names_the_variable(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("SITE_TIMEZONE", name)
    with pytest.raises(ValueError, match=r"SITE_TIMEZONE is .*; an IANA name is expected, such as Europe/Berlin"):
        site_zone()


def test_zones_are_known_without_the_machines_own() -> None:
    """Lambda's image may lack them; they come with the functions' package."""
    code = "import zoneinfo; print(zoneinfo.TZPATH, zoneinfo.ZoneInfo('Europe/Berlin'))"
    alone = {**os.environ, "PYTHONTZPATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=alone)
    assert done.stdout == "() Europe/Berlin\n", done.stderr
    assert "tzdata==" in (Path(__file__).parents[2] / "functions" / "requirements.txt").read_text()
