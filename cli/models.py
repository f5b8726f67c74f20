"""`bintally models`: the versions of the model in the registry."""

import json

import click
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from cli.errors import CliError
from cli.versions import table_of, versions
from local.stack import Stack


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def command(as_json: bool) -> None:
    """List the versions of the model, the newest first, with their metrics, each on the test set of its own dataset.

    RPS is the ranked probability score: less is better. Test sets grow and differ, so it does not compare two rows; the
    verdict of the retraining that made a version does. "Data" is the digest of the dataset, its test set too.
    """
    try:
        found = list(versions(Stack.from_environment()))
    except (BotoCoreError, ClientError) as error:
        raise CliError(f"cannot read the registry: {error}") from error
    if as_json:
        click.echo(json.dumps([version.as_json() for version in found], indent=2))
    elif found:
        Console(highlight=False).print(table_of(found))
    else:
        click.echo("No models yet. Register the shipped one with: bintally up")
