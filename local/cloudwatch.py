"""Completes ministack's CloudWatch: metrics of its services, embedded metrics, alarms that are evaluated on a timer.

It touches ministack's internals, as local/emulator.py and local/steps.py do, with one function per gap;
tests/local/test_alarms shows that ministack alone has each gap. As there, ministack's modules are imported inside the
functions.
"""

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from local import alarms

LOG = logging.getLogger(__name__)
TICK = 1.0  # seconds; the service evaluates alarms once a minute
FULL_SECONDS = 300  # how long every value is kept
DAY = 24 * 3600
KEPT = 14 * DAY

Point = dict[str, Any]
"""ministack's form: Timestamp, Value, Count (number of occurrences), Unit, Dimensions."""


class Recorder:
    """Collects values from any thread and returns them in batches, so that recording costs its caller microseconds, and
    a busy second needs memory only for its distinct values."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: Counter[tuple[str, str, str, tuple[tuple[str, str], ...], int, float]] = Counter()

    def record(
        self,
        namespace: str,
        name: str,
        value: float,
        unit: str = "None",
        dimensions: Mapping[str, str] | None = None,
        at: float | None = None,
    ) -> None:
        """Records a value `at` seconds since 1970; by default now."""
        key = (namespace, name, unit, tuple((dimensions or {}).items()), int(at or time.time()), float(value))
        with self._lock:
            self._seen[key] += 1

    def take(self) -> Iterator[tuple[str, str, Point]]:
        """Returns namespace, name and point of all values since the last call."""
        with self._lock:
            seen, self._seen = self._seen, Counter()
        for (namespace, name, unit, dimensions, at, value), count in seen.items():
            point = {"Timestamp": float(at), "Value": value, "Count": float(count), "Unit": unit}
            yield namespace, name, point | {"Dimensions": dict(dimensions)}


def folded(points: list[Point], now: float) -> list[Point]:
    """Compacts the points: older ones to one a minute, those before yesterday to one an hour, and drops the oldest.
    Only values with the same first two digits are merged, since percentiles need these. A merged point has the mean of
    its values, so sums are preserved. Statistic sets that were put do not change."""
    merged: dict[tuple[float, float, str], Point] = {}
    kept = []
    for point in points:
        age = now - point["Timestamp"]
        if age > KEPT:
            continue
        if age < FULL_SECONDS or "_stat" in point:
            kept.append(point)
            continue
        step = 60 if age < DAY else 3600
        at, count = point["Timestamp"] // step * step, point.get("Count", 1.0)
        same = merged.setdefault(
            (at, float(f"{point['Value']:.2g}"), point["Unit"]), {**point, "Timestamp": at, "Count": 0.0}
        )
        same["Count"] += count
        same["Value"] += (point["Value"] - same["Value"]) * count / same["Count"]
    return [*merged.values(), *kept]


def embedded(message: str) -> Iterator[tuple[str, str, float, str, dict[str, str], float]]:
    """The arguments of Recorder.record for each metric in a log line of the embedded metric format. Raises ValueError,
    KeyError, TypeError or AttributeError for a malformed line, which CloudWatch ignores."""
    line = json.loads(message)
    for directive in line["_aws"]["CloudWatchMetrics"]:
        for names in directive["Dimensions"]:
            dimensions = {name: str(line[name]) for name in names}
            for metric in directive["Metrics"]:
                values = line[metric["Name"]]
                for value in values if isinstance(values, list) else [values]:
                    unit, at = metric.get("Unit", "None"), line["_aws"]["Timestamp"] / 1000
                    yield directive["Namespace"], metric["Name"], float(value), unit, dimensions, at


def last_made(event: Any) -> float | None:
    """The time of the last record in a batch of a table's stream (seconds since 1970); None for other events."""
    records = event.get("Records") if isinstance(event, dict) else None
    if not records or records[-1].get("eventSource") != "aws:dynamodb":
        return None
    return float(records[-1]["dynamodb"]["ApproximateCreationDateTime"])


class CloudWatch:
    """Completes ministack's CloudWatch. Created before the emulator serves; `start` starts the timer."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.record = self.recorder.record
        self.lock = threading.Lock()
        """Guards everything that the timer changes and a save reads."""
        self._alarmed: dict[str, float] = {}  # when each alarm last changed to ALARM
        self._events = ThreadPoolExecutor(1, "alarm-event")
        self._folded = time.time()
        self._record_in_batches()
        self._evaluate_on_the_timer_only()
        self._put_events_of_alarms()
        self._read_embedded_metrics()
        self._record_functions()
        self._record_executions()

    def start(self) -> None:
        threading.Thread(target=self._run, name="alarms", daemon=True).start()

    def alarmed(self, name: str, since: float) -> bool | None:
        """Whether the alarm is or was in ALARM since then (seconds since 1970); None when the alarm does not exist."""
        from ministack.services import cloudwatch

        alarm = cloudwatch._alarms.get(name) or cloudwatch._composite_alarms.get(name)
        if alarm is None:
            return None
        return alarm["StateValue"] == alarms.ALARM or self._alarmed.get(name, 0.0) >= since

    # Gaps

    def _record_in_batches(self) -> None:
        """ministack keeps every value for two weeks; every request iterates over all of them in the serving thread."""
        from ministack.services import cloudwatch

        get_state = cloudwatch.get_state

        def get_state_at_rest() -> Any:
            with self.lock:
                return get_state()

        cloudwatch.record_metric = self.record
        cloudwatch._evict_old_metrics = lambda: None
        cloudwatch.get_state = get_state_at_rest

    def _evaluate_on_the_timer_only(self) -> None:
        """ministack evaluates alarms when metric data is put, over all dimensions of a metric together, and ignores
        missing data and DatapointsToAlarm. Here the timer evaluates them by the service's rules."""
        from ministack.services import cloudwatch

        cloudwatch._evaluate_alarm = lambda alarm: None

    def _put_events_of_alarms(self) -> None:
        """In ministack an alarm's change of state puts no event. On AWS alarms start state machines only by events."""
        from ministack.services import cloudwatch, eventbridge

        dispatch = cloudwatch._dispatch_alarm_actions

        def dispatch_with_event(alarm: dict[str, Any], old: str, new: str, reason: str) -> None:
            if new == alarms.ALARM:
                self._alarmed[alarm["AlarmName"]] = time.time()
            entry = {
                "Source": "aws.cloudwatch",
                "DetailType": "CloudWatch Alarm State Change",
                "Resources": [alarm["AlarmArn"]],
                "Detail": json.dumps(alarm_detail(alarm, old, new, reason)),
            }
            self._events.submit(eventbridge._put_events, {"Entries": [entry]}, allow_aws_source=True)
            dispatch(alarm, old, new, reason)

        cloudwatch._dispatch_alarm_actions = dispatch_with_event

    def _read_embedded_metrics(self) -> None:
        """In ministack metrics that a function prints in the embedded format remain text in its log."""
        from ministack.services import cloudwatch_logs

        append = cloudwatch_logs._append_log_events

        def append_and_record(stream: dict[str, Any], events: list[dict[str, Any]]) -> None:
            append(stream, events)
            for event in events:
                if '"_aws"' not in event["message"]:
                    continue
                try:
                    for metric in list(embedded(event["message"])):
                        self.record(*metric)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    LOG.debug("not embedded metrics: %r in %s", error, event["message"])

        cloudwatch_logs._append_log_events = append_and_record

    def _record_functions(self) -> None:
        """ministack records a function's invocations and errors only when a client invokes it, not when a queue, a
        stream, a rule or a state machine does; it does not record the age of stream records."""
        from ministack.services import lambda_svc

        execute = lambda_svc._execute_function_dispatch

        def execute_and_record(func: dict[str, Any], config: dict[str, Any], event: Any, *rest: Any) -> Any:
            started, began = time.monotonic(), time.time()
            result = execute(func, config, event, *rest)
            dimensions = {"FunctionName": config["FunctionName"]}
            self.record("AWS/Lambda", "Invocations", 1, "Count", dimensions)
            self.record("AWS/Lambda", "Errors", int(bool(result.get("error"))), "Count", dimensions)
            duration = (time.monotonic() - started) * 1000
            self.record("AWS/Lambda", "Duration", duration, "Milliseconds", dimensions)
            if (made := last_made(event)) is not None:
                self.record("AWS/Lambda", "IteratorAge", max(0, began - made) * 1000, "Milliseconds", dimensions)
            return result

        def record_throttle(name: str, duration_ms: float, error: bool, throttle: bool) -> None:
            if duration_ms == 0:  # ministack records the same again, with a duration, for the client that invoked it.
                self.record("AWS/Lambda", "Throttles", int(throttle), "Count", {"FunctionName": name})

        lambda_svc._execute_function_dispatch = execute_and_record
        lambda_svc._emit_lambda_metrics = record_throttle

    def _record_executions(self) -> None:
        """In ministack state machines have no metrics."""
        from ministack.services import stepfunctions

        names = {"RUNNING": "Started", "TIMED_OUT": "TimedOut"}
        emit = stepfunctions._emit_execution_status_event

        def emit_and_record(execution: dict[str, Any]) -> None:
            status = execution["status"]
            dimensions = {"StateMachineArn": execution["stateMachineArn"]}
            self.record("AWS/States", f"Executions{names.get(status, status.title())}", 1, "Count", dimensions)
            emit(execution)

        stepfunctions._emit_execution_status_event = emit_and_record

    def _record_queues(self) -> None:
        """In ministack queues have no metrics."""
        from ministack.services import sqs

        now = time.time()
        for queue in sqs._queues.values():
            dimensions = {"QueueName": queue["name"]}
            messages = list(queue["messages"])
            visible = sum(message["visible_at"] <= now for message in messages)
            oldest = max((now - message["sent_at"] for message in messages), default=0)
            figures = {
                "ApproximateNumberOfMessagesVisible": visible,
                "ApproximateNumberOfMessagesNotVisible": len(messages) - visible,
            }
            for name, value in figures.items():
                self.record("AWS/SQS", name, value, "Count", dimensions)
            self.record("AWS/SQS", "ApproximateAgeOfOldestMessage", oldest, "Seconds", dimensions)

    # The timer

    def _run(self) -> None:
        while True:
            time.sleep(TICK)
            try:
                self._tick(time.time())
            except Exception:
                LOG.exception("alarms are evaluated again in %s s", TICK)

    def _tick(self, now: float) -> None:
        from ministack.services import cloudwatch

        self._record_queues()
        with self.lock:
            for namespace, name, point in self.recorder.take():
                key = (namespace, name, cloudwatch._dims_key(point["Dimensions"]))
                cloudwatch._metric_bucket(key).append(point)
            if now - self._folded > 60:
                self._folded = now
                self._fold(now)
        for alarm in cloudwatch._alarms.values():
            # Metric math and anomaly bands are not evaluated: nothing here uses them.
            if alarm["MetricName"] and alarm["ComparisonOperator"] in alarms.BREACHES:
                old = alarm["StateValue"]
                new, reason = alarms.evaluate(alarm, period_values(alarm, now))
                if new != old:
                    self._change(alarm, old, new, reason)

    def _fold(self, now: float) -> None:
        from ministack.services import cloudwatch

        for key, points in cloudwatch._metrics.items():
            count = len(points)
            points[:count] = folded(points[:count], now)  # Values that arrive during this are appended afterwards.
            if not points:
                del cloudwatch._metrics[key]

    def _change(self, alarm: dict[str, Any], old: str, new: str, reason: str) -> None:
        from ministack.services import cloudwatch

        with self.lock:
            alarm |= {"StateValue": new, "StateReason": reason, "StateUpdatedTimestamp": int(time.time())}
            cloudwatch._record_history(alarm["AlarmName"], old, new, reason)
        cloudwatch._dispatch_alarm_actions(alarm, old, new, reason)
        cloudwatch._evaluate_parent_alarms(alarm)


def period_values(alarm: dict[str, Any], now: float) -> list[float | None]:
    """The alarm's statistic for each of its periods, the newest first. The newest period ends now: the service waits
    for whole minutes, which is too long for a person at a desk."""
    from ministack.services import cloudwatch

    dimensions = {each["Name"]: each["Value"] for each in alarm["Dimensions"]}
    key = (alarm["Namespace"], alarm["MetricName"], cloudwatch._dims_key(dimensions))
    windows: list[list[Point]] = [[] for _ in range(alarms.periods(alarm))]
    for point in list(cloudwatch._metrics.get(key, [])):
        index = int((now - point["Timestamp"]) // alarm["Period"])
        if 0 <= index < len(windows):
            windows[index].append(point)
    statistic = alarm.get("ExtendedStatistic") or alarm["Statistic"]
    return [
        cloudwatch._stat_value(cloudwatch._calc_stats(points), statistic, points) if points else None
        for points in windows
    ]


def alarm_detail(alarm: dict[str, Any], old: str, new: str, reason: str) -> dict[str, Any]:
    """The detail of the event about an alarm's change of state. A composite alarm has a rule and no metric."""
    configuration: dict[str, Any] = {"description": alarm.get("AlarmDescription", "")}
    if "MetricName" in alarm:
        metric = {
            "namespace": alarm["Namespace"],
            "name": alarm["MetricName"],
            "dimensions": {each["Name"]: each["Value"] for each in alarm["Dimensions"]},
        }
        stat = {
            "metric": metric,
            "period": alarm["Period"],
            "stat": alarm.get("ExtendedStatistic") or alarm["Statistic"],
        }
        configuration["metrics"] = [{"id": "m1", "metricStat": stat, "returnData": True}]
    else:
        configuration["alarmRule"] = alarm["AlarmRule"]
    timestamp = time.strftime("%Y-%m-%dT%H:%M:%S.000+0000", time.gmtime())
    return {
        "alarmName": alarm["AlarmName"],
        "state": {"value": new, "reason": reason, "timestamp": timestamp},
        "previousState": {"value": old},
        "configuration": configuration,
    }
