"""The threat model names tests that exist."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.findall(r"`(test_\w+)`", (ROOT / "docs" / "security.md").read_text())


@cache
def defined() -> set[str]:
    files = [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "localsagemaker" / "tests").rglob("test_*.py")]
    return {
        name for file in files for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }


@pytest.mark.parametrize("name", NAMED)
def test_a_threat_names_a_test_that_exists(name: str) -> None:
    assert name in defined()


def test_each_threat_names_one() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    table = text.partition("| who | could | what stops it | test |")[2].partition("What stops nobody")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ")]
    assert len(rows) > 15 and all("`test_" in row for row in rows)
