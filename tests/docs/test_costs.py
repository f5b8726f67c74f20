"""The page of costs is the command's output, and says where its prices come from."""

import re
import shlex
from datetime import date

import pytest
from click.testing import CliRunner

from cli.main import main
from deployed.costs import DAYS, tracing
from deployed.prices import prices, table
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


def figure(name: str) -> float:
    """The first figure of a line of the last table."""
    found = re.search(rf"^ *{name} +([\d.,]+)", BLOCKS[-1][1], re.MULTILINE)
    assert found, name
    return float(found[1])


def test_the_text_has_the_figures_of_the_table() -> None:
    keeping, reconciling = figure("Keeping a million photographs, each month"), figure("Reconciling")
    set_so = "`TableUnits=500`, `CountWait=5` and `CountLogLevel=WARN`"
    for said in (
        f"| counting a million, serverless, defaults | {figure('total'):.2f} dollars",
        f"| with {set_so} | {figure('total with the parameters that save'):.2f} dollars",
        f"| the same with all levers below | {figure('total with all that save'):.2f} dollars",
        f"| idle, a month | {figure('Idle, a month'):.2f} dollars, {figure('total after what is free'):.2f} after",
        f"{figure('DynamoDB'):.2f}, and the model's computing {figure('SageMaker, compute'):.2f}",
        f"{keeping * DAYS:.0f} dollars more each month",
        f"{reconciling:.2f} dollars a month for each million kept",
    ):
        assert said in " ".join(PAGE.split()), said


def test_the_text_has_what_traces_cost() -> None:
    small, large = (tracing(prices("us-east-1").amounts, per_day) for per_day in (1_000, 1_000_000))
    for said in (
        f"{large:.2f} dollars a month at a million",
        f"{large / DAYS:.2f} a million",
        f"for {small:.2f} dollars",
    ):
        assert said in " ".join(PAGE.split()), said


@pytest.mark.parametrize("name", list(table()["prices"]))
def test_a_price_names_its_source(name: str) -> None:
    assert "us-east-1" in table()["prices"][name]
    for amount, source in table()["prices"][name].values():
        assert amount > 0 and source in table()["sources"]


@pytest.mark.parametrize("name", list(table()["sources"]))
def test_a_source_says_what_it_is_where_and_when(name: str) -> None:
    source = table()["sources"][name]
    assert source["what"] and source.get("address", "https://").startswith("https://")
    assert source.get("read", date.min) <= table()["date"]
