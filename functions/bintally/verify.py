"""The verify function: checks that an endpoint answers a package's golden images as recorded, and as that version.

The release state machine branches on this function's answer; after an exception it asks again.
"""

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from bintally.aws import clients
from bintally.aws.telemetry import logger
from bintally.common.errors import BintallyError
from bintally.common.events import check_fields
from bintally.releasing.goldens import ask, fetch_goldens

REASON_LIMIT = 2000
"""Characters; a state of an execution has at most 256 KB."""


def handler(event: dict[str, str], context: object) -> dict[str, Any]:
    """`event`: endpoint, model_version, model_data_url, package_digest (goldens.digest_of; empty: any). Returns
    {"ok": bool, "reason": str}. Raises WrongEvent, and ClientError where the endpoint is busy, which says nothing."""
    wanted = ("endpoint", "model_version", "model_data_url", "package_digest")
    check_fields(event, "verify", "an endpoint to verify", *wanted)
    logger.info("asked to verify", extra=event)
    try:
        package = event["model_data_url"], event["model_version"], event["package_digest"]
        goldens = fetch_goldens(clients.s3(), *package)
        for golden in goldens:
            ask(clients.endpoint_for_golden_images(), event["endpoint"], golden)
    except (BintallyError, ClientError, BotoCoreError) as error:
        if isinstance(error, ClientError) and is_busy(error):
            raise
        reason = printable(str(error))
        logger.warning("not verified", extra={"reason": reason})
        return {"ok": False, "reason": reason}
    return {"ok": True, "reason": f"{len(goldens)} golden images answered as recorded"}


def is_busy(error: ClientError) -> bool:
    """True for throttling, and for the 503 of a container whose queue is full."""
    code, status = error.response["Error"]["Code"], error.response.get("OriginalStatusCode")
    return "Throttling" in code or str(status) == "503"


def printable(reason: str) -> str:
    """A reason that Lambda can encode and a state machine can hold, whatever the package contains."""
    return reason.encode("utf-8", "backslashreplace").decode()[:REASON_LIMIT]
