"""Sends messages, and delays them until their next try."""

from collections.abc import Sequence

from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from botocore.exceptions import BotoCoreError, ClientError

from bintally.aws import clients
from bintally.aws.telemetry import logger
from bintally.common.errors import Transient

LONGEST_WAIT = 900  # seconds between two tries
BATCH = 10  # messages of a request


def send_all(queue_url: str, bodies: Sequence[str]) -> None:
    """Sends every message. Raises Transient, with some of them sent."""
    for start in range(0, len(bodies), BATCH):
        batch = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies[start : start + BATCH])]
        try:
            answer = clients.sqs().send_message_batch(QueueUrl=queue_url, Entries=batch)  # type: ignore[arg-type]
        except (ClientError, BotoCoreError) as error:
            raise Transient(f"queue: {error}") from error
        if failed := answer.get("Failed"):
            raise Transient(f"queue: {len(failed)} messages were not accepted: {failed[0]['Code']}")


def postpone(record: SQSRecord, queue_url: str, first_wait: int) -> None:
    """Waits longer after every try, but less than the queue's visibility timeout, which is meant for lost functions."""
    tries = int(record.attributes.approximate_receive_count)
    wait = min(LONGEST_WAIT, first_wait * 2 ** min(tries - 1, 20))
    try:
        clients.sqs().change_message_visibility(
            QueueUrl=queue_url, ReceiptHandle=record.receipt_handle, VisibilityTimeout=wait
        )
    except (ClientError, BotoCoreError):
        logger.exception("the message waits for the visibility timeout")  # the message returns, only later
