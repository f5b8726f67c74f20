"""The custom resource ReleasedEndpoint: removes with the stack everything that its releases created.

On creation it refuses a stack name under which no retraining could run, and disables the count queue's mapping until
the first release enables it: with Enabled in the template, each later change of the mapping would disable it on a
released stack. Updates do nothing.
"""

import json
import time
import urllib.request
from typing import Any

from bintally.aws import clients
from bintally.aws.telemetry import logger
from bintally.common.events import check_fields
from bintally.releasing import candidate_logs
from bintally.releasing.counting import pause_counting
from bintally.releasing.remove_all import remove_all, stop_executions
from bintally.retraining.clean_up import clean_up
from bintally.retraining.names import Names, check_stack_name, run_of

PHYSICAL_ID = "bintally-endpoint"  # constant: CloudFormation would delete a resource whose id changes
SPARE_SECONDS = 30  # of the time limit, reserved for the answer


def handler(event: dict[str, Any], context: Any) -> None:
    """Handles CloudFormation's event and answers it, whatever happens. Raises WrongEvent: then nobody waits for one."""
    wanted = ("RequestType", "ResponseURL", "StackId", "RequestId", "LogicalResourceId", "ResourceProperties")
    check_fields(event, "remove_endpoint", "a request of CloudFormation", *wanted)
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - SPARE_SECONDS
    reason = ""
    try:
        if event["RequestType"] == "Create":
            check_stack_name(event["ResourceProperties"]["StackName"])
            pause_counting(clients.lambda_(), event["ResourceProperties"]["Mapping"], deadline)
        if event["RequestType"] == "Delete":
            delete(event["ResourceProperties"], deadline)
    except Exception as error:  # noqa: BLE001 without an answer CloudFormation would wait an hour
        logger.exception("failed")
        reason = f"{type(error).__name__}: {error}"
    respond(event, reason)


def delete(properties: dict[str, Any], deadline: float) -> None:
    """Stops the executions first: they would create again what is removed here."""
    stop_executions(clients.states(), properties["ReleaseStateMachine"])
    for execution in stop_executions(clients.states(), properties["RetrainStateMachine"]):
        run = run_of(execution["executionArn"], execution["startDate"])
        clean_up(clients.sagemaker(), Names.of(properties["StackName"], run))
    remove_all(clients.sagemaker(), properties["StackName"], deadline)
    candidate_logs.remove(clients.logs(), properties["StackName"])


def respond(event: dict[str, Any], reason: str) -> None:
    """Puts the answer where CloudFormation reads it; `reason` says what failed."""
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
