"""Asks an endpoint the golden images of a model package: does it answer as the package says, and as that version?

The release state machine decides by this function's answer, never by an exception.
"""

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from bintally.aws import clients
from bintally.aws.telemetry import logger
from bintally.common.errors import BintallyError
from bintally.releasing.goldens import ask, fetch_goldens


def handler(event: dict[str, str], context: object) -> dict[str, Any]:
    """`event`: endpoint, model_version, model_data_url. Answers {"ok": bool, "reason": str}."""
    logger.info("asked to verify", extra=event)
    try:
        goldens = fetch_goldens(clients.s3(), event["model_data_url"], event["model_version"])
        for golden in goldens:
            ask(clients.endpoint_for_golden_images(), event["endpoint"], golden)
    except (BintallyError, ClientError, BotoCoreError) as error:
        logger.warning("not verified", extra={"reason": str(error)})
        return {"ok": False, "reason": str(error)}
    return {"ok": True, "reason": f"{len(goldens)} golden images answered as recorded"}
