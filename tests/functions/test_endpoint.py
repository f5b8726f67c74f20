"""Asking the endpoint: the contract, the retried errors, and the time limits."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from bintally import count
from bintally.aws import clients, endpoint, objects, table
from bintally.common.counts import Answer
from bintally.common.errors import Transient
from botocore.exceptions import ConnectTimeoutError, ReadTimeoutError
from botocore.response import StreamingBody
from botocore.stub import Stubber

EVENTS = Path(__file__).parents[2] / "events"
ANSWER = json.loads((EVENTS / "endpoint_answer.json").read_bytes())


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client and its Stubber; waits between tries are not waited."""
    monkeypatch.setattr("bintally.aws.endpoint.time.sleep", lambda _: None)
    client = boto3.client("sagemaker-runtime", config=clients.ENDPOINT.config())
    with Stubber(client) as stubber:
        yield client, stubber


def body(content: bytes) -> dict[str, Any]:
    return {"Body": StreamingBody(io.BytesIO(content), len(content)), "ContentType": "application/json"}


def test_the_request_is_the_contracts() -> None:
    sample = json.loads((EVENTS / "endpoint_request.json").read_bytes())
    jpeg = base64.b64decode(sample["Body"])
    assert jpeg.startswith(b"\xff\xd8")
    assert endpoint.request("bintally-serverless", jpeg) == sample | {"Body": jpeg}


def test_reads_the_contracts_answer(stubbed: Any) -> None:
    client, stubber = stubbed
    stubber.add_response("invoke_endpoint", body(json.dumps(ANSWER).encode()), endpoint.request("e", b"jpeg"))
    found, milliseconds = endpoint.ask(client, "e", b"jpeg")
    assert found == Answer(**ANSWER | {name: tuple(ANSWER[name]) for name in ("probabilities", "prior")})
    assert 0 <= milliseconds < 5000


@pytest.mark.parametrize(
    ("code", "status", "more"),
    [
        ("ThrottlingException", 400, {}),
        ("ModelNotReadyException", 429, {}),
        ("ServiceUnavailable", 503, {}),
        ("InternalFailure", 500, {}),
        ("ModelError", 424, {"OriginalStatusCode": 503}),
        ("ModelError", 424, {"OriginalStatusCode": 500}),
    ],
)
def test_tries_again_what_passes_soon(stubbed: Any, code: str, status: int, more: dict[str, Any]) -> None:
    client, stubber = stubbed
    for _ in range(endpoint.TRIES - 1):
        stubber.add_client_error("invoke_endpoint", code, http_status_code=status, modeled_fields=more)
    stubber.add_response("invoke_endpoint", body(json.dumps(ANSWER).encode()))
    assert endpoint.ask(client, "e", b"jpeg")[0].count == ANSWER["count"]
    stubber.assert_no_pending_responses()


def test_stops_after_the_last_try(stubbed: Any) -> None:
    client, stubber = stubbed
    for _ in range(endpoint.TRIES):
        stubber.add_client_error("invoke_endpoint", "ServiceUnavailable", http_status_code=503)
    with pytest.raises(Transient, match=r"endpoint e: .*ServiceUnavailable"):
        endpoint.ask(client, "e", b"jpeg")
    stubber.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("code", "status", "more"),
    [
        ("ValidationError", 400, {}),  # what a missing endpoint answers
        ("AccessDeniedException", 403, {}),
        ("ModelError", 424, {"OriginalStatusCode": 400}),
    ],
)
def test_leaves_what_takes_longer_to_the_queue(stubbed: Any, code: str, status: int, more: dict[str, Any]) -> None:
    client, stubber = stubbed
    stubber.add_client_error("invoke_endpoint", code, http_status_code=status, modeled_fields=more)
    with pytest.raises(Transient):
        endpoint.ask(client, "e", b"jpeg")  # a second request would have no answer and raise otherwise


@pytest.mark.parametrize("error", [ReadTimeoutError(endpoint_url="e"), ConnectTimeoutError(endpoint_url="e")])
def test_a_timeout_is_transient(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    now = [0.0]
    client = boto3.client("sagemaker-runtime", config=clients.ENDPOINT.config())
    asked = []

    def answer(request: Any, **_: Any) -> None:
        asked.append(request)
        now[0] += 16
        raise error

    client.meta.events.register("before-send.sagemaker-runtime.InvokeEndpoint", answer)
    monkeypatch.setattr("bintally.aws.endpoint.time.monotonic", lambda: now[0])
    with pytest.raises(Transient):
        endpoint.ask(client, "e", b"jpeg")
    assert len(asked) == 1, "after LAST_START no further try begins"


def broken(**changes: Any) -> bytes:
    return json.dumps(ANSWER | changes).encode()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"no JSON", b"[]", b"null", b'"text"', b"{}", b"\xff\xfe"),
        broken(count=7),
        broken(count=-1),
        broken(count="3"),
        broken(count=True),
        broken(count=3.0),
        broken(count=6),
        broken(is_minimum=True),
        broken(is_minimum=0),
        broken(is_minimum=None),
        broken(confidence=1.5),
        broken(confidence=float("nan")),
        broken(expected_capped=float("inf")),
        broken(expected_capped=None),
        broken(probabilities=[0.5, 0.5]),
        broken(probabilities=[1.0] * 7),
        broken(probabilities=[float("nan")] * 7),
        broken(probabilities=[2, -1, 0, 0, 0, 0, 0]),
        broken(probabilities=None),
        broken(prior=[0.5, 0.5]),
        broken(prior=[0, 0.2, 0.2, 0.2, 0.2, 0.1, 0.1]),
        broken(prior=None),
        broken(model_version=""),
        broken(model_version=None),
    ],
)
def test_a_malformed_answer_is_transient(content: bytes) -> None:
    with pytest.raises(Transient, match="malformed answer"):
        endpoint.parse_answer(content)


def test_the_worst_case_is_what_the_comment_says() -> None:
    s3 = clients.S3.worst + objects.DOWNLOAD_SECONDS + clients.S3.read
    dynamodb = (table.TRIES + table.TRIES + 1 + 1) * clients.DYNAMODB.worst
    assert s3 + dynamodb <= count.BATCH_SECONDS
    asked = endpoint.LAST_START + clients.ENDPOINT.worst
    assert count.IMAGE_SECONDS + asked + clients.SQS.worst <= count.PHOTOGRAPH_SECONDS
