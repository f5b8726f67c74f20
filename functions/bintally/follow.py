"""The follow function: turns changes of the counts table, read from its stream, into labels.

It processes a batch as a whole. A retry writes the same again and so is harmless. Changes that can never work
are quarantined.
"""

from functools import cache
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from bintally.aws import clients
from bintally.aws.table import Table
from bintally.aws.telemetry import logger, metrics
from bintally.common.events import check_changes
from bintally.labels.follow_batch import Services, follow_batch
from bintally.labels.settings import follow_settings


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    """Any exception makes Lambda retry the whole batch. Raises WrongEvent, which no stream causes."""
    check_changes(event, "follow", "changes of the counts table, from its stream")
    followed = follow_batch(services(), event["Records"])
    metrics.add_metric("Labels", MetricUnit.Count, followed.lines)
    metrics.add_metric("Aside", MetricUnit.Count, len(followed.aside))
    logger.info("followed", records=len(event["Records"]), labels=followed.lines, aside=followed.aside)


@cache
def services() -> Services:
    return Services(
        s3=clients.s3(),
        table=Table.named(follow_settings().counts_table),
        artifacts_bucket=follow_settings().artifacts_bucket,
        pairing=follow_settings().pairing,
    )
