"""The plan function: starts a retraining run.

The state machine `retrain` branches on the answer's `outcome`; an exception is a fault that may be transient."""

from datetime import datetime
from functools import cache
from typing import Any

from bintally.aws import clients
from bintally.aws.table import Table
from bintally.aws.telemetry import logger
from bintally.common.events import check_fields
from bintally.retraining.names import Refused, run_of
from bintally.retraining.plan_run import Services, plan_run
from bintally.retraining.runs import Holder
from bintally.retraining.settings import retrain_settings

TICKS = ("schedule", "drift alarm")
"""The template's own reasons: starts that no person waits for."""


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """`event`: execution (its ARN), started_at, input. Returns the plan, or {"outcome", "error", "reason", "run"}.

    Raises WrongEvent."""
    check_fields(event, "plan", "the start of a retraining", "execution", "started_at", "input")
    run = run_of(event["execution"], datetime.fromisoformat(event["started_at"]))
    logger.info("asked to retrain", extra={"run": run, "input": event["input"]})
    try:
        return plan_run(services(), retrain_settings(), Holder(event["execution"], run), event["input"])
    except Refused as error:
        # A schedule or an alarm asks again; only people must learn that their run did not start.
        waits = error.error == "AlreadyRunning" and event["input"].get("reason") in TICKS
        outcome = {"outcome": "under way", "error": ""} if waits else {"outcome": "refused", "error": error.error}
        return {**outcome, "reason": str(error), "run": run}


@cache
def services() -> Services:
    return Services(
        table=Table.named(retrain_settings().counts_table),
        s3=clients.s3_bulk(),
        sagemaker=clients.sagemaker(),
        states=clients.states(),
    )
