"""Delays messages until their next try."""

from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from botocore.exceptions import BotoCoreError, ClientError

from bintally.aws import clients
from bintally.aws.telemetry import logger

LONGEST_WAIT = 900  # seconds between two tries


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
