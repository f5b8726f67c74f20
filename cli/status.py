"""`bintally status`: what runs, and which model is live."""

import json as json_module

import click
from rich.console import Console

from local.stack import Stack


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> None:
    """Say what runs and which model is live. Exits 3 when the stack does not run."""
    status = Stack.from_environment().status()
    if as_json:
        click.echo(json_module.dumps(status, indent=2))
        return
    console = Console()
    for name, value in status.items():
        console.print(f"{name:<26}{value}", highlight=False)
