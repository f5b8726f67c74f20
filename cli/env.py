"""`bintally env`: the stack's address, credentials and outputs as shell exports."""

import shlex

import click

from local.stack import Stack


@click.command()
def command() -> None:
    """Print export lines: eval "$(bintally env)"."""
    environment = Stack.from_environment().environment()
    click.echo("unset AWS_SESSION_TOKEN AWS_PROFILE")  # Another account's; the stack would refuse the token.
    for name, value in environment.items():
        click.echo(f"export {name}={shlex.quote(value)}")
