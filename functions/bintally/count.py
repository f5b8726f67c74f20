"""The count function: from an SQS batch of S3 events to one item per image version in the counts table."""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from threading import Lock
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
from bintally.common.arrivals import Arrival, parse_arrival
from bintally.common.counts import Count, Counted
from bintally.common.errors import Transient
from bintally.common.events import check_messages
from bintally.common.keys import is_folder_marker, parse_key
from bintally.counting.count_photograph import Records, Services, count_photograph
from bintally.counting.settings import count_settings

# A batch at worst. All photographs at once: S3 25 s (objects.DOWNLOAD_SECONDS), and the table 9 s each
# (clients.DYNAMODB) for four tries to read the records, four of the transaction, the stored count, and LATEST:
# 25 + 10 x 9 = 115 s. One after the other: the image itself IMAGE_SECONDS, endpoint 20 s (endpoint.LAST_START), and 4 s
# (clients.SQS) to postpone it: 15 + 20 + 4 = 39 s. The time limit holds five photographs, and more; none is started
# that might not end in time.
BATCH_SECONDS, PHOTOGRAPH_SECONDS = 115, 40
IMAGE_SECONDS = 15
"""Three times what the slowest files take that tests/functions/test_images.py knows; MOST_PIXELS and the bounds of
pixels.py keep worse ones out. An ordinary photograph takes 0.02 s."""
LOW_CONFIDENCE = 0.2
"""19 % of the shipped model's test photographs are below. It is right about 16 % of those, about 46 % of the rest."""

clients.CHECKS_REQUESTS = False
MAKING = Lock()
"""boto3 makes one client at a time."""
processor = BatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False)


Outcome = Callable[[], tuple[Count, bool] | None]
"""The count and whether it is new, None for a folder. Raises what kept the photograph from being counted."""


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Returns the messages that go back to the queue. Raises WrongEvent."""
    check_messages(event, "count", "EventBridge events about new photographs")
    processor.exceptions.clear()  # of the last batch: they keep its photographs
    outcomes = count_together(dict(arrivals(event)), context.get_remaining_time_in_millis() / 1000)
    return dict(process_partial_response(event, partial(count, outcomes=outcomes), processor))


def arrivals(event: dict[str, Any]) -> Iterator[tuple[str, Arrival]]:
    """A batch's photographs, by their messages' receipts."""
    for message in event["Records"]:
        with suppress(Exception):  # whatever is wrong with a message is said by `count`, and harms no other
            yield message["receiptHandle"], parse_arrival(message["body"])


def record_keys(photographs: Iterable[Arrival]) -> Iterator[Item]:
    """The keys of the RECORD items of their bins."""
    for arrival in photographs:
        with suppress(Exception):
            yield record_key(parse_key(arrival.key))


def count_together(photographs: Mapping[str, Arrival], seconds: float) -> dict[str, Outcome]:
    """Counts photographs at once, each in a thread: Lambda charges for waiting too, and so they wait together. One
    alone needs no thread: it is counted when its outcome is asked for.

    `seconds` are left for all. No thread outlives this: after an answer Lambda stops them until the next batch.
    """
    records, room = Records(record_keys(photographs.values())), (seconds - BATCH_SECONDS) // PHOTOGRAPH_SECONDS
    calls = {
        receipt: partial(count_one, arrival, records, in_time=number <= room)
        for number, (receipt, arrival) in enumerate(photographs.items(), 1)
    }
    if len(calls) < 2:
        return dict(calls)
    with ThreadPoolExecutor(len(calls)) as threads:
        return {receipt: threads.submit(call).result for receipt, call in calls.items()}


def count_one(arrival: Arrival, records: Records, in_time: bool) -> tuple[Count, bool] | None:
    """See Outcome."""
    logger.thread_safe_append_keys(correlation_id=arrival.event_id)
    if not in_time:
        raise Transient("too little time is left in this batch")
    if count_settings().is_traced:
        from bintally.aws.trace import trace_wait  # imported only where someone pays for traces

        trace_wait(arrival.time.timestamp(), arrival.key, arrival.event_id)
    if is_folder_marker(arrival.key, arrival.size):
        return None
    with MAKING:
        made = services()
    return count_photograph(made, arrival, records)


def count(record: SQSRecord, outcomes: dict[str, Outcome]) -> None:
    """Reports the outcome of the photograph that a message names. Any exception returns the message to the queue."""
    try:
        arrival = parse_arrival(record.body)
        logger.thread_safe_append_keys(correlation_id=arrival.event_id)
        outcome = outcomes.pop(record.receipt_handle)()  # kept, its error would keep it, and the photograph
    except Exception:
        logger.exception("postponed", message_id=record.message_id, tries=record.attributes.approximate_receive_count)
        metrics.add_metric("Postponed", MetricUnit.Count, 1)
        postpone(record, count_settings().count_queue_url, count_settings().retry_seconds)
        raise
    if outcome is not None:
        report(*outcome)
    elif count_settings().logs_photographs:
        logger.info("folder", key=arrival.key)


def report(found: Count, is_new: bool) -> None:
    outcome = found.status.capitalize() if is_new else "Repeated"
    metrics.add_metric(outcome, MetricUnit.Count, 1)
    said: dict[str, Any] = {"reason": None, "count": None}
    if isinstance(found.outcome, Counted):
        said["count"] = found.outcome.answer.count
        if is_new:
            measure(found.outcome)
    else:
        said["reason"] = found.outcome.reason
    if count_settings().logs_photographs:
        logger.info(outcome.lower(), image=image_of(found), **said)


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
