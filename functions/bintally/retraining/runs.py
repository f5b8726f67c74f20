"""Retraining runs in the table: the lock, each run's outcome, and the label log's watermark."""

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
    """The holder of the lock."""

    execution: str
    run: str


def take_lock(table: Table, wanted: Holder, now: str, before: Holder | None) -> bool:
    """Takes the lock if it is free, held by `before`, or ours already. False when another execution holds it."""
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
    """Releases the lock only if that execution holds it."""
    table.delete(LOCK, only_if="#owner = :owner", names={"#owner": "owner"}, values={":owner": execution})


def store_state(table: Table, execution: str, state: Item) -> bool:
    """Puts STATE and releases the lock in one transaction; False, and nothing changes, unless that execution holds it.

    Another run may hold it by now: it takes the lock of an execution that no longer runs.
    """
    return table.put_and_delete(
        {**STATE, **state}, LOCK, only_if="#owner = :owner", names={"#owner": "owner"}, values={":owner": execution}
    )


def state(table: Table) -> Item:
    """The log's `watermark`, the last dataset's `index` and the last `tuning_job`; empty before the first run."""
    return table.get(STATE, consistent=True) or {}


def run_key(run: str) -> Item:
    return {"PK": "RETRAIN", "SK": f"RUN#{run}"}


def find(table: Table, run: str) -> Item:
    """A run's item; None if the run never started."""
    return table.get(run_key(run), consistent=True) or {}


def is_running(states: "SFNClient", execution: str) -> bool:
    """Whether an execution still runs. One that Step Functions no longer knows does not."""
    try:
        return states.describe_execution(executionArn=execution)["status"] in ("RUNNING", "PENDING_REDRIVE")
    except ClientError as error:
        if error.response["Error"]["Code"] == "ExecutionDoesNotExist":
            return False
        raise
