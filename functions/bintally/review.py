"""The review function: opens, changes and withdraws the reviews of bins as counts and records change, and sends an
event about each that opens or ends.

It reads the counts table's stream beside `follow`, which gathers changes for the label log: here people wait.
"""

from functools import cache
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from bintally.aws import clients
from bintally.aws.telemetry import logger, metrics
from bintally.common.events import check_changes
from bintally.reviewing.changes import Services, review_batch
from bintally.reviewing.locked import LockedTrail
from bintally.reviewing.settings import desk_of, review_settings, trail_bucket


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    """Any exception makes Lambda retry the whole batch. Raises WrongEvent, which no stream causes."""
    check_changes(event, "review", "changes of the counts table, from its stream")
    reviewed = review_batch(services(), event["Records"])
    metrics.add_metric("ReviewEvents", MetricUnit.Count, reviewed.told)
    metrics.add_metric("ReviewUnreadable", MetricUnit.Count, reviewed.unreadable)
    logger.info("reviewed", records=len(event["Records"]), bins=reviewed.bins, events=reviewed.told)


@cache
def services() -> Services:
    settings = review_settings()
    return Services(desk_of(settings), clients.events(), LockedTrail(clients.s3(), trail_bucket()))
