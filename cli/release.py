"""`bintally release`: brings a version of the model into service."""

import click
from rich.console import Console

from cli.errors import CliError
from cli.releases import release
from cli.versions import find_package, model_data_url
from local.stack import Stack


@click.command()
@click.argument("version")
def command(version: str) -> None:
    """Release a version of the model by hand, and show each step.

    Exits 1 when it does not become live; the model before it then goes on answering.
    """
    stack = Stack.from_environment()
    package = find_package(stack, version)
    if package["ModelApprovalStatus"] == "Rejected":
        raise CliError(f"model {version} is rejected; to release it all the same: bintally approve {version}")
    request = {"model_version": version, "model_data_url": model_data_url(package)}
    release(stack, request, Console(highlight=False))
