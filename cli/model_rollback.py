"""`bintally model rollback`: releases the previously live model."""

import re

import click
from rich.console import Console

from cli.errors import CliError
from cli.releases import release
from cli.stacks import chosen
from deployed.stack import Deployed, release_request


@click.command()
def command() -> None:
    """Release the version of the model that was live before, at once, and show each step.

    A real-time endpoint switches without a canary, so alarms about the current model cannot stop it. Approvals do not
    change: reject the current version, or the registry's next event about it releases it again.
    """
    stack, console = chosen(), Console(highlight=False)
    live, request = previous(stack)
    console.print(f"Rolling back from {release_request(live)['model_version']} to {request['model_version']}")
    release(stack, {**request, "at_once": True}, console)


def previous(stack: Deployed) -> tuple[str, dict[str, str]]:
    """The s3:// address of the live model, and the request that releases the previous one, with the digest that its
    package was pinned by. Raises CliError when there is none."""
    outputs, sagemaker = stack.outputs(), stack.client("sagemaker")
    live = stack.live_model_data(outputs)
    if live is None:
        raise CliError("no model is live; release one with: bintally model release VERSION")
    endpoint = outputs["EndpointName"]
    configs = sagemaker.list_endpoint_configs(NameContains=endpoint, SortBy="CreationTime", SortOrder="Descending")
    for config in configs["EndpointConfigs"]:
        name = config["EndpointConfigName"]  # also its model's
        if re.fullmatch(rf"{re.escape(endpoint)}(-[0-9a-f]{{8}}){{1,2}}", name):
            container = sagemaker.describe_model(ModelName=name)["PrimaryContainer"]
            if container["ModelDataUrl"] != live:
                digest = container.get("Environment", {}).get("BINTALLY_PACKAGE_DIGEST")
                pinned = {"package_digest": digest} if digest else {}
                return live, release_request(container["ModelDataUrl"]) | pinned
    raise CliError("no model was live before this one")
