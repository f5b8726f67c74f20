"""Log groups of candidate endpoints, which SageMaker makes and keeps for ever."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from bintally import expire_logs
from bintally.aws import clients
from bintally.common.events import WrongEvent
from bintally.releasing import settings
from bintally.releasing.candidate_logs import expire, remove
from bintally.retraining import job_logs
from moto import mock_aws

EVENT = json.loads((Path(__file__).parents[2] / "events" / "expire_logs.json").read_text())
CANDIDATES = [f"/aws/sagemaker/Endpoints/bintally-candidate-{number:08x}" for number in range(60)]
OTHERS = [
    "/aws/sagemaker/Endpoints/bintally-serverless",
    "/aws/sagemaker/Endpoints/bintally-candidate-x-candidate-00000001",  # of a stack with that name
    "/aws/sagemaker/Endpoints/bintally2-candidate-00000001",
]
CONTEXT: Any = SimpleNamespace(
    function_name="expire-logs",
    memory_limit_in_mb=256,
    invoked_function_arn="arn:aws:lambda:us-east-1:0:function:expire-logs",
    aws_request_id="r",
)


@pytest.fixture
def logs(environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("STACK_NAME", "bintally")
    monkeypatch.setenv("RETENTION_DAYS", "30")
    settings.logs_settings.cache_clear()
    with mock_aws():
        client = boto3.client("logs")
        monkeypatch.setattr(clients, "logs", lambda: client)
        for name in CANDIDATES + OTHERS:
            client.create_log_group(logGroupName=name)
        yield client
    settings.logs_settings.cache_clear()


def groups(logs: Any) -> dict[str, int | None]:
    """The names of all log groups and their retentions."""
    pages = logs.get_paginator("describe_log_groups").paginate()
    return {group["logGroupName"]: group.get("retentionInDays") for page in pages for group in page["logGroups"]}


def test_every_candidates_log_group_has_an_end_and_no_other_is_touched(logs: Any) -> None:
    assert expire_logs.handler(EVENT, CONTEXT) == {"limited": 60, "deleted": 0, "streams": 0}
    assert groups(logs) == dict.fromkeys(CANDIDATES, 30) | dict.fromkeys(OTHERS)
    assert expire_logs.handler(EVENT, CONTEXT) == {"limited": 0, "deleted": 0, "streams": 0}


def test_another_retention_is_set_and_old_groups_are_deleted(logs: Any) -> None:
    logs.put_retention_policy(logGroupName=CANDIDATES[0], retentionInDays=365)
    now = datetime.now(UTC)
    assert expire(logs, "bintally", 30, now + timedelta(days=30))[0] == CANDIDATES
    assert expire(logs, "bintally", 30, now + timedelta(days=32)) == ([], CANDIDATES)
    assert groups(logs).keys() == set(OTHERS)


def test_they_go_with_the_stack(logs: Any) -> None:
    remove(logs, "bintally")
    assert groups(logs).keys() == set(OTHERS)


def test_old_log_streams_of_the_stacks_own_jobs_are_deleted(logs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    group = "/aws/sagemaker/TrainingJobs"
    ours = [f"bintally-261101-0123ab-{number:03}-5d2a/algo-1-1" for number in range(3)]
    others = ["bintally-x-261101-0123ab-train/algo-1-1", "bintally-of-someone/algo-1-1", "else/algo-1-1"]
    logs.create_log_group(logGroupName=group)
    for name in ours + others:
        logs.create_log_stream(logGroupName=group, logStreamName=name)
    now = datetime.now(UTC)
    at = {"timestamp": round((now - timedelta(days=5)).timestamp() * 1000), "message": "lr 0.1"}
    logs.put_log_events(logGroupName=group, logStreamName=ours[2], logEvents=[at])
    assert job_logs.expire(logs, "bintally", 30, now + timedelta(days=24)) == []
    monkeypatch.setattr(job_logs, "MOST", 1)
    assert job_logs.expire(logs, "bintally", 30, now + timedelta(days=31)) == ours[:1], "the others come the next day"
    monkeypatch.undo()
    assert job_logs.expire(logs, "bintally", 30, now + timedelta(days=31)) == ours[1:]
    left = logs.describe_log_streams(logGroupName=group)["logStreams"]
    assert {stream["logStreamName"] for stream in left} == {*others}


def test_another_event_is_refused(logs: Any) -> None:
    with pytest.raises(WrongEvent, match=r"expire_logs takes an event of its schedule.*events/expire_logs\.json"):
        expire_logs.handler({"Records": []}, CONTEXT)
