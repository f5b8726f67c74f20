"""`bintally model approve`: approves a version of the model in the registry."""

import click

from cli.stacks import chosen
from cli.versions import decide
from deployed.stack import version_of


@click.command()
@click.argument("version")
def command(version: str) -> None:
    """Approve a version in the model registry; this starts its release.

    The registry's event starts the release. If a newer version is also approved, nothing is released.
    """
    stack = chosen()
    package, before = decide(stack, version, "Approved")
    newest = next(found for found in stack.packages() if found["ModelApprovalStatus"] == "Approved")
    if before == "Approved":
        click.echo(f"Model {version} was approved before. Release it with: bintally model release {version}")
    elif newest["ModelPackageArn"] != package:
        click.echo(f"Model {version} is approved, but not released: {version_of(newest)} is newer and also approved")
    else:
        click.echo(f"Model {version} is approved and is being released. See: bintally model list")
