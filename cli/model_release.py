"""`bintally model release`: releases a version of the model by hand."""

from typing import Any

import click
from rich.console import Console

from cli.errors import CliError
from cli.releases import release
from cli.stacks import chosen
from cli.versions import find_package, model_data_url


@click.command()
@click.argument("version")
@click.option("--again", is_flag=True, help="Release it even if it is live, as after a new build of the serving image.")
def command(version: str, again: bool) -> None:
    """Release a version of the model by hand, and show each step.

    The live version is released again when a setting of the endpoint has changed since: memory, concurrency, instances,
    the image. Exits 1 when the version does not go live; the current model then stays live.
    """
    stack = chosen()
    package = find_package(stack, version)
    if package["ModelApprovalStatus"] == "Rejected":
        raise CliError(f"model {version} is rejected. To release it, approve it: bintally model approve {version}")
    request: dict[str, Any] = {"model_version": version, "model_data_url": model_data_url(package)}
    if digest := package.get("CustomerMetadataProperties", {}).get("package_digest"):
        request["package_digest"] = digest
    release(stack, request | ({"again": True} if again else {}), Console(highlight=False))
