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
    live, before = previous(stack)
    request = release_request(before)
    console.print(f"Rolling back from {release_request(live)['model_version']} to {request['model_version']}")
    release(stack, {**request, "at_once": True}, console)


def previous(stack: Deployed) -> tuple[str, str]:
    """The s3:// addresses of the live model and of the previous one. Raises CliError when there is none."""
    outputs, sagemaker = stack.outputs(), stack.client("sagemaker")
    live = stack.live_model_data(outputs)
    if live is None:
        raise CliError("no model is live; release one with: bintally model release VERSION")
    endpoint = outputs["EndpointName"]
    configs = sagemaker.list_endpoint_configs(NameContains=endpoint, SortBy="CreationTime", SortOrder="Descending")
    for config in configs["EndpointConfigs"]:
        name = config["EndpointConfigName"]  # also its model's
        if re.fullmatch(rf"{re.escape(endpoint)}(-[0-9a-f]{{8}}){{1,2}}", name):
            url = str(sagemaker.describe_model(ModelName=name)["PrimaryContainer"]["ModelDataUrl"])
            if url != live:
                return live, url
    raise CliError("no model was live before this one")
