"""`bintally stack redrive`: retries everything in the dead-letter queues."""

from collections.abc import Iterator
from typing import Any

import click
from rich.console import Console

from cli.errors import CliError
from cli.progress import progress_bar
from cli.stacks import chosen

HOLD_SECONDS = 60  # for which only we see a received message; ten are sent and deleted within one second
WAIT_SECONDS = 2  # to wait for another message before the queue counts as empty


@click.command()
def command() -> None:
    """Retry everything in the dead-letter queues of photographs and of records.

    Nothing is lost: a message leaves the dead-letter queue once its own queue has it. Nothing is counted twice: a
    repeated message finds its photograph counted, or its records stored.
    """
    stack = chosen()
    outputs = stack.outputs()
    sqs = stack.client("sqs")
    failed = 0
    for verb in ("Count", "Record"):
        dead, queue = outputs[f"{verb}DeadLetterQueueUrl"], outputs[f"{verb}QueueUrl"]
        sent = 0
        with progress_bar(Console(stderr=True), "Redriving", waiting(sqs, dead)) as advance:
            for moved, kept in redrive(sqs, dead, queue):
                sent, failed = sent + moved, failed + kept
                for _ in range(moved):
                    advance()
        click.echo(f"{sent} messages sent back to the {verb.lower()} queue")
    if failed:
        raise CliError(f"{failed} messages could not be sent and stay in their dead-letter queue")


def waiting(sqs: Any, queue: str) -> int:
    name = "ApproximateNumberOfMessages"
    return int(sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=[name])["Attributes"][name])


def redrive(sqs: Any, dead: str, queue: str) -> Iterator[tuple[int, int]]:
    """Moves messages, ten at a time; yields how many of each ten were sent and how many remain.

    A message is sent before it is deleted, so a crash between the two repeats it and loses none. Ends when the
    dead-letter queue is empty, or contains only messages that returned or could not be sent.
    """
    seen: set[str] = set()
    while messages := receive(sqs, dead):
        fresh = {str(place): message for place, message in enumerate(messages) if message["MessageId"] not in seen}
        if not fresh:
            return
        answer = sqs.send_message_batch(
            QueueUrl=queue, Entries=[{"Id": place, **content(message)} for place, message in fresh.items()]
        )
        moved = {entry["Id"]: entry["MessageId"] for entry in answer.get("Successful", [])}
        seen |= set(moved.values()) | {message["MessageId"] for message in fresh.values()}
        if moved:
            receipts = [{"Id": place, "ReceiptHandle": fresh[place]["ReceiptHandle"]} for place in moved]
            sqs.delete_message_batch(QueueUrl=dead, Entries=receipts)
        yield len(moved), len(fresh) - len(moved)


def receive(sqs: Any, queue: str) -> list[dict[str, Any]]:
    answer = sqs.receive_message(
        QueueUrl=queue,
        MaxNumberOfMessages=10,
        MessageAttributeNames=["All"],
        VisibilityTimeout=HOLD_SECONDS,
        WaitTimeSeconds=WAIT_SECONDS,
    )
    return list(answer.get("Messages", []))


def content(message: dict[str, Any]) -> dict[str, Any]:
    """The parts of a received message that are sent again: its body and its attributes."""
    attributes = message.get("MessageAttributes")
    return {"MessageBody": message["Body"]} | ({"MessageAttributes": attributes} if attributes else {})
