"""The threat model names tests that exist."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text()
NAMED = re.findall(r"`(test_\w+)`", TEXT)


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
    table = TEXT.partition("| who | could | what stops it | test |")[2].partition("What stops nobody")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ")]
    assert len(rows) > 15 and all("`test_" in row for row in rows)


# Names of boto3's clients whose endpoints of a VPC are called otherwise (AWS PrivateLink, "Services that integrate").
OTHERWISE = {
    "ecr": "ecr.api",
    "sagemaker": "sagemaker.api",
    "sagemaker-runtime": "sagemaker.runtime",
    "stepfunctions": "states",
}


def test_the_endpoints_of_a_vpc_are_those_of_the_clients_that_functions_and_jobs_make() -> None:
    table = TEXT.partition("<!-- endpoints -->")[2].partition("\n\n")[0]
    told = dict(re.findall(r"^\| `com\.amazonaws\.<region>\.([a-z0-9.-]+)` \| (\w+) \|", table, re.MULTILINE))
    made = {
        name
        for folder in ("functions", "training", "page", "model")
        for file in (ROOT / folder).rglob("*.py")
        for name in re.findall(r"""boto3\.(?:client|resource)\("([^"]+)""", file.read_text())
    }
    assert {OTHERWISE.get(name, name) for name in made} == told.keys()
    assert {name for name, kind in told.items() if kind == "gateway"} == {"s3", "dynamodb"}
