"""The record function: reads record files named by an SQS batch of S3 events, and writes records to the table."""

from functools import cache
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from bintally.aws import clients
from bintally.aws.queues import postpone
from bintally.aws.table import Table
from bintally.aws.telemetry import logger, metrics
from bintally.common.arrivals import parse_arrival
from bintally.common.events import check_messages
from bintally.common.keys import is_folder_marker
from bintally.records.record_file import Services, record_file
from bintally.records.settings import record_settings

# The longest work after a check of the time: the look-up of the rows, 4 tries of 9 s (clients.DYNAMODB); 100 rows by
# 8 writers, 13 x 9 s; the report and the summary 11 s each (clients.S3); the event 9 s (clients.EVENTS):
# 36 + 117 + 22 + 9 = 184 s.
WORST_SECONDS = 190

processor = BatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False)


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Returns the messages that go back to the queue. Raises WrongEvent."""
    check_messages(event, "record", "EventBridge events about new files of records")
    return dict(process_partial_response(event, record, processor, context))


def record(record: SQSRecord, lambda_context: LambdaContext) -> None:
    """Reads the file that a message names. Any exception returns the message to the queue."""

    def in_time() -> bool:
        return lambda_context.get_remaining_time_in_millis() > WORST_SECONDS * 1000

    try:
        arrival = parse_arrival(record.body)
        logger.set_correlation_id(arrival.event_id)
        if is_folder_marker(arrival.key, arrival.size):
            logger.info("folder", key=arrival.key)
            return
        report = record_file(services(), arrival, in_time)
    except Exception:
        logger.exception("postponed", message_id=record.message_id, tries=record.attributes.approximate_receive_count)
        metrics.add_metric("Postponed", MetricUnit.Count, 1)
        postpone(record, record_settings().record_queue_url, record_settings().retry_seconds)
        raise
    if report.is_folder:
        logger.info("a folder", key=arrival.key)
        return
    if report.dry_run:
        logger.info("read, not stored", key=arrival.key, kept=report.kept, malformed=report.malformed)
        return
    metrics.add_metric("RecordsKept", MetricUnit.Count, report.kept)
    metrics.add_metric("RecordsMalformed", MetricUnit.Count, report.malformed)
    metrics.add_metric("RecordFilesRefused", MetricUnit.Count, int(not report.kept))
    logger.info("read", key=arrival.key, kept=report.kept, malformed=report.malformed)


@cache
def services() -> Services:
    return Services(
        s3=clients.s3(),
        table=Table.named(record_settings().counts_table),
        events=clients.events(),
        artifacts_bucket=record_settings().artifacts_bucket,
        zone=record_settings().site_zone,
    )
