"""Moving messages from the dead-letter queue: none is lost or moved twice, and the command ends."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from cli.stack_redrive import redrive

SESSION = boto3.Session("test", "test", region_name="us-east-1")


@pytest.fixture
def sqs() -> Iterator[Any]:
    with mock_aws():
        yield SESSION.client("sqs")


@pytest.fixture
def queues(sqs: Any) -> tuple[str, str]:
    """The dead-letter queue and the count queue, which gives a message up after one try."""
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    name = "QueueArn"
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=[name])["Attributes"][name]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1})
    queue = sqs.create_queue(QueueName="count", Attributes={"RedrivePolicy": policy, "VisibilityTimeout": "0"})
    return dead, queue["QueueUrl"]


def bodies(sqs: Any, queue: str) -> list[str]:
    found: list[str] = []
    while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            found.append(message["Body"])
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    return sorted(found)


def fill(sqs: Any, queue: str, number: int) -> list[str]:
    wanted = sorted(f"photograph {n}" for n in range(number))
    for body in wanted:
        sqs.send_message(QueueUrl=queue, MessageBody=body)
    return wanted


def test_every_message_moves_once(sqs: Any, queues: tuple[str, str]) -> None:
    dead, queue = queues
    wanted = fill(sqs, dead, 23)
    moved = list(redrive(sqs, dead, queue))
    assert sum(sent for sent, _ in moved) == 23
    assert not any(kept for _, kept in moved)
    assert bodies(sqs, queue) == wanted
    assert bodies(sqs, dead) == []


def test_an_empty_queue_moves_nothing(sqs: Any, queues: tuple[str, str]) -> None:
    assert list(redrive(sqs, *queues)) == []


def test_attributes_go_along(sqs: Any, queues: tuple[str, str]) -> None:
    dead, queue = queues
    trace = {"trace": {"DataType": "String", "StringValue": "1-2"}}
    sqs.send_message(QueueUrl=dead, MessageBody="x", MessageAttributes=trace)
    list(redrive(sqs, dead, queue))
    (message,) = sqs.receive_message(QueueUrl=queue, MessageAttributeNames=["All"])["Messages"]
    assert message["MessageAttributes"]["trace"]["StringValue"] == "1-2"


class Dying:
    """A client that dies at one operation."""

    def __init__(self, sqs: Any, operation: str) -> None:
        self.sqs, self.operation = sqs, operation

    def __getattr__(self, name: str) -> Any:
        if name == self.operation:
            raise KeyboardInterrupt
        return getattr(self.sqs, name)


@pytest.mark.parametrize("operation", ["send_message_batch", "delete_message_batch"])
def test_killed_in_between_loses_nothing(sqs: Any, queues: tuple[str, str], operation: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("cli.stack_redrive.HOLD_SECONDS", 0)
    dead, queue = queues
    wanted = fill(sqs, dead, 5)
    with pytest.raises(KeyboardInterrupt):
        list(redrive(Dying(sqs, operation), dead, queue))
    assert set(bodies(sqs, dead)) | set(bodies(sqs, queue)) == set(wanted)


class Refusing:
    """A count queue that takes no message with an even number."""

    def __init__(self, sqs: Any) -> None:
        self.sqs = sqs

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sqs, name)

    def send_message_batch(self, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        taken = [entry for entry in Entries if int(entry["MessageBody"].split()[1]) % 2]
        answer = self.sqs.send_message_batch(QueueUrl=QueueUrl, Entries=taken) if taken else {}
        failed = [{"Id": entry["Id"]} for entry in Entries if entry not in taken]
        return {"Successful": answer.get("Successful", []), "Failed": failed}


def test_what_cannot_be_sent_stays(sqs: Any, queues: tuple[str, str], monkeypatch: Any) -> None:
    monkeypatch.setattr("cli.stack_redrive.HOLD_SECONDS", 0)
    dead, queue = queues
    fill(sqs, dead, 6)
    moved = list(redrive(Refusing(sqs), dead, queue))
    assert sum(sent for sent, _ in moved) == 3
    assert sum(kept for _, kept in moved) == 3
    assert bodies(sqs, queue) == ["photograph 1", "photograph 3", "photograph 5"]
    assert bodies(sqs, dead) == ["photograph 0", "photograph 2", "photograph 4"]


class Failing:
    """A count queue whose consumer gives every message up at once."""

    def __init__(self, sqs: Any) -> None:
        self.sqs = sqs

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sqs, name)

    def send_message_batch(self, QueueUrl: str, **entries: Any) -> Any:
        answer = self.sqs.send_message_batch(QueueUrl=QueueUrl, **entries)
        for _ in range(2):  # the second time, it goes to the dead-letter queue
            self.sqs.receive_message(QueueUrl=QueueUrl, MaxNumberOfMessages=10)
        return answer


def test_what_comes_back_at_once_is_not_moved_for_ever(sqs: Any, queues: tuple[str, str]) -> None:
    dead, queue = queues
    wanted = fill(sqs, dead, 4)
    assert sum(sent for sent, _ in redrive(Failing(sqs), dead, queue)) == 4
    left = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["All"])["Attributes"]
    waiting = int(left["ApproximateNumberOfMessages"]) + int(left["ApproximateNumberOfMessagesNotVisible"])
    assert waiting == len(wanted)
