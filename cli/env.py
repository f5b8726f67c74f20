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
    environment = chosen().environment()
    if "AWS_ACCESS_KEY_ID" in environment:
        click.echo("unset AWS_SESSION_TOKEN AWS_PROFILE")  # Another account's; the local stack would refuse the token.
    for name, value in environment.items():
        click.echo(f"export {name}={shlex.quote(value)}")
