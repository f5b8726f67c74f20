"""The lock of releases: one item with its owner's ARN, and notes for the clean-up after a release that was stopped."""

from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from bintally.aws.items import Item
from bintally.aws.table import Table
from bintally.common.errors import BintallyError

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

LOCK = {"PK": "LOCK#release", "SK": "LOCK"}
MINE = "#owner = :owner"
OWNER = {"#owner": "owner"}


class LockLost(BintallyError):
    """Another execution holds the lock, or none: nothing may be changed any more."""


def take(table: Table, owner: str, item: Item, stale: str) -> bool:
    """Takes the lock if it is free, ours already, or held by `stale`. False when another execution holds it."""
    return table.put(
        {**LOCK, **item, "owner": owner},
        only_if=f"attribute_not_exists(PK) OR {MINE} OR #owner = :stale",
        names=OWNER,
        values={":owner": owner, ":stale": stale or owner},
    )


def read(table: Table) -> Item | None:
    return table.get(LOCK, consistent=True)


def held(table: Table, owner: str) -> Item:
    """The lock with its notes. Raises LockLost."""
    found = read(table)
    if found is None or found["owner"] != owner:
        raise LockLost("the lock is no longer held")
    return found


def note(table: Table, owner: str, **notes: Any) -> None:
    """Adds to the lock's notes. Raises LockLost."""
    item = {**held(table, owner), **notes}
    if not table.put(item, only_if=MINE, names=OWNER, values={":owner": owner}):
        raise LockLost("the lock is no longer held")


def take_over(table: Table, owner: str, stopped: str) -> Item:
    """Takes over a stopped execution's lock with its notes. Raises LockLost when that execution does not hold it."""
    found = read(table)
    if found is None or found["owner"] not in (owner, stopped):
        raise LockLost("it held no lock, or no longer")
    if not table.put({**found, "owner": owner}, only_if=MINE, names=OWNER, values={":owner": found["owner"]}):
        raise LockLost("it held no lock, or no longer")
    return found


def status(states: "SFNClient", execution: str) -> str:
    """Of an execution, as Step Functions has it; GONE if it no longer knows it."""
    try:
        return states.describe_execution(executionArn=execution)["status"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ExecutionDoesNotExist":
            return "GONE"
        raise
