"""Removes with the stack what its releases made: the endpoints, their configurations and their models. Also the
versions in the model registry, since CloudFormation deletes only an empty group.

A custom resource. When it is created it switches the count queue's mapping off, until the first release switches
it on: were the template to say so, each later change of the mapping would switch a released stack off. Updates
do nothing.
"""

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import ClientError

from bintally.aws.telemetry import logger
from bintally.common.errors import BintallyError
from bintally.conclude import clean_up
from bintally.retraining.names import Names, run_of

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_stepfunctions import SFNClient
    from mypy_boto3_stepfunctions.type_defs import ExecutionListItemTypeDef

PHYSICAL_ID = "bintally-endpoint"  # never another: CloudFormation would delete the one that it takes for replaced
SPARE_SECONDS = 30  # of the time limit, kept for the answer
POLL_SECONDS = 5


class Unfinished(BintallyError):
    """Something stays that should be gone; the message says what."""


def handler(event: dict[str, Any], context: Any) -> None:
    """Does what the CloudFormation event asks for and answers it, whatever happens."""
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - SPARE_SECONDS
    properties = event["ResourceProperties"]
    reason = ""
    try:
        if event["RequestType"] == "Create":
            pause_counting(lambda_(), properties["Mapping"], deadline)
        if event["RequestType"] == "Delete":
            stop_executions(states(), properties["ReleaseStateMachine"])
            for execution in stop_executions(states(), properties["RetrainStateMachine"]):
                run = run_of(execution["executionArn"], execution["startDate"])
                clean_up(sagemaker(), Names.of(properties["StackName"], run))
            remove_all(sagemaker(), properties["StackName"], deadline)
    except Exception as error:  # noqa: BLE001 CloudFormation would wait an hour for an answer that does not come
        logger.exception("failed")
        reason = f"{type(error).__name__}: {error}"
    respond(event, reason)


@cache
def lambda_() -> "LambdaClient":
    return boto3.client("lambda")


@cache
def states() -> "SFNClient":
    return boto3.client("stepfunctions")


@cache
def sagemaker() -> "SageMakerClient":
    return boto3.client("sagemaker")


def pause_counting(client: "LambdaClient", mapping: str, deadline: float) -> None:
    """Switches the mapping off as soon as it is made. Raises Unfinished after `deadline` (time.monotonic)."""
    while True:
        try:
            client.update_event_source_mapping(UUID=mapping, Enabled=False)
            return
        except client.exceptions.ResourceInUseException as error:
            wait(deadline, str(error))


def stop_executions(client: "SFNClient", state_machine: str) -> "list[ExecutionListItemTypeDef]":
    """What still ran would make anew what is removed here. Answers the executions that were stopped."""
    running = client.list_executions(stateMachineArn=state_machine, statusFilter="RUNNING")["executions"]
    for execution in running:
        client.stop_execution(executionArn=execution["executionArn"], cause="the stack is deleted")
    return running


def remove_all(client: "SageMakerClient", stack: str, deadline: float) -> None:
    """Removes all that releases of `stack` made. Raises Unfinished when an endpoint stays after `deadline`."""
    while endpoints := dict(endpoint_statuses(client, stack)):
        problems = [delete_endpoint(client, name) for name, status in endpoints.items() if status != "Deleting"]
        wait(deadline, f"endpoints stay: {endpoints}; {'; '.join(filter(None, problems))}")
    made = re.compile(rf"{re.escape(stack)}-(serverless|realtime)-[0-9a-f]{{8}}")
    prefix = f"{stack}-"
    for config_page in client.get_paginator("list_endpoint_configs").paginate(NameContains=prefix):
        for config in config_page["EndpointConfigs"]:
            if made.fullmatch(config["EndpointConfigName"]):
                client.delete_endpoint_config(EndpointConfigName=config["EndpointConfigName"])
    for model_page in client.get_paginator("list_models").paginate(NameContains=prefix):
        for model in model_page["Models"]:
            if made.fullmatch(model["ModelName"]):
                client.delete_model(ModelName=model["ModelName"])
    # All pages first: the registry counts on from a page's end, also when what was before is gone.
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
    """Why the endpoint cannot be deleted now: mostly because it is in change. None when it goes."""
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


def respond(event: dict[str, Any], reason: str) -> None:
    """Puts the answer where CloudFormation reads it; a `reason` says what failed."""
    answer = {
        "Status": "FAILED" if reason else "SUCCESS",
        "Reason": reason or "done",
        "PhysicalResourceId": event.get("PhysicalResourceId", PHYSICAL_ID),
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
    }
    request = urllib.request.Request(
        event["ResponseURL"], json.dumps(answer).encode(), {"Content-Type": ""}, method="PUT"
    )
    urllib.request.urlopen(request, timeout=20).close()
