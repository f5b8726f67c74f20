"""The verify function: checks that an endpoint answers a package's golden images as recorded, and as that version.

The release state machine branches on this function's answer, never on an exception.
"""

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from bintally.aws import clients
from bintally.aws.telemetry import logger
from bintally.common.errors import BintallyError
from bintally.common.events import check_fields
from bintally.releasing.goldens import ask, fetch_goldens


def handler(event: dict[str, str], context: object) -> dict[str, Any]:
    """`event`: endpoint, model_version, model_data_url. Returns {"ok": bool, "reason": str}. Raises WrongEvent."""
    check_fields(event, "verify", "an endpoint to verify", "endpoint", "model_version", "model_data_url")
    logger.info("asked to verify", extra=event)
    try:
        goldens = fetch_goldens(clients.s3(), event["model_data_url"], event["model_version"])
        for golden in goldens:
            ask(clients.endpoint_for_golden_images(), event["endpoint"], golden)
    except (BintallyError, ClientError, BotoCoreError) as error:
        logger.warning("not verified", extra={"reason": str(error)})
        return {"ok": False, "reason": str(error)}
    return {"ok": True, "reason": f"{len(goldens)} golden images answered as recorded"}
