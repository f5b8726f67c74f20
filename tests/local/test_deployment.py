"""Endpoint updates by deployment guardrails: canary and steps, promotion, rollback by alarms; endpoint metrics."""

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError
from localsagemaker.deployment import Plan, Traffic, planned
from localsagemaker.server import Server
from localsagemaker.wire import ServiceError

from local.stack import Local

OLD, NEW = cast(Server, "old"), cast(Server, "new")
REALTIME = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 2}


def guardrails(*alarms: str, percent: int = 10, wait: int = 600, last: int = 0, kind: str = "CANARY") -> dict[str, Any]:
    """A DeploymentConfig: `percent` of the requests for `wait` seconds, then all of them for `last` seconds more."""
    size = {"CANARY": "CanarySize", "LINEAR": "LinearStepSize"}.get(kind)
    routing = {"Type": kind, "WaitIntervalInSeconds": wait}
    if size:
        routing[size] = {"Type": "CAPACITY_PERCENT", "Value": percent}
    config = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": last}}
    if alarms:
        config["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in alarms]}
    return config


# The plan


def test_traffic_is_shared_evenly_and_not_by_chance() -> None:
    for percent in (1, 10, 25, 33, 50):
        traffic = Traffic(OLD, NEW, Fraction(percent, 100))
        picked = [traffic.pick() for _ in range(400)]
        assert Counter(picked)[NEW] == 4 * percent
        assert max(Counter(picked[n : n + 20])[NEW] for n in range(380)) <= percent // 5 + 1
    assert Traffic(OLD, NEW, Fraction(1)).pick() == NEW
    assert Traffic(OLD).pick() == OLD


@pytest.mark.parametrize(
    ("config", "instances", "shares", "seconds"),
    [
        (guardrails(kind="ALL_AT_ONCE", wait=5, last=7), 1, [1], [7]),
        (guardrails(percent=25, wait=5, last=7), 1, [Fraction(1, 4), 1], [5, 7]),
        (guardrails(kind="LINEAR", percent=50, wait=5, last=7), 1, [Fraction(1, 2), 1], [5, 7]),
        (guardrails(kind="LINEAR", percent=30, wait=5), 1, [Fraction(n, 10) for n in (3, 6, 9, 10)], [5, 5, 5, 0]),
        ({"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "a"}]}}, 1, [1], [0]),
    ],
)
def test_steps(config: dict[str, Any], instances: int, shares: list[Fraction], seconds: list[int]) -> None:
    plan = planned(config, instances)
    assert [step.share for step in plan.steps] == shares
    assert [step.seconds for step in plan.steps] == seconds


def test_a_canary_may_be_a_number_of_instances() -> None:
    config = guardrails()
    size = config["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]["CanarySize"]
    size |= {"Type": "INSTANCE_COUNT", "Value": 1}
    assert planned(config, 4).steps[0].share == Fraction(1, 4)
    with pytest.raises(ServiceError, match="CanarySize must be less than or equal to 50%"):
        planned(config, 1)


def with_routing(**members: Any) -> dict[str, Any]:
    config = guardrails(wait=300, last=300)
    config["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"] |= members
    return config


def with_limit(seconds: int) -> dict[str, Any]:
    config = guardrails(wait=300, last=300)
    config["BlueGreenUpdatePolicy"]["MaximumExecutionTimeoutInSeconds"] = seconds
    return config


REFUSED = [
    (guardrails(percent=51), "CanarySize must be less than or equal to 50%"),
    (guardrails(percent=9, kind="LINEAR"), "LinearStepSize must be 10-50%"),
    (with_routing(Type="LINEAR"), "CanarySize cannot be specified for traffic routing type LINEAR"),
    (with_routing(Type="ALL_AT_ONCE"), "CanarySize cannot be specified"),
    (guardrails(kind="CANARY") | {"RollingUpdatePolicy": {}}, "not supported on one machine: RollingUpdatePolicy"),
    (with_limit(600), "must be larger than the total waiting time of 600 seconds"),
]


@pytest.mark.parametrize(("config", "said"), REFUSED)
def test_what_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ServiceError, match=said):
        planned(config, 1)


def test_a_limit_above_the_waits_is_taken() -> None:
    assert planned(with_limit(601), 1).limit == 601


def test_an_update_goes_back_for_an_alarm_or_a_time_too_long() -> None:
    plan = Plan(planned(guardrails(), 1).steps, alarms=("a", "b"), limit=10)
    assert plan.trouble(lambda *_: False, time.time() - 9) is None
    assert "longer than 10 seconds" in str(plan.trouble(lambda *_: False, time.time() - 11))
    began = time.time() - 5
    assert "ALARM during it: b." in str(plan.trouble(lambda name, since: name == "b" and since == began, began))


# On the running emulator


@pytest.fixture
def endpoint(ours: Local, model: Callable[..., str], settled: Callable[..., dict[str, Any]]) -> Callable[..., str]:
    """Makes a real-time endpoint that serves v1, and a configuration `<name>-2` of another version."""

    def make(name: str, version: str = "v2") -> str:
        first = model(ours, f"{name}-1", "v1", **REALTIME)
        ours.client("sagemaker").create_endpoint(EndpointName=name, EndpointConfigName=first)
        assert settled(ours, name)["EndpointStatus"] == "InService"
        model(ours, f"{name}-2", version, **REALTIME)
        return name

    return make


def describe(stack: Local, name: str) -> Any:
    return stack.client("sagemaker").describe_endpoint(EndpointName=name)


def update(stack: Local, name: str, **members: Any) -> None:
    stack.client("sagemaker").update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-2", **members)


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def baking(stack: Local, name: str) -> Any:
    """Waits until the new process takes its share; the summary that tells of it."""

    def summary() -> Any:
        return describe(stack, name).get("PendingDeploymentSummary", {}).get("ProductionVariants", [{}])[0]

    until(lambda: summary().get("VariantStatus", [{}])[0].get("Status") == "Baking")
    return summary()


@contextlib.contextmanager
def stream(stack: Local, ask: Callable[..., dict[str, Any]], name: str) -> Iterator[list[str]]:
    """Four clients that ask without a pause, slow requests among them; yields what they were answered, or how they
    failed, and ends with the block."""
    answers, ended = [], threading.Event()

    def keep_asking(_: object) -> None:
        number = 0
        while not ended.is_set():
            number += 1
            try:
                answers.append(ask(stack, name, b"slow" if number % 20 == 5 else b"count")["model_version"])
            except ClientError as error:
                answers.append(str(error))

    with ThreadPoolExecutor(4) as pool:
        clients = pool.map(keep_asking, range(4))
        try:
            yield answers
        finally:
            ended.set()
        list(clients)


def put_alarm(stack: Local, name: str, endpoint_name: str = "none", metric: str = "Invocation5XXErrors") -> str:
    """In ALARM when there was one in the last 10 seconds; endpoint and metric as the template's alarms have them."""
    stack.client("cloudwatch").put_metric_alarm(
        AlarmName=name,
        Namespace="AWS/SageMaker",
        MetricName=metric,
        Dimensions=[
            {"Name": "EndpointName", "Value": endpoint_name},
            {"Name": "VariantName", "Value": "AllTraffic"},
        ],
        Statistic="Sum",
        Period=10,
        EvaluationPeriods=1,
        Threshold=0,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="notBreaching",
    )
    return name


def test_a_canary_gets_its_share_and_then_everything(
    ours: Local,
    endpoint: Callable[..., str],
    settled: Callable[..., dict[str, Any]],
    ask: Callable[..., dict[str, Any]],
) -> None:
    name = endpoint("canary")
    old = ask(ours, name)["pid"]
    config = guardrails(percent=10, wait=12, last=5)
    update(ours, name, DeploymentConfig=config)
    variant = baking(ours, name)
    shown = describe(ours, name)
    assert (shown["EndpointStatus"], shown["EndpointConfigName"]) == ("Updating", "canary-1")
    assert shown["PendingDeploymentSummary"]["EndpointConfigName"] == "canary-2"
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (1, 2)
    assert "canary capacity of 1 instance(s)" in variant["VariantStatus"][0]["StatusMessage"]
    assert Counter(ask(ours, name)["model_version"] for _ in range(40)) == {"v1": 36, "v2": 4}
    until(lambda: ask(ours, name)["model_version"] == ask(ours, name)["model_version"] == "v2")
    assert describe(ours, name)["EndpointStatus"] == "Updating"
    assert Path(f"/proc/{old}").exists()  # It is kept for the last 5 seconds, in case an alarm goes off.
    after = settled(ours, name)
    assert (after["EndpointConfigName"], after["LastDeploymentConfig"]) == ("canary-2", config)
    assert not {"FailureReason", "PendingDeploymentSummary"} & after.keys()
    assert {ask(ours, name)["model_version"] for _ in range(10)} == {"v2"}
    until(lambda: not Path(f"/proc/{old}").exists())


def test_a_promotion_fails_no_request(
    ours: Local,
    endpoint: Callable[..., str],
    settled: Callable[..., dict[str, Any]],
    ask: Callable[..., dict[str, Any]],
) -> None:
    name = endpoint("promoted")
    alarm = put_alarm(ours, name, name)
    with stream(ours, ask, name) as answers:
        update(ours, name, DeploymentConfig=guardrails(alarm, percent=50, wait=3, last=2))
        assert settled(ours, name)["EndpointConfigName"] == "promoted-2"
        time.sleep(1)
    assert set(answers) == {"v1", "v2"} and answers[-1] == "v2"


def test_an_alarm_takes_the_traffic_back_and_fails_no_request(
    ours: Local,
    endpoint: Callable[..., str],
    settled: Callable[..., dict[str, Any]],
    ask: Callable[..., dict[str, Any]],
) -> None:
    name = endpoint("back")
    alarm = put_alarm(ours, name)
    with stream(ours, ask, name) as answers:
        update(ours, name, DeploymentConfig=guardrails(alarm, percent=50))
        baking(ours, name)
        until(lambda: "v2" in answers[-10:])
        ours.client("cloudwatch").set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="a test")
        after = settled(ours, name)
        rolled_back = len(answers)
        time.sleep(1.5)
    assert (after["EndpointStatus"], after["EndpointConfigName"]) == ("InService", "back-1")
    assert "alarms in ALARM during it: back" in after["FailureReason"]
    assert "PendingDeploymentSummary" not in after
    assert set(answers) == {"v1", "v2"}
    assert set(answers[rolled_back + 4 :]) == {"v1"}  # 4 may have been on their way.


def test_a_model_that_fails_is_rolled_back_by_the_endpoint_s_own_errors(
    ours: Local,
    endpoint: Callable[..., str],
    settled: Callable[..., dict[str, Any]],
    ask: Callable[..., dict[str, Any]],
) -> None:
    name = endpoint("failing", "failing")
    url = status_events(ours, name)
    alarm = put_alarm(ours, "failing-errors", name)
    started = time.monotonic()
    update(ours, name, DeploymentConfig=guardrails(alarm, percent=25))
    with stream(ours, ask, name) as answers:
        until(lambda: describe(ours, name)["EndpointStatus"] != "Updating")
        seconds = time.monotonic() - started
        after = settled(ours, name)
    assert (after["EndpointStatus"], after["EndpointConfigName"]) == ("InService", "failing-1")
    assert seconds < 20
    failed = [answer for answer in answers if answer != "v1"]
    assert failed and all("(500) from primary" in answer for answer in failed)
    assert len(failed) < 0.3 * len(answers)
    assert {ask(ours, name)["model_version"] for _ in range(10)} == {"v1"}
    assert received_statuses(ours, url) == ["UPDATING", "ROLLING_BACK", "IN_SERVICE"]


def status_events(stack: Local, name: str) -> Any:
    """A queue with the state-change events of an endpoint from now on."""
    sqs, events = stack.client("sqs"), stack.client("events")
    url = sqs.create_queue(QueueName=f"{name}-statuses")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allow = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": arn}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    pattern = {"detail-type": ["SageMaker Endpoint State Change"], "detail": {"EndpointName": [name]}}
    events.put_rule(Name=f"{name}-statuses", EventPattern=json.dumps(pattern))
    events.put_targets(Rule=f"{name}-statuses", Targets=[{"Id": "queue", "Arn": arn}])
    return url


def received_statuses(stack: Local, url: str) -> list[str]:
    found = []
    while messages := stack.client("sqs").receive_message(QueueUrl=url, WaitTimeSeconds=2).get("Messages", []):
        for message in messages:
            event = json.loads(message["Body"])
            assert event["resources"] == [event["detail"]["EndpointArn"]]
            found.append((event["detail"]["LastModifiedTime"], event["detail"]["EndpointStatus"]))
            stack.client("sqs").delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return [status for _, status in sorted(found)]


def test_an_alarm_that_is_in_alarm_already_lets_nothing_begin(
    ours: Local,
    endpoint: Callable[..., str],
    settled: Callable[..., dict[str, Any]],
    ask: Callable[..., dict[str, Any]],
) -> None:
    name = endpoint("already")
    alarm = put_alarm(ours, name, name)
    with pytest.raises(ClientError):
        ask(ours, name, b"500")
    until(lambda: ours.client("cloudwatch").describe_alarms(StateValue="ALARM", AlarmNames=[alarm])["MetricAlarms"])
    update(ours, name, DeploymentConfig=guardrails(alarm, kind="ALL_AT_ONCE"))
    with stream(ours, ask, name) as answers:
        after = settled(ours, name)
    assert after["EndpointConfigName"] == "already-1" and "already" in after["FailureReason"]
    assert set(answers) == {"v1"}


def test_what_an_update_refuses(
    ours: Local,
    endpoint: Callable[..., str],
    model: Callable[..., str],
    settled: Callable[..., dict[str, Any]],
    ask: Callable[..., dict[str, Any]],
) -> None:
    name = endpoint("refuses")
    for config, said in (
        *REFUSED[:4],
        (guardrails("nowhere"), "Could not find CloudWatch alarms: nowhere"),
    ):
        with pytest.raises(ClientError, match=rf"\(ValidationException\).*{said}"):
            update(ours, name, DeploymentConfig=config)
    assert describe(ours, name)["EndpointStatus"] == "InService"
    sagemaker = ours.client("sagemaker")
    sagemaker.create_endpoint(EndpointName="serverless", EndpointConfigName=model(ours, "serverless-1", "v1"))
    settled(ours, "serverless")
    model(ours, "serverless-2", "v2")
    with pytest.raises(ClientError, match="DeploymentConfig is not supported for serverless"):
        update(ours, "serverless", DeploymentConfig=guardrails())
    update(ours, "serverless")
    assert settled(ours, "serverless")["EndpointConfigName"] == "serverless-2"


def test_properties_and_the_deployment_are_retained_when_asked(
    ours: Local, endpoint: Callable[..., str], model: Callable[..., str], settled: Callable[..., dict[str, Any]]
) -> None:
    name = endpoint("retains")
    sagemaker = ours.client("sagemaker")
    variant = {"VariantName": "AllTraffic", "ModelName": "retains-2", **REALTIME, "InitialInstanceCount": 5}
    sagemaker.create_endpoint_config(EndpointConfigName="retains-3", ProductionVariants=[variant])
    at_once = guardrails(kind="ALL_AT_ONCE", wait=0)
    update(ours, name, DeploymentConfig=at_once)
    settled(ours, name)
    change = {"EndpointName": name, "EndpointConfigName": "retains-3"}
    sagemaker.update_endpoint(**change, RetainAllVariantProperties=True, RetainDeploymentConfig=True)
    kept = settled(ours, name)
    assert (kept["EndpointConfigName"], kept["LastDeploymentConfig"]) == ("retains-3", at_once)
    assert kept["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    sagemaker.update_endpoint(**change)
    found = settled(ours, name)
    assert found["ProductionVariants"][0]["CurrentInstanceCount"] == 5
    assert "LastDeploymentConfig" not in found
    config = sagemaker.describe_endpoint_config(EndpointConfigName="retains-3")
    assert config["ProductionVariants"][0]["InitialInstanceCount"] == 5


def test_deleting_an_endpoint_in_its_canary_ends_both_processes(
    ours: Local, endpoint: Callable[..., str], ask: Callable[..., dict[str, Any]]
) -> None:
    name = endpoint("gone")
    update(ours, name, DeploymentConfig=guardrails(percent=50))
    baking(ours, name)
    processes = {ask(ours, name)["pid"] for _ in range(4)}
    assert len(processes) == 2
    ours.client("sagemaker").delete_endpoint(EndpointName=name)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes))
    with pytest.raises(ClientError, match="Could not find"):
        describe(ours, name)
    assert not list((ours.home / "endpoints").glob("gone-*"))


def test_a_stop_in_a_canary_brings_the_old_model_back(
    own: Local,
    model: Callable[..., str],
    settled: Callable[..., dict[str, Any]],
    ask: Callable[..., dict[str, Any]],
    serves: Callable[[Local, str], None],
) -> None:
    own.start_emulator()
    sagemaker = own.client("sagemaker")
    sagemaker.create_endpoint(EndpointName="stopped", EndpointConfigName=model(own, "stopped-1", "v1", **REALTIME))
    settled(own, "stopped")
    model(own, "stopped-2", "v2", **REALTIME)
    update(own, "stopped", DeploymentConfig=guardrails(put_alarm(own, "stopped"), percent=50))
    baking(own, "stopped")
    assert {ask(own, "stopped")["model_version"] for _ in range(4)} == {"v1", "v2"}
    assert own.down()
    own.start_emulator()
    after = settled(own, "stopped")
    assert (after["EndpointStatus"], after["EndpointConfigName"]) == ("InService", "stopped-1")
    assert "interrupted by a stop" in after["FailureReason"] and "PendingDeploymentSummary" not in after
    serves(own, "stopped")
    assert {ask(own, "stopped")["model_version"] for _ in range(4)} == {"v1"}
    update(own, "stopped", DeploymentConfig=guardrails("stopped", percent=50, wait=1))
    assert settled(own, "stopped")["EndpointConfigName"] == "stopped-2"


# Metrics


def totals(stack: Local, metric: str, endpoint_name: str, statistic: str = "Sum") -> Any:
    """The sum, or another statistic, of the last minutes, which may lie in two hours."""
    now = datetime.now(UTC)
    points = stack.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName=metric,
        Dimensions=[{"Name": "EndpointName", "Value": endpoint_name}, {"Name": "VariantName", "Value": "AllTraffic"}],
        StartTime=now - timedelta(minutes=10),
        EndTime=now + timedelta(minutes=1),
        Period=3600,
        Statistics=[statistic],
    )["Datapoints"]
    combine: dict[str, Callable[[Iterable[float]], float]] = {
        "Sum": sum,
        "SampleCount": sum,
        "Minimum": min,
        "Maximum": max,
    }
    return combine[statistic](point[statistic] for point in points) if points else None


def test_an_endpoint_has_metrics(
    ours: Local, model: Callable[..., str], settled: Callable[..., dict[str, Any]], ask: Callable[..., dict[str, Any]]
) -> None:
    sagemaker = ours.client("sagemaker")
    sagemaker.create_endpoint(EndpointName="measured", EndpointConfigName=model(ours, "measured", "v1"))
    settled(ours, "measured")
    for body in (b"count", b"slow", b"400", b"415", b"500", b"count"):
        with contextlib.suppress(ClientError):
            ask(ours, "measured", body)
    until(lambda: totals(ours, "Invocations", "measured") == 6)
    errors = [totals(ours, f"Invocation{kind}Errors", "measured") for kind in ("4XX", "5XX", "Model")]
    assert errors == [2, 1, 3]
    assert totals(ours, "Invocation5XXErrors", "measured", "SampleCount") == 6
    assert totals(ours, "ModelLatency", "measured", "Maximum") == pytest.approx(1_000_000, rel=0.5)
    assert totals(ours, "ModelLatency", "measured", "Minimum") < 500_000
    assert 0 <= totals(ours, "OverheadLatency", "measured", "Maximum") < 500_000
    with pytest.raises(ClientError):
        ask(ours, "measured", b"die")
    until(lambda: totals(ours, "Invocation5XXErrors", "measured") == 2)


def test_metrics_tell_of_both_processes_in_a_canary(
    ours: Local, endpoint: Callable[..., str], ask: Callable[..., dict[str, Any]]
) -> None:
    name = endpoint("both", "failing")
    update(ours, name, DeploymentConfig=guardrails(percent=50))
    baking(ours, name)
    for _ in range(10):
        with contextlib.suppress(ClientError):
            ask(ours, name)
    until(lambda: totals(ours, "Invocations", name) == 10)
    assert totals(ours, "Invocation5XXErrors", name) == 5
    ours.client("sagemaker").delete_endpoint(EndpointName=name)
