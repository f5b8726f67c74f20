"""`bintally reject`: a person's no to a version of the model."""

import click

from cli.versions import decide
from local.stack import Stack


@click.command()
@click.argument("version")
@click.option("--why", help="The reason, for whoever reads the registry.")
def command(version: str, why: str | None) -> None:
    """Reject a version of the model in the registry.

    Only the package's state is set: a version that is live stays so until another one is released.
    """
    decide(Stack.from_environment(), version, "Rejected", why)
    click.echo(f"Model {version} is rejected")
