"""`bintally model list`: lists the versions of the model in the registry."""

import json

import click
from rich.console import Console

from cli.stacks import chosen
from cli.versions import table_of, versions


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def command(as_json: bool) -> None:
    """List the versions of the model, the newest first, with their metrics.

    Each version is measured on the test set of its own dataset. RPS is the ranked probability score: less is better.
    Test sets grow and differ, so do not compare the RPS of two rows; read the verdict of the retraining that created
    the version instead. "Data" is the digest of the dataset, including its test set.
    """
    found = list(versions(chosen()))
    if as_json:
        click.echo(json.dumps([version.as_json() for version in found], indent=2))
    elif found:
        console = Console(highlight=False)
        console.print(table_of(found, console.width))
    else:
        click.echo("No models yet. Register the shipped one with: bintally up")
