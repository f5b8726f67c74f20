"""The log groups of candidate endpoints. SageMaker makes them, without retention, when a candidate first logs."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_logs.type_defs import LogGroupTypeDef

ENDPOINTS = "/aws/sagemaker/Endpoints/"


def expire(logs: "CloudWatchLogsClient", stack: str, days: int, now: datetime) -> tuple[list[str], list[str]]:
    """Sets the retention of candidates' log groups, and deletes groups that are older: a candidate lives for minutes,
    so nothing is left in them. Returns the names of those that it changed and of those that it deleted."""
    limited, deleted = [], []
    for group in list(groups(logs, stack)):
        name = group["logGroupName"]
        if datetime.fromtimestamp(group["creationTime"] / 1000, UTC) < now - timedelta(days=days + 1):
            delete(logs, name)
            deleted.append(name)
        elif group.get("retentionInDays") != days:
            logs.put_retention_policy(logGroupName=name, retentionInDays=days)
            limited.append(name)
    return limited, deleted


def remove(logs: "CloudWatchLogsClient", stack: str) -> None:
    """Deletes all of them."""
    for group in list(groups(logs, stack)):
        delete(logs, group["logGroupName"])


def groups(logs: "CloudWatchLogsClient", stack: str) -> "Iterator[LogGroupTypeDef]":
    """The log groups of the stack's candidates; none of a stack `<stack>-…`."""
    ours = re.compile(rf"{re.escape(ENDPOINTS + stack)}-candidate-[0-9a-f]{{8}}")
    for page in logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=f"{ENDPOINTS}{stack}-candidate-"):
        yield from (group for group in page["logGroups"] if ours.fullmatch(group["logGroupName"]))


def delete(logs: "CloudWatchLogsClient", name: str) -> None:
    """Deletes a log group. One that is gone is no error."""
    try:
        logs.delete_log_group(logGroupName=name)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
