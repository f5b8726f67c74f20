"""Removes with the stack what its releases made.

A custom resource. When it is created it refuses a stack name under which no retraining could run, and switches the
count queue's mapping off, until the first release switches it on: were the template to say so, each later change of the
mapping would switch a released stack off. Updates do nothing.
"""

import json
import time
import urllib.request
from typing import Any

from bintally.aws import clients
from bintally.aws.telemetry import logger
from bintally.releasing.counting import pause_counting
from bintally.releasing.remove_all import remove_all, stop_executions
from bintally.retraining.clean_up import clean_up
from bintally.retraining.names import Names, check_stack_name, run_of

PHYSICAL_ID = "bintally-endpoint"  # never another: CloudFormation would delete the one that it takes for replaced
SPARE_SECONDS = 30  # of the time limit, kept for the answer


def handler(event: dict[str, Any], context: Any) -> None:
    """Does what the CloudFormation event asks for and answers it, whatever happens."""
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - SPARE_SECONDS
    reason = ""
    try:
        if event["RequestType"] == "Create":
            check_stack_name(event["ResourceProperties"]["StackName"])
            pause_counting(clients.lambda_(), event["ResourceProperties"]["Mapping"], deadline)
        if event["RequestType"] == "Delete":
            delete(event["ResourceProperties"], deadline)
    except Exception as error:  # noqa: BLE001 CloudFormation would wait an hour for an answer that does not come
        logger.exception("failed")
        reason = f"{type(error).__name__}: {error}"
    respond(event, reason)


def delete(properties: dict[str, Any], deadline: float) -> None:
    """What still runs would make again what is removed here, so it is stopped first."""
    stop_executions(clients.states(), properties["ReleaseStateMachine"])
    for execution in stop_executions(clients.states(), properties["RetrainStateMachine"]):
        run = run_of(execution["executionArn"], execution["startDate"])
        clean_up(clients.sagemaker(), Names.of(properties["StackName"], run))
    remove_all(clients.sagemaker(), properties["StackName"], deadline)


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
