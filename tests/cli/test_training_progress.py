"""What `retrain start --watch` says while jobs run, from SageMaker's answers and from logs in moto."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cli.retraining import DETAIL_SECONDS, Watch
from cli.training_progress import LOGS, left_in_words, of_training, of_tuning
from deployed.errors import Denied

NOW = datetime.now(UTC).replace(microsecond=0)
"""Of today: CloudWatch Logs refuses old lines."""
RUN = "bintally-261129-cccccc"


def before(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def job(
    name: str, status: str = "Training", began: float = 100, epochs: str = "4", sizes: str = "64"
) -> dict[str, Any]:
    """DescribeTrainingJob's answer for a job that began to train so many seconds ago."""
    ended = status in ("Completed", "Failed", "Stopped")
    changes = [
        {
            "Status": "Starting",
            "StartTime": before(began + 60),
            "StatusMessage": "Preparing the instances for training",
        },
        {"Status": "Training", "StartTime": before(began), "StatusMessage": "Training in progress."},
    ]
    return {
        "TrainingJobName": name,
        "TrainingJobStatus": status if ended else "InProgress",
        "SecondaryStatus": status,
        "SecondaryStatusTransitions": changes[:1] if status == "Starting" else changes,
        "HyperParameters": {"epochs": epochs, "sizes": sizes},
    }


class SageMaker:
    """Describes these training jobs, which are also the trials of a tuning job that began 200 s ago."""

    def __init__(self, *jobs: dict[str, Any], number: int = 6) -> None:
        self.jobs, self.number = {one["TrainingJobName"]: one for one in jobs}, number

    def describe_training_job(self, TrainingJobName: str) -> dict[str, Any]:
        return self.jobs[TrainingJobName]

    def describe_hyper_parameter_tuning_job(self, HyperParameterTuningJobName: str) -> dict[str, Any]:
        limits = {"MaxNumberOfTrainingJobs": self.number, "MaxParallelTrainingJobs": 2}
        return {"CreationTime": before(200), "HyperParameterTuningJobConfig": {"ResourceLimits": limits}}

    def get_paginator(self, operation: str) -> Any:
        assert operation == "list_training_jobs_for_hyper_parameter_tuning_job"
        pages = [{"TrainingJobSummaries": [one]} for one in self.jobs.values()]
        return SimpleNamespace(paginate=lambda **asked: pages)


@pytest.fixture
def log(aws: SimpleNamespace) -> Callable[..., None]:
    """log(job, (seconds ago, line), …) puts lines into the stream of a job's first host."""
    logs = aws.stack.client("logs")

    def put(name: str, *lines: tuple[float, str], host: str = "algo-1", started: int = 1) -> None:
        stream = f"{name}/{host}-{started}"
        if not logs.describe_log_groups(logGroupNamePrefix=LOGS)["logGroups"]:
            logs.create_log_group(logGroupName=LOGS)
        logs.create_log_stream(logGroupName=LOGS, logStreamName=stream)
        events = [{"timestamp": int(before(ago).timestamp() * 1000), "message": line} for ago, line in lines]
        logs.put_log_events(logGroupName=LOGS, logStreamName=stream, logEvents=events)

    return put


def epoch(number: int) -> str:
    return f"epoch {number} size 64 loss 1.8 seconds 20.0 waiting 0.01 images_per_second 30.0 validation_rps 0.7"


@pytest.fixture
def logs(aws: SimpleNamespace) -> Any:
    return aws.stack.client("logs")


def test_a_training_job_says_its_epoch_and_the_time_left(logs: Any, log: Callable[..., None]) -> None:
    sagemaker = SageMaker(job("train"))
    assert of_training(sagemaker, logs, "train", NOW.timestamp()) == "epoch 1 of 4", "it has logged nothing yet"
    log("train", (99, "gpus 0"), (70, epoch(0)), (40, epoch(1)), (39, "INFO:nncf: a stray line"))
    log("train", (10, epoch(3)), host="algo-2")  # another host, that does not report
    # 30 s an epoch; 40 s after the second of four has ended, 20 s are left.
    assert of_training(sagemaker, logs, "train", NOW.timestamp()) == "epoch 3 of 4, about 20 s left"


def test_larger_pictures_take_longer(logs: Any, log: Callable[..., None]) -> None:
    log("train", (60, epoch(0)), (0, epoch(1)))
    sagemaker = SageMaker(job("train", sizes="64,128"))  # an epoch of 128 costs four of 64
    assert of_training(sagemaker, logs, "train", NOW.timestamp()) == "epoch 3 of 4, about 8 min left"


def test_after_an_interruption_only_the_new_epochs_give_the_speed(logs: Any, log: Callable[..., None]) -> None:
    log("train", (5000, epoch(0)), (4000, epoch(1)))
    log("train", (50, "resumes with epoch 2, step 0"), (0, epoch(2)), started=2)
    assert of_training(SageMaker(job("train", began=50)), logs, "train", NOW.timestamp()).endswith(
        "epoch 4 of 4, about 50 s left"
    )


def test_what_a_job_does_before_and_after_training(logs: Any, log: Callable[..., None]) -> None:
    assert of_training(SageMaker(job("train", "Starting")), logs, "train", NOW.timestamp()) == (
        "preparing the instances for training"
    )
    log("train", (30, epoch(3)))
    said = of_training(SageMaker(job("train")), logs, "train", NOW.timestamp())
    assert said == "all 4 epochs done, finishing"


def test_tuning_says_the_trial_its_epoch_and_the_time_left(logs: Any, log: Callable[..., None]) -> None:
    log("two", (10, epoch(0)))
    found = of_tuning(SageMaker(job("one", "Completed"), job("two", began=40)), logs, "tune", NOW.timestamp())
    # 1.25 of 6 trials in 200 s: 4.75 are left, 760 s.
    assert found == "trial 2 of 6, epoch 2 of 4, about 13 min left"
    trials = [job("one", "Failed"), job("two"), job("three", "Starting")]
    found = of_tuning(SageMaker(*trials), logs, "tune", NOW.timestamp())
    said = "trials 2 and 3 of 6 (2: epoch 2 of 4, 3: preparing the instances for training), about 13 min left"
    assert found == said
    assert of_tuning(SageMaker(), logs, "tune", NOW.timestamp()) == "0 of 6 trials ended"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0.0, "about 10 s left"),
        (89.0, "about 90 s left"),
        (100.0, "about 2 min left"),
        (9000.0, "about 2.5 h left"),
    ],
)
def test_the_time_left_is_rounded(seconds: float | None, words: str) -> None:
    assert left_in_words(seconds) == words


def test_a_watch_asks_seldom_and_outlives_a_refusal(aws: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def of(sagemaker: Any, logs: Any, name: str, now: float) -> str:
        asked.append(name)
        raise (Denied("logs:GetLogEvents") if len(asked) > 1 else ClientError({"Error": {"Code": "Throttling"}}, "x"))

    monkeypatch.setattr("cli.training_progress.of_training", of)
    watch = Watch(aws.stack, "execution", step="Train", run="261129-cccccc")
    assert [watch.detail(at) for at in (100.0, 101.0)] == ["", ""]
    assert asked == [f"{RUN}-train"]
    assert watch.detail(100.0 + DETAIL_SECONDS) == "missing permission logs:GetLogEvents"
    watch.step = "Evaluate"
    assert watch.detail(100.0 + DETAIL_SECONDS) == "", "a step without jobs that train says nothing"
