"""`bintally stack reconcile` on a running stack: messages that were lost, with the machine, the roles and real keys."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployed.errors import ReconcileFailed

KEYS = ["incoming/REC1/A/1.jpg", "incoming/REC1/A/2.jpg", "incoming/REC1/ü #1+%41&/\x01.jpg", "incoming/REC1/a/b/c.jpg"]


def run(user: Any, *words: str) -> str:
    environment = os.environ | {"BINTALLY_HOME": str(user.stack.home), "BINTALLY_PORT": str(user.stack.port)}
    command = [str(Path(sys.executable).with_name("bintally")), "stack", "reconcile", *words]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return done.stdout


def test_lost_messages_are_sent_again_and_nothing_is_counted_twice(user: Any, photograph: Callable[..., bytes]) -> None:
    run(user)  # tests before this one may have lost something
    user.wait_drained()
    with user.held():
        for number, key in enumerate(KEYS):
            user.upload(key, photograph(number), captured_at="2026-01-02T03:04:05Z")
        user.wait_for("all in the queue", lambda: user.depth(user.queue) == len(KEYS))
        user.sqs.purge_queue(QueueUrl=user.queue)
        user.upload(KEYS[0], photograph(9))  # a second version, whose message is not lost
        user.upload("incoming/REC1/", b"")
        user.wait_for("both in the queue", lambda: user.depth(user.queue) == 2)
        line = run(user)
        assert "5 without a count, 5 sent to the count queue (which had 2 messages before" in line
    user.wait_counts(*KEYS, number=5)
    user.wait_drained()
    assert len(user.counts(*KEYS)) == 5
    assert user.totals("REC1")["counted"] == 4
    found = json.loads(run(user, "--json"))
    assert (found["uncounted"], found["requeued"]) == (0, 0)
    assert found["checked"] >= 5


def test_a_count_that_someone_removed_is_restored(user: Any, photograph: Callable[..., bytes]) -> None:
    key = "incoming/REC2/A/1.jpg"
    user.upload(key, photograph(40))
    (count,) = user.wait_counts(key)
    user.table.delete_item(Key={"PK": count["PK"], "SK": count["SK"]})
    assert json.loads(run(user, "--json"))["requeued"] == 1
    assert [again["SK"] for again in user.wait_counts(key)] == [count["SK"]]
    user.wait_drained()
    assert json.loads(run(user, "--json"))["uncounted"] == 0


def test_a_count_of_before_the_markers_gets_its_own(user: Any, photograph: Callable[..., bytes]) -> None:
    """0.1.0 wrote none. The bucket's other photographs keep theirs."""
    key = "incoming/REC2/B/1.jpg"
    user.upload(key, photograph(41))
    (count,) = user.wait_counts(key)

    def markers() -> Any:
        place = count["PK"], count["SK"]
        return [item for item in user.items() if (item.get("count_pk"), item.get("count_sk")) == place]

    (written,) = markers()
    user.table.delete_item(Key={"PK": written["PK"], "SK": written["SK"]})
    assert json.loads(run(user, "--json"))["uncounted"] == 0
    assert markers() == [written]


def test_a_file_of_records_whose_message_was_lost_is_read(user: Any) -> None:
    """An event that never came: the file is below records/ before the stack's rule looks there."""
    rules = user.stack.client("events")
    (rule,) = [each["Name"] for each in rules.list_rules()["Rules"] if "Record" in each["Name"]]
    key = {"PK": "BIN#REC3#A", "SK": "RECORD"}
    rules.disable_rule(Name=rule)
    try:
        user.s3.put_object(Bucket=user.bucket, Key="records/REC3/A.json", Body=b'{"expected_quantity": 5}')
        time.sleep(1)
    finally:
        rules.enable_rule(Name=rule)
    assert "Item" not in user.table.get_item(Key=key, ConsistentRead=True)
    assert json.loads(run(user, "--json"))["unread"] == 1
    item = user.wait_for("the record", lambda: user.table.get_item(Key=key, ConsistentRead=True).get("Item"))
    assert item["expected_quantity"] == 5
    user.wait_for("its summary", lambda: json.loads(run(user, "--json"))["unread"] == 0)


def test_a_wrong_input_is_an_error(user: Any) -> None:
    states, machine = user.stack.client("stepfunctions"), user.outputs["ReconcileStateMachine"]
    started = states.start_execution(stateMachineArn=machine, input='{"since": "yesterday"}')
    with pytest.raises(ReconcileFailed, match="since takes ISO 8601"):
        user.stack.wait_reconcile(started["executionArn"])
