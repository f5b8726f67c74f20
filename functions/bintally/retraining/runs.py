"""Retraining runs as they stand in the table: the lock, what each run came to, and how far the label log is read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from bintally.aws import table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

LOCK = {"PK": "LOCK#retrain", "SK": "LOCK"}
STATE = {"PK": "RETRAIN", "SK": "STATE"}

Item = dict[str, Any]


@dataclass(frozen=True)
class Holder:
    """Who has the lock."""

    execution: str
    run: str


def take_lock(dynamodb: "DynamoDBClient", name: str, wanted: Holder, now: str, before: Holder | None) -> bool:
    """Takes the free lock, or the one that `before` holds; ours already is ours. False when another has it."""
    owner = before.execution if before else wanted.execution
    try:
        dynamodb.put_item(
            TableName=name,
            Item=table.wire({**LOCK, "owner": wanted.execution, "run": wanted.run, "taken_at": now}),
            ConditionExpression="attribute_not_exists(PK) OR #owner = :owner OR #owner = :wanted",
            ExpressionAttributeNames={"#owner": "owner"},
            ExpressionAttributeValues={":owner": {"S": owner}, ":wanted": {"S": wanted.execution}},
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        return False
    return True


def holder(dynamodb: "DynamoDBClient", name: str) -> Holder | None:
    found = table.get(dynamodb, name, LOCK, consistent=True)
    return Holder(found["owner"], found["run"]) if found else None


def free_lock(dynamodb: "DynamoDBClient", name: str, execution: str) -> None:
    """Only if it is that execution's."""
    try:
        dynamodb.delete_item(
            TableName=name,
            Key=table.wire(LOCK),
            ConditionExpression="#owner = :owner",
            ExpressionAttributeNames={"#owner": "owner"},
            ExpressionAttributeValues={":owner": {"S": execution}},
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        return


def state(dynamodb: "DynamoDBClient", name: str) -> Item:
    """How far the log was read (`watermark`), the last dataset's `index`, the last `tuning_job`; at first nothing."""
    return table.get(dynamodb, name, STATE, consistent=True) or {}


def run_key(run: str) -> Item:
    return {"PK": "RETRAIN", "SK": f"RUN#{run}"}


def find(dynamodb: "DynamoDBClient", name: str, run: str) -> Item:
    """What is known of a run; nothing when it never began."""
    return table.get(dynamodb, name, run_key(run), consistent=True) or {}


def put(dynamodb: "DynamoDBClient", name: str, item: Item) -> None:
    dynamodb.put_item(TableName=name, Item=table.wire(item))


def is_running(states: Any, execution: str) -> bool:
    """Whether an execution still runs. One that Step Functions has forgotten does not."""
    try:
        return bool(states.describe_execution(executionArn=execution)["status"] in ("RUNNING", "PENDING_REDRIVE"))
    except ClientError as error:
        if error.response["Error"]["Code"] == "ExecutionDoesNotExist":
            return False
        raise
