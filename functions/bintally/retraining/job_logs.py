"""The log streams of retrainings' jobs. SageMaker writes those of all jobs of an account into three log groups without
retention, which may contain other people's jobs, so streams are deleted one by one."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

GROUPS = ("/aws/sagemaker/ProcessingJobs", "/aws/sagemaker/TrainingJobs", "/aws/sagemaker/TransformJobs")
MOST = 100
"""Streams of a group that are deleted at a time; a retraining has some twenty in all."""


def expire(logs: "CloudWatchLogsClient", stack: str, days: int, now: datetime) -> list[str]:
    """Deletes streams into which nothing was written for so many days, and returns their names."""
    before = (now - timedelta(days=days)).timestamp() * 1000
    return [name for group in GROUPS for name in expire_group(logs, group, stack, before)]


def expire_group(logs: "CloudWatchLogsClient", group: str, stack: str, before: float) -> list[str]:
    """Of one group; none if there was never such a job in the account."""
    try:
        old = list(islice(streams(logs, group, stack, before), MOST))
        for name in old:
            logs.delete_log_stream(logGroupName=group, logStreamName=name)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        return []
    return old


def streams(logs: "CloudWatchLogsClient", group: str, stack: str, before: float) -> Iterator[str]:
    """The stack's streams that are older; none of a stack `<stack>-…`."""
    ours = re.compile(rf"{re.escape(stack)}-\d{{6}}-[0-9a-f]{{6}}-.+")
    pages = logs.get_paginator("describe_log_streams").paginate(logGroupName=group, logStreamNamePrefix=f"{stack}-")
    for page in pages:
        for stream in page["logStreams"]:
            if (
                ours.fullmatch(stream["logStreamName"])
                and stream.get("lastEventTimestamp", stream["creationTime"]) < before
            ):
                yield stream["logStreamName"]
