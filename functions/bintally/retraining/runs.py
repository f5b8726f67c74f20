"""Retraining runs as they are stored in the table: the lock, each run's outcome, and how far the label log is read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from bintally.aws.items import Item
from bintally.aws.table import Table

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

LOCK = {"PK": "LOCK#retrain", "SK": "LOCK"}
STATE = {"PK": "RETRAIN", "SK": "STATE"}


@dataclass(frozen=True)
class Holder:
    """Who has the lock."""

    execution: str
    run: str


def take_lock(table: Table, wanted: Holder, now: str, before: Holder | None) -> bool:
    """Takes the free lock, or the one that `before` holds; ours already is ours. False when another has it."""
    owner = before.execution if before else wanted.execution
    return table.put(
        {**LOCK, "owner": wanted.execution, "run": wanted.run, "taken_at": now},
        only_if="attribute_not_exists(PK) OR #owner = :owner OR #owner = :wanted",
        names={"#owner": "owner"},
        values={":owner": owner, ":wanted": wanted.execution},
    )


def holder(table: Table) -> Holder | None:
    found = table.get(LOCK, consistent=True)
    return Holder(found["owner"], found["run"]) if found else None


def release_lock(table: Table, execution: str) -> None:
    """Only if it is that execution's."""
    table.delete(LOCK, only_if="#owner = :owner", names={"#owner": "owner"}, values={":owner": execution})


def state(table: Table) -> Item:
    """How far the log was read (`watermark`), the last dataset's `index`, the last `tuning_job`; at first nothing."""
    return table.get(STATE, consistent=True) or {}


def run_key(run: str) -> Item:
    return {"PK": "RETRAIN", "SK": f"RUN#{run}"}


def find(table: Table, run: str) -> Item:
    """What is known of a run; nothing when it never began."""
    return table.get(run_key(run), consistent=True) or {}


def is_running(states: "SFNClient", execution: str) -> bool:
    """Whether an execution still runs. One that Step Functions has forgotten does not."""
    try:
        return states.describe_execution(executionArn=execution)["status"] in ("RUNNING", "PENDING_REDRIVE")
    except ClientError as error:
        if error.response["Error"]["Code"] == "ExecutionDoesNotExist":
            return False
        raise
