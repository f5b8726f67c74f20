"""`bintally stack cost`: figures of a month and of a million photographs."""

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli.main import main
from deployed import costs
from deployed.costs import Usage
from deployed.prices import prices, state_of

PRICES = prices("us-east-1").amounts


def run(*words: str) -> str:
    result = CliRunner().invoke(main, ["stack", "cost", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_file_has_every_figure(tmp_path: Path) -> None:
    file = tmp_path / "costs.json"
    run("--photographs-per-day", "1000000", "--json", str(file))
    found: dict[str, Any] = json.loads(file.read_text())
    assert list(found["month"]) == ["serverless", "realtime"]
    month = found["month"]["serverless"]
    uploads = costs.MILLION * costs.DAYS * PRICES["s3_put"] / costs.MILLION
    assert uploads < month["S3, requests"] < 1.2 * uploads
    assert found["states"] == prices("us-east-1").states
    assert sum(found["idle_after_free"].values()) < sum(found["idle"].values())


def test_one_endpoint_is_shown_alone() -> None:
    shown = run("--photographs-per-day", "1000", "--endpoint", "realtime")
    assert "realtime" in shown and "Saved on a million (realtime)" in shown
    assert "serverless\n" not in shown


def test_a_region_without_a_price_has_that_of_us_east_1_and_says_so() -> None:
    ireland = prices("eu-west-1")
    assert (ireland.amounts["dynamodb_write"], ireland.states["dynamodb_write"]) == (0.705, "unverified")
    assert (ireland.amounts["ml.g5.xlarge"], ireland.states["ml.g5.xlarge"]) == (1.57, "sourced")
    assert ireland.amounts["ml.c7i.large"] == PRICES["ml.c7i.large"]
    unverified = [name for name, state in ireland.states.items() if state == "unverified"]
    assert "ml.c7i.large" in unverified
    said = f"{len(unverified)} unverified, of these {len(ireland.borrowed)} are us-east-1's\n"
    assert said in run("--photographs-per-day", "1000", "--region", "eu-west-1")


def test_every_region_that_has_sagemaker_has_costs() -> None:
    """That of every example in docs/deploying.md has no price of its own."""
    shown = run("--photographs-per-day", "1000", "--region", "eu-central-1")
    assert "in eu-central-1, US dollars" in shown
    every = len(PRICES)
    assert shown.endswith(f"0 with an address and a day,\n{every} unverified, of these {every} are us-east-1's\n")


def test_a_price_without_an_address_or_a_day_is_unverified() -> None:
    assert state_of({"what": "a page", "address": "https://aws", "read": date(2026, 1, 1)}) == "sourced"
    assert state_of({"what": "a page", "read": date(2026, 1, 1)}) == "unverified"
    assert state_of({"what": "a page", "address": "https://aws"}) == "unverified"


def test_an_unknown_region_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["stack", "cost", "--photographs-per-day", "1", "--region", "moon-1"])
    assert result.exit_code == 2 and "us-east-1" in result.output


def test_at_the_break_even_both_endpoints_cost_the_same() -> None:
    use = Usage()
    there = costs.break_even(use, PRICES)
    assert costs.compute(use, PRICES, there, "serverless") == pytest.approx(
        use.instances * 730 * PRICES["ml.c7i.large"]
    )


def test_more_photographs_need_more_instances() -> None:
    use = replace(Usage(), peak=2, instance_rate=50)
    assert costs.instances(use, 1000) == 2
    assert costs.instances(use, 50 * 24 * 3600 * 3 / 2) == 3
    assert costs.instances(use, 50 * 24 * 3600 * 3 / 2 + 1) == 4


def test_a_large_photograph_is_shrunk_for_the_endpoint_and_kept_as_it_is() -> None:
    def cost(megabytes: float) -> tuple[float, float]:
        use = replace(Usage(), megabytes=megabytes)
        data = costs.counting(use, PRICES, 1000, "serverless")["SageMaker, data"]
        return data, costs.keeping(use, PRICES)["S3, photographs"]

    (small, _), (medium, _), (large, kept), (larger, kept_longer) = map(cost, (0.02, 0.06, 1, 12))
    assert small < medium and large == larger < medium
    assert kept < kept_longer


def test_capacity_that_is_hardly_used_costs_more_than_requests_and_is_not_advised() -> None:
    small, large = 1000, costs.MILLION
    name = next(name for name in costs.PARAMETERS if name.startswith("TableUnits"))
    assert costs.levers(Usage(), PRICES, small, "serverless")[name] < 0
    assert costs.levers(Usage(), PRICES, large, "serverless")[name] > 0
    plain = costs.per_million(costs.counting(Usage(), PRICES, small, "serverless"), small)
    assert costs.with_all(costs.PARAMETERS.values(), Usage(), PRICES, small, "serverless") <= plain


def test_a_call_has_more_photographs_the_more_come_and_five_at_most() -> None:
    waiting = replace(Usage(), wait=5)
    assert costs.batch(Usage(), costs.MILLION) == 1
    assert 1 < costs.batch(waiting, 1000) < 1.1
    assert costs.batch(waiting, costs.MILLION) == 5


def test_what_is_free_never_makes_a_cost_negative() -> None:
    assert min(costs.idle(Usage(), PRICES, {"alarm": 1000, "metric": 1000, "sqs_request": 1000}).values()) == 0


@pytest.mark.parametrize("name", list(costs.LEVERS))
def test_every_lever_saves_something(name: str) -> None:
    assert costs.levers(Usage(), PRICES, costs.MILLION, "serverless")[name] > 0
