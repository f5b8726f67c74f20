"""`bintally approve`: a person's yes to a version of the model."""

import click

from cli.versions import decide
from local.stack import Stack, version_of


@click.command()
@click.argument("version")
def command(version: str) -> None:
    """Approve a version of the model in the registry, which then has it released.

    Only the package's state is set; the registry's event starts the release, unless a newer version is approved.
    """
    stack = Stack.from_environment()
    package, before = decide(stack, version, "Approved")
    newest = next(found for found in stack.packages() if found["ModelApprovalStatus"] == "Approved")
    if before == "Approved":
        click.echo(f"Model {version} was approved before. Release it with: bintally release {version}")
    elif newest["ModelPackageArn"] != package:
        newer = version_of(newest)
        click.echo(f"Model {version} is approved. It is not released, since {newer} is newer and approved, too")
    else:
        click.echo(f"Model {version} is approved and is being released. See: bintally models")
