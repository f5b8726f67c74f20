"""The usage that `bintally stack cost` computes with is the functions': requests, units of the table, bytes logged."""

import io
import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from math import ceil
from types import SimpleNamespace
from typing import Any

import pytest
from bintally import count, review
from bintally.aws import telemetry
from bintally.aws.items import storage_order, wire
from bintally.common.arrivals import parse_arrival
from bintally.common.keys import moment
from bintally.counting import images

from deployed.costs import UNTOUCHED, Usage
from tests.functions.conftest import ROOT, World, table

USE = Usage()
KEY = "incoming/SEA1/P-4-B217/2026-11-22T10:15:00Z.jpg"
ANSWER = {
    **{"count": 3, "is_minimum": False, "expected_capped": 2.891234, "confidence": 0.312345},
    "probabilities": [0.041234, 0.142345, 0.213456, 0.314567, 0.165678, 0.086789, 0.035931],
    "model_version": "2026-11-27-731e9eed",
}
"""With as many digits as the endpoint gives."""
BUCKET = "bintally-imagesbucket-1a2b3c4d5e6f"
VERSION = "3HL4kqtJvjVBH40Nrjfkd3HL4kqtJvjV"
FOLLOW, REVIEW = ("Labels", "Aside"), ("ReviewEvents", "ReviewUnreadable")
"""Metrics of those functions."""
SEQUENCER = "0055AED6DCD90281E5"


def context_of(function: str) -> Any:
    """As long as Lambda's."""
    name = f"bintally-{function}-AbCdEfGhIjKl"
    return SimpleNamespace(
        function_name=name,
        memory_limit_in_mb=1769,
        invoked_function_arn=f"arn:aws:lambda:us-east-1:123456789012:function:{name}",
        aws_request_id="2d4eba74-fd51-3966-4bfa-b013c9da8ff1",
        get_remaining_time_in_millis=lambda: 320_000,
    )


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(telemetry.logger.registered_handler, "stream", stream)
    monkeypatch.setattr(telemetry.metrics.provider, "service", "bintally-count")
    return stream


@pytest.fixture
def metrics() -> list[str]:
    """What the count function printed for CloudWatch."""
    return []


@pytest.fixture
def counted(
    world: World, photo: Callable[..., bytes], calls: list[str], log: io.StringIO, metrics: list[str], capsys: Any
) -> dict[str, Any]:
    """The count function's item of one photograph, of a bin with a record that a file gave."""
    world.endpoint.answer = json.dumps(ANSWER).encode()
    event = world.put(KEY, photo())
    put_record(event)
    sample = json.loads((ROOT / "events" / "count.json").read_bytes())["Records"][0]
    event["detail"]["object"]["sequencer"] = SEQUENCER
    calls.clear()
    capsys.readouterr()
    answer = count.handler({"Records": [sample | {"body": json.dumps(event)}]}, context_of("CountFunction"))
    assert answer == {"batchItemFailures": []}
    metrics.append(capsys.readouterr().out)
    return world.only()


def put_record(event: dict[str, Any]) -> None:
    arrival = parse_arrival(json.dumps(event))
    order = f"{storage_order(arrival, moment('2026-11-22T06:00:00Z'))}#{12:09}"
    table().put_item(
        Item={
            **{"PK": "BIN#SEA1#P-4-B217", "SK": "RECORD", "site": "SEA1", "bin": "P-4-B217"},
            **{"expected_quantity": 1, "as_of": "2026-11-22T06:00:00.000000Z", "order": order},
        }
    )


def test_a_photograph_is_read_as_often_as_usage_says(counted: dict[str, Any], calls: list[str]) -> None:
    assert calls == ["GetObject", "BatchGetItem", "TransactWriteItems"]
    assert len(calls) == USE.requests
    assert sum(name.endswith("Object") for name in calls) == USE.gets


def test_photographs_are_shrunk_above_the_size_that_usage_says() -> None:
    assert round(images.LARGEST_UNTOUCHED / 1e6, 3) == UNTOUCHED < USE.megabytes


def test_a_photograph_takes_the_units_that_usage_says(world: World, counted: dict[str, Any]) -> None:
    def units(prefix: str) -> int:
        return ceil(size_of(as_on_aws(world.only(prefix))) / 1024)

    assert {item["SK"].partition("#")[0] for item in world.items()} == {"COUNT", "LATEST", "IMAGE", "TOTALS", "RECORD"}
    assert 2 * units("COUNT#") == USE.count_units
    assert 2 * units("IMAGE") == USE.marker_units
    assert 2 * units("TOTALS#") == USE.totals_units
    assert 3 * units("LATEST") == USE.latest_units, "the table, and the index `site` at its own price"
    assert sum(size_of(as_on_aws(world.only(prefix))) + 100 for prefix in ("COUNT#", "IMAGE")) == pytest.approx(
        USE.table_bytes, rel=0.02
    )


def test_the_prior_of_a_retrained_model_costs_no_unit(world: World, counted: dict[str, Any]) -> None:
    prior = [Decimal(share) for share in ("0.016", "0.078", "0.15", "0.18", "0.16", "0.12", "0.29")]
    for kind in ("COUNT#", "LATEST"):
        item = world.only(kind) | {"prior": prior, "recorded_value": Decimal("129.95")}
        assert size_of(as_on_aws(item)) <= 1024


def test_a_review_takes_the_units_that_usage_says(
    world: World, counted: dict[str, Any], monkeypatch: pytest.MonkeyPatch, log: io.StringIO, capsys: Any
) -> None:
    for name, value in {
        **{"ARTIFACTS_BUCKET": "artifacts", "RECOUNT_TOLERANCE": "0", "RECOUNT_TOLERANCE_VALUE": "0"},
        "CLAIM_MINUTES": "15",
    }.items():
        monkeypatch.setenv(name, value)
    doubtful = world.only("LATEST") | {"probabilities": [0, 0, 0, 0, 0, 1, 0]}
    table().put_item(Item=doubtful)
    before = {item["SK"] for item in world.items()}
    log.truncate(0)
    capsys.readouterr()
    review.handler(
        {"Records": [{"eventSource": "aws:dynamodb", "dynamodb": {"NewImage": wire(doubtful)}}]},
        context_of("ReviewFunction"),
    )
    written = [item for item in world.items() if item["SK"] not in before and item["PK"] != "SITES"]
    assert {item["SK"].partition("#")[0] for item in written} == {"REVIEW", "TRAIL", "WAITING", "REVIEWS"}
    assert 1 + 2 * sum(ceil(size_of(as_on_aws(item)) / 1024) for item in written) == USE.review_units
    printed = capsys.readouterr().out
    assert {each["Name"] for each in json.loads(printed)["_aws"]["CloudWatchMetrics"][0]["Metrics"]} == set(REVIEW)
    logged = len(log.getvalue().strip("\0")) + len(printed)
    assert logged == pytest.approx(USE.review_log - 2 * 26, rel=0.1)


def test_a_photograph_is_logged_in_as_many_bytes_as_usage_says(
    counted: dict[str, Any], log: io.StringIO, metrics: list[str]
) -> None:
    longer = len(BUCKET + VERSION) - len("images" + counted["image"]["version_id"])
    assert len(log.getvalue()) + longer == pytest.approx(USE.count_log - 26, rel=0.05)
    (printed,) = metrics
    assert len(printed) == pytest.approx(USE.count_metrics - 26, rel=0.05)
    named = json.loads(printed)["_aws"]["CloudWatchMetrics"][0]["Metrics"]
    assert len(named) + len(FOLLOW) + len(REVIEW) == USE.metrics


def test_further_photographs_of_a_call_add_to_its_metrics_what_usage_says(
    world: World, photo: Callable[..., bytes], log: io.StringIO, capsys: Any
) -> None:
    world.endpoint.answer = json.dumps(ANSWER).encode()
    sample = json.loads((ROOT / "events" / "count.json").read_bytes())["Records"][0]

    def printed(number: int) -> int:
        records = []
        for each in range(number):
            event = world.put(f"incoming/SEA1/P-{number}-{each}/a.jpg", photo(), expected_quantity="1")
            records.append(sample | {"messageId": f"m{each}", "receiptHandle": f"r{each}", "body": json.dumps(event)})
        capsys.readouterr()
        assert count.handler({"Records": records}, context_of("CountFunction")) == {"batchItemFailures": []}
        return len(capsys.readouterr().out)

    assert (printed(5) - printed(1)) / 4 == pytest.approx(USE.further_metrics, rel=0.15)


def as_on_aws(item: dict[str, Any]) -> dict[str, Any]:
    """With a bucket and a version id as long as AWS's."""
    text = json.dumps(wire(item))
    for found, real in (
        ((image := item.get("image")) and image["version_id"], VERSION),
        (image and image["bucket"], BUCKET),
    ):
        text = text.replace(f'"{found}"', f'"{real}"').replace(f"#{found}", f"#{real}") if found else text
    return dict(json.loads(text))


def size_of(item: Mapping[str, Any]) -> int:
    """Bytes of an item in the wire format, as DynamoDB counts them."""
    return sum(len(name.encode()) + _size(value) for name, value in item.items())


def _size(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return len(content.encode())
        case "N":
            return (len(content.lstrip("-").replace(".", "").strip("0")) + 1) // 2 + 1
        case "BOOL" | "NULL":
            return 1
        case "L":
            return 3 + sum(1 + _size(each) for each in content)
        case "M":
            return 3 + size_of(content) + len(content)
    raise ValueError(kind)
