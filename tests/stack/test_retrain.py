"""Retraining on the running stack, with its roles: real jobs, a verdict, the registry, and each way that it can end.

The photographs are drawn so that their colour tells the quantity: the shipped model counts them badly and any
network learns them in seconds, so that a challenger truly is better. Bins are named so that every split has some.
"""

import io
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image, ImageDraw

from cli.main import main
from deployed.people import ALL_SITES, People
from local import processes
from local.stack import REPOSITORY, Local
from tests.stack.conftest import FEW_SNAPSHOTS, wait_for
from tests.stack.people import Browser
from tests.stack.releasing import inbox_of
from training.dataset.layout import split_of

pytestmark = [
    pytest.mark.torch,
    pytest.mark.xdist_group("retrain"),
    pytest.mark.timeout(1500),  # a whole run with real torch takes over 4 minutes on idle cores, 9 on busy ones
]

SITE = "RET"
COLOURS = [(20, 20, 20), (230, 40, 40), (40, 230, 40), (40, 40, 230), (230, 230, 40), (230, 40, 230), (40, 230, 230)]
WANTED = {"train": 84, "validation": 21, "test": 77}
SMALL = {"epochs": 4, "sizes": "64", "trials": 0, "calibration_photographs": 16, "learning_rate": "0.001"}


def coloured(quantity: int, number: int) -> bytes:
    """A photograph of `quantity` items, as this warehouse has them; another number gives other pixels."""
    image = Image.new("RGB", (96, 72), COLOURS[min(quantity, 6)])
    draw = ImageDraw.Draw(image)
    draw.line((0, number % 72, 95, number * 7 % 72), fill=(128, 128, 128), width=1 + number % 4)
    draw.point((number % 96, number // 96), fill=(255, 255, 255))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def bins(wanted: dict[str, int]) -> list[str]:
    """Names of bins, so many in each split."""
    found: dict[str, list[str]] = {split: [] for split in wanted}
    number = 0
    while any(len(found[split]) < wanted[split] for split in wanted):
        name = f"B{number:04d}"
        split = split_of(SITE, name)
        if len(found[split]) < wanted[split]:
            found[split].append(name)
        number += 1
    return [name for split in wanted for name in found[split]]


class Retrainings:
    """Someone who retrains and looks at what came of it."""

    def __init__(self, stack: Local, user: Any, inbox: str) -> None:
        self.stack, self.user, self.inbox = stack, user, inbox
        self.outputs = stack.outputs()
        self.artifacts = self.outputs["ArtifactsBucket"]
        self.states, self.sagemaker = stack.client("stepfunctions"), stack.client("sagemaker")

    def upload_labelled(self, wanted: dict[str, int] = WANTED) -> list[str]:
        """Photographs with their recorded quantities; returns their keys when each has its label line."""
        before, keys = self.labelled(), []
        for number, name in enumerate(bins(wanted)):
            keys.append(f"incoming/{SITE}/{name}/{number}.jpg")
            self.user.upload(keys[-1], coloured(number % 7, number), expected_quantity=str(number % 7))
        self.user.wait_for("the label lines", lambda: self.labelled() >= before + len(keys), 300)
        return keys

    def with_labels(self) -> "Retrainings":
        """Has labels to train on, for a test that runs alone."""
        if not self.labelled():
            self.upload_labelled()
        return self

    def labelled(self) -> int:
        pages = self.user.s3.get_paginator("list_objects_v2").paginate(Bucket=self.artifacts, Prefix="labels/2")
        objects = [found["Key"] for page in pages for found in page.get("Contents", ())]
        return sum(self.read(key).count(b"\n") for key in objects)

    def read(self, key: str) -> bytes:
        return bytes(self.user.s3.get_object(Bucket=self.artifacts, Key=key)["Body"].read())

    def start(self, **request: Any) -> str:
        machine = self.outputs["RetrainStateMachine"]
        return str(self.states.start_execution(stateMachineArn=machine, input=json.dumps(request))["executionArn"])

    def describe(self, execution: str) -> dict[str, Any]:
        return dict(self.states.describe_execution(executionArn=execution))

    def wait(self, execution: str, seconds: float = 900) -> dict[str, Any]:
        self.user.wait_for("the run's end", lambda: self.describe(execution)["status"] != "RUNNING", seconds)
        return self.describe(execution)

    def output(self, execution: str) -> dict[str, Any]:
        found = self.wait(execution)
        assert found["status"] == "SUCCEEDED", (found.get("error"), found.get("cause"))
        return dict(json.loads(found["output"]))

    def entered(self, execution: str) -> list[str]:
        pages = self.states.get_paginator("get_execution_history").paginate(executionArn=execution)
        events = [event for page in pages for event in page["events"]]
        return [event["stateEnteredEventDetails"]["name"] for event in events if "stateEnteredEventDetails" in event]

    def wait_state(self, execution: str, name: str) -> None:
        self.user.wait_for(name, lambda: name in self.entered(execution), 400)

    def run(self, execution: str) -> dict[str, Any]:
        """What the table says of the run; nothing before `plan` wrote it."""
        found = [item for item in self.user.items() if item["PK"] == "RETRAIN" and item["SK"].startswith("RUN#")]
        return next((dict(item) for item in found if item["execution"] == execution), {})

    def lock(self) -> dict[str, Any] | None:
        item = self.user.table.get_item(Key={"PK": "LOCK#retrain", "SK": "LOCK"}, ConsistentRead=True).get("Item")
        return dict(item) if item else None

    def told(self, execution: str) -> tuple[dict[str, Any], list[str]]:
        """The event's detail and the messages about an execution."""
        events: list[dict[str, Any]] = []
        messages: list[str] = []

        def receive() -> bool:
            answer = self.user.sqs.receive_message(QueueUrl=self.inbox, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            for message in answer.get("Messages", []):
                body = json.loads(message["Body"])
                if body.get("source") == "bintally" and body["detail"]["execution"] == execution:
                    events.append(body["detail"])
                elif body.get("Type") == "Notification" and body["Message"].endswith(execution):
                    messages.append(body["Message"])
                self.user.sqs.delete_message(QueueUrl=self.inbox, ReceiptHandle=message["ReceiptHandle"])
            return bool(events and messages)

        self.user.wait_for(f"event and message of {execution}", receive, 60)
        time.sleep(2)
        receive()
        assert len(events) == 1, "told once"
        assert len(messages) == 1, "told once"
        return events[0], messages

    def training(self, job: str) -> list[int]:
        """The processes of a training job."""
        session = self.stack.emulator_pid()
        assert session is not None
        found = []
        for pid in processes.session_members(session):
            if "training.train" in processes.command_line(pid):
                with Path(f"/proc/{pid}/environ").open(errors="replace") as environment:
                    if f"TRAINING_JOB_NAME={job}\0" in environment.read() + "\0":
                        found.append(pid)
        return found

    def live_version(self) -> str:
        answer = self.stack.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=self.outputs["EndpointName"], ContentType="image/jpeg", Body=coloured(1, 1)
        )
        return str(json.load(answer["Body"])["model_version"])

    def at_work(self) -> list[str]:
        """Names of jobs under way."""
        listed = {
            "ProcessingJob": self.sagemaker.list_processing_jobs(StatusEquals="InProgress")["ProcessingJobSummaries"],
            "TrainingJob": self.sagemaker.list_training_jobs(StatusEquals="InProgress")["TrainingJobSummaries"],
            "TransformJob": self.sagemaker.list_transform_jobs(StatusEquals="InProgress")["TransformJobSummaries"],
        }
        return [job[f"{kind}Name"] for kind, jobs in listed.items() for job in jobs]

    def assert_clean(self) -> None:
        """No lock, no job, no model of a run is left."""
        assert self.lock() is None
        self.user.wait_for("no job at work", lambda: not self.at_work(), 60)
        models = [model["ModelName"] for model in self.sagemaker.list_models()["Models"]]
        assert not [name for name in models if name.endswith(("-champion", "-challenger"))]
        assert "Versions" not in self.user.s3.list_object_versions(Bucket=self.artifacts, Prefix="checkpoints/")

    def failed(self, execution: str, error: str, reason: str) -> None:
        """The execution failed so and said so everywhere."""
        found = self.wait(execution)
        assert (found["status"], found.get("error")) == ("FAILED", error), found.get("cause")
        assert reason in found["cause"]
        event, (message,) = self.told(execution)
        assert (event["error"], event["reason"]) == (error, found["cause"])
        assert found["cause"] in message
        assert self.run(execution)["reason"] == found["cause"]
        self.assert_clean()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, a_port: Callable[[], int]) -> Iterator[Local]:
    python = str(Path(__file__).with_name("trainer.py"))
    home = tmp_path_factory.mktemp("retrain")
    stack = Local(home=home, port=a_port(), variables=FEW_SNAPSHOTS | {"BINTALLY_TRAINING_PYTHON": python})
    stack.up(print)
    # `make test` installs it meanwhile.
    wait_for("the training environment (make train-venv)", (REPOSITORY / ".venv-train" / "installed").exists)
    yield stack
    stack.down()


@pytest.fixture(scope="module")
def user(stack: Local, a_user: Callable[[Local], Any]) -> Any:
    user = a_user(stack)
    user.configure(RETRY_SECONDS="1")
    return user


@pytest.fixture(scope="module")
def inbox(stack: Local) -> Iterator[str]:
    with inbox_of(stack, "Retrain Finished") as inbox:
        yield inbox


@pytest.fixture(scope="module")
def retrainings(stack: Local, user: Any, inbox: str) -> Retrainings:
    """What is uploaded here is counted so badly that the drift alarm would start runs in between: its rule is off but
    in its own test."""
    stack.client("events").disable_rule(Name=drift_rule(stack))
    return Retrainings(stack, user, inbox)


def test_nothing_to_do_without_new_labels(retrainings: Retrainings) -> None:
    execution = retrainings.start(reason="schedule")
    output = retrainings.output(execution)
    assert output["outcome"] == "nothing to do"
    assert retrainings.entered(execution)[-1] == "NothingToDo"
    event, _ = retrainings.told(execution)
    assert event["outcome"] == "nothing to do"
    retrainings.assert_clean()


def test_the_command_shows_each_step(retrainings: Retrainings) -> None:
    environment = {"BINTALLY_HOME": str(retrainings.stack.home), "BINTALLY_PORT": str(retrainings.stack.port)}
    shown = CliRunner().invoke(main, ["retrain", "start", "--watch"], env=environment)
    assert shown.exit_code == 0, shown.output
    assert "✓ Reading the new labels" in shown.output
    assert "photographs have new labels, a run takes 1000" in " ".join(shown.output.split())
    wrong = CliRunner().invoke(main, ["retrain", "start", "--watch", "--set", "epoch=1"], env=environment)
    assert wrong.exit_code == 2
    assert "no such settings: epoch" in " ".join(wrong.output.split())
    retrainings.assert_clean()


def test_a_better_challenger_waits_for_approval_and_then_answers(retrainings: Retrainings, user: Any) -> None:
    """On the way a second run is refused, one trial of two is killed, and the training is interrupted like spot."""
    keys = retrainings.upload_labelled()
    before = retrainings.live_version()
    # Small batches: steps enough to win by far in few epochs, since each is judged on the validation split.
    settings = {"epochs": 6, "batch_size": 16, "learning_rate": "0.004", "trials": 2, "parallel": 1}
    execution = retrainings.start(force=True, settings=SMALL | settings)
    retrainings.wait_state(execution, "Process")

    second = retrainings.start(force=True)
    found = retrainings.wait(second)
    assert (found["status"], found["error"]) == ("FAILED", "AlreadyRunning")
    assert execution in found["cause"]
    assert retrainings.told(second)[0]["outcome"] == "refused"
    lock = retrainings.lock()
    assert lock
    assert lock["owner"] == execution

    run = retrainings.run(execution)["run"]
    name = f"{retrainings.stack.name}-{run}"
    retrainings.wait_state(execution, "Tune")
    rita, given = Browser(retrainings.stack), People(retrainings.stack).add("rita", "manager", [ALL_SITES])
    assert rita.session(name="rita", password=given, new_password="correct horse battery staple")[0] == 200
    runs = rita.get("/api/retrainings")[1]["retrainings"]
    assert [run["step"] for run in runs if run["outcome"] == "running"] == ["Tune"]
    kill(retrainings, f"{name}-001-")
    retrainings.wait_state(execution, "Train")
    tuned = retrainings.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    assert (tuned["TrainingJobStatusCounters"]["Completed"], tuned["HyperParameterTuningJobStatus"]) == (1, "Completed")
    interrupt(retrainings, f"{name}-train", run)

    output = retrainings.output(execution)
    assert output["outcome"] == "registered", output["reason"]
    assert output["approval"] == "PendingManualApproval"
    trained = retrainings.sagemaker.describe_training_job(TrainingJobName=f"{name}-train")
    assert "Interrupted" in [change["Status"] for change in trained["SecondaryStatusTransitions"]]
    assert set(tuned["BestTrainingJob"]["TunedHyperParameters"].items()) <= set(trained["HyperParameters"].items())
    job = [{"Name": "TrainingJobName", "Value": f"{name}-train"}]
    told = retrainings.stack.client("cloudwatch").list_metrics(Namespace="/aws/sagemaker/TrainingJobs", Dimensions=job)
    assert "validation:rps" in [metric["MetricName"] for metric in told["Metrics"]]
    assert retrainings.live_version() == before, "nothing is released before a person approves"
    retrainings.assert_clean()
    assert retrainings.told(execution)[0]["outcome"] == "registered"

    (package,) = retrainings.sagemaker.list_model_packages(
        ModelPackageGroupName=retrainings.stack.name, ModelApprovalStatus="PendingManualApproval"
    )["ModelPackageSummaryList"]
    described = retrainings.sagemaker.describe_model_package(ModelPackageName=package["ModelPackageArn"])
    metadata = described["CustomerMetadataProperties"]
    assert (metadata["model_version"], metadata["parent"]) == (output["model_version"], before)
    assert metadata["training_job"] == f"{name}-train"
    dataset = json.loads(retrainings.read(f"retrain/{run}/dataset/dataset.json"))
    assert metadata["dataset_digest"] == dataset["digest"]
    assert sum(dataset["photographs"].values()) >= len(keys)  # other tests of this stack may have left some
    evaluation = json.loads(retrainings.read(f"retrain/{run}/evaluation/evaluation.json"))
    assert evaluation["test_set"]["photographs"] == dataset["photographs"]["test"] >= WANTED["test"]
    assert evaluation["champion"]["model_version"] == before
    assert metadata["package_digest"] == evaluation["golden"]["package_digest"]
    assert b"<html" in retrainings.read(f"retrain/{run}/evaluation/report.html")[:1000].lower()

    retrainings.sagemaker.update_model_package(
        ModelPackageArn=package["ModelPackageArn"], ModelApprovalStatus="Approved"
    )
    user.wait_for("the new model", lambda: retrainings.live_version() == output["model_version"], 300)
    labelled = retrainings.labelled()
    user.upload(f"incoming/{SITE}/AFTER/1.jpg", coloured(4, 5000), expected_quantity="4")
    (item,) = user.wait_counts(f"incoming/{SITE}/AFTER/1.jpg")
    assert item["model_version"] == output["model_version"]
    user.wait_for("its label", lambda: retrainings.labelled() > labelled, 200)  # new to the next run


def kill(retrainings: Retrainings, prefix: str) -> None:
    """Kills the first trial whose name starts so, while it trains."""

    def found() -> list[int]:
        jobs = retrainings.sagemaker.list_training_jobs(NameContains=prefix)["TrainingJobSummaries"]
        return [pid for job in jobs for pid in retrainings.training(job["TrainingJobName"])]

    for pid in retrainings.user.wait_for("a trial's process", found, 120):
        os.kill(pid, signal.SIGKILL)


def interrupt(retrainings: Retrainings, job: str, run: str) -> None:
    """Takes the machine of a spot training away once it has a checkpoint."""
    prefix = f"checkpoints/{run}/train/"
    list_ = retrainings.user.s3.list_objects_v2
    retrainings.user.wait_for(
        "a checkpoint", lambda: list_(Bucket=retrainings.artifacts, Prefix=prefix).get("Contents"), 300
    )
    for pid in retrainings.training(job):
        os.kill(pid, signal.SIGKILL)


def test_what_was_learned_is_not_new(retrainings: Retrainings) -> None:
    output = retrainings.output(retrainings.start(reason="schedule"))
    assert output["outcome"] == "nothing to do"
    assert output["reason"].startswith("1 photographs have new labels")  # the one after the release


def test_a_challenger_that_is_not_better_is_not_registered(retrainings: Retrainings) -> None:
    before = retrainings.with_labels().live_version()
    group = retrainings.stack.name
    known = retrainings.sagemaker.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"]
    settings = SMALL | {"epochs": 1, "start": "scratch", "learning_rate": "0.00001"}
    execution = retrainings.start(force=True, approve=True, settings=settings)
    output = retrainings.output(execution)
    assert output["outcome"] == "not better"
    assert re.search("not shown to be better|lower bound", output["reason"])
    now = retrainings.sagemaker.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"]
    assert len(now) == len(known)
    assert retrainings.live_version() == before
    verdict = json.loads(retrainings.read(f"retrain/{output['run']}/verdict.json"))
    assert verdict["promote"] is False
    retrainings.assert_clean()
    assert retrainings.told(execution)[0]["outcome"] == "not better"


def test_a_training_that_diverges_fails_with_its_reason(retrainings: Retrainings) -> None:
    execution = retrainings.with_labels().start(force=True, settings=SMALL | {"learning_rate": "1"})
    retrainings.failed(execution, "TrainFailed", "loss is")


def test_a_run_that_a_stop_of_the_stack_cut_off_is_taken_over(retrainings: Retrainings) -> None:
    """The stack stops in mid-training."""
    stack, before = retrainings.stack, retrainings.live_version()
    execution = retrainings.with_labels().start(force=True, settings=SMALL | {"epochs": 200})
    retrainings.wait_state(execution, "Train")
    stack.down()
    stack.up(print)
    retrainings.user.configure(RETRY_SECONDS="1")
    stack.client("events").disable_rule(Name=drift_rule(stack))
    assert retrainings.describe(execution)["status"] == "ABORTED"
    retrainings.user.wait_for("the live model", lambda: retrainings.live_version() == before, 120)
    second = retrainings.start(force=True, settings=SMALL | {"learning_rate": "1"})
    found = retrainings.wait(second)
    assert found["error"] == "TrainFailed", "it got as far as its own training: the lock was taken over"
    assert retrainings.lock() is None
    retrainings.user.wait_for("no job at work", lambda: not retrainings.at_work(), 60)


def test_photographs_that_are_gone_fail_the_processing(retrainings: Retrainings, user: Any) -> None:
    """Counted and labelled, then every version is deleted."""
    keys = [f"incoming/{SITE}/GONE{number}/1.jpg" for number in range(30)]
    before = retrainings.labelled()
    versions = [user.upload(key, coloured(3, 6000 + n), expected_quantity="3") for n, key in enumerate(keys)]
    user.wait_for("the label lines", lambda: retrainings.labelled() >= before + len(keys), 200)
    for key, version in zip(keys, versions, strict=True):
        user.s3.delete_object(Bucket=user.bucket, Key=key, VersionId=version)
    execution = retrainings.start(force=True, settings=SMALL)
    retrainings.failed(execution, "ProcessFailed", "unreadable")
    job = f"{retrainings.stack.name}-{retrainings.run(execution)['run']}-process"
    logs = retrainings.stack.client("logs")
    said = logs.filter_log_events(logGroupName="/aws/sagemaker/ProcessingJobs", logStreamNamePrefix=job)["events"]
    assert "unreadable" in " ".join(event["message"] for event in said)


def test_an_aborted_run_is_cleaned_up_after(retrainings: Retrainings) -> None:
    execution = retrainings.with_labels().start(force=True, settings=SMALL | {"epochs": 200})
    # Photographs of the test above are gone for good; a run that is to train must not meet them again.
    retrainings.wait_state(execution, "Process")
    run = retrainings.user.wait_for("the run", lambda: retrainings.run(execution))["run"]
    retrainings.user.wait_for("a job at work", retrainings.at_work, 60)
    retrainings.states.stop_execution(executionArn=execution, error="Stopped", cause="a person pressed stop")
    retrainings.user.wait_for("the conclusion", lambda: retrainings.run(execution).get("concluded_at"), 120)
    assert retrainings.run(execution)["outcome"] == "failed"
    event, (message,) = retrainings.told(execution)
    assert (event["run"], event["error"], event["reason"]) == (run, "Stopped", "a person pressed stop")
    assert "a person pressed stop" in message
    retrainings.assert_clean()


def test_a_missing_permission_is_told(retrainings: Retrainings) -> None:
    iam = retrainings.stack.client("iam")
    machine = retrainings.states.describe_state_machine(stateMachineArn=retrainings.outputs["RetrainStateMachine"])
    role = machine["roleArn"].rpartition("/")[2]
    document = iam.get_role_policy(RoleName=role, PolicyName="retrain")["PolicyDocument"]
    less = json.loads(json.dumps(document))
    for statement in less["Statement"]:
        if isinstance(statement["Action"], list):
            statement["Action"] = [a for a in statement["Action"] if a != "sagemaker:CreateProcessingJob"] or ["sts:X"]
    iam.put_role_policy(RoleName=role, PolicyName="retrain", PolicyDocument=json.dumps(less))
    try:
        execution = retrainings.with_labels().start(force=True, settings=SMALL)
        retrainings.failed(execution, "ProcessFailed", "sagemaker:CreateProcessingJob")
    finally:
        iam.put_role_policy(RoleName=role, PolicyName="retrain", PolicyDocument=json.dumps(document))


def executions_since(retrainings: Retrainings, moment: datetime) -> list[dict[str, Any]]:
    machine = retrainings.outputs["RetrainStateMachine"]
    found = retrainings.states.list_executions(stateMachineArn=machine)["executions"]
    return [dict(execution) for execution in found if execution["startDate"] >= moment]


def test_the_schedule_starts_a_run(retrainings: Retrainings) -> None:
    scheduler = retrainings.stack.client("scheduler")
    (timer,) = [s for s in scheduler.list_schedules()["Schedules"] if "RetrainTimer" in s["Name"]]
    known = scheduler.get_schedule(Name=timer["Name"])
    kept = {name: known[name] for name in ("Name", "FlexibleTimeWindow", "Target", "ScheduleExpression")}
    began = datetime.now(UTC)
    try:
        scheduler.update_schedule(**(kept | {"ScheduleExpression": "rate(1 minute)"}))
        found = retrainings.user.wait_for("a run", lambda: executions_since(retrainings, began), 150)
    finally:
        scheduler.update_schedule(**kept)
    execution = found[-1]["executionArn"]
    assert json.loads(retrainings.describe(execution)["input"]) == {"reason": "schedule"}
    assert retrainings.output(execution)["outcome"] == "nothing to do"


def test_the_drift_alarm_starts_a_run(retrainings: Retrainings) -> None:
    cloudwatch, events = retrainings.stack.client("cloudwatch"), retrainings.stack.client("events")
    (alarm,) = [a for a in cloudwatch.describe_alarms()["MetricAlarms"] if "DriftAlarm" in a["AlarmName"]]
    cloudwatch.put_metric_data(
        Namespace="Bintally",
        MetricData=[
            {
                "MetricName": "DisagreementExcess",
                "Dimensions": [{"Name": "service", "Value": f"{retrainings.stack.name}-count"}],
                "Values": [0.2],
                "Counts": [5000.0],
            }
        ],
    )
    # It may ring already, from what the tests above had counted: an alarm tells when it changes.
    cloudwatch.set_alarm_state(AlarmName=alarm["AlarmName"], StateValue="OK", StateReason="a person looked at it")
    began = datetime.now(UTC)
    events.enable_rule(Name=drift_rule(retrainings.stack))
    cloudwatch.set_alarm_state(AlarmName=alarm["AlarmName"], StateValue="OK", StateReason="and again")
    found = retrainings.user.wait_for("a run", lambda: executions_since(retrainings, began), 150)
    assert json.loads(retrainings.describe(found[-1]["executionArn"])["input"]) == {"reason": "drift alarm"}
    assert retrainings.output(found[-1]["executionArn"])["outcome"] == "nothing to do"


def drift_rule(stack: Local) -> str:
    rules = stack.client("events").list_rules()["Rules"]
    return str(next(rule["Name"] for rule in rules if "DriftRule" in rule["Name"]))
