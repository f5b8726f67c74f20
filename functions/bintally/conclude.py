"""The conclude function: cleans up after a retraining run and reports its outcome.

The state machine `retrain` calls it at each of its ends; a rule calls it when an execution failed, was aborted or timed
out, since no state runs then. Called twice, it reports once.
"""

from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from bintally.aws import clients
from bintally.aws.table import Table
from bintally.common.events import check_fields
from bintally.retraining.conclude_run import Services, conclude_run
from bintally.retraining.settings import retrain_settings

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

# At worst: the execution 21 s (clients.STATES); eight jobs and models to stop or delete, 21 s each (clients.SAGEMAKER);
# one page of checkpoints, of trials and of parts to list and to delete, 11 s each (clients.S3); four requests of the
# table, the event and the message, 9 s each (clients.DYNAMODB, EVENTS, SNS): 21 + 168 + 66 + 54 = 309 s. The time limit
# is 360 s.
WORST_SECONDS = 309


def handler(event: dict[str, Any], context: object) -> dict[str, str]:
    """`event`: execution, started_at, outcome, error, reason, and the plan if there is one; or EventBridge's event of
    an execution that ended. Answers {"outcome", "error", "reason"}, the reason in one line. Raises WrongEvent."""
    if isinstance(event, dict) and "detail" in event:
        fields = ("executionArn", "status", "startDate")
        check_fields(event, "conclude", "EventBridge's event of an execution that ended", *fields, inside="detail")
    else:
        check_fields(event, "conclude", "the end of a retraining", "execution", "started_at", "outcome")
    ended = of_status_change(clients.states(), event["detail"]) if "detail" in event else event
    return conclude_run(services(), retrain_settings(), ended)


def of_status_change(states: "SFNClient", detail: dict[str, Any]) -> dict[str, Any]:
    """Reads the reason from the execution: the event does not contain it."""
    status, found = detail["status"], {}
    with suppress(ClientError, BotoCoreError):  # stop the jobs even if the reason cannot be read
        found = dict(states.describe_execution(executionArn=detail["executionArn"]))
    return {
        "execution": detail["executionArn"],
        "started_at": datetime.fromtimestamp(detail["startDate"] / 1000, UTC).isoformat(),
        "outcome": "failed",
        "error": found.get("error") or {"TIMED_OUT": "States.Timeout", "ABORTED": "Aborted"}.get(status, status),
        "reason": found.get("cause") or f"the execution is {status}",
    }


@cache
def services() -> Services:
    return Services(
        table=Table.named(retrain_settings().counts_table),
        s3=clients.s3(),
        sagemaker=clients.sagemaker(),
        events=clients.events(),
        sns=clients.sns(),
    )
