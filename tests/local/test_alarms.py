"""Metrics and alarms: the rules by the tables of CloudWatch's user guide; then each gap that local/cloudwatch.py
closes, there in ministack alone, closed with us."""

import io
import json
import time
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local import alarms, cloudwatch
from local.stack import Local

BOTH = pytest.mark.parametrize("which", ["bare", "ours"])
SOON = {"bare": 5.0, "ours": 60.0}  # seconds, with what ministack alone never does and with what ours does


@pytest.fixture
def stack(which: str, request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(which)


def eventually(find: Callable[[], Any], seconds: float = SOON["ours"]) -> Any:
    """What `find` answers, once it is something; None when it stays nothing."""
    deadline = time.monotonic() + seconds
    while not (found := find()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found or None


# The rules


@pytest.mark.parametrize(
    ("points", "missing", "ignore", "breaching", "not_breaching"),
    [
        ("0 - X - X", "OK", "OK", "OK", "OK"),
        ("0 - - - -", "OK", "OK", "OK", "OK"),
        ("- - - - -", "INSUFFICIENT_DATA", "as it was", "ALARM", "OK"),
        ("0 X X - X", "ALARM", "ALARM", "ALARM", "ALARM"),
        ("- - X - -", "ALARM", "as it was", "ALARM", "OK"),
        ("- - - - X", "as it was", "as it was", "ALARM", "OK"),
        ("- - - X -", "as it was", "as it was", "ALARM", "OK"),
    ],
)
def test_three_of_three_datapoints(points: str, missing: str, ignore: str, breaching: str, not_breaching: str) -> None:
    assert states(points, 3) == (missing, ignore, breaching, not_breaching)


@pytest.mark.parametrize(
    ("points", "missing", "ignore", "breaching", "not_breaching"),
    [
        ("0 - X - X", "ALARM", "ALARM", "ALARM", "ALARM"),
        ("0 0 X 0 X", "ALARM", "ALARM", "ALARM", "ALARM"),
        ("0 - X - -", "OK", "OK", "ALARM", "OK"),
        ("- - - - 0", "OK", "OK", "ALARM", "OK"),
        ("- - - X -", "ALARM", "as it was", "ALARM", "OK"),
    ],
)
def test_two_of_three_datapoints(points: str, missing: str, ignore: str, breaching: str, not_breaching: str) -> None:
    assert states(points, 2) == (missing, ignore, breaching, not_breaching)


def states(points: str, enough: int) -> tuple[str, ...]:
    """The states that the four treatments of missing data give; `points` has the newest last."""
    values = [{"X": 5.0, "0": 0.0, "-": None}[point] for point in reversed(points.split())]
    alarm = {
        **{"EvaluationPeriods": 3, "DatapointsToAlarm": enough, "Threshold": 1.0, "StateValue": "as it was"},
        "ComparisonOperator": "GreaterThanThreshold",
    }
    assert alarms.periods(alarm) == len(values)
    treatments = ("missing", "ignore", "breaching", "notBreaching")
    return tuple(alarms.evaluate({**alarm, "TreatMissingData": each}, values)[0] for each in treatments)


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        ("GreaterThanThreshold", ["OK", "OK", "ALARM"]),
        ("GreaterThanOrEqualToThreshold", ["OK", "ALARM", "ALARM"]),
        ("LessThanThreshold", ["ALARM", "OK", "OK"]),
        ("LessThanOrEqualToThreshold", ["ALARM", "ALARM", "OK"]),
    ],
)
def test_comparisons(comparison: str, expected: list[str]) -> None:
    alarm = {"EvaluationPeriods": 1, "Threshold": 1.0, "StateValue": "OK", "ComparisonOperator": comparison}
    assert [alarms.evaluate(alarm, [value, None, None])[0] for value in (0.5, 1.0, 1.5)] == expected


# Memory


def test_a_busy_second_takes_no_more_room_than_its_values() -> None:
    recorder = cloudwatch.Recorder()
    for n in range(10_000):
        recorder.record("Space", "Name", n % 2, "Count", {"A": "1"}, at=100)
    points = sorted(recorder.take(), key=lambda taken: taken[2]["Value"])
    expected = {"Timestamp": 100.0, "Count": 5000.0, "Unit": "Count", "Dimensions": {"A": "1"}}
    assert points == [("Space", "Name", expected | {"Value": value}) for value in (0.0, 1.0)]
    assert list(recorder.take()) == []


def test_old_values_take_less_and_less_room_and_keep_their_statistics() -> None:
    now = 1_000_000_000.0
    points: list[dict[str, Any]] = [
        {"Timestamp": now - age, "Value": 20_000 + 0.1 * age, "Unit": "Microseconds", "Dimensions": {}}
        for age in range(0, 3 * cloudwatch.DAY, 10)
    ]
    points.append({**points[0], "Timestamp": now - cloudwatch.KEPT - 1})
    points.append({**points[0], "Timestamp": now - 1000, "_stat": {"SampleCount": 1, "Sum": 1}})
    before = sum(point["Value"] for point in points[:-2])
    found = cloudwatch.folded(points, now)
    assert len(found) < 2000
    plain = [point for point in found if "_stat" not in point]
    assert len(plain) == len(found) - 1
    assert sum(point.get("Count", 1) for point in plain) == len(points) - 2
    assert sum(point["Value"] * point.get("Count", 1) for point in plain) == pytest.approx(before, rel=1e-9)
    assert [point for point in points if point["Timestamp"] > now - 300] == found[-31:-1]
    again = cloudwatch.folded(found, now + 60)
    assert sum(point.get("Count", 1) for point in again if "_stat" not in point) == len(points) - 2


# Alarms on the running emulator


def put_alarm(stack: Local, name: str, **members: Any) -> None:
    """An alarm that is in ALARM when any of its periods of 10 s has a value of 1 or more."""
    plain = {
        **{"Namespace": "Tests", "MetricName": name, "Statistic": "Maximum", "Period": 10, "EvaluationPeriods": 1},
        **{"Threshold": 1, "ComparisonOperator": "GreaterThanOrEqualToThreshold", "TreatMissingData": "notBreaching"},
    }
    stack.client("cloudwatch").put_metric_alarm(AlarmName=name, **(plain | members))


def put_value(stack: Local, name: str, value: float, **dimensions: str) -> None:
    listed = [{"Name": key, "Value": each} for key, each in dimensions.items()]
    datum = {"MetricName": name, "Value": value, "Dimensions": listed}
    stack.client("cloudwatch").put_metric_data(Namespace="Tests", MetricData=[datum])


def state(stack: Local, name: str) -> Any:
    return stack.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["StateValue"]


def settled_state(stack: Local, name: str) -> Any:
    """Its state two seconds after it has one."""
    assert eventually(lambda: state(stack, name) != "INSUFFICIENT_DATA")
    time.sleep(2)
    return state(stack, name)


@BOTH
def test_an_alarm_sees_its_own_dimensions_only(stack: Local, which: str) -> None:
    put_alarm(stack, "dimension", Dimensions=[{"Name": "Queue", "Value": "mine"}])
    put_value(stack, "dimension", 5, Queue="another")
    if which == "bare":
        assert state(stack, "dimension") == "ALARM"
        return
    assert settled_state(stack, "dimension") == "OK"
    put_value(stack, "dimension", 5, Queue="mine")
    assert eventually(lambda: state(stack, "dimension") == "ALARM")


@BOTH
def test_an_alarm_is_evaluated_without_new_data(stack: Local, which: str) -> None:
    put_alarm(stack, "silence", TreatMissingData="breaching")
    put_alarm(stack, "goes-back")
    put_value(stack, "goes-back", 1)
    assert eventually(lambda: state(stack, "goes-back") == "ALARM")
    if which == "bare":
        time.sleep(3)
        assert state(stack, "silence") == "INSUFFICIENT_DATA"
        return
    assert eventually(lambda: state(stack, "silence") == "ALARM")
    assert eventually(lambda: state(stack, "goes-back") == "OK", 10 * (1 + alarms.EXTRA_PERIODS) + 5)


@BOTH
def test_an_alarm_takes_as_many_datapoints_as_it_says(stack: Local, which: str) -> None:
    put_alarm(stack, "two", EvaluationPeriods=2, DatapointsToAlarm=2)
    put_value(stack, "two", 1)
    if which == "bare":
        assert state(stack, "two") == "ALARM"
        return
    assert settled_state(stack, "two") == "OK"
    time.sleep(9)
    put_value(stack, "two", 1)
    assert eventually(lambda: state(stack, "two") == "ALARM")


@BOTH
def test_percentiles(stack: Local, which: str) -> None:
    name = "percentile"
    put_alarm(stack, name, ExtendedStatistic="p90", Threshold=100)
    stack.client("cloudwatch").put_metric_data(
        Namespace="Tests", MetricData=[{"MetricName": name, "Values": [1, 1000], "Counts": [95, 5]}]
    )
    assert settled_state(stack, name) == "OK"
    stack.client("cloudwatch").put_metric_data(
        Namespace="Tests", MetricData=[{"MetricName": name, "Values": [1000], "Counts": [20]}]
    )
    assert eventually(lambda: state(stack, name) == "ALARM")


def own_queue(stack: Local, name: str) -> tuple[str, str]:
    """A queue that topics and rules may send to: its address and ARN."""
    sqs = stack.client("sqs")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allow = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": arn}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    return url, arn


def received(stack: Local, url: str, seconds: float = SOON["ours"]) -> list[Any]:
    """The bodies of the first messages that come within `seconds`."""
    receive = stack.client("sqs").receive_message
    found = eventually(lambda: receive(QueueUrl=url, WaitTimeSeconds=1).get("Messages"), seconds)
    return [json.loads(message["Body"]) for message in found or []]


@BOTH
def test_a_change_of_state_is_an_event(stack: Local, which: str) -> None:
    events = stack.client("events")
    url, arn = own_queue(stack, "alarm-events")
    pattern = {"source": ["aws.cloudwatch"], "detail": {"alarmName": ["tells"], "state": {"value": ["ALARM"]}}}
    events.put_rule(Name="alarm-events", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="alarm-events", Targets=[{"Id": "queue", "Arn": arn}])
    put_alarm(stack, "tells", Dimensions=[{"Name": "A", "Value": "1"}], AlarmDescription="why")
    put_value(stack, "tells", 3, A="1")
    found = received(stack, url, SOON[which])
    if which == "bare":
        assert found == []
        return
    (event,) = found
    assert event["detail-type"] == "CloudWatch Alarm State Change"
    assert event["resources"] == ["arn:aws:cloudwatch:us-east-1:000000000000:alarm:tells"]
    detail = event["detail"]
    assert detail["state"]["value"] == "ALARM" and "1 out of the last 1 datapoints [3.0]" in detail["state"]["reason"]
    assert detail["previousState"]["value"] in ("OK", "INSUFFICIENT_DATA")
    assert detail["configuration"]["description"] == "why"
    (metric,) = detail["configuration"]["metrics"]
    assert metric["metricStat"]["metric"] == {"namespace": "Tests", "name": "tells", "dimensions": {"A": "1"}}


def test_an_alarm_that_is_set_by_hand_tells_too(ours: Local) -> None:
    events = ours.client("events")
    url, arn = own_queue(ours, "by-hand")
    pattern = {"source": ["aws.cloudwatch"], "detail": {"alarmName": ["by-hand"], "state": {"value": ["ALARM"]}}}
    events.put_rule(Name="by-hand", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="by-hand", Targets=[{"Id": "queue", "Arn": arn}])
    put_alarm(ours, "by-hand")
    ours.client("cloudwatch").set_alarm_state(AlarmName="by-hand", StateValue="ALARM", StateReason="a test")
    (event,) = received(ours, url)
    assert event["detail"]["state"]["reason"] == "a test"
    assert eventually(lambda: state(ours, "by-hand") == "OK")


def test_an_alarm_tells_its_topic(ours: Local) -> None:
    url, arn = own_queue(ours, "alarm-topic")
    sns = ours.client("sns")
    topic = sns.create_topic(Name="alarm-topic")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    put_alarm(ours, "to-topic", AlarmActions=[topic])
    put_value(ours, "to-topic", 1)
    (notification,) = received(ours, url)
    message = json.loads(notification["Message"])
    assert (message["AlarmName"], message["NewStateValue"]) == ("to-topic", "ALARM")


def test_an_alarm_starts_a_state_machine(ours: Local, role: Callable[..., str]) -> None:
    states, events = ours.client("stepfunctions"), ours.client("events")
    definition = json.dumps({"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}})
    acts = role(ours, "alarm-machine", "states.amazonaws.com")
    machine = states.create_state_machine(name="alarmed", definition=definition, roleArn=acts)["stateMachineArn"]
    start = {"Effect": "Allow", "Action": "states:StartExecution", "Resource": machine}
    starts = role(ours, "alarm-rule", "events.amazonaws.com", start)
    events.put_rule(Name="alarmed", EventPattern=json.dumps({"detail": {"alarmName": ["starts"]}}))
    events.put_targets(Rule="alarmed", Targets=[{"Id": "machine", "Arn": machine, "RoleArn": starts}])
    put_alarm(ours, "starts", TreatMissingData="breaching")
    (execution,) = eventually(lambda: states.list_executions(stateMachineArn=machine)["executions"])
    found = json.loads(states.describe_execution(executionArn=execution["executionArn"])["input"])
    assert found["detail"]["state"]["value"] == "ALARM"


# Metrics


def statistics(stack: Local, namespace: str, name: str, **dimensions: str) -> Any:
    """Statistics of the last minutes, all added up; nothing when there are no values."""
    now = datetime.now(UTC)
    points = stack.client("cloudwatch").get_metric_statistics(
        Namespace=namespace,
        MetricName=name,
        Dimensions=[{"Name": key, "Value": each} for key, each in dimensions.items()],
        StartTime=now - timedelta(minutes=10),
        EndTime=now + timedelta(minutes=1),
        Period=3600,
        Statistics=["SampleCount", "Sum", "Maximum"],
    )["Datapoints"]
    if not points:
        return None
    added = {each: sum(point[each] for point in points) for each in ("SampleCount", "Sum")}
    return {**added, "Maximum": max(point["Maximum"] for point in points)}


EMBEDDED: dict[str, Any] = {
    "_aws": {
        "CloudWatchMetrics": [
            {
                "Namespace": "Embedded",
                "Dimensions": [["service"]],
                "Metrics": [{"Name": "Low", "Unit": "Count"}, {"Name": "Time", "Unit": "Milliseconds"}],
            }
        ]
    },
    "service": "count",
    "Low": [1.0, 0.0, 1.0],
    "Time": 12,
}


@BOTH
def test_embedded_metrics_become_metrics(stack: Local, which: str) -> None:
    logs, now = stack.client("logs"), int(time.time() * 1000)
    logs.create_log_group(logGroupName="embedded")
    logs.create_log_stream(logGroupName="embedded", logStreamName="one")
    line = EMBEDDED | {"_aws": EMBEDDED["_aws"] | {"Timestamp": now}}
    malformed = [{"_aws": 1}, {"_aws": {"CloudWatchMetrics": [1]}}, line | {"Low": "many"}]
    messages = ['"_aws" and no JSON', *map(json.dumps, [*malformed, line])]
    events = [{"timestamp": now, "message": message} for message in messages]
    logs.put_log_events(logGroupName="embedded", logStreamName="one", logEvents=events)
    found = eventually(lambda: statistics(stack, "Embedded", "Low", service="count"), SOON[which])
    if which == "bare":
        assert found is None
        return
    assert (found["SampleCount"], found["Sum"]) == (3, 2)
    assert statistics(stack, "Embedded", "Time", service="count")["Maximum"] == 12


def make_function(stack: Local, name: str, role_arn: str, code: str, **members: Any) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("index.py", code)
    stack.client("lambda").create_function(
        FunctionName=name,
        Runtime="python3.13",
        Handler="index.handler",
        Role=role_arn,
        Code={"ZipFile": archive.getvalue()},
        **members,
    )


FED = """
import json
def handler(event, context):
    message = json.loads(event["Records"][0]["body"])
    print(json.dumps(message["line"]))
    if message["fail"]:
        raise ValueError("as asked")
"""


@BOTH
def test_a_function_that_a_queue_feeds_has_metrics(stack: Local, which: str, role: Callable[..., str]) -> None:
    url, arn = own_queue(stack, "fed")
    take = {"Effect": "Allow", "Action": "sqs:*", "Resource": arn}
    make_function(stack, "fed", role(stack, "fed", "lambda.amazonaws.com", take), FED)
    stack.client("lambda").create_event_source_mapping(FunctionName="fed", EventSourceArn=arn, BatchSize=1)
    line = {**EMBEDDED, "_aws": {**EMBEDDED["_aws"], "Timestamp": int(time.time() * 1000)}, "service": "fed"}
    for fail in (False, True):
        message = json.dumps({"line": line, "fail": fail})
        stack.client("sqs").send_message(QueueUrl=url, MessageBody=message)

    def after_both() -> Any:
        found = statistics(stack, "AWS/Lambda", "Errors", FunctionName="fed")
        return found if found and found["SampleCount"] >= 2 else None

    found = eventually(after_both, SOON[which])
    if which == "bare":
        assert found is None
        return
    assert found["Sum"] >= 1
    assert statistics(stack, "AWS/Lambda", "Invocations", FunctionName="fed")["Sum"] == found["SampleCount"]
    assert statistics(stack, "AWS/Lambda", "Duration", FunctionName="fed")["Maximum"] > 0
    assert statistics(stack, "Embedded", "Low", service="fed")["SampleCount"] >= 6


@BOTH
def test_a_function_behind_a_stream_has_an_age(stack: Local, which: str, role: Callable[..., str]) -> None:
    table = stack.client("dynamodb").create_table(
        TableName="aged",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )["TableDescription"]
    read = {"Effect": "Allow", "Action": "dynamodb:*", "Resource": "*"}
    late = "import time\ndef handler(event, context): time.sleep(3)"
    make_function(stack, "aged", role(stack, "aged", "lambda.amazonaws.com", read), late, Timeout=10)
    stack.client("lambda").create_event_source_mapping(
        FunctionName="aged", EventSourceArn=table["LatestStreamArn"], StartingPosition="TRIM_HORIZON", BatchSize=1
    )
    for number in range(3):  # The third waits for the two before it.
        stack.client("dynamodb").put_item(TableName="aged", Item={"id": {"S": str(number)}})

    def age() -> Any:
        found = statistics(stack, "AWS/Lambda", "IteratorAge", FunctionName="aged")
        return found if found and found["SampleCount"] == 3 else None

    found = eventually(age, SOON[which])
    assert found is None if which == "bare" else 4000 < found["Maximum"] < 60_000


def test_an_invocation_by_a_client_is_recorded_once(ours: Local, role: Callable[..., str]) -> None:
    acts = role(ours, "once", "lambda.amazonaws.com")
    make_function(ours, "once", acts, "def handler(event, context): return 1")
    ours.client("lambda").invoke(FunctionName="once")
    found = eventually(lambda: statistics(ours, "AWS/Lambda", "Invocations", FunctionName="once"))
    assert found["Sum"] == 1
    assert statistics(ours, "AWS/Lambda", "Errors", FunctionName="once")["Sum"] == 0


@BOTH
def test_a_queue_has_metrics(stack: Local, which: str) -> None:
    sqs = stack.client("sqs")
    url = sqs.create_queue(QueueName="measured")["QueueUrl"]
    for _ in range(3):
        sqs.send_message(QueueUrl=url, MessageBody="x")
    time.sleep(2.5)
    name = "ApproximateNumberOfMessagesVisible"
    found = eventually(lambda: statistics(stack, "AWS/SQS", name, QueueName="measured"), SOON[which])
    if which == "bare":
        assert found is None
        return
    assert found["Maximum"] == 3
    assert 1 < statistics(stack, "AWS/SQS", "ApproximateAgeOfOldestMessage", QueueName="measured")["Maximum"] < 60
    sqs.receive_message(QueueUrl=url)
    name = "ApproximateNumberOfMessagesNotVisible"
    assert eventually(lambda: statistics(stack, "AWS/SQS", name, QueueName="measured")["Maximum"] == 1)


@BOTH
def test_a_state_machine_has_metrics(stack: Local, which: str, role: Callable[..., str]) -> None:
    states = stack.client("stepfunctions")
    acts = role(stack, "measured-machine", "states.amazonaws.com")

    def start(name: str, state: dict[str, Any]) -> tuple[str, str]:
        definition = json.dumps({"StartAt": "Do", "States": {"Do": state}})
        arn = states.create_state_machine(name=name, definition=definition, roleArn=acts)["stateMachineArn"]
        return arn, states.start_execution(stateMachineArn=arn)["executionArn"]

    fails, _ = start("measured-fails", {"Type": "Fail", "Error": "E"})
    waits, execution = start("measured-waits", {"Type": "Wait", "Seconds": 600, "End": True})
    states.stop_execution(executionArn=execution)
    failed = eventually(lambda: statistics(stack, "AWS/States", "ExecutionsFailed", StateMachineArn=fails), SOON[which])
    aborted = eventually(
        lambda: statistics(stack, "AWS/States", "ExecutionsAborted", StateMachineArn=waits), SOON[which]
    )
    if which == "bare":
        assert (failed, aborted) == (None, None)
        return
    assert (failed["Sum"], aborted["Sum"]) == (1, 1)
    assert statistics(stack, "AWS/States", "ExecutionsStarted", StateMachineArn=fails)["Sum"] == 1
    assert statistics(stack, "AWS/States", "ExecutionsFailed", StateMachineArn=waits) is None


@BOTH
def test_an_execution_that_takes_too_long_times_out(stack: Local, which: str, role: Callable[..., str]) -> None:
    states = stack.client("stepfunctions")
    late = {"TimeoutSeconds": 1, "StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 8, "End": True}}}
    machine = states.create_state_machine(
        name="too-late", definition=json.dumps(late), roleArn=role(stack, "too-late", "states.amazonaws.com")
    )["stateMachineArn"]
    execution = states.start_execution(stateMachineArn=machine)["executionArn"]

    def ended() -> Any:
        found = states.describe_execution(executionArn=execution)
        return found["status"] != "RUNNING" and found

    found = eventually(ended, 15)
    if which == "bare":
        assert found["status"] == "SUCCEEDED"
        return
    assert (found["status"], found["stopDate"] - found["startDate"] < timedelta(seconds=5)) == ("TIMED_OUT", True)
    assert eventually(lambda: statistics(stack, "AWS/States", "ExecutionsTimedOut", StateMachineArn=machine))
    time.sleep(8)
    assert ended()["status"] == "TIMED_OUT"
    history = {event["type"] for event in states.get_execution_history(executionArn=execution)["events"]}
    assert "ExecutionTimedOut" in history and "ExecutionSucceeded" not in history


def test_alarms_and_metrics_come_back_after_a_stop(own: Local) -> None:
    own.start_emulator()
    put_alarm(own, "kept", Period=60)
    put_value(own, "kept", 1)
    assert eventually(lambda: state(own, "kept") == "ALARM")
    assert own.down()
    own.start_emulator()
    assert state(own, "kept") == "ALARM"
    time.sleep(2)
    assert state(own, "kept") == "ALARM"
    assert statistics(own, "Tests", "kept")["Sum"] == 1
