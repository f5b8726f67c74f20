"""`bintally stack cost`: what a stack on AWS costs, computed from prices and from what a photograph uses."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from deployed import costs
from deployed.costs import Endpoint, Recount, Retraining, Usage
from deployed.prices import EVERYWHERE, Prices, prices
from deployed.regions import is_served

GOAL, IDLE_GOAL = 15, 3
"""Dollars per million photographs, and a month."""


@click.command()
@click.option("--photographs-per-day", "per_day", type=click.FloatRange(1), required=True, help="As a mean of a month.")
@click.option(
    "--region",
    callback=lambda _, __, region: known(region),
    default=EVERYWHERE,
    show_default=True,
    help="Of the stack.",
)
@click.option("--endpoint", type=click.Choice(["serverless", "realtime"]), help="Show only one.  [default: both]")
@click.option(
    "--megabytes", type=click.FloatRange(0.001, 50), default=Usage.megabytes, show_default=True, help="Of a photograph."
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="File for all figures.")
def command(per_day: float, region: str, endpoint: Endpoint | None, megabytes: float, json_file: Path | None) -> None:
    """Compute what a stack on AWS costs.

    It asks no account. Prices are list prices of deployed/prices.toml, without free tiers, taxes and discounts; where
    the region's are not known, they are those of us-east-1. What a photograph uses follows from the code, the template
    and the benchmarks; docs/costs.md says what is assumed.
    """
    use, found = replace(Usage(), megabytes=megabytes), prices(region)
    report = compute(use, found, per_day, [endpoint] if endpoint else ["serverless", "realtime"])
    if json_file:
        json_file.write_text(json.dumps(report, indent=2) + "\n")
    click.echo("\n".join(lines(report)))


def known(region: str) -> str:
    """Raises BadParameter."""
    if not is_served(region):
        raise click.BadParameter(f"{region} is no region of AWS that has SageMaker and Cognito, such as {EVERYWHERE}")
    return region


def compute(use: Usage, found: Prices, per_day: float, endpoints: list[Endpoint]) -> dict[str, Any]:
    """All figures, in dollars."""
    amounts = found.amounts
    return {
        "photographs_per_day": per_day,
        "megabytes": use.megabytes,
        "region": found.region,
        "prices_of": f"{found.date}",
        "states": found.states,
        "borrowed": found.borrowed,
        "month": {name: costs.counting(use, amounts, per_day, name) for name in endpoints},
        "keeping": costs.keeping(use, amounts),
        "idle": costs.idle(use, amounts),
        "idle_after_free": costs.idle(use, amounts, found.free),
        "recounts": costs.recounting(Recount(), amounts),
        "retraining": costs.retraining(Retraining(), amounts),
        "break_even_per_day": costs.break_even(use, amounts),
        "levers": costs.levers(use, amounts, per_day, endpoints[0]),
        "with_parameters": {
            name: costs.with_all(costs.PARAMETERS.values(), use, amounts, per_day, name) for name in endpoints
        },
        "all_levers": costs.with_all(costs.LEVERS.values(), use, amounts, per_day, endpoints[0]),
    }


def lines(report: dict[str, Any]) -> Iterator[str]:
    per_day, month = report["photographs_per_day"], report["month"]
    to_million = costs.MILLION / (per_day * costs.DAYS)
    states = Counter(report["states"].values())
    yield f"{per_day:,.0f} photographs a day of {report['megabytes']:g} MB in {report['region']}, US dollars"
    yield ""
    yield f"{'':24}" + "".join(f"{name:>24}" for name in month)
    yield f"{'Counting':24}" + f"{'a million':>12}{'a month':>12}" * len(month)
    for service in next(iter(month.values())):
        yield row(
            service, *(amount for each in month.values() for amount in (each[service] * to_million, each[service]))
        )
    totals = [sum(each.values()) for each in month.values()]
    yield row("total", *(amount for total in totals for amount in (total * to_million, total)))
    yield ""
    keeping = sum(report["keeping"].values())
    yield row("Keeping a million photographs, each month", keeping, width=42)
    yield from (row(f"  {name}", amount, width=42) for name, amount in report["keeping"].items())
    idle, after_free = (sum(report[name].values()) for name in ("idle", "idle_after_free"))
    yield row("Idle, a month", idle, width=42)
    yield from (row(f"  {name}", amount, width=42) for name, amount in report["idle"].items())
    yield row("  total after what is free", after_free, width=42)
    yield row("A thousand recounts", report["recounts"], width=42)
    yield row(f"A retraining on {Retraining.labels:,} labels", sum(report["retraining"].values()), width=42)
    yield ""
    break_even, instances = f"{report['break_even_per_day']:,.0f}", f"{Usage.instances:g}"
    yield f"From {break_even} photographs a day, {instances} real-time instances cost less than serverless."
    yield ""
    yield f"Saved on a million ({next(iter(month))})"
    yield from (row(f"  {name}", amount, width=56) for name, amount in report["levers"].items())
    yield row("  total with the parameters that save", next(iter(report["with_parameters"].values())), width=56)
    yield row("  total with all that save", report["all_levers"], width=56)
    yield ""
    if per_day >= costs.MILLION:
        for name, total in zip(month, totals, strict=True):
            set_so = verdict(report["with_parameters"][name], GOAL)
            yield f"Goal of {GOAL} a million, {name}: {verdict(total * to_million, GOAL)}; with parameters {set_so}"
        yield f"Goal of {IDLE_GOAL} a month, idle, after what is free: {verdict(after_free, IDLE_GOAL)}"
    borrowed = f", of these {len(report['borrowed'])} are {EVERYWHERE}'s" if report["borrowed"] else ""
    yield f"Prices of {report['prices_of']} (deployed/prices.toml): {states['sourced']} with an address and a day,"
    yield f"{states['unverified']} unverified{borrowed}"


def row(name: str, *amounts: float, width: int = 24) -> str:
    return f"{name:{width}}" + "".join(f"{amount:>12,.2f}" for amount in amounts)


def verdict(amount: float, goal: float) -> str:
    return f"{amount:.2f}, {'met' if amount <= goal else 'missed'}"
