"""`bintally retrain runs`: lists retrainings and their outcomes."""

import json

import click
from rich.console import Console

from cli.runs import runs, table_of
from cli.stacks import chosen


@click.command()
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="Only the newest N.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def command(top: int | None, as_json: bool) -> None:
    """List the retrainings, the newest first, with their outcomes and reasons.

    `bintally retrain report RUN` shows the verdict and the report of one that trained a model.
    """
    found = runs(chosen())[:top]
    if as_json:
        click.echo(json.dumps([run.as_json() for run in found], indent=2))
    elif found:
        Console(highlight=False).print(table_of(found))
    else:
        click.echo("No retrainings yet. Start one with: bintally retrain start --force")
