"""Removes everything that a stack's releases created: endpoints, their configurations and models, and the versions in
the registry, since CloudFormation deletes only an empty group."""

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from bintally.common.errors import BintallyError

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_stepfunctions import SFNClient
    from mypy_boto3_stepfunctions.type_defs import ExecutionListItemTypeDef

POLL_SECONDS = 5


class Unfinished(BintallyError):
    """Something remains that should be removed; the message says what."""


def stop_executions(client: "SFNClient", state_machine: str) -> "list[ExecutionListItemTypeDef]":
    """Stops the executions that would create again what is removed here. Returns those that it stopped."""
    running = client.list_executions(stateMachineArn=state_machine, statusFilter="RUNNING")["executions"]
    for execution in running:
        client.stop_execution(executionArn=execution["executionArn"], cause="the stack is deleted")
    return running


def remove_all(client: "SageMakerClient", stack: str, deadline: float) -> None:
    """Removes everything that releases of `stack` created. Raises Unfinished if an endpoint remains at `deadline`."""
    while endpoints := dict(endpoint_statuses(client, stack)):
        problems = [delete_endpoint(client, name) for name, status in endpoints.items() if status != "Deleting"]
        wait(deadline, f"endpoints remain: {endpoints}; {'; '.join(filter(None, problems))}")
    made = re.compile(rf"{re.escape(stack)}-(serverless|realtime)(-[0-9a-f]{{8}}){{1,2}}")
    prefix = f"{stack}-"
    for config_page in client.get_paginator("list_endpoint_configs").paginate(NameContains=prefix):
        for config in config_page["EndpointConfigs"]:
            if made.fullmatch(config["EndpointConfigName"]):
                client.delete_endpoint_config(EndpointConfigName=config["EndpointConfigName"])
    for model_page in client.get_paginator("list_models").paginate(NameContains=prefix):
        for model in model_page["Models"]:
            if made.fullmatch(model["ModelName"]):
                client.delete_model(ModelName=model["ModelName"])
    # All pages first: the registry continues by position, so a deletion would shift the next page.
    for package_page in list(client.get_paginator("list_model_packages").paginate(ModelPackageGroupName=stack)):
        for package in package_page["ModelPackageSummaryList"]:
            client.delete_model_package(ModelPackageName=package["ModelPackageArn"])


def endpoint_statuses(client: "SageMakerClient", stack: str) -> Iterator[tuple[str, str]]:
    """Name and status of the stack's own endpoints, live and candidate; none of a stack `<stack>-…`."""
    ours = re.compile(rf"{re.escape(stack)}-(serverless|realtime|candidate-[0-9a-f]{{8}})")
    for page in client.get_paginator("list_endpoints").paginate(NameContains=f"{stack}-"):
        for endpoint in page["Endpoints"]:
            if ours.fullmatch(endpoint["EndpointName"]):
                yield endpoint["EndpointName"], endpoint["EndpointStatus"]


def delete_endpoint(client: "SageMakerClient", name: str) -> str | None:
    """Deletes the endpoint. Returns why that is impossible now, mostly an update in progress; else None."""
    try:
        client.delete_endpoint(EndpointName=name)
    except ClientError as error:
        return str(error)
    return None


def wait(deadline: float, what: str) -> None:
    """Raises Unfinished(what) instead of waiting beyond `deadline`."""
    if time.monotonic() + POLL_SECONDS > deadline:
        raise Unfinished(what)
    time.sleep(POLL_SECONDS)
