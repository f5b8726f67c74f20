"""The expire_logs function: gives the log groups of candidate endpoints their retention, and deletes old ones and old
log streams of jobs.

Each release tries its model on an endpoint of its own, whose log group SageMaker makes and keeps for ever; so it keeps
what jobs log. A schedule calls this function once a day.
"""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from bintally.aws import clients
from bintally.aws.telemetry import logger
from bintally.common.events import check_fields
from bintally.releasing import candidate_logs
from bintally.releasing.settings import logs_settings
from bintally.retraining import job_logs


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    """Returns {"limited", "deleted", "streams"}: log groups, and log streams that were deleted. Raises WrongEvent."""
    check_fields(event, "expire_logs", "an event of its schedule", "schedule")
    settings, logs, now = logs_settings(), clients.logs(), datetime.now(UTC)
    limited, deleted = candidate_logs.expire(logs, settings.stack_name, settings.retention_days, now)
    streams = job_logs.expire(logs, settings.stack_name, settings.retention_days, now)
    logger.info("expired logs", limited=limited, deleted=deleted, streams=streams)
    return {"limited": len(limited), "deleted": len(deleted), "streams": len(streams)}
