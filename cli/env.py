"""`bintally env`: the stack's address, credentials and outputs as shell exports."""

import shlex

import click

from local.stack import Stack


@click.command()
def command() -> None:
    """Print export lines: eval "$(bintally env)"."""
    for name, value in Stack.from_environment().environment().items():
        click.echo(f"export {name}={shlex.quote(value)}")
