"""The follow function: what follows from a change of the counts table, told by its stream. Labels, for now.

A batch is done as a whole: done again it changes nothing, so a retry is harmless. What can never work is put aside.
"""

from functools import cache
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from bintally.aws import clients
from bintally.aws.table import Table
from bintally.aws.telemetry import logger, metrics
from bintally.labels.follow_batch import Services, follow_batch
from bintally.labels.settings import follow_settings


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    """Whatever it raises has the whole batch come again."""
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
