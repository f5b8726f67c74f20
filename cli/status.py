"""`bintally status`: shows where the stack is and which model is live."""

import json

import click

from cli.stacks import chosen


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> None:
    """Show where the stack is and which model is live. Exits 3 when the stack does not run or does not exist."""
    status = chosen().status()
    if as_json:
        click.echo(json.dumps(status, indent=2))
        return
    for name, value in status.items():
        click.echo(f"{name:<12}{value}")
