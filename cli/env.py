"""`bintally env`: the stack's address, credentials and outputs as shell exports."""

import shlex

import click

from cli.aws_cli import too_old
from cli.stacks import chosen


@click.command()
def command() -> None:
    """Print export lines: eval "$(bintally env)".

    The lines contain the stack's address, region and outputs, and for the local stack its owner's key. For a stack on
    AWS they contain no credentials: the shell uses its own. A warning on standard error names an AWS CLI that is too
    old for the local stack.
    """
    environment = chosen().environment()
    if "AWS_ACCESS_KEY_ID" in environment:
        click.echo("unset AWS_SESSION_TOKEN AWS_PROFILE")  # of another account, refused here
    for name, value in environment.items():
        click.echo(f"export {name}={shlex.quote(value)}")
    if "AWS_ENDPOINT_URL" in environment and (version := too_old()):
        click.echo(
            f"Warning: the AWS CLI on your PATH, {version}, ignores AWS_ENDPOINT_URL and would call AWS itself. "
            'Update it to 2.13 or newer, or give each command --endpoint-url "$AWS_ENDPOINT_URL"',
            err=True,
        )
