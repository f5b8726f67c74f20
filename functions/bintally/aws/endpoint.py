"""Asks the endpoint, by the contract in events/endpoint_request.json and endpoint_answer.json."""

import json
import math
import random
import time
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from bintally.common.counts import OUTPUTS, Answer
from bintally.common.errors import Transient

if TYPE_CHECKING:
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient
    from mypy_boto3_sagemaker_runtime.type_defs import InvokeEndpointInputRequestTypeDef

TRIES = 3
LAST_START = 4.0
"""Seconds after which no further try starts. At worst 4 s and a try of clients.ENDPOINT.worst = 16 s: 20 s."""


def request(endpoint_name: str, jpeg: bytes) -> "InvokeEndpointInputRequestTypeDef":
    return {
        "EndpointName": endpoint_name,
        "ContentType": "image/jpeg",
        "Accept": "application/json",
        "Body": jpeg,
    }


def ask(runtime: "SageMakerRuntimeClient", endpoint_name: str, jpeg: bytes) -> tuple[Answer, int]:
    """The endpoint's answer and the milliseconds that it took, waits between tries included.

    Raises Transient, also when the endpoint rejects the image: it was decoded here, so the fault is the endpoint's.
    """
    started = time.monotonic()
    for attempt in range(1, TRIES + 1):
        try:
            body = runtime.invoke_endpoint(**request(endpoint_name, jpeg))["Body"].read()
            return parse_answer(body), round((time.monotonic() - started) * 1000)
        except (ClientError, BotoCoreError) as error:
            pause = random.uniform(0.1, 0.2) * 2**attempt
            in_time = time.monotonic() - started + pause < LAST_START
            if attempt == TRIES or not in_time or not _may_pass_soon(error):
                raise Transient(f"endpoint {endpoint_name}: {error}") from error
        time.sleep(pause)
    raise AssertionError("the last try answers or raises")


def _may_pass_soon(error: ClientError | BotoCoreError) -> bool:
    """True for throttling, overload, network faults. A missing endpoint or permission lasts longer: the queue waits."""
    if not isinstance(error, ClientError):
        return True
    status = int(str(error.response.get("OriginalStatusCode") or error.response["ResponseMetadata"]["HTTPStatusCode"]))
    return status == 429 or status >= 500 or "Throttling" in error.response["Error"]["Code"]


def parse_answer(body: bytes) -> Answer:
    """Raises Transient when the body violates the contract."""
    try:
        found = json.loads(body)
        answer = Answer(
            count=_whole(found["count"]),
            is_minimum=found["is_minimum"],
            expected_capped=float(found["expected_capped"]),
            confidence=float(found["confidence"]),
            probabilities=tuple(float(p) for p in found["probabilities"]),
            model_version=found["model_version"],
            prior=tuple(float(p) for p in found["prior"]) if "prior" in found else None,
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise Transient(f"malformed answer from the endpoint: {error!r} in {body[:200]!r}") from error
    if not _is_sound(answer):
        raise Transient(f"malformed answer from the endpoint: {body[:200]!r}")
    return answer


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"count is {value!r}")
    return value


def _is_sound(answer: Answer) -> bool:
    return (
        0 <= answer.count < OUTPUTS
        and answer.is_minimum is (answer.count == OUTPUTS - 1)
        and len(answer.probabilities) == OUTPUTS
        and all(0 <= p <= 1 for p in (*answer.probabilities, answer.confidence))  # false for NaN
        and math.isclose(sum(answer.probabilities), 1, abs_tol=0.01)
        and 0 <= answer.expected_capped < OUTPUTS
        and isinstance(answer.model_version, str)
        and answer.model_version != ""
        and (answer.prior is None or (len(answer.prior) == OUTPUTS and all(0 < p <= 1 for p in answer.prior)))
    )
