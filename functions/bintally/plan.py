"""The plan function: starts a retraining run.

The state machine `retrain` branches on the answer's `outcome`: after `reading` it calls the function again. An
exception is a fault that may be transient.

Of the time limit of 900 s, labels are read for 500. After that there are at most the object that is being read and its
slice (60 s), the manifest of 2,000,000 labels (19 s of a processor, and 2.6 GB from and to S3 at 30 MB/s: 106 s) and
SageMaker's answers (5 x 21 s): 771 s. docs/retraining.md has the arithmetic of a large log.
"""

import time
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
READING_SECONDS = 500


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """`event`: execution (its ARN), started_at, input. Returns the plan, or {"outcome", "error", "reason", "run"}.

    Raises WrongEvent."""
    check_fields(event, "plan", "the start of a retraining", "execution", "started_at", "input")
    run = run_of(event["execution"], datetime.fromisoformat(event["started_at"]))
    logger.info("asked to retrain", extra={"run": run, "input": event["input"]})
    deadline = time.monotonic() + READING_SECONDS
    try:
        return plan_run(services(), retrain_settings(), Holder(event["execution"], run), event["input"], deadline)
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
