"""What the dashboard and the queries of template.yaml name is what the functions print, or a metric of AWS's own."""

import io
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from bintally import count
from bintally.aws import telemetry

from deployed import costs
from deployed.costs import Usage
from deployed.prices import prices
from local.stack import Local
from tests.functions.conftest import ROOT, World
from tests.functions.test_costs import context_of, put_record
from tests.template.test_template import of_type, references, source, translated

OF_AWS = {
    ("AWS/DynamoDB", "TableName"): {"ConsumedWriteCapacityUnits"},
    ("AWS/Lambda", "FunctionName"): {"Errors", "Invocations", "IteratorAge"},
    ("AWS/Logs", "LogGroupName"): {"IncomingBytes"},
    ("AWS/SageMaker", "EndpointName", "VariantName"): {"Invocation5XXErrors", "Invocations", "ModelLatency"},
    ("AWS/SQS", "QueueName"): {"ApproximateAgeOfOldestMessage", "ApproximateNumberOfMessagesVisible"},
    ("AWS/States", "StateMachineArn"): {"ExecutionsFailed", "ExecutionsTimedOut"},
}
"""Metrics by namespace and dimensions, as the services' pages list them."""
REPORT = json.loads(
    '{"time": "2026-11-29T12:00:00Z", "type": "platform.report", "record": {"requestId": "r", "status": "error",'
    ' "errorType": "Runtime.ExitError", "metrics": {"durationMs": 101.51, "billedDurationMs": 300,'
    ' "memorySizeMB": 1769, "maxMemoryUsedMB": 160, "initDurationMs": 400.2}}}'
)
"""Lambda's own line at the end of a call, with LogFormat JSON (Lambda's documentation)."""
WORDS = "and any as asc by coalesce count desc fields filter in ispresent like limit max or sort stats strlen sum"


@pytest.fixture
def printed(
    world: World, photo: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> Iterator[tuple[set[str], set[str]]]:
    """The fields of the count function's lines, and the names of its metrics, of photographs with every outcome."""
    stream = io.StringIO()
    monkeypatch.setattr(telemetry.logger.registered_handler, "stream", stream)
    good = world.put("incoming/SEA1/P-4-B217/2026-11-22T10:15:00Z.jpg", photo())
    put_record(good)
    bad = world.put("incoming/SEA1/P-4-B217/2026-11-22T11:15:00Z.jpg", b"no photograph")
    sample = json.loads((ROOT / "events" / "count.json").read_bytes())["Records"][0]
    capsys.readouterr()
    for body in (json.dumps(good), json.dumps(good), json.dumps(bad), "no event"):
        count.handler({"Records": [sample | {"body": body}]}, context_of("CountFunction"))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    metrics = {each["Name"] for line in lines for each in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]}
    yield set().union(*(flat(json.loads(line)) for line in stream.getvalue().splitlines())), metrics


def flat(line: dict[str, Any], above: str = "") -> set[str]:
    """The fields of a line as Logs Insights names them: image.key."""
    found: set[str] = set()
    for name, value in line.items():
        found |= flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}"}
    return found


@cache
def widgets() -> list[dict[str, Any]]:
    """Of the dashboard, with parameters at their defaults; what refers to a resource is its logical id."""
    parameters = source()["Parameters"]

    def value(found: re.Match[str]) -> str:
        return str(parameters.get(found[1], {"Default": found[1]})["Default"])

    (board,) = of_type("AWS::CloudWatch::Dashboard").values()
    body = re.sub(r"\$\{([\w:.]+)\}", value, board["DashboardBody"]["Fn::Sub"])
    return list(json.loads(body)["widgets"])


def metrics() -> Iterator[tuple[str, str, tuple[str, ...], list[str]]]:
    """Namespace, name, and the dimensions with their values, of each metric of the dashboard."""
    for widget in widgets():
        for metric in widget["properties"].get("metrics", []):
            if words := [each for each in metric if isinstance(each, str)]:  # an expression has none
                yield words[0], words[1], tuple(words[2::2]), words[3::2]


def test_every_metric_of_the_dashboard_is_printed_by_the_count_function_or_is_a_services(
    printed: tuple[set[str], set[str]],
) -> None:
    ours = {name for namespace, name, *_ in metrics() if namespace == "Bintally"}
    assert ours <= printed[1]
    assert {"Counted", "Rejected", "Postponed", "LowConfidence", "Disagreement"} <= ours
    for namespace, name, dimensions, values in metrics():
        if namespace == "Bintally":
            assert (dimensions, values) == (("service",), ["AWS::StackName-count"])
        else:
            assert name in OF_AWS[namespace, *dimensions], (namespace, name)


def test_the_dashboard_refers_to_resources_that_there_are() -> None:
    (board,) = of_type("AWS::CloudWatch::Dashboard").values()
    known = {*translated()["Resources"], *source()["Parameters"], "AWS"}
    assert set(references(board["DashboardBody"])) <= known


def test_every_alarm_is_on_the_dashboard() -> None:
    (found,) = (widget for widget in widgets() if widget["type"] == "alarm")
    assert {arn.removesuffix(".Arn") for arn in found["properties"]["alarms"]} == set(of_type("AWS::CloudWatch::Alarm"))


def test_every_dead_letter_queue_is_on_the_dashboard() -> None:
    shown = {value.partition(".")[0] for _, _, (dimension, *_), (value, *_) in metrics() if dimension == "QueueName"}
    assert shown == set(of_type("AWS::SQS::Queue"))


def test_widgets_neither_overlap_nor_leave_the_board() -> None:
    taken: set[tuple[int, int]] = set()
    for widget in widgets():
        x, y = range(widget["x"], widget["x"] + widget["width"]), range(widget["y"], widget["y"] + widget["height"])
        places = {(column, row) for column in x for row in y}
        assert x.stop <= 24 and not places & taken, widget
        taken |= places


def test_the_estimate_is_the_figure_of_the_costs() -> None:
    """When this fails, write the new figure into the expression of the dashboard's estimate."""
    per_day = 1_000_000
    month = costs.counting(Usage(), prices("us-east-1").amounts, per_day, "serverless")
    dollars = sum(month.values()) / costs.DAYS
    assert f'"counted * {dollars:.2f} / {per_day}"' in json.dumps(widgets())


def test_queries_name_fields_that_lines_have(printed: tuple[set[str], set[str]]) -> None:
    reconcile = {"key", "version_id"}  # functions/bintally/reconciling/reconcile_pages.py
    known = printed[0] | flat(REPORT) | reconcile | set(WORDS.split()) | {"count_"}
    for name, properties in of_type("AWS::Logs::QueryDefinition").items():
        query = re.sub(r'"[^"]*"', "", properties["QueryString"]).replace("`count`", "count_")
        named = set(re.findall(r"(?<![\w.@])[A-Za-z_][\w.]*", query)) - set(re.findall(r" as (\w+)", query))
        assert named <= known, name
        assert set(re.findall(r"@\w+", query)) <= {"@timestamp", "@message", "@log"}, name
    assert "count" in printed[0]


def test_queries_are_made_on_aws_alone_and_search_every_functions_log() -> None:
    """The emulator refuses a stack with them."""
    queries = of_type("AWS::Logs::QueryDefinition")
    assert {translated()["Resources"][name]["Condition"] for name in queries} == {"IsOnAws"}
    image = "bintally-serve:latest"
    assert source()["Conditions"]["IsOnAws"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "ServingImage"}, image]}]}
    assert Local.image == image
    logging = {
        each["LoggingConfig"]["LogGroup"]["Ref"]
        for each in of_type("AWS::Lambda::Function").values()
        if each["Handler"] not in ("serve.handler", "bintally.remove_endpoint.handler")
    }
    for name in ("ErrorsQuery", "LogCostQuery"):
        assert {each["Ref"] for each in queries[name]["LogGroupNames"]} == logging


def test_the_cost_of_a_log_takes_the_price_of_the_costs() -> None:
    price = prices("us-east-1").amounts["logs_ingestion"]
    query = of_type("AWS::Logs::QueryDefinition")["LogCostQuery"]["QueryString"]
    assert f"/ 1000000000 * {price:.2f} as dollars" in query
