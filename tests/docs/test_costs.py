"""The page of costs is the command's output, and says where its prices come from."""

import re
import shlex
from datetime import date

import pytest
from click.testing import CliRunner

from cli.main import main
from deployed.prices import table
from local.stack import REPOSITORY

PAGE = (REPOSITORY / "docs" / "costs.md").read_text()
BLOCKS = re.findall(r"<!-- cost: ([^>\n]+) -->\n```\n(.*?)```\n<!-- /cost -->", PAGE, re.DOTALL)


@pytest.mark.parametrize(("options", "block"), BLOCKS, ids=[options for options, _ in BLOCKS])
def test_the_tables_are_the_commands(options: str, block: str) -> None:
    words = ["stack", "cost", *shlex.split(options)]
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert f"$ bintally {' '.join(words)}\n{result.output}" == block


def test_the_page_has_a_thousand_a_hundred_thousand_and_a_million() -> None:
    assert [options.split()[-1] for options, _ in BLOCKS] == ["1000", "100000", "1000000"]


def test_the_page_repeats_the_figures_of_a_million() -> None:
    million = BLOCKS[-1][1]
    for name in ("total ", "total with all of them", "Idle, a month", "after what is free"):
        found = re.search(rf"{name}.*?(\d+\.\d\d)", million)
        assert found and f" {found[1]}" in PAGE.partition("## What it costs")[0], name


@pytest.mark.parametrize("name", list(table()["prices"]))
def test_a_price_names_its_source(name: str) -> None:
    assert "us-east-1" in table()["prices"][name]
    for amount, source in table()["prices"][name].values():
        assert amount > 0 and source in table()["sources"]


@pytest.mark.parametrize("name", list(table()["sources"]))
def test_a_verified_source_has_an_address_and_a_day(name: str) -> None:
    source = table()["sources"][name]
    assert source["what"]
    if source["verified"]:
        assert source["address"].startswith("https://") and source["read"] <= table()["date"]
    assert isinstance(table()["date"], date)
