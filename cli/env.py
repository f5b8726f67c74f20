"""`bintally env`: the stack's address, credentials and outputs as shell exports."""

import shlex

import click

from cli.stacks import chosen


@click.command()
def command() -> None:
    """Print export lines: eval "$(bintally env)".

    The lines contain the stack's address, region and outputs, and for the local stack its owner's key. For a stack on
    AWS they contain no credentials: the shell uses its own.
    """
    environment = chosen().environment()
    if "AWS_ACCESS_KEY_ID" in environment:
        click.echo("unset AWS_SESSION_TOKEN AWS_PROFILE")  # of another account, refused here
    for name, value in environment.items():
        click.echo(f"export {name}={shlex.quote(value)}")
