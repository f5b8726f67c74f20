"""What the count function needs fails: back to the queue, counted once when it recovers, never lost."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ENDPOINT_FAULTS: dict[str, dict[str, Any]] = {
    "500 in the container": {"status": 424, "error": "ModelError", "body": {"OriginalStatusCode": 500}},
    "503 in the container": {"status": 424, "error": "ModelError", "body": {"OriginalStatusCode": 503}},
    "503": {"status": 503, "error": "ServiceUnavailable"},
    "500": {"status": 500, "error": "InternalFailure"},
    "throttled": {"status": 400, "error": "ThrottlingException"},
    "missing": {"status": 400, "error": "ValidationError"},
    "no JSON": {"status": 200, "body": b"<html>"},
    "empty": {"status": 200, "body": b""},
    "six probabilities": {"status": 200, "body": {"count": 1, "probabilities": [0.5, 0.5, 0, 0, 0, 0]}},
}
TABLE_FAULTS: dict[str, dict[str, Any]] = {
    "throttled": {"status": 400, "error": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"},
    "request limit": {"status": 400, "error": "com.amazonaws.dynamodb.v20120810#RequestLimitExceeded"},
    "500": {"status": 500, "error": "InternalServerError"},
}


@pytest.fixture
def settled(user: Any) -> Iterator[None]:
    """Both queues are empty before and after."""
    user.wait_drained()
    assert user.depth(user.dead) == 0
    yield
    user.wait_drained()
    assert user.depth(user.dead) == 0


@pytest.mark.parametrize("fault", ENDPOINT_FAULTS)
def test_endpoint_fails_then_recovers(
    fault: str, user: Any, endpoint: Any, settled: None, photograph: Callable[..., bytes]
) -> None:
    """It fails until the photograph has gone back to the queue at least once."""
    key = f"incoming/END1/{fault}/photo.jpg"
    before = len(user.postponed())
    endpoint.fail(**ENDPOINT_FAULTS[fault])
    user.upload(key, photograph(1))
    user.wait_postponed(before, "endpoint")
    assert endpoint.asked
    assert user.counts(key) == []
    endpoint.reset()
    (item,) = user.wait_counts(key)
    assert item["status"] == "COUNTED"
    user.wait_drained()
    assert len(user.counts(key)) == 1


def test_endpoint_takes_too_long(user: Any, endpoint: Any, settled: None, photograph: Callable[..., bytes]) -> None:
    key = "incoming/END1/slow/photo.jpg"
    endpoint.fail(status=200, delay=17, times=1)
    user.upload(key, photograph(1))
    (item,) = user.wait_counts(key)
    assert item["status"] == "COUNTED"
    assert len(endpoint.asked) >= 2


def test_endpoint_process_killed(user: Any, settled: None, photograph: Callable[..., bytes]) -> None:
    """The emulator starts it anew; what came meanwhile is counted then."""
    (serving,) = user.serving()
    os.kill(serving, signal.SIGKILL)
    keys = [f"incoming/END1/killed/{number}.jpg" for number in range(5)]
    for number, key in enumerate(keys):
        user.upload(key, photograph(number))
    items = user.wait_counts(*keys)
    assert {item["status"] for item in items} == {"COUNTED"}
    assert len(items) == 5
    assert user.serving() != [serving]


def test_endpoint_deleted_and_made_again(user: Any, settled: None, photograph: Callable[..., bytes]) -> None:
    sagemaker, name = user.stack.client("sagemaker"), user.outputs["EndpointName"]
    config = sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"]
    sagemaker.delete_endpoint(EndpointName=name)
    user.wait_for("the endpoint gone", lambda: not sagemaker.list_endpoints()["Endpoints"])
    key = "incoming/END1/deleted/photo.jpg"
    before = len(user.postponed())
    user.upload(key, photograph(1))
    user.wait_postponed(before, "not found")
    assert user.counts(key) == []
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1})
    (item,) = user.wait_counts(key)
    assert item["status"] == "COUNTED"


def test_after_the_last_try_it_waits_to_be_redriven(
    user: Any, endpoint: Any, settled: None, photograph: Callable[..., bytes]
) -> None:
    user.tries(2)
    keys = [f"incoming/DLQ1/B-{number}/photo.jpg" for number in range(3)]
    endpoint.fail(status=500, error="InternalFailure")
    for number, key in enumerate(keys):
        user.upload(key, photograph(number))
    user.wait_for("all in the dead-letter queue", lambda: user.depth(user.dead) == len(keys))
    user.wait_drained()
    assert user.counts(*keys) == []
    user.tries(8)
    endpoint.reset()
    environment = os.environ | {"BINTALLY_HOME": str(user.stack.home), "BINTALLY_PORT": str(user.stack.port)}
    subprocess.run([Path(sys.executable).with_name("bintally"), "stack", "redrive"], env=environment, check=True)
    items = user.wait_counts(*keys)
    user.wait_drained()
    assert len(user.counts(*keys)) == len(items) == len(keys)
    assert {item["status"] for item in items} == {"COUNTED"}
    assert user.totals("DLQ1") == {"counted": len(keys)}


def test_redriving_what_was_counted_meanwhile_adds_nothing(
    user: Any, settled: None, photograph: Callable[..., bytes]
) -> None:
    """The event is in the dead-letter queue and the photograph has been counted: a late duplicate."""
    key = "incoming/DLQ2/B-1/photo.jpg"
    with user.held():
        user.upload(key, photograph(1))
        (event,) = user.take_events(1)
        user.send_event(event)
    (item,) = user.wait_counts(key)
    user.sqs.send_message(QueueUrl=user.dead, MessageBody=event)
    environment = os.environ | {"BINTALLY_HOME": str(user.stack.home), "BINTALLY_PORT": str(user.stack.port)}
    subprocess.run([Path(sys.executable).with_name("bintally"), "stack", "redrive"], env=environment, check=True)
    user.wait_drained()
    assert user.depth(user.dead) == 0
    assert user.counts(key) == [item]
    assert user.totals("DLQ2") == {"counted": 1}


@pytest.mark.parametrize("fault", TABLE_FAULTS)
def test_table_fails_then_recovers(
    fault: str, user: Any, table: Any, settled: None, photograph: Callable[..., bytes]
) -> None:
    key = f"incoming/TAB1/{fault}/photo.jpg"
    body = {"__type": TABLE_FAULTS[fault]["error"], "message": "as told"}
    before = len(user.postponed())
    table.fail(**TABLE_FAULTS[fault], body=body)
    user.upload(key, photograph(1))
    user.wait_postponed(before, "table")
    assert table.asked
    assert user.counts(key) == []
    table.reset()
    (item,) = user.wait_counts(key)
    assert item["status"] == "COUNTED"
    user.wait_drained()
    assert user.totals("TAB1")["counted"] == len(user.of_site("TAB1"))


@pytest.mark.parametrize("moment", ["before the write", "after the write"])
def test_function_killed_in_mid_batch(
    moment: str, user: Any, table: Any, settled: None, photograph: Callable[..., bytes]
) -> None:
    """SIGKILL to the worker at the third write of a batch of five. What it held comes back when its visibility
    timeout ends, here after 8 s, and is counted exactly once."""
    site = f"KILL-{moment.split()[0]}"
    name = "VisibilityTimeout"
    kept = user.sqs.get_queue_attributes(QueueUrl=user.queue, AttributeNames=[name])["Attributes"]
    writes: list[float] = []
    killed: list[int] = []
    lock = threading.Lock()

    def kill_at_third(operation: str) -> None:
        with lock:
            if "Write" not in operation and "Put" not in operation:
                return
            writes.append(time.monotonic())
            if len(writes) == 3:
                killed.extend(user.workers())
                for worker in killed:
                    os.kill(worker, signal.SIGKILL)

    keys = [f"incoming/{site}/B-{number}/photo.jpg" for number in range(5)]
    with user.held():
        for number, key in enumerate(keys):
            user.upload(key, photograph(number))
        user.wait_for("five events", lambda: user.depth(user.queue) == 5)
        user.sqs.set_queue_attributes(QueueUrl=user.queue, Attributes={name: "8"})
        if moment == "before the write":
            table.answer = lambda operation, body: kill_at_third(operation)
        else:
            table.after = kill_at_third
    try:
        items = user.wait_counts(*keys, seconds=240)
        user.wait_drained()
    finally:
        user.sqs.set_queue_attributes(QueueUrl=user.queue, Attributes=kept)
    assert killed
    assert len(items) == 5
    assert len(user.counts(*keys)) == 5
    assert user.totals(site) == {"counted": 5}
    assert all(user.latest(site, f"B-{number}")["status"] == "COUNTED" for number in range(5))


def test_a_message_that_is_no_event_ends_in_the_dead_letter_queue(user: Any, settled: None) -> None:
    user.tries(2)
    try:
        user.send_event(json.dumps({"not": "an event"}))
        user.wait_for("in the dead-letter queue", lambda: user.depth(user.dead) == 1)
    finally:
        user.tries(8)
    user.sqs.purge_queue(QueueUrl=user.dead)
