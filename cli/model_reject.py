"""`bintally model reject`: rejects a version of the model in the registry."""

import click

from cli.stacks import chosen
from cli.versions import decide


@click.command()
@click.argument("version")
@click.option("--why", help="The reason, stored in the registry.")
def command(version: str, why: str | None) -> None:
    """Reject a version in the model registry.

    The live model does not change: a rejected version stays live until another one is released.
    """
    decide(chosen(), version, "Rejected", why)
    click.echo(f"Model {version} is rejected")
