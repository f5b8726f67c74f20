"""Starts a retraining by hand, and watches it until it ends."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from boto3.dynamodb.conditions import Key
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.markup import escape

from cli import training_progress
from cli.errors import INTERRUPTED, CliError
from deployed.errors import Denied
from deployed.stack import Deployed

POLL_SECONDS = 1.0
DETAIL_SECONDS = 5.0
"""Between two questions about a job's progress: CloudWatch Logs answers an account few a second."""
RELEASE_SECONDS = 900.0
STEPS = {
    "Plan": "Reading the new labels",
    "Process": "Processing the photographs",
    "Tune": "Tuning",
    "Train": "Training",
    "TransformChampion": "Champion counts the test photographs",
    "TransformChallenger": "Challenger counts the test photographs",
    "Evaluate": "Evaluating both",
    "Judge": "Judging",
    "Register": "Registering the model",
    "Conclude": "Concluding",
}


def start(stack: Deployed, request: dict[str, Any]) -> str:
    machine = stack.outputs()["RetrainStateMachine"]
    started = stack.client("stepfunctions").start_execution(stateMachineArn=machine, input=json.dumps(request))
    return str(started["executionArn"])


def running(stack: Deployed) -> str | None:
    """The running execution; None if none runs."""
    return stack.under_way(stack.outputs()["RetrainStateMachine"])


@dataclass
class Watch:
    """The progress of an execution; `step` is its current state."""

    stack: Deployed
    execution: str
    seen: int = 0
    step: str = ""
    since: float = 0.0
    run: str = ""
    _detail: str = ""
    _asked: float = 0.0
    _asked_of: str = ""

    @cached_property
    def states(self) -> Any:
        return self.stack.client("stepfunctions")

    @cached_property
    def logs(self) -> Any:
        return self.stack.client("logs")

    @cached_property
    def sagemaker(self) -> Any:
        return self.stack.client("sagemaker")

    @cached_property
    def counts_table(self) -> Any:
        return self.stack.counts_table()

    def look(self) -> Iterator[tuple[str, float]]:
        """The steps that ended since the last call, with their seconds by the execution's clock."""
        pages = self.states.get_paginator("get_execution_history").paginate(executionArn=self.execution)
        events = [event for page in pages for event in page["events"]]
        for event in events[self.seen :]:
            at = event["timestamp"].timestamp()
            if entered := event.get("stateEnteredEventDetails"):
                self.step, self.since = entered["name"], at
            if (exited := event.get("stateExitedEventDetails")) and exited["name"] in STEPS:
                yield exited["name"], at - self.since
        self.seen = len(events)

    def detail(self, now: float) -> str:
        """How far the current step is, renewed every DETAIL_SECONDS. `now` is in epoch seconds, as `since`."""
        if now < self._asked + DETAIL_SECONDS and self._asked_of == self.step:
            return self._detail
        self._asked, self._asked_of, self._detail = now, self.step, ""
        name = f"{self.stack.name}-{self.find_run()}"
        try:
            if self.step == "Tune":
                self._detail = training_progress.of_tuning(self.sagemaker, self.logs, name, now)
            elif self.step == "Train":
                self._detail = training_progress.of_training(self.sagemaker, self.logs, f"{name}-train", now)
        except (ClientError, Denied) as error:
            # Not created yet; asked too often; or who watches may not see it. The run goes on all the same.
            self._detail = f"missing permission {error.action}" if isinstance(error, Denied) else ""
        return self._detail

    def find_run(self) -> str:
        """The run's name, from the table: `plan` writes it there."""
        if not self.run:
            condition = Key("PK").eq("RETRAIN") & Key("SK").begins_with("RUN#")
            items = self.counts_table.query(KeyConditionExpression=condition, ConsistentRead=True)["Items"]
            self.run = next((str(item["run"]) for item in items if item["execution"] == self.execution), "")
        return self.run


def follow(stack: Deployed, execution: str, console: Console) -> dict[str, Any]:
    """Shows each step until the execution ends, and returns its output. Raises CliError when it failed."""
    watch = Watch(stack, execution)
    try:
        with console.status("Starting") as status:
            while True:
                found = watch.states.describe_execution(executionArn=execution)
                for step, seconds in watch.look():
                    console.print(f"[green]✓[/] {STEPS[step]} [dim]{seconds:.1f} s[/]{result_of(watch, step)}")
                if found["status"] != "RUNNING":
                    break
                now = time.time()
                detail = watch.detail(now) or f"{max(0.0, now - watch.since):.0f} s"
                status.update(f"{STEPS.get(watch.step, 'Preparing the next step')} [dim]{escape(detail)}[/]")
                time.sleep(POLL_SECONDS)
    except BotoCoreError as error:
        raise CliError(f"the stack stopped answering: {error}{stack.hint}") from error
    except KeyboardInterrupt:
        raise CliError("the retraining goes on. Stop it with: bintally retrain stop", INTERRUPTED) from None
    if found["status"] != "SUCCEEDED":
        raise CliError(
            f"retraining {found['status'].lower()}: {found.get('error', '')} {found.get('cause', '')}".strip()
        )
    output: dict[str, Any] = json.loads(found["output"])
    console.print(f"Run {output['run']}: [bold]{output['outcome']}[/]. {escape(output['reason'])}", soft_wrap=True)
    if output.get("approval") == "PendingManualApproval":
        console.print(f"Deploy it with: [cyan]bintally model approve {output['model_version']}[/]")
    return output


def result_of(watch: Watch, step: str) -> str:
    """A job's final metrics."""
    sagemaker = watch.sagemaker
    name = f"{watch.stack.name}-{watch.find_run()}"
    try:
        if step == "Train":
            found = sagemaker.describe_training_job(TrainingJobName=f"{name}-train")
            metrics = {metric["MetricName"]: metric["Value"] for metric in found.get("FinalMetricDataList", ())}
            return "".join(f"  {key.partition(':')[2]} {value:.3f}" for key, value in sorted(metrics.items()))
        if step == "Tune":
            found = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
            counts, best = found["TrainingJobStatusCounters"], found.get("BestTrainingJob", {})
            objective = best.get("FinalHyperParameterTuningJobObjectiveMetric", {}).get("Value")
            tuned = ", ".join(
                f"{key} {float(value):.3g}" for key, value in sorted(best.get("TunedHyperParameters", {}).items())
            )
            best_text = f"  best rps {objective:.3f} with {tuned}" if objective is not None else ""
            return f"  {counts['Completed']} of {sum(counts.values())} trials completed{best_text}"
    except ClientError:  # the step failed before its job was created
        return ""
    return ""


def wait_live(stack: Deployed, version: str, console: Console) -> None:
    """Waits until the registry's event has released the version. Raises CliError when it has not."""
    began, outputs = time.monotonic(), stack.outputs()
    with console.status(f"Releasing model {version}"):
        while f"/models/{version}/" not in (stack.live_model_data(outputs) or ""):
            if time.monotonic() - began > RELEASE_SECONDS:
                raise CliError(f"model {version} is not live after {RELEASE_SECONDS:.0f} s. See: bintally model list")
            time.sleep(POLL_SECONDS)
    console.print(f"[green]✓[/] Model {version} is live [dim]{time.monotonic() - began:.1f} s[/]")
