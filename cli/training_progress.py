"""The progress of a training or tuning job: which trial, which epoch, the time left; on AWS and here alike.

SageMaker knows the trials and each job's phase. The epochs are in the job's log, as `training/train.py` reports them:
one line after each, whose time gives the speed.
"""

import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

LOGS = "/aws/sagemaker/TrainingJobs"
LINES = 200
"""The newest lines of a log that are read; an epoch has one."""


@dataclass(frozen=True)
class Epochs:
    """The epochs of one training job. `ended` of them have ended, the last one at `at` (epoch seconds)."""

    ended: int
    all: int
    done: float
    """Share of the whole training: an epoch costs as much as its pictures have pixels."""
    at: float
    pace: float | None
    """Seconds of the whole training; None before the first epoch has ended."""

    def words(self) -> str:
        if self.ended == self.all:
            return f"all {self.all} epochs done, finishing"
        return f"epoch {self.ended + 1} of {self.all}"

    def left(self, now: float) -> float | None:
        """Seconds until the last epoch ends."""
        if self.pace is None or self.ended == self.all:
            return None
        return max(0.0, (1 - self.done) * self.pace - (now - self.at))


def of_training(sagemaker: Any, logs: Any, name: str, now: float) -> str:
    """`epoch 3 of 8, about 4 min left`; before the first epoch the job's phase."""
    job = sagemaker.describe_training_job(TrainingJobName=name)
    if job["TrainingJobStatus"] != "InProgress" or job["SecondaryStatus"] != "Training":
        return phase(job)
    epochs = epochs_of(job, log_of(logs, name))
    return joined(epochs.words(), left_in_words(epochs.left(now)))


def of_tuning(sagemaker: Any, logs: Any, name: str, now: float) -> str:
    """`trial 2 of 6, epoch 3 of 8, about 9 min left`; with several trials at a time, each one's number and epoch."""
    job = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    number = int(job["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxNumberOfTrainingJobs"])
    pages = sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
        HyperParameterTuningJobName=name, SortBy="CreationTime", SortOrder="Ascending"
    )
    trials = [trial for page in pages for trial in page["TrainingJobSummaries"]]
    done, numbers, words = 0.0, list[str](), list[str]()
    for place, trial in enumerate(trials, start=1):
        if trial["TrainingJobStatus"] != "InProgress":
            done += 1
            continue
        running = sagemaker.describe_training_job(TrainingJobName=trial["TrainingJobName"])
        numbers.append(str(place))
        if running["SecondaryStatus"] == "Training":
            epochs = epochs_of(running, log_of(logs, trial["TrainingJobName"]))
            done += epochs.done
            words.append(epochs.words())
        else:
            words.append(phase(running))
    took = now - job["CreationTime"].timestamp()
    left = left_in_words(took * (number - done) / done if done else None)
    if len(numbers) == 1:
        return joined(f"trial {numbers[0]} of {number}", words[0], left)
    if not numbers:
        return joined(f"{len(trials)} of {number} trials ended", left)
    each = ", ".join(f"{place}: {said}" for place, said in zip(numbers, words, strict=True))
    return joined(f"trials {' and '.join(numbers)} of {number} ({each})", left)


def phase(job: dict[str, Any]) -> str:
    """SageMaker's own words for a job that does not train yet, or no longer."""
    changes = job.get("SecondaryStatusTransitions") or [{}]
    return str(changes[-1].get("StatusMessage") or job["SecondaryStatus"]).rstrip(".").lower()


def log_of(logs: Any, name: str) -> list[tuple[float, str]]:
    """The newest lines of the job's first host, each with its time (epoch seconds); none before it has logged any."""
    try:
        streams = logs.describe_log_streams(logGroupName=LOGS, logStreamNamePrefix=f"{name}/algo-1-")["logStreams"]
        if not streams:
            return []
        newest = streams[-1]["logStreamName"]  # a spot interruption begins another
        events = logs.get_log_events(logGroupName=LOGS, logStreamName=newest, limit=LINES)["events"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        return []
    return [(event["timestamp"] / 1000, event["message"]) for event in events]


def epochs_of(job: dict[str, Any], lines: list[tuple[float, str]]) -> Epochs:
    """From DescribeTrainingJob's answer and the log's lines."""
    given = job.get("HyperParameters", {})
    number = int(unquoted(given.get("epochs", "1")))
    sizes = [int(size) for size in unquoted(given.get("sizes", "1")).split(",")]
    works = [sizes[epoch * len(sizes) // number] ** 2 for epoch in range(number)]
    shares = [sum(works[:ended]) / sum(works) for ended in range(number + 1)]
    seen = [(at, int(found[1]) + 1) for at, line in lines if (found := re.match(r"epoch (\d+) ", line))]
    seen = [(at, ended) for at, ended in seen if ended <= number]
    began = began_at(job)
    if not seen:
        return Epochs(0, number, 0.0, began, None)
    at, ended = seen[-1]
    first_at, first = seen[0]
    if first == ended:  # after an interruption too, its first epoch is not the job's
        first_at, first = began, ended - 1
    pace = (at - first_at) / (shares[ended] - shares[first])
    return Epochs(ended, number, shares[ended], at, pace if pace > 0 else None)


def began_at(job: dict[str, Any]) -> float:
    """When the job's last attempt began to train (epoch seconds)."""
    changes = job.get("SecondaryStatusTransitions", [])
    times: list[datetime] = [one["StartTime"] for one in changes if one["Status"] == "Training"]
    return times[-1].timestamp() if times else time.time()


def unquoted(value: str) -> str:
    """The SDK writes hyperparameters as JSON, so a text may be in quotation marks."""
    return value.strip('"')


def left_in_words(seconds: float | None) -> str:
    """`about 4 min left`; empty when nothing can be said."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"about {max(10, round(seconds, -1)):.0f} s left"
    if seconds < 90 * 60:
        return f"about {seconds / 60:.0f} min left"
    return f"about {seconds / 3600:.1f} h left"


def joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))
