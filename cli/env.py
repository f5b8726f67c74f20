"""`bintally env`: the stack's address, credentials and outputs as shell exports."""

import shlex

import click

from cli.stacks import chosen


@click.command()
def command() -> None:
    """Print export lines: eval "$(bintally env)".

    They are the stack's address, region and outputs, and for the local stack its owner's key. For a stack on AWS they
    contain no credentials: a shell uses its own.
    """
    for name, value in chosen().environment().items():
        click.echo(f"export {name}={shlex.quote(value)}")
