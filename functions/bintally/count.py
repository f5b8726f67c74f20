"""The count function: from an SQS batch of S3 events to one item per image version in the counts table."""

import gc
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, partial
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from bintally.aws import clients
from bintally.aws.items import Item, image_of, record_key
from bintally.aws.queues import postpone
from bintally.aws.table import Table
from bintally.aws.telemetry import logger, metrics
from bintally.common.arrivals import parse_arrival
from bintally.common.counts import Count, Counted
from bintally.common.errors import Transient
from bintally.common.events import check_messages
from bintally.common.keys import is_folder_marker, parse_key
from bintally.counting.count_photograph import Records, Services, count_photograph
from bintally.counting.settings import count_settings

# One photograph at worst: S3 25 s (objects.DOWNLOAD_SECONDS); endpoint 20 s (endpoint.LAST_START); the table 9 s each
# (clients.DYNAMODB) for four tries to read the records, four of the transaction, the stored count, and LATEST; the
# image itself IMAGE_SECONDS. 25 + 20 + 10 x 9 + 15 = 150 s. The time limit is twice that, and more; no photograph is
# started that might not end in time.
WORST_SECONDS = 155
IMAGE_SECONDS = 15
"""Three times what the slowest files take that tests/functions/test_images.py knows; MOST_PIXELS and the bounds of
pixels.py keep worse ones out. An ordinary photograph takes 0.02 s."""
LOW_CONFIDENCE = 0.2
"""19 % of the shipped model's test photographs are below. It is right about 16 % of those, about 46 % of the rest."""

clients.CHECKS_REQUESTS = False
processor = BatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False)


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Returns the messages that go back to the queue. Raises WrongEvent."""
    check_messages(event, "count", "EventBridge events about new photographs")
    records = Records(record_keys(event))
    return dict(process_partial_response(event, partial(count, records=records), processor, context))


def record_keys(event: dict[str, Any]) -> Iterator[Item]:
    """The keys of the RECORD items of a batch's bins."""
    for message in event["Records"]:
        with suppress(Exception):  # whatever is wrong with a message is said when it is counted, and harms no other
            yield record_key(parse_key(parse_arrival(message["body"]).key))


def count(record: SQSRecord, lambda_context: LambdaContext, records: Records) -> None:
    """Counts the photograph that a message names. Any exception returns the message to the queue."""
    try:
        if lambda_context.get_remaining_time_in_millis() < WORST_SECONDS * 1000:
            raise Transient("too little time is left in this batch")
        arrival = parse_arrival(record.body)
        logger.set_correlation_id(arrival.event_id)
        if count_settings().is_traced:
            from bintally.aws.trace import trace_wait  # imported only where someone pays for traces

            trace_wait(arrival.time.timestamp(), arrival.key, arrival.event_id)
        if is_folder_marker(arrival.key, arrival.size):
            logger.info("folder", key=arrival.key)
            return
        found, is_new = count_photograph(services(), arrival, records)
    except Exception:
        logger.exception("postponed", message_id=record.message_id, tries=record.attributes.approximate_receive_count)
        metrics.add_metric("Postponed", MetricUnit.Count, 1)
        postpone(record, count_settings().count_queue_url, count_settings().retry_seconds)
        raise
    report(found, is_new)


def report(found: Count, is_new: bool) -> None:
    outcome = found.status.capitalize() if is_new else "Repeated"
    metrics.add_metric(outcome, MetricUnit.Count, 1)
    if isinstance(found.outcome, Counted):
        if is_new:
            measure(found.outcome)
        logger.info(outcome.lower(), image=image_of(found), reason=None, count=found.outcome.answer.count)
    else:
        logger.info(outcome.lower(), image=image_of(found), reason=found.outcome.reason, count=None)


def measure(counted: Counted) -> None:
    """Adds the metrics that the alarms watch.

    `LowConfidence` and `Disagreement` are 0 or 1: their average is a share of the photographs. The excess is
    the same value minus the usual share; its sum is the number of photographs above the usual. Alarms watch the sum:
    the share of a few photographs exceeds any limit now and then, the sum does so only with enough evidence.
    """
    metrics.add_metric("EndpointLatency", MetricUnit.Milliseconds, counted.latency_ms)
    low = int(counted.answer.confidence < LOW_CONFIDENCE)
    metrics.add_metric("LowConfidence", MetricUnit.Count, low)
    metrics.add_metric("LowConfidenceExcess", MetricUnit.Count, low - count_settings().low_confidence_share)
    if counted.discrepancy is not None:
        differs = int(counted.discrepancy)
        metrics.add_metric("Disagreement", MetricUnit.Count, differs)
        metrics.add_metric("DisagreementExcess", MetricUnit.Count, differs - count_settings().disagreement_limit)


@cache
def services() -> Services:
    if count_settings().is_traced:
        from bintally.aws.trace import trace_requests

        trace_requests(clients.s3(), clients.endpoint(), clients.dynamodb())
    made = Services(
        s3=clients.s3(),
        runtime=clients.endpoint(),
        table=Table.named(count_settings().counts_table, count_settings().wrong_share),
        endpoint_name=count_settings().endpoint_name,
        zone=count_settings().site_zone,
    )
    gc.freeze()  # the services' models live on: the collector need not look through them again and again
    return made
