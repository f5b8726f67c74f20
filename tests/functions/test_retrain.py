"""`plan` and `conclude` with the table, the label log and the registry of jobs; SageMaker's answers are scripted."""

import importlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from bintally import conclude, plan
from bintally.aws import clients
from bintally.aws.table import Table
from bintally.common.errors import Transient
from bintally.labels.log import Image, label_id
from bintally.retraining import conclude_run, runs
from bintally.retraining.conclude_run import one_line
from bintally.retraining.names import TUNED, Names, checked, run_of, run_of_version, version_of
from bintally.retraining.settings import retrain_settings
from botocore.exceptions import ClientError
from moto import mock_aws

process: Any = importlib.import_module("training.process")  # else mypy follows it to torch, which is not here
ARN = "arn:aws:states:us-east-1:123456789012:execution:bintally-retrain:one"
OTHER = ARN.replace(":one", ":other")
STARTED = "2026-11-22T03:00:04.117Z"
ENVIRONMENT = {
    "STACK_NAME": "bintally",
    "ARTIFACTS_BUCKET": "artifacts",
    "MINIMUM_LABELS": "3",
    "MAXIMUM_LABELS": "500000",
    "LABEL_SHARE": "1",
    "APPROVAL": "manual",
    "BAD_SHARE": "0.2",
    "DATASET_DAYS": "0",
    "EPOCHS": "12",
    "SIZES": "96,128",
    "TRIALS": "8",
    "PARALLEL_TRIALS": "2",
    "TRAINING_INSTANCES": "1",
    "START": "champion",
}


class SageMaker:
    """Knows the live endpoint and the jobs that are `running`; answers as the service does for any other."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.called: list[tuple[str, str]] = []
        self.endpoint = {"EndpointConfigName": "config"}
        static = ("epochs", "sizes", "seed", "calibration-photographs", "model-version", "parent", "package")
        ranges = [{"Name": name} for name in ("learning-rate", "weight-decay", "augmentation")]
        self.tuned: dict[str, Any] = {
            "HyperParameterTuningJobConfig": {
                "ParameterRanges": {
                    "ContinuousParameterRanges": ranges,
                    "CategoricalParameterRanges": [{"Name": "batch-size"}],
                },
            },
            "TrainingJobDefinition": {"StaticHyperParameters": dict.fromkeys([*static, "_objective"], "")},
        }

    def describe_endpoint(self, EndpointName: str) -> dict[str, Any]:
        if not self.endpoint:
            raise refusal("DescribeEndpoint", "Could not find endpoint")
        return self.endpoint

    def describe_endpoint_config(self, EndpointConfigName: str) -> dict[str, Any]:
        return {"ProductionVariants": [{"ModelName": "model"}]}

    def describe_model(self, ModelName: str) -> dict[str, Any]:
        return {"PrimaryContainer": {"ModelDataUrl": "s3://artifacts/models/2026-11-01-aaaaaa/model.tar.gz"}}

    def describe_hyper_parameter_tuning_job(self, HyperParameterTuningJobName: str) -> dict[str, Any]:
        return {"HyperParameterTuningJobStatus": "Completed", "BestTrainingJob": {}, **self.tuned}

    def __getattr__(self, operation: str) -> Any:
        def call(**request: str) -> None:
            (name,) = request.values()
            self.called.append((operation, name))
            if name not in self.running:
                raise refusal(operation, "Requested resource not found.")
            self.running.discard(name)

        return call


class States:
    def __init__(self) -> None:
        self.status: dict[str, str] = {}
        self.why: dict[str, str] = {}

    def describe_execution(self, executionArn: str) -> dict[str, str]:
        if executionArn not in self.status:
            raise refusal("DescribeExecution", "gone", "ExecutionDoesNotExist")
        return {"status": self.status[executionArn], **self.why}


def refusal(operation: str, message: str, code: str = "ValidationException") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


class Outside:
    """All that the two functions need, and what they told."""

    def __init__(self) -> None:
        self.s3, self.dynamodb, self.sqs = boto3.client("s3"), boto3.client("dynamodb"), boto3.client("sqs")
        self.sagemaker, self.states = SageMaker(), States()
        self.inbox = self.sqs.create_queue(QueueName="inbox")["QueueUrl"]

    def label(self, number: int, logged: str = "2026-11-21T10:00:00.000000Z", quantity: int = 3) -> None:
        image: Image = {"bucket": "images", "key": f"incoming/S/B{number}/1.jpg", "version_id": "v"}
        line = {
            "id": label_id(image, "record", logged, quantity),
            "image": image,
            **{"site": "S", "bin": f"B{number}", "quantity": quantity, "source": "record", "as_of": logged},
            **{"captured_at": logged, "logged_at": logged},
            **{"count": 2, "confidence": 0.5, "p_record": 0.2, "model_version": "m"},
        }
        day = logged[:10].replace("-", "/")
        key = f"labels/{day}/{number}-{line['id']}.jsonl"
        self.s3.put_object(Bucket="artifacts", Key=key, Body=json.dumps(line).encode() + b"\n")

    def plan(self, execution: str = ARN, **request: Any) -> dict[str, Any]:
        self.states.status.setdefault(execution, "RUNNING")
        event = {"execution": execution, "started_at": STARTED, "input": request}
        planned: dict[str, Any] = json.loads(json.dumps(plan.handler(event, None)))
        return planned

    def conclude(self, made: dict[str, Any], outcome: str, execution: str = ARN, **more: str) -> dict[str, str]:
        event = {"execution": execution, "started_at": STARTED, "outcome": outcome, "error": "", "reason": "because"}
        return conclude.handler(event | more | {"plan": made}, None)

    def lock(self) -> runs.Holder | None:
        return runs.holder(Table("counts", self.dynamodb))

    def run(self, run: str) -> dict[str, Any]:
        return runs.find(Table("counts", self.dynamodb), run)

    def manifest(self, made: dict[str, Any]) -> list[dict[str, Any]]:
        body = self.s3.get_object(Bucket="artifacts", Key=f"{made['folder']}/manifest.jsonl")["Body"].read()
        return [json.loads(line) for line in body.splitlines()]

    def told(self) -> list[str]:
        messages = self.sqs.receive_message(QueueUrl=self.inbox, MaxNumberOfMessages=10).get("Messages", [])
        for message in messages:
            self.sqs.delete_message(QueueUrl=self.inbox, ReceiptHandle=message["ReceiptHandle"])
        return [json.loads(message["Body"])["Message"] for message in messages]


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[Outside]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        outside = Outside()
        outside.s3.create_bucket(Bucket="artifacts")
        outside.s3.put_bucket_versioning(Bucket="artifacts", VersioningConfiguration={"Status": "Enabled"})
        outside.dynamodb.create_table(
            TableName="counts",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("PK", "SK")],
            KeySchema=[{"AttributeName": "PK", "KeyType": "HASH"}, {"AttributeName": "SK", "KeyType": "RANGE"}],
        )
        topic = boto3.client("sns").create_topic(Name="alerts")["TopicArn"]
        arn = "arn:aws:sqs:us-east-1:123456789012:inbox"
        boto3.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        monkeypatch.setenv("ALERTS_TOPIC", topic)
        monkeypatch.setattr(clients, "sagemaker", lambda: outside.sagemaker)
        monkeypatch.setattr(clients, "states", lambda: outside.states)
        yield outside


def test_names_are_within_sagemakers_limits_and_lead_back_to_the_run() -> None:
    run = run_of(ARN, datetime.fromisoformat(STARTED))
    names = Names.of("b" * 18, run)
    assert len(names.tune) <= 32
    assert names.challenger == f"{'b' * 18}-{run}-challenger"
    assert version_of(run).startswith("2026-11-22-")
    assert run_of_version(version_of(run)) == run
    assert run_of_version("2026-11-23-af573d03") is None


def test_a_plan_freezes_the_labels_and_names_what_will_be_made(outside: Outside) -> None:
    for number in range(3):
        outside.label(number)
    outside.label(1, "2026-11-21T11:00:00.000000Z", quantity=5)
    made = outside.plan(reason="schedule")
    assert made["outcome"] == "planned"
    assert made["labels"] == 3
    assert made["watermark"] == "2026-11-21T11:00:00.000000Z"
    assert sorted(line["quantity"] for line in outside.manifest(made)) == [3, 3, 5]
    assert made["champion"]["model_version"] == made["hyperparameters"]["parent"] == "2026-11-01-aaaaaa"
    assert made["hyperparameters"]["model-version"] == made["model_version"]
    assert made["approval"] == "PendingManualApproval"
    assert "--previous" not in made["process_arguments"]
    assert outside.lock() == runs.Holder(ARN, made["run"])
    assert outside.run(made["run"])["outcome"] == "running"
    assert outside.plan() == made, "a repeated call plans the same"


def test_too_few_labels_are_nothing_to_do_unless_forced(outside: Outside) -> None:
    assert outside.plan(force=True)["outcome"] == "nothing to do", "nothing at all can be learned from"
    outside.label(0)
    made = outside.plan()
    assert (made["outcome"], made["reason"]) == ("nothing to do", "1 photographs have new labels, a run takes 3")
    assert outside.plan(force=True)["outcome"] == "planned"


@pytest.mark.parametrize(
    "request_",
    [
        {"settings": {"epoch": 1}},
        {"settings": {"epochs": "many"}},
        {"settings": {"epochs": 0}},
        {"settings": {"trials": -1}},
        {"settings": {"start": "elsewhere"}},
        {"settings": {"sizes": "12;rm"}},
        {"settings": {"sizes": "16"}},
        {"settings": {"learning_rate": 0}},
        {"settings": {"learning_rate": "1.5"}},
        {"settings": {"seed": -1}},
        {"settings": {"instances": True}},
        {"settings": ["epochs"]},
        {"forced": True},
    ],
)
def test_a_wrong_request_is_refused_and_takes_no_lock(outside: Outside, request_: dict[str, Any]) -> None:
    made = outside.plan(**request_)
    assert (made["outcome"], made["error"]) == ("refused", "InvalidInput")
    assert outside.lock() is None


def test_settings_of_one_run(outside: Outside) -> None:
    outside.label(0)
    knobs = {"epochs": 2, "trials": 0, "start": "scratch", "learning_rate": "0.01", "batch_size": 16, "instances": 2}
    made = outside.plan(force=True, approve=True, settings=knobs)
    assert made["hyperparameters"]["epochs"] == "2"
    assert made["hyperparameters"]["learning-rate"] == "0.01"
    assert made["hyperparameters"]["batch-size"] == "16"
    assert (made["trials"], made["start"], made["instances"]) == (0, "scratch", 2)
    assert made["approval"] == "Approved"


def test_numbers_may_be_text_and_text_numbers() -> None:
    given = {"epochs": "3", "trials": 2.0, "sizes": 128, "learning_rate": 0.003, "start": "scratch"}
    assert checked(given) == {"epochs": 3, "trials": 2, "sizes": "128", "learning_rate": "0.003", "start": "scratch"}


def test_without_a_live_model_there_is_nothing_to_compare_with(outside: Outside) -> None:
    outside.sagemaker.endpoint = {}
    made = outside.plan(force=True)
    assert (made["outcome"], made["error"]) == ("refused", "NoChampion")


def test_one_run_at_a_time(outside: Outside) -> None:
    outside.label(0)
    first = outside.plan(OTHER, force=True)
    made = outside.plan(force=True)
    assert (made["outcome"], made["error"]) == ("refused", "AlreadyRunning")
    assert OTHER in made["reason"]
    outside.conclude(made, "refused", error="AlreadyRunning")
    assert outside.lock() == runs.Holder(OTHER, first["run"]), "the second frees no lock that is not its own"
    assert not outside.sagemaker.called, "nor stops the first one's jobs"


@pytest.mark.parametrize("reason", ["schedule", "drift alarm"])
def test_a_second_tick_ends_quietly(outside: Outside, reason: str) -> None:
    """No person waits for it: no failed execution, no message, no run in the list."""
    outside.label(0)
    first = outside.plan(OTHER, force=True)
    made = outside.plan(reason=reason)
    assert (made["outcome"], made["error"]) == ("under way", "")
    assert outside.conclude(made, made["outcome"], error=made["error"])["outcome"] == "under way"
    assert outside.told() == []
    assert outside.run(made["run"]) == {}
    assert outside.lock() == runs.Holder(OTHER, first["run"])
    assert not outside.sagemaker.called


@pytest.mark.parametrize("status", ["ABORTED", "TIMED_OUT", None])
def test_the_lock_of_an_execution_that_no_longer_runs_is_taken_over(outside: Outside, status: str | None) -> None:
    outside.label(0)
    first = outside.plan(OTHER, force=True)
    outside.states.status.pop(OTHER)
    if status:
        outside.states.status[OTHER] = status
    outside.sagemaker.running = {first["names"]["train"]}
    made = outside.plan(force=True)
    assert made["outcome"] == "planned"
    assert outside.lock() == runs.Holder(ARN, made["run"])
    assert not outside.sagemaker.running, "what it left is stopped first"


def test_what_was_learned_is_not_new_any_more(outside: Outside) -> None:
    for number in range(3):
        outside.label(number)
    made = outside.plan()
    outside.conclude(made, "registered")
    assert outside.lock() is None
    second = outside.plan(OTHER)
    assert second["outcome"] == "nothing to do"
    assert second["reason"].startswith("0 photographs")
    outside.conclude(second, "nothing to do", OTHER)
    outside.label(7, "2026-11-22T09:00:00.000000Z")
    third = outside.plan(ARN + "-3", force=True)
    assert third["labels"] == 1
    arguments = third["process_arguments"]
    assert arguments[arguments.index("--previous") + 1] == f"s3://artifacts/{made['dataset']}/index.jsonl"
    assert third["tuning_parent"] == made["names"]["tune"]


def test_a_long_log_takes_several_calls_and_ends_the_same(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        outside.label(number)
    at_once = outside.plan(OTHER)
    manifest = outside.manifest(at_once)
    outside.conclude(at_once, "failed", OTHER)
    monkeypatch.setattr(plan, "READING_SECONDS", -1)  # each call reads one object
    calls: list[dict[str, Any]] = []
    while not calls or calls[-1]["outcome"] == "reading":
        calls.append(outside.plan())
        assert outside.lock() == runs.Holder(ARN, calls[-1]["run"])
    assert [call["outcome"] for call in calls] == ["reading"] * 5 + ["planned"]
    assert outside.manifest(calls[-1]) == manifest
    assert (calls[-1]["labels"], calls[-1]["watermark"]) == (5, at_once["watermark"])


def test_labels_that_a_run_leaves_are_those_of_the_next(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAXIMUM_LABELS", "2")
    for number in range(5):
        outside.label(number, f"2026-11-21T1{number}:00:00.000000Z")
    taken = []
    for execution in (ARN, OTHER, ARN + "-3"):
        made = outside.plan(execution)
        assert outside.plan(execution) == made, "a repeated call plans the same"
        if made["outcome"] == "planned":
            taken.append([line["bin"] for line in outside.manifest(made)])
            answer = outside.conclude(made, "not better", execution)
            assert (
                answer["reason"]
                == f"because (the run is full; the next one reads the labels after {made['watermark']})"
            )
        else:
            outside.conclude(made, "nothing to do", execution)
    assert list(map(sorted, taken)) == [["B0", "B1"], ["B2", "B3"]], "a full run needs no more labels"
    assert made["reason"] == "1 photographs have new labels, a run takes 3"


def test_a_call_that_was_given_up_and_still_works_takes_nothing_from_the_next_run(outside: Outside) -> None:
    """It stores a later reading after the plan was made that the run uses."""
    for number in range(3):
        outside.label(number)
    made = outside.plan()
    outside.label(9, "2026-11-21T12:00:00.000000Z")
    outside.plan()
    outside.conclude(made, "registered")
    assert [line["bin"] for line in outside.manifest(outside.plan(OTHER, force=True))] == ["B9"]


def test_a_label_that_is_stored_late_is_new(outside: Outside) -> None:
    """Its day is over and its time is before the watermark."""
    for number in range(3):
        outside.label(number, "2026-11-22T10:00:00.000000Z")
    outside.conclude(outside.plan(), "registered")
    outside.label(7, "2026-11-21T23:00:00.000000Z")
    made = outside.plan(OTHER, force=True)
    assert (made["labels"], [line["bin"] for line in outside.manifest(made)]) == (1, ["B7"])


def test_a_run_that_was_planned_before_an_update_of_the_stack_concludes(outside: Outside) -> None:
    outside.label(0)
    made = outside.plan(force=True)
    outside.conclude(
        {name: value for name, value in made.items() if name not in ("reading", "labels_left")}, "registered"
    )
    assert outside.plan(OTHER, force=True)["outcome"] == "planned"


def test_a_run_without_trials_keeps_the_tuning_job_that_the_next_starts_from(outside: Outside) -> None:
    outside.label(0)
    tuned = outside.plan(force=True)
    outside.conclude(tuned, "registered")
    outside.conclude(outside.plan(OTHER, force=True, settings={"trials": 0}), "registered", OTHER)
    third = outside.plan(ARN + "-3", force=True, settings={"learning_rate": "1e-3", "start": "scratch"})
    assert third["tuning_parent"] == tuned["names"]["tune"]
    assert third["hyperparameters"]["parent"] == "none"


def test_a_tuning_job_with_other_hyperparameters_is_no_parent(outside: Outside) -> None:
    """SageMaker would refuse every tuning job that started from it."""
    outside.label(0)
    outside.conclude(outside.plan(force=True), "registered")
    del outside.sagemaker.tuned["TrainingJobDefinition"]["StaticHyperParameters"]["seed"]
    assert outside.plan(OTHER, force=True)["tuning_parent"] == ""


def test_the_hyperparameters_of_a_tuning_job_are_those_that_plan_compares() -> None:
    definition = (Path(__file__).parents[2] / "machines/retrain.asl.json").read_text()
    assert set(re.findall(r"'Name': '([a-z-]+)', '(?:MinValue|Values)'", definition)) == set(TUNED)
    assert "'StaticHyperParameters': $merge([$plan.hyperparameters, {'package': 'false'}])" in definition


@pytest.mark.parametrize("second_ends", [False, True])
def test_the_state_is_that_of_the_run_that_holds_the_lock(outside: Outside, second_ends: bool) -> None:
    """The first run is aborted while it concludes. Between its clean-up and its state, a second one takes the lock
    over, and is still at work or ends too."""
    outside.label(0)
    first = outside.plan(force=True)
    outside.label(1, logged="2026-11-21T11:00:00.000000Z")
    table, asked = Table("counts", outside.dynamodb), outside.sagemaker.called.append
    second: dict[str, Any] = {}

    class Overtaken(list[tuple[str, str]]):
        def append(self, call: tuple[str, str]) -> None:
            asked(call)
            if call == ("delete_model", first["names"]["challenger"]) and not second:
                outside.states.status[ARN] = "ABORTED"
                second["run"] = ""
                second.update(outside.plan(OTHER, force=True))
                if second_ends:
                    outside.conclude(second, "registered", OTHER)

    outside.sagemaker.called = Overtaken()
    assert outside.conclude(first, "registered")["outcome"] == "registered"
    assert outside.lock() == (None if second_ends else runs.Holder(OTHER, second["run"]))
    assert runs.state(table).get("run") == (second["run"] if second_ends else None)
    outside.conclude(second, "registered", OTHER)
    assert outside.lock() is None
    assert runs.state(table)["run"] == second["run"] != first["run"]


def test_a_conclusion_that_is_tried_again_keeps_its_state(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event failed after the state was stored and the lock released."""
    outside.label(0)
    made = outside.plan(force=True)
    with monkeypatch.context() as failing:
        failing.setattr(conclude_run, "send_event", lambda *_: (_ for _ in ()).throw(Transient("no")))
        with pytest.raises(Transient):
            outside.conclude(made, "registered")
    assert outside.conclude(made, "registered")["outcome"] == "registered"
    assert runs.state(Table("counts", outside.dynamodb))["run"] == made["run"]
    assert outside.lock() is None and len(outside.told()) == 1


def test_a_topic_that_refuses_the_message_undoes_no_conclusion(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one with a key that lets nobody use it."""
    outside.label(0)
    made, services = outside.plan(force=True), conclude.services()

    def refuse(**_: Any) -> None:
        raise Transient("the key")

    refusing = replace(services, sns=SimpleNamespace(publish=refuse))  # type: ignore[arg-type]
    with monkeypatch.context() as failing:
        failing.setattr(conclude, "services", lambda: refusing)
        with pytest.raises(Transient):
            outside.conclude(made, "registered")
    assert outside.run(made["run"])["outcome"] == "registered" and outside.lock() is None
    assert outside.conclude(made, "registered")["outcome"] == "registered"


def test_a_failed_run_leaves_its_labels_for_the_next(outside: Outside) -> None:
    for number in range(3):
        outside.label(number)
    outside.conclude(outside.plan(), "failed", error="TrainFailed")
    assert outside.plan(OTHER)["labels"] == 3


def test_the_champions_data_is_the_reference_when_a_run_made_it(outside: Outside) -> None:
    outside.label(0)
    outside.s3.put_object(Bucket="artifacts", Key="retrain/261101-aaaaaa/dataset/dataset.json", Body=b"{}")
    arguments = outside.plan(force=True)["process_arguments"]
    expected = "s3://artifacts/retrain/261101-aaaaaa/dataset/dataset.json"
    assert arguments[arguments.index("--reference") + 1] == expected


def test_a_run_leaves_photographs_out_that_are_about_to_expire(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside.label(0)
    assert "--stored-between" not in outside.plan(force=True)["process_arguments"]
    monkeypatch.setenv("DATASET_DAYS", "90")
    retrain_settings.cache_clear()
    between = process.flags.parse_args(outside.plan(force=True)["process_arguments"]).stored_between
    assert between[1] - between[0] == timedelta(days=76)
    assert datetime.now(UTC) - between[1] < timedelta(minutes=1)


def test_a_processing_job_failed_for_what_its_process_said() -> None:
    """Its FailureReason is the exit code alone."""
    job = {"ProcessingJobName": "p", "ExitMessage": "30 photographs\nare gone", "FailureReason": "AlgorithmError: , 1"}
    assert one_line(json.dumps(job)) == "p: 30 photographs are gone"
    assert one_line(json.dumps(job | {"ExitMessage": ""})) == "p: AlgorithmError: , 1"


def test_the_end_stops_jobs_and_tells_once(outside: Outside) -> None:
    outside.label(0)
    made = outside.plan(force=True)
    names = made["names"]
    outside.sagemaker.running = {names["tune"], names["challenger"]}
    for run in (made["run"], "261101-aaaaaa"):
        for _ in range(2):  # a versioned bucket keeps both
            for name in ("train/checkpoint.pt", "trials/t-001/output/model.tar.gz", "parts/x-1-of-1.jsonl"):
                outside.s3.put_object(Bucket="artifacts", Key=f"checkpoints/{run}/{name}", Body=b"temporary")
    cause = json.dumps({"TrainingJobName": names["train"], "FailureReason": "loss is nan\nat epoch 3"})
    answer = outside.conclude(made, "failed", error="TrainFailed", reason=cause)
    assert answer["reason"] == f"{names['train']}: loss is nan at epoch 3"
    assert not outside.sagemaker.running
    left = outside.s3.list_object_versions(Bucket="artifacts", Prefix="checkpoints/")["Versions"]
    assert [version["Key"].split("/")[1] for version in left] == ["261101-aaaaaa"] * 6
    left = outside.s3.list_object_versions(Bucket="artifacts", Prefix="retrain/")["Versions"]
    assert f"retrain/{made['run']}/manifest.jsonl" in {version["Key"] for version in left}
    assert outside.lock() is None
    (message,) = outside.told()
    assert message.startswith(f"Retraining run {made['run']}: failed. {answer['reason']}")
    stored = outside.run(made["run"])
    assert (stored["outcome"], stored["error"]) == ("failed", "TrainFailed")
    detail = {"executionArn": ARN, "startDate": 1795316404117, "status": "FAILED"}
    conclude.handler({"detail": detail}, None)
    assert outside.told() == []


@pytest.mark.parametrize(
    ("why", "error", "reason"),
    [({}, "Aborted", "the execution is ABORTED"), ({"error": "Stopped", "cause": "by hand"}, "Stopped", "by hand")],
)
def test_an_aborted_execution_is_cleaned_up_after_by_its_event(
    outside: Outside, why: dict[str, str], error: str, reason: str
) -> None:
    outside.label(0)
    made = outside.plan(force=True)
    outside.sagemaker.running = {made["names"]["train"]}
    outside.states.why = why
    detail = {"executionArn": ARN, "startDate": 1795316404117, "status": "ABORTED"}
    answer = conclude.handler({"detail": detail}, None)
    assert answer == {"outcome": "failed", "error": error, "reason": reason}
    assert outside.lock() is None
    assert not outside.sagemaker.running
    assert len(outside.told()) == 1


def test_a_job_that_cannot_be_stopped_is_an_error(outside: Outside) -> None:
    outside.label(0)
    made = outside.plan(force=True)

    def deny(**_: str) -> None:
        raise refusal("StopTrainingJob", "no", "AccessDeniedException")

    outside.sagemaker.stop_training_job = deny  # type: ignore[attr-defined]
    with pytest.raises(ClientError):
        outside.conclude(made, "failed")
    assert outside.lock() is not None
    assert outside.told() == []


@pytest.fixture
def upgraded(outside: Outside) -> Outside:
    """With the items of 0.1.0: what a run that ended left, and another run that is under way, with the lock."""
    for item in json.loads((Path(__file__).parent / "items_0_1_0.json").read_bytes()):
        outside.dynamodb.put_item(TableName="counts", Item=item)
    for number in range(3):
        outside.label(number, "2026-11-19T10:00:00.000000Z")  # it read these
    outside.label(3, "2026-11-22T10:00:00.000000Z")
    return outside


def test_a_run_of_0_1_0_keeps_its_lock_until_it_has_ended(upgraded: Outside) -> None:
    upgraded.states.status[OTHER] = "RUNNING"
    assert upgraded.plan(force=True)["error"] == "AlreadyRunning"
    made = {"run": "261122-0e7cf7", "watermark": "2026-11-22T10:00:00.000000Z", "trials": 0, "tuning_job": "t"}
    made |= {"names": {"tune": "t"}, "model_version": "2026-11-22-0e7cf7", "labels": 1, "champion": {}}
    assert upgraded.conclude(made, "registered", OTHER)["outcome"] == "registered"
    assert upgraded.lock() is None
    assert upgraded.run("261122-0e7cf7")["started_at"].startswith("2026-11-30"), "the item of 0.1.0 is kept"
    state = runs.state(Table("counts", upgraded.dynamodb))
    assert (state["run"], state["reading"]) == ("261122-0e7cf7", "")


def test_a_run_goes_on_from_what_0_1_0_learned(upgraded: Outside) -> None:
    """Its execution is gone, so the lock is taken over."""
    made = upgraded.plan(ARN.replace(":one", ":third"), force=True)
    assert (made["outcome"], made["labels"]) == ("planned", 1)
    arguments = made["process_arguments"]
    previous = "s3://artifacts/retrain/261122-911590/dataset/index.jsonl"
    assert arguments[arguments.index("--previous") + 1] == previous
    assert made["tuning_job"] == "bintally-261122-911590"
    assert ("stop_training_job", "bintally-261122-0e7cf7-train") in upgraded.sagemaker.called
    assert upgraded.run("261122-911590")["outcome"] == "registered"
