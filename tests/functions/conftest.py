"""A bucket, a queue and the table of template.yaml in moto, and an endpoint whose answers a test chooses."""

import contextlib
import copy
import functools
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from bintally import advance, answer, conclude, count, follow, plan, reconcile, record, review, sign_in
from bintally.answering import settings as answering
from bintally.aws import clients
from bintally.common import parts, zone
from bintally.counting import settings as counting
from bintally.labels import settings as labels
from bintally.reconciling import settings as reconciling
from bintally.records import settings as records
from bintally.releasing import settings as releasing
from bintally.retraining import settings as retraining
from bintally.reviewing import settings as reviewing
from bintally.strays import settings as strays
from botocore.awsrequest import AWSResponse
from moto import mock_aws
from moto.core.models import botocore_stubber
from PIL import Image, ImageOps
from samtranslator.yaml_helper import yaml_parse

clients.CHECKS_REQUESTS = True  # `count`, imported above, does without
ROOT = Path(__file__).parents[2]
BUCKET = "images"
ANSWER = (ROOT / "events" / "endpoint_answer.json").read_bytes()

ENVIRONMENT = {
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "COUNTS_TABLE": "counts",
    "ENDPOINT_NAME": "bintally-serverless",
    "RETRY_SECONDS": "30",
    "LOW_CONFIDENCE_SHARE": "0.5",
    "COUNT_LOG_LEVEL": "INFO",
    "DISAGREEMENT_LIMIT": "0.75",
    "RECORD_WRONG_SHARE": "0.05",
    "AUDIT_SHARE": "0",
    "RECOUNT_TOLERANCE": "0",
    "RECOUNT_TOLERANCE_VALUE": "0",
    "CLAIM_MINUTES": "15",
    "SITE_TIMEZONE": "UTC",
    "TRACING": "PassThrough",
    "TRAIL_BUCKET": "",
    "IMAGES_BUCKET": BUCKET,
    "MODEL_PACKAGE_GROUP": "bintally",
    "RELEASE_STATE_MACHINE": "arn:aws:states:us-east-1:123456789012:stateMachine:bintally-release",
    "RETRAIN_STATE_MACHINE": "arn:aws:states:us-east-1:123456789012:stateMachine:bintally-retrain",
}


READ_ONCE = (
    *(answering, counting, labels, parts, reconciling, records, releasing, retraining, strays, zone),
    *(advance, answer, conclude, count, follow, plan, reconcile, record, review, reviewing, sign_in),
)
"""Modules that keep what they made on first use. Clients live on: one takes longer to make than a request."""


plain: Any = functools.cache(boto3.client)


@functools.cache
def table() -> Any:
    return boto3.resource("dynamodb").Table("counts")


def forget() -> None:
    for module in READ_ONCE:
        for made in vars(module).values():
            if hasattr(made, "cache_clear"):
                made.cache_clear()


@contextlib.contextmanager
def alone(monkeypatch: pytest.MonkeyPatch, **more: str) -> Iterator[None]:
    """The functions' settings, and no way to any AWS outside. Nothing is kept from one test to the next."""
    for name, value in (ENVIRONMENT | more).items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    forget()
    yield
    forget()


@contextlib.contextmanager
def answering_account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Alone, in an account with the buckets and the table that the answer function uses."""
    with alone(monkeypatch, ARTIFACTS_BUCKET="artifacts"), mock_aws():
        s3 = boto3.client("s3")
        for bucket in (BUCKET, "artifacts"):
            s3.create_bucket(Bucket=bucket)
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        boto3.client("dynamodb").create_table(TableName="counts", **counts_table())
        yield


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with alone(monkeypatch):
        yield


class Raw(io.BytesIO):
    """What botocore reads an HTTP answer from."""

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        yield self.read()


def http(status: int, body: bytes, **headers: str) -> AWSResponse:
    named: Any = {name.replace("_", "-"): value for name, value in headers.items()}
    return AWSResponse("https://aws", status, named, Raw(body))


@dataclass
class Endpoint:
    """Answers about a photograph in `about` with that; else with `script`'s entries in turn (a response, or an error to
    raise), then with `answer`. Photographs of one batch come in any order."""

    about: dict[bytes, AWSResponse] = field(default_factory=dict)
    script: list[AWSResponse | Exception] = field(default_factory=list)
    answer: bytes = ANSWER
    asked: list[bytes] = field(default_factory=list)

    def __call__(self, request: Any, **_: Any) -> AWSResponse:
        self.asked.append(request.body)
        if request.body in self.about:
            return self.about[request.body]
        if not self.script:
            return http(200, self.answer, content_type="application/json")
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


@dataclass
class World:
    s3: Any
    dynamodb: Any
    sqs: Any
    queue: str
    endpoint: Endpoint

    def put(self, key: str, data: bytes, **metadata: str) -> dict[str, Any]:
        """Uploads a version; the EventBridge event about it, as events/count.json has it."""
        named = {name.replace("_", "-"): value for name, value in metadata.items()}
        put = self.s3.put_object(Bucket=BUCKET, Key=key, Body=data, Metadata=named)
        return self.event(key, put["VersionId"])

    def event(self, key: str, version_id: str, sequencer: str = "00") -> dict[str, Any]:
        sample = json.loads((ROOT / "events" / "count.json").read_bytes())
        event: dict[str, Any] = json.loads(sample["Records"][0]["body"])
        event["detail"]["bucket"]["name"] = BUCKET
        event["detail"]["object"] |= {"key": key, "version-id": version_id, "sequencer": sequencer}
        return event

    def deliver(self, *events: Any, tries: int = 1, remaining_ms: int = 900_000) -> list[int]:
        """Hands events to the function as one SQS batch; the places of those that go back to the queue."""
        sample = json.loads((ROOT / "events" / "count.json").read_bytes())["Records"][0]
        records = []
        for number, event in enumerate(events):
            record = copy.deepcopy(sample)
            record |= {"messageId": str(number), "body": event if isinstance(event, str) else json.dumps(event)}
            record["receiptHandle"] = f"receipt-{number}"
            record["attributes"]["ApproximateReceiveCount"] = str(tries)
            records.append(record)
        context = SimpleNamespace(
            function_name="count",
            memory_limit_in_mb=1769,
            invoked_function_arn="arn:aws:lambda:us-east-1:000000000000:function:count",
            aws_request_id="a request",
            get_remaining_time_in_millis=lambda: remaining_ms,
        )
        answer = count.handler({"Records": records}, context)
        return [int(failure["itemIdentifier"]) for failure in answer["batchItemFailures"]]

    def items(self, prefix: str = "") -> list[dict[str, Any]]:
        """All items whose SK begins with `prefix`."""
        items, page = [], table().scan()
        items += page["Items"]
        while "LastEvaluatedKey" in page:
            page = table().scan(ExclusiveStartKey=page["LastEvaluatedKey"])
            items += page["Items"]
        return [item for item in items if item["SK"].startswith(prefix)]

    def only(self, prefix: str = "COUNT#") -> dict[str, Any]:
        (item,) = self.items(prefix)
        return item

    def totals(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for item in self.items("TOTALS#"):
            for status in ("counted", "rejected"):
                found[status] = found.get(status, 0) + int(item.get(status, 0))
        return found


@functools.cache
def counts_table() -> dict[str, Any]:
    """The table's properties in template.yaml, on demand. It takes longer to read than moto does to make a world."""
    properties = yaml_parse((ROOT / "template.yaml").read_text())["Resources"]["CountsTable"]["Properties"]
    for index in properties["GlobalSecondaryIndexes"]:
        del index["ProvisionedThroughput"]
    known = {"AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes"}
    return {"BillingMode": "PAY_PER_REQUEST"} | {name: properties[name] for name in known}


def one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """Moto's transactions put the whole table back where one is cancelled, whatever others wrote in the meantime."""
    lock = threading.Lock()

    def call(*given: Any) -> Any:
        with lock:
            return function(*given)

    return call


@pytest.fixture
def world(environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with mock_aws():
        s3, dynamodb, sqs = plain("s3"), plain("dynamodb"), plain("sqs")
        s3.create_bucket(Bucket=BUCKET)
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        dynamodb.create_table(TableName="counts", **counts_table())
        queue = sqs.create_queue(QueueName="count")["QueueUrl"]
        monkeypatch.setenv("COUNT_QUEUE_URL", queue)
        answering = Endpoint()
        events: Any = clients.endpoint().meta.events
        events.unregister("before-send", botocore_stubber)  # moto reads every body as text
        events.register("before-send.sagemaker-runtime.InvokeEndpoint", answering)
        monkeypatch.setattr("time.sleep", lambda _: None)
        monkeypatch.setattr(botocore_stubber, "process_request", one_by_one(botocore_stubber.process_request))
        yield World(s3, dynamodb, sqs, queue, answering)
        events.unregister("before-send.sagemaker-runtime.InvokeEndpoint", answering)


@pytest.fixture
def calls() -> Iterator[list[str]]:
    """The names of the requests to S3 and DynamoDB."""
    made: list[str] = []

    def note(model: Any, **_: Any) -> None:
        made.append(model.name)

    for client in (clients.s3(), clients.dynamodb()):
        client.meta.events.register("before-call", note)
    yield made
    for client in (clients.s3(), clients.dynamodb()):
        client.meta.events.unregister("before-call", note)


@pytest.fixture
def photo() -> Callable[..., bytes]:
    """Makes a photograph: a gradient, so that turns and colours show, with edges, so that it is not blurred."""

    def make(kind: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (460, 350), **save: Any) -> bytes:
        image = Image.linear_gradient("L").resize(size)
        for at in range(16, size[1], 32):
            image.paste(255 if at % 64 == 16 else 40, (0, at, size[0], at + 2))
        if mode == "RGB":  # otherwise it would be flagged as colourless
            image = ImageOps.colorize(image, "#000030", "#ffffc0")
        image = image.convert(mode)
        out = io.BytesIO()
        image.save(out, kind, **save)
        return out.getvalue()

    return make


@pytest.fixture
def refuse() -> Iterator[Callable[[Any, str, str], Callable[[], None]]]:
    """Makes an operation of a client fail before it reaches the service; the answer ends that."""
    with contextlib.ExitStack() as ends:
        yield functools.partial(refusing, ends)


def refusing(
    ends: contextlib.ExitStack,
    client: Any,
    operation: str,
    code: str,
    status: int = 400,
    times: int = 10**9,
    **more: Any,
) -> Any:
    left = [times]

    def answer(**_: Any) -> Any:
        if left[0] == 0:
            return None
        left[0] -= 1
        parsed = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
        return SimpleNamespace(status_code=status), parsed | more

    event = f"before-call.{client.meta.service_model.service_id.hyphenize()}.{operation}"
    client.meta.events.register(event, answer)
    ends.callback(client.meta.events.unregister, event, answer)
    return lambda: client.meta.events.unregister(event, answer)


@pytest.fixture
def respond() -> Callable[..., AWSResponse]:
    return http
