"""The expire_logs function: gives the log groups of candidate endpoints their retention, and deletes old ones.

Each release tries its model on an endpoint of its own, whose log group SageMaker makes and keeps for ever. A schedule
calls this function once a day.
"""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from bintally.aws import clients
from bintally.aws.telemetry import logger
from bintally.common.events import check_fields
from bintally.releasing.candidate_logs import expire
from bintally.releasing.settings import logs_settings


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    """Returns {"limited", "deleted"}, numbers of log groups. Raises WrongEvent."""
    check_fields(event, "expire_logs", "an event of its schedule", "schedule")
    settings = logs_settings()
    limited, deleted = expire(clients.logs(), settings.stack_name, settings.retention_days, datetime.now(UTC))
    logger.info("expired logs", limited=limited, deleted=deleted)
    return {"limited": len(limited), "deleted": len(deleted)}
