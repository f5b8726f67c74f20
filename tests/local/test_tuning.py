"""Hyperparameter tuning on one machine, with small scripts as trials, asked with boto3 as the stack asks it."""

import json
import math
import textwrap
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from localsagemaker.search import Search, check_scaling, worse_than_median
from localsagemaker.wire import ServiceError

from local.stack import Local

METRIC = {"Name": "validation:rps", "Regex": r"validation_rps ([0-9.]+)"}

# In the place of training.train. Best at a learning rate of 0.01 and a batch of 64; says so once an epoch.
TRIAL = """
import json, math, os, sys, time
given = json.load(open(os.environ["SM_OPT_ML"] + "/input/config/hyperparameters.json"))
rate, batch = float(given["learning-rate"]), given.get("batch-size", "64")
assert given["_tuning_objective_metric"] == "validation:rps"
if given.get("fails") in ("always", batch):
    raise SystemExit("this trial was told to fail")
final = abs(math.log10(rate) + 2) + (batch != "64")
for epoch in range(int(given.get("epochs", "1"))):
    if given.get("says", "the metric") == "the metric":
        print(f"epoch {epoch} validation_rps {final + float(given.get('start', '0')):.6f}", flush=True)
    time.sleep(float(given.get("seconds", "0")) * max(1, float(given.get("start", "0"))))
open(os.environ["SM_MODEL_DIR"] + "/model.json", "w").write(json.dumps(given))
"""


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a training.train that is TRIAL."""
    folder = tmp_path_factory.mktemp("image")
    (folder / "training").mkdir()
    (folder / "training" / "__init__.py").touch()
    (folder / "training" / "train.py").write_text(textwrap.dedent(TRIAL))
    return folder


@pytest.fixture(scope="module")
def request_for(trial: Path, role: Callable[..., str]) -> Callable[..., dict[str, Any]]:
    """Makes the request of a tuning job, and on first use its bucket and role."""
    prepared = {}

    def build(
        stack: Local,
        name: str,
        *,
        most: int | None = 3,
        parallel: int = 2,
        static: dict[str, str] | None = None,
        ranges: dict[str, Any] | None = None,
        strategy: str = "Random",
        **members: Any,
    ) -> dict[str, Any]:
        if stack.port not in prepared:
            stack.client("s3").create_bucket(Bucket="tuning")
            everything = {"Effect": "Allow", "Action": ["s3:*", "logs:*", "cloudwatch:PutMetricData"], "Resource": "*"}
            prepared[stack.port] = role(stack, "tuning", "sagemaker.amazonaws.com", everything)
        logarithmic = {"Name": "learning-rate", "MinValue": "0.0001", "MaxValue": "1", "ScalingType": "Logarithmic"}
        limits = {"MaxNumberOfTrainingJobs": most, "MaxParallelTrainingJobs": parallel}
        config = {
            "Strategy": strategy,
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "validation:rps"},
            "ResourceLimits": {key: value for key, value in limits.items() if value},
            "ParameterRanges": ranges or {"ContinuousParameterRanges": [logarithmic]},
            "RandomSeed": 1,
        }
        definition = {
            "StaticHyperParameters": static or {},
            "AlgorithmSpecification": {
                "TrainingImage": "training",
                "TrainingInputMode": "File",
                "MetricDefinitions": [METRIC],
            },
            "RoleArn": prepared[stack.port],
            "OutputDataConfig": {"S3OutputPath": "s3://tuning/models"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 100},
            # The trials run `python -m training.train`, as the image does: here the one of that folder.
            "Environment": {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(trial)},
        }
        config.update(members.pop("config", {}))
        definition.update(members.pop("definition", {}))
        return {
            "HyperParameterTuningJobName": name,
            "HyperParameterTuningJobConfig": config,
            "TrainingJobDefinition": definition,
            **members,
        }

    return build


@pytest.fixture(scope="module")
def tuned(request_for: Callable[..., dict[str, Any]]) -> Callable[..., tuple[Any, list[Any]]]:
    """Runs a tuning job to its end: its description, and its trials by name."""

    def run(stack: Local, name: str, **members: Any) -> tuple[Any, list[Any]]:
        sagemaker = stack.client("sagemaker")
        sagemaker.create_hyper_parameter_tuning_job(**request_for(stack, name, **members))
        return ended(sagemaker, name), trials(sagemaker, name)

    return run


def ended(sagemaker: Any, name: str) -> Any:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        found = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
        if found["HyperParameterTuningJobStatus"] not in ("InProgress", "Stopping"):
            return found
        time.sleep(0.2)
    raise TimeoutError(found)


def trials(sagemaker: Any, name: str, **filters: Any) -> list[Any]:
    paginator = sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
    pages = paginator.paginate(HyperParameterTuningJobName=name, PaginationConfig={"PageSize": 2}, **filters)
    return [one for page in pages for one in page["TrainingJobSummaries"]]


def running_trial(sagemaker: Any, name: str) -> Any:
    """Waits until a trial of the job has told its objective; its training job."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for one in trials(sagemaker, name):
            found = sagemaker.describe_training_job(TrainingJobName=one["TrainingJobName"])
            if found.get("FinalMetricDataList"):
                return found
        time.sleep(0.2)
    raise TimeoutError(name)


def value(trial: dict[str, Any]) -> float:
    found: float = trial["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
    return found


def test_trials_are_training_jobs_and_the_best_of_them_is_told(
    ours: Local, tuned: Callable[..., tuple[Any, list[Any]]]
) -> None:
    sagemaker = ours.client("sagemaker")
    tags = [{"Key": "stack", "Value": "one"}]
    described, found = tuned(ours, "whole", most=3, static={"epochs": "2"}, Tags=tags)
    assert described["HyperParameterTuningJobStatus"] == "Completed"
    assert described["TrainingJobStatusCounters"]["Completed"] == 3
    assert described["ObjectiveStatusCounters"] == {"Succeeded": 3, "Pending": 0, "Failed": 0}
    assert described["HyperParameterTuningEndTime"] > described["CreationTime"]
    best = described["BestTrainingJob"]
    assert value(best) == min(value(one) for one in found)
    assert best["ObjectiveStatus"] == "Succeeded"
    assert best["FinalHyperParameterTuningJobObjectiveMetric"]["MetricName"] == "validation:rps"
    for number, one in enumerate(found, 1):
        assert one["TrainingJobName"].startswith(f"whole-{number:03}-")
        assert len(one["TrainingJobName"]) == len("whole-001-12345678")
        rate = one["TunedHyperParameters"]["learning-rate"]
        assert 0.0001 <= float(rate) <= 1
        assert value(one) == pytest.approx(abs(math.log10(float(rate)) + 2), abs=1e-5)
        job = sagemaker.describe_training_job(TrainingJobName=one["TrainingJobName"])
        assert job["TuningJobArn"] == described["HyperParameterTuningJobArn"]
        assert job["HyperParameters"] == {
            "epochs": "2",
            "learning-rate": rate,
            "_tuning_objective_metric": "validation:rps",
        }
        key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://tuning/")
        assert key == f"models/{one['TrainingJobName']}/output/model.tar.gz"
        ours.client("s3").head_object(Bucket="tuning", Key=key)


def test_trials_run_at_once_but_never_more_than_allowed(
    ours: Local, tuned: Callable[..., tuple[Any, list[Any]]]
) -> None:
    _, found = tuned(ours, "parallel", most=4, parallel=2, static={"seconds": "1"})
    moments = [one["TrainingStartTime"] for one in found]
    at_once = [sum(one["CreationTime"] <= moment < one["TrainingEndTime"] for one in found) for moment in moments]
    assert max(at_once) == 2


def test_failed_trials_do_not_fail_the_job(ours: Local, tuned: Callable[..., tuple[Any, list[Any]]]) -> None:
    grid = {"CategoricalParameterRanges": [{"Name": "batch-size", "Values": ["32", "64"]}]}
    static = {"fails": "32", "learning-rate": "0.01"}
    described, found = tuned(ours, "some-fail", strategy="Grid", most=None, ranges=grid, static=static)
    assert described["HyperParameterTuningJobStatus"] == "Completed"
    assert described["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxNumberOfTrainingJobs"] == 2
    assert described["TrainingJobStatusCounters"] == {
        **dict.fromkeys(("InProgress", "RetryableError", "Stopped"), 0),
        **{"Completed": 1, "NonRetryableError": 1},
    }
    assert described["ObjectiveStatusCounters"] == {"Succeeded": 1, "Pending": 0, "Failed": 1}
    assert described["BestTrainingJob"]["TunedHyperParameters"] == {"batch-size": "64"}
    (failed,) = [one for one in found if one["TrainingJobStatus"] == "Failed"]
    assert "this trial was told to fail" in failed["FailureReason"]
    assert failed["TunedHyperParameters"] == {"batch-size": "32"}
    assert "FinalHyperParameterTuningJobObjectiveMetric" not in failed


def test_a_job_fails_when_no_trial_succeeds(ours: Local, tuned: Callable[..., tuple[Any, list[Any]]]) -> None:
    described, found = tuned(ours, "all-fail", most=8, static={"fails": "always"})
    assert described["HyperParameterTuningJobStatus"] == "Failed"
    assert "No training job succeeded after" in described["FailureReason"]
    assert "BestTrainingJob" not in described
    assert 5 <= len(found) < 8
    silent, _ = tuned(ours, "all-silent", most=2, static={"says": "nothing"})
    assert silent["HyperParameterTuningJobStatus"] == "Failed"
    assert "No objective metrics found after running 2 training jobs" in silent["FailureReason"]
    assert silent["ObjectiveStatusCounters"] == {"Succeeded": 0, "Pending": 0, "Failed": 2}


def test_a_trial_worse_than_the_median_is_stopped_early(
    ours: Local, tuned: Callable[..., tuple[Any, list[Any]]]
) -> None:
    # One at a time, in the grid's order; "start" is how much worse each is, and how much slower.
    grid = {"CategoricalParameterRanges": [{"Name": "start", "Values": ["0.1", "0.2", "0.3", "9"]}]}
    described, found = tuned(
        ours,
        "early",
        strategy="Grid",
        most=None,
        parallel=1,
        ranges=grid,
        static={"learning-rate": "0.01", "epochs": "6", "seconds": "0.5"},
        config={"TrainingJobEarlyStoppingType": "Auto"},
    )
    assert described["HyperParameterTuningJobStatus"] == "Completed"
    (worst,) = [one for one in found if one["TunedHyperParameters"] == {"start": "9"}]
    assert worst["TrainingJobStatus"] == "Stopped"
    assert (worst["ObjectiveStatus"], value(worst)) == ("Succeeded", 9)
    assert described["TrainingJobStatusCounters"]["Stopped"] == 1
    assert described["TrainingJobStatusCounters"]["Completed"] == 3
    assert described["BestTrainingJob"]["TunedHyperParameters"] == {"start": "0.1"}


def test_a_stop_stops_the_trials(ours: Local, request_for: Callable[..., dict[str, Any]]) -> None:
    sagemaker = ours.client("sagemaker")
    sagemaker.create_hyper_parameter_tuning_job(**request_for(ours, "stopped", most=9, static={"seconds": "60"}))
    job = running_trial(sagemaker, "stopped")
    sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName="stopped")
    described = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName="stopped")
    assert described["HyperParameterTuningJobStatus"] == "Stopping"
    described = ended(sagemaker, "stopped")
    assert described["HyperParameterTuningJobStatus"] == "Stopped"
    assert described["TrainingJobStatusCounters"]["Stopped"] == len(trials(sagemaker, "stopped")) == 2
    assert {one["TrainingJobStatus"] for one in trials(sagemaker, "stopped")} == {"Stopped"}
    # A trial that was stopped has told its objective all the same.
    (told,) = [one for one in trials(sagemaker, "stopped") if one["TrainingJobName"] == job["TrainingJobName"]]
    assert told["ObjectiveStatus"] == "Succeeded"
    assert described["BestTrainingJob"]
    with pytest.raises(ClientError, match=r"\(ValidationException\).*Stopped"):
        sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName="stopped")


def test_a_warm_start_learns_from_its_parents(
    ours: Local, tuned: Callable[..., tuple[Any, list[Any]]], request_for: Callable[..., dict[str, Any]]
) -> None:
    sagemaker = ours.client("sagemaker")
    tuned(ours, "parent", most=6, static={"batch-size": "64"})

    def warm(kind: str) -> dict[str, Any]:
        return {"ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "parent"}], "WarmStartType": kind}

    both = {
        "strategy": "Bayesian",
        "most": 1,
        "ranges": {
            "ContinuousParameterRanges": [{"Name": "learning-rate", "MinValue": "0.0001", "MaxValue": "1"}],
            "CategoricalParameterRanges": [{"Name": "batch-size", "Values": ["32", "64"]}],
        },
    }
    cold, (cold_trial,) = tuned(ours, "cold", **both)
    child, (child_trial,) = tuned(ours, "child", **both, WarmStartConfig=warm("IdenticalDataAndAlgorithm"))
    # The same seed proposes another first trial for what the parents' trials say.
    assert child_trial["TunedHyperParameters"] != cold_trial["TunedHyperParameters"]
    best_of_parent = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName="parent")
    best = min((child["BestTrainingJob"], best_of_parent["BestTrainingJob"]), key=value)
    assert child["OverallBestTrainingJob"]["TrainingJobName"] == best["TrainingJobName"]
    assert "OverallBestTrainingJob" not in cold
    for said, wanted in (
        ("total number of static and tunable", {**both, "static": {"more": "1"}}),
        (
            "objective metric must be the same",
            {
                **both,
                "config": {"HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "validation:rps"}},
            },
        ),
        (
            "input data must be those",
            {
                **both,
                "definition": {
                    "InputDataConfig": [
                        {
                            "ChannelName": "train",
                            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://t/d"}},
                        }
                    ]
                },
            },
        ),
    ):
        request = request_for(ours, "refused", **wanted, WarmStartConfig=warm("IdenticalDataAndAlgorithm"))
        with pytest.raises(ClientError, match=rf"\(ValidationException\).*{said}"):
            sagemaker.create_hyper_parameter_tuning_job(**request)
    missing = {**warm("TransferLearning"), "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "no"}]}
    with pytest.raises(ClientError, match=r"\(ResourceNotFound\)"):
        sagemaker.create_hyper_parameter_tuning_job(**request_for(ours, "refused", **both, WarmStartConfig=missing))


def test_lists_are_filtered_sorted_and_paged(ours: Local, tuned: Callable[..., tuple[Any, list[Any]]]) -> None:
    sagemaker = ours.client("sagemaker")
    for name in ("listed-b", "listed-a"):
        tuned(ours, name, most=3, parallel=3)
    pages = sagemaker.get_paginator("list_hyper_parameter_tuning_jobs").paginate(
        NameContains="listed-", SortBy="Name", SortOrder="Ascending", PaginationConfig={"PageSize": 1}
    )
    jobs = [job for page in pages for job in page["HyperParameterTuningJobSummaries"]]
    assert [job["HyperParameterTuningJobName"] for job in jobs] == ["listed-a", "listed-b"]
    assert jobs[0]["Strategy"] == "Random"
    assert jobs[0]["TrainingJobStatusCounters"]["Completed"] == 3
    found = trials(sagemaker, "listed-a", SortBy="FinalObjectiveMetricValue", SortOrder="Descending")
    assert [value(one) for one in found] == sorted((value(one) for one in found), reverse=True)
    assert len(trials(sagemaker, "listed-a", StatusEquals="Completed")) == 3
    assert trials(sagemaker, "listed-a", StatusEquals="Failed") == []


def test_what_cannot_be_or_is_not_supported_is_refused(ours: Local, request_for: Callable[..., dict[str, Any]]) -> None:
    sagemaker = ours.client("sagemaker")
    rate = {"Name": "learning-rate", "MinValue": "0", "MaxValue": "1"}
    numbers = [{**rate, "ScalingType": "Logarithmic"}]
    for said, wanted in (
        ("strategy Hyperband", {"strategy": "Hyperband"}),
        ("categorical ranges only", {"strategy": "Grid"}),
        ("MaxNumberOfTrainingJobs is needed", {"most": None}),
        ("greater than 0", {"ranges": {"ContinuousParameterRanges": numbers}}),
        ("greater than its MaxValue", {"ranges": {"IntegerParameterRanges": [{**rate, "MinValue": "2"}]}}),
        ("not one of integer numbers", {"ranges": {"IntegerParameterRanges": [{**rate, "MinValue": "0.5"}]}}),
        ("one range, or one static value", {"static": {"learning-rate": "0.1"}}),
        ("at least one range", {"ranges": {"IntegerParameterRanges": []}}),
        (
            "objective metric .* must be one of",
            {"config": {"HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"}}},
        ),
        (
            "HyperParameterTuningJobConfig.TuningJobCompletionCriteria",
            {"config": {"TuningJobCompletionCriteria": {"TargetObjectiveMetricValue": 1.0}}},
        ),
        (
            "TrainingJobDefinition.TuningObjective",
            {"definition": {"TuningObjective": {"Type": "Minimize", "MetricName": "validation:rps"}}},
        ),
        (
            "TrainingInputMode Pipe",
            {
                "definition": {
                    "AlgorithmSpecification": {
                        "TrainingImage": "t",
                        "TrainingInputMode": "Pipe",
                        "MetricDefinitions": [METRIC],
                    }
                }
            },
        ),
    ):
        with pytest.raises(ClientError, match=rf"\(ValidationException\).*{said}"):
            sagemaker.create_hyper_parameter_tuning_job(**request_for(ours, "refused", **wanted))
    raw = ours.client("sagemaker", parameter_validation=False)
    with pytest.raises(ClientError, match="less than or equal to 32"):
        raw.create_hyper_parameter_tuning_job(**request_for(ours, "a" * 33))
    for operation in ("describe_hyper_parameter_tuning_job", "stop_hyper_parameter_tuning_job"):
        with pytest.raises(ClientError, match=r"\(ResourceNotFound\).*can't find a tuning job"):
            getattr(sagemaker, operation)(HyperParameterTuningJobName="nowhere")
    sagemaker.create_hyper_parameter_tuning_job(**request_for(ours, "twice", most=1))
    with pytest.raises(ClientError, match=r"\(ResourceInUse\)"):
        sagemaker.create_hyper_parameter_tuning_job(**request_for(ours, "twice", most=1))
    ended(sagemaker, "twice")


def test_each_change_of_status_is_told(ours: Local, tuned: Callable[..., tuple[Any, list[Any]]]) -> None:
    sqs, bus = ours.client("sqs"), ours.client("events")
    queue = sqs.create_queue(QueueName="tuning-events")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allow = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [{**allow, "Resource": arn}]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
    pattern = {
        "detail-type": ["SageMaker HyperParameter Tuning Job State Change"],
        "detail": {"HyperParameterTuningJobName": ["told"]},
    }
    bus.put_rule(Name="tuning-events", EventPattern=json.dumps({"source": ["aws.sagemaker"], **pattern}))
    bus.put_targets(Rule="tuning-events", Targets=[{"Id": "queue", "Arn": arn}])
    described, _ = tuned(ours, "told", most=2)
    told: list[dict[str, Any]] = []
    while not told or told[-1]["detail"]["HyperParameterTuningJobStatus"] == "InProgress":
        (message,) = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5, MaxNumberOfMessages=1)["Messages"]
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        told.append(json.loads(message["Body"]))
    assert [event["detail"]["HyperParameterTuningJobStatus"] for event in told] == ["InProgress", "Completed"]
    last = told[-1]
    assert last["resources"] == [described["HyperParameterTuningJobArn"]]
    assert last["detail"]["TrainingJobStatusCounters"]["Completed"] == 2
    assert last["detail"]["BestTrainingJob"]["TrainingJobName"] == described["BestTrainingJob"]["TrainingJobName"]


def test_a_state_machine_waits_for_the_best_trial(
    ours: Local, request_for: Callable[..., dict[str, Any]], role: Callable[..., str]
) -> None:
    name, rule = "step", "StepFunctionsGetEventsForSageMakerTuningJobsRule"
    account = "us-east-1:000000000000"
    jobs = [f"sagemaker:{verb}HyperParameterTuningJob" for verb in ("Create", "Describe", "Stop")]
    machine_role = role(
        ours,
        "tuning-states",
        "states.amazonaws.com",
        {
            "Effect": "Allow",
            "Action": [*jobs, "sagemaker:AddTags"],
            "Resource": f"arn:aws:sagemaker:{account}:hyper-parameter-tuning-job/{name}",
        },
        {
            "Effect": "Allow",
            "Action": ["events:PutRule", "events:PutTargets", "events:DescribeRule"],
            "Resource": f"arn:aws:events:{account}:rule/{rule}",
        },
        {"Effect": "Allow", "Action": "iam:PassRole", "Resource": "*"},
    )
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sagemaker:createHyperParameterTuningJob.sync",
        "Parameters": request_for(ours, name, most=2),
        "End": True,
    }
    states = ours.client("stepfunctions")
    definition = json.dumps({"StartAt": "Tune", "States": {"Tune": task}})
    machine = states.create_state_machine(name="tuning", definition=definition, roleArn=machine_role)
    execution = states.start_execution(stateMachineArn=machine["stateMachineArn"])["executionArn"]
    deadline = time.monotonic() + 240
    while (found := states.describe_execution(executionArn=execution))["status"] == "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert found["status"] == "SUCCEEDED", found
    best = json.loads(found["output"])["BestTrainingJob"]
    described = ended(ours.client("sagemaker"), name)
    assert best["TunedHyperParameters"] == described["BestTrainingJob"]["TunedHyperParameters"]
    tags = ours.client("sagemaker").list_tags(ResourceArn=described["HyperParameterTuningJobArn"])["Tags"]
    assert {"Key": "MANAGED_BY_AWS", "Value": "STARTED_BY_STEP_FUNCTIONS"} in tags


def test_a_job_that_a_stop_of_the_stack_cut_off_has_failed(
    own: Local, request_for: Callable[..., dict[str, Any]]
) -> None:
    own.start_emulator()
    sagemaker = own.client("sagemaker")
    sagemaker.create_hyper_parameter_tuning_job(**request_for(own, "before", most=1))
    before = ended(sagemaker, "before")
    sagemaker.create_hyper_parameter_tuning_job(**request_for(own, "cut-off", static={"seconds": "60"}, parallel=1))
    running_trial(sagemaker, "cut-off")
    assert own.down()
    own.start_emulator()
    described = ended(sagemaker, "cut-off")
    assert described["HyperParameterTuningJobStatus"] == "Failed"
    assert "interrupted by a stop of the local stack" in described["FailureReason"]
    assert described["TrainingJobStatusCounters"]["NonRetryableError"] == 1
    (cut_off,) = trials(sagemaker, "cut-off")
    assert (cut_off["TrainingJobStatus"], cut_off["ObjectiveStatus"]) == ("Failed", "Failed")
    assert {**ended(sagemaker, "before"), "ResponseMetadata": 0} == {**before, "ResponseMetadata": 0}
    # What ran before is still there to learn from.
    parents = [{"HyperParameterTuningJobName": name} for name in ("before", "cut-off")]
    warm = {"ParentHyperParameterTuningJobs": parents, "WarmStartType": "TransferLearning"}
    request = request_for(own, "after", most=1, static={"seconds": "0"}, WarmStartConfig=warm)
    with pytest.raises(ClientError, match="total number of static and tunable"):
        sagemaker.create_hyper_parameter_tuning_job(**request)
    warm["ParentHyperParameterTuningJobs"] = parents[1:]
    sagemaker.create_hyper_parameter_tuning_job(**request)
    assert ended(sagemaker, "after")["HyperParameterTuningJobStatus"] == "Completed"


# Without a stack


def search_config(strategy: str, ranges: dict[str, Any], **members: Any) -> dict[str, Any]:
    metric = {"Type": "Minimize", "MetricName": "validation:rps"}
    return {"Strategy": strategy, "HyperParameterTuningJobObjective": metric, "ParameterRanges": ranges, **members}


MIXED = {
    "ContinuousParameterRanges": [
        {"Name": "rate", "MinValue": "1e-05", "MaxValue": "0.1"},
        {"Name": "strength", "MinValue": "0.3", "MaxValue": "1.5"},
        {"Name": "momentum", "MinValue": "0.9", "MaxValue": "0.999", "ScalingType": "ReverseLogarithmic"},
    ],
    "IntegerParameterRanges": [{"Name": "layers", "MinValue": "1", "MaxValue": "8", "ScalingType": "Logarithmic"}],
    "CategoricalParameterRanges": [{"Name": "batch", "Values": ["32", "64"]}],
}


def distance(tuned: dict[str, str]) -> float:
    """Zero at rate 0.001, strength 0.5, momentum 0.99, 4 layers and a batch of 64."""
    return (
        (math.log10(float(tuned["rate"])) + 3) ** 2
        + (float(tuned["strength"]) - 0.5) ** 2
        + (math.log10(1 - float(tuned["momentum"])) + 2) ** 2
        + (math.log2(int(tuned["layers"])) - 2) ** 2
        + (tuned["batch"] != "64")
    )


def searched(
    strategy: str, seed: int, count: int, past: Iterable[tuple[dict[str, str], float]] = ()
) -> list[dict[str, str]]:
    """What a search proposes, one after the other, and how far each is from the best."""
    search = Search(search_config(strategy, MIXED, RandomSeed=seed), "search")
    for tuned, result in past:
        search.remember(tuned, result)
    found = []
    for _ in range(count):
        number, tuned = search.ask()
        search.tell(number, distance(tuned))
        found.append(tuned)
    return found


def test_proposals_lie_in_their_ranges_and_scales() -> None:
    found = searched("Random", 0, 400)
    assert all(1e-5 <= float(one["rate"]) <= 0.1 for one in found)
    assert all(0.3 <= float(one["strength"]) <= 1.5 for one in found)
    assert all(0.9 <= float(one["momentum"]) <= 0.999 for one in found)
    assert {one["layers"] for one in found} == {str(n) for n in range(1, 9)}
    assert {one["batch"] for one in found} == {"32", "64"}
    # Half of them below the middle of the scale: 1e-3 of the logarithmic, 0.9 of the linear, 0.99 of the reverse one.
    for name, middle in (("rate", 1e-3), ("strength", 0.9), ("momentum", 0.99)):
        assert 160 < sum(float(one[name]) < middle for one in found) < 240
    assert sum(int(one["layers"]) <= 3 for one in found) > 200


def test_a_seed_repeats_a_search() -> None:
    assert searched("Bayesian", 7, 12) == searched("Bayesian", 7, 12)
    assert searched("Bayesian", 7, 12) != searched("Bayesian", 8, 12)


def test_bayesian_search_beats_random_search() -> None:
    seeds = range(10)
    bayesian = [min(map(distance, searched("Bayesian", seed, 30))) for seed in seeds]
    random = [min(map(distance, searched("Random", seed, 30))) for seed in seeds]
    assert sum(bayesian) < 0.7 * sum(random)


def test_what_is_known_makes_the_first_proposals_better() -> None:
    known = [(one, distance(one)) for one in searched("Random", 1, 40)]
    cold = [distance(searched("Bayesian", seed, 1)[0]) for seed in range(20)]
    warm = [distance(searched("Bayesian", seed, 1, known)[0]) for seed in range(20)]
    assert sum(warm) < 0.5 * sum(cold)
    # What lies outside of the ranges, or lacks a hyperparameter, is left out.
    outside = [({**one, "strength": "7"}, result) for one, result in known]
    assert searched("Bayesian", 3, 1, [*outside, ({}, 0)]) == searched("Bayesian", 3, 1)


def test_a_grid_is_walked_once() -> None:
    ranges = {"CategoricalParameterRanges": [{"Name": n, "Values": ["1", "2", "3"]} for n in ("a", "b")]}
    search = Search(search_config("Grid", ranges), "grid")
    found = [tuple(search.ask()[1].values()) for _ in range(9)]
    assert len(set(found)) == 9


def test_the_median_rule() -> None:
    previous: list[list[float]] = [[5, 3], [4, 2], [3, 1]]  # averages up to the second value: 4, 3, 2
    assert worse_than_median([9, 3.1], previous, minimize=True)
    assert not worse_than_median([9, 3.0], previous, minimize=True)
    assert worse_than_median([9, 2.9], previous, minimize=False)
    assert not worse_than_median([9, 9], previous[:2], minimize=True)  # too few to tell
    assert not worse_than_median([9, 9, 9], previous, minimize=True)  # none came so far
    assert not worse_than_median([], previous, minimize=True)


def test_scales_that_cannot_be() -> None:
    one = {"Kind": "Continuous", "Name": "x", "MinValue": "0.5", "MaxValue": "0.9"}
    check_scaling({**one, "ScalingType": "ReverseLogarithmic"})
    for wrong in (
        {"MaxValue": "1", "ScalingType": "ReverseLogarithmic"},
        {"Kind": "Integer", "MinValue": "0", "MaxValue": "0", "ScalingType": "ReverseLogarithmic"},
        {"MinValue": "0", "ScalingType": "Logarithmic"},
        {"MinValue": "nan"},
        {"MinValue": "one"},
    ):
        with pytest.raises(ServiceError):
            check_scaling({**one, **wrong})


def test_the_emulator_starts_without_optuna() -> None:
    """It costs half a second, which only a tuning job should wait for."""
    import subprocess
    import sys

    script = "import sys, local.emulator, localsagemaker.tuning; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2]).returncode == 0
