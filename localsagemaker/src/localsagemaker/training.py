"""Training jobs: channels in, model and output archives out, checkpoints and metrics while they run."""

import json
import logging
import os
import re
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from localsagemaker import channels
from localsagemaker.channels import BadInput, Mirror
from localsagemaker.container import (
    OPT_ML,
    Container,
    Containers,
    Interrupted,
    OutOfTime,
    check_path,
    command_of,
    fresh,
    names,
)
from localsagemaker.host import Host, now
from localsagemaker.jobs import JobFailed, Jobs, JobStopped, Stop, only, refuse_unsupported
from localsagemaker.ports import free_port
from localsagemaker.wire import Json, invalid

LOG = logging.getLogger(__name__)
GROUP = "/aws/sagemaker/TrainingJobs"  # of the logs, and the namespace of the metrics
MAX_RUNTIME = 86400  # seconds, the default
CHECKPOINTS = f"{OPT_ML}/checkpoints"

SUPPORTED = {
    **only("TrainingJobName RoleArn HyperParameters Environment Tags RetryStrategy"),
    **only("EnableNetworkIsolation EnableInterContainerTrafficEncryption EnableManagedSpotTraining"),
    "AlgorithmSpecification": {
        **only("TrainingImage TrainingInputMode ContainerEntrypoint ContainerArguments"),
        **only("MetricDefinitions EnableSageMakerMetricsTimeSeries"),
    },
    "InputDataConfig": {
        **only("ChannelName ContentType CompressionType RecordWrapperType InputMode"),
        "DataSource": {"S3DataSource": only("S3DataType S3Uri S3DataDistributionType")},
    },
    "OutputDataConfig": only("S3OutputPath CompressionType"),
    "ResourceConfig": only("InstanceType InstanceCount VolumeSizeInGB"),
    "StoppingCondition": only("MaxRuntimeInSeconds MaxWaitTimeInSeconds"),
    "CheckpointConfig": only("S3Uri LocalPath"),
    "ProfilerConfig": only("DisableProfiler"),
}

MESSAGES = {
    "Starting": "Preparing the instances for training",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Uploading": "Uploading generated training model",
    "Interrupted": "Spot instances were interrupted",
    "Stopping": "Stopping the training job",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
    "MaxWaitTimeExceeded": "Training job wait time exceeded MaxWaitTimeInSeconds provided",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
}


class TrainingJobs(Jobs):
    """CreateTrainingJob and its kind."""

    phase, kind, event = "Training", "training-job", "SageMaker Training Job State Change"
    taken = (
        "Training job names must be unique within an AWS account and region, and a training job with this name "
        "already exists ({arn})"
    )
    operations = ("CreateTrainingJob", "DescribeTrainingJob", "ListTrainingJobs", "StopTrainingJob")

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._metrics: dict[str, list[Json]] = {}

    def create_training_job(self, request: Json, *, tuning_job_arn: str | None = None) -> Json:
        """Raises ServiceError. A tuning job also starts its trials here."""
        check(request)
        if "ContainerEntrypoint" not in request["AlgorithmSpecification"]:
            self.host.entry_point(request["AlgorithmSpecification"]["TrainingImage"])
        name = request["TrainingJobName"]
        path = f"{request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{name}/output/model.tar.gz"
        members = {
            "HyperParameters": {},
            "EnableNetworkIsolation": False,
            "EnableInterContainerTrafficEncryption": False,
            "EnableManagedSpotTraining": False,
            **request,
            "StoppingCondition": {"MaxRuntimeInSeconds": MAX_RUNTIME, **request.get("StoppingCondition", {})},
            "ModelArtifacts": {"S3ModelArtifacts": path},
            **transition({}, "Starting"),
        }
        if tuning_job_arn:
            members["TuningJobArn"] = tuning_job_arn
        return self.begin(name, members)

    def describe_training_job(self, request: Json) -> Json:
        return self.describe(request["TrainingJobName"])

    def list_training_jobs(self, request: Json) -> Json:
        for member in ("WarmPoolStatusEquals", "TrainingPlanArnEquals"):
            if member in request:
                raise invalid(f"not supported on one machine: {member}")
        return self.list(request)

    def stop_training_job(self, request: Json) -> Json:
        self.stop(request["TrainingJobName"])
        return {}

    def stopping(self, job: Json) -> Json:
        return {**super().stopping(job), **transition(job, "Stopping")}

    def metrics(self, name: str) -> list[Json]:
        """All metrics that the job has logged since the stack started, oldest first."""
        with self.changed:
            return list(self._metrics.get(name, []))

    # One job

    def run(self, job: Json, stop: Stop) -> None:
        attempt = Attempt(self, job, stop)
        spot, limits = job.get("EnableManagedSpotTraining", False), job["StoppingCondition"]
        give_up = time.monotonic() + limits.get("MaxWaitTimeInSeconds", float("inf"))
        try:
            while True:
                try:
                    return attempt.go()
                except Interrupted:
                    if not spot:
                        raise JobFailed("AlgorithmError: the process was killed, exit code: 137") from None
                    self.enter(job, "Interrupted")
                    if time.monotonic() > give_up:
                        raise OutOfTime("MaxWaitTimeExceeded") from None
                    self.enter(job, "Starting")
        except OutOfTime as error:
            with self.changed:
                job.update(transition(job, str(error) or "MaxRuntimeExceeded"))
            raise JobStopped from error
        finally:
            with self.changed:
                job["BillableTimeInSeconds"] = max(1, round(attempt.billable))
            shutil.rmtree(attempt.folder, ignore_errors=True)

    def enter(self, job: Json, status: str, **members: object) -> None:
        """Changes the secondary status; a concurrent stop is reported after it."""
        with self.changed:
            self.change(job, **transition(job, status), **members)

    def ending(self, job: Json, status: str, reason: str | None) -> Json:
        members = super().ending(job, status, reason)
        out_of_time = status == "Stopped" and job["SecondaryStatus"] in ("MaxRuntimeExceeded", "MaxWaitTimeExceeded")
        told = transition(job, status) if not out_of_time else {}
        if not out_of_time and reason:
            told["SecondaryStatusTransitions"][-1]["StatusMessage"] = members["FailureReason"]
        if "TrainingStartTime" in job:
            members["TrainingTimeInSeconds"] = max(1, round(now() - job["TrainingStartTime"]))
        closed = [{**one, "EndTime": one.get("EndTime", now())} for one in (job | told)["SecondaryStatusTransitions"]]
        return {**members, **told, "SecondaryStatusTransitions": closed}

    def hear(self, job: Json, patterns: list[tuple[str, re.Pattern[str]]], metrics: Any, lines: list[str]) -> None:
        """Extracts the metrics from log lines: the last of each is in the job's FinalMetricDataList."""
        found = []
        for line in lines:
            for name, pattern in patterns:
                if told := pattern.search(line):
                    try:
                        found.append({"MetricName": name, "Value": float(told[1]), "Timestamp": now()})
                    except ValueError:
                        LOG.warning("%s of %s is not a number: %s", name, job["TrainingJobName"], told[1])
        if not found:
            return
        with self.changed:
            self._metrics.setdefault(job["TrainingJobName"], []).extend(found)
            last = {one["MetricName"]: one for one in (*job.get("FinalMetricDataList", []), *found)}
            job["FinalMetricDataList"] = list(last.values())
            self.changed.notify_all()
        dimensions = [{"Name": "TrainingJobName", "Value": job["TrainingJobName"]}]
        data = [{**one, "Dimensions": dimensions} for one in found]
        try:
            for start in range(0, len(data), 1000):  # at most that many per request
                metrics.put_metric_data(Namespace=GROUP, MetricData=data[start : start + 1000])
        except (ClientError, BotoCoreError) as error:
            LOG.warning("no metrics of %s: %s", job["TrainingJobName"], error)


class Attempt:
    """One attempt at a job on its hosts; a spot job may need several, each with fresh hosts and S3's checkpoints."""

    def __init__(self, jobs: TrainingJobs, job: Json, stop: Stop) -> None:
        self.jobs, self.job, self.stop, self.host = jobs, job, stop, jobs.host
        self.name: str = job["TrainingJobName"]
        self.folder = self.host.home / "jobs" / jobs.kind / self.name
        self.s3 = self.host.client("s3", job["RoleArn"])
        self.billable = 0.0

    def go(self) -> None:
        """Raises JobFailed, JobStopped, OutOfTime, Interrupted, or an error of S3 or the role."""
        job, started = self.job, time.monotonic()
        fresh(self.folder)
        port = free_port()
        containers = [self.container(name, port) for name in names(job["ResourceConfig"]["InstanceCount"])]
        try:
            start = {} if "TrainingStartTime" in job else {"TrainingStartTime": now()}
            self.to("Downloading", **start)
            mirrors = self.fetch(containers)
            self.to("Training")
            self.train(containers, mirrors)
        except (JobStopped, OutOfTime):
            # The model's files at the end of the grace time are kept.
            if not self.stop.closing and containers[0].log_file.exists():
                self.keep(containers)
            raise
        except JobFailed:
            self.keep(containers, archives=("output",))
            raise
        else:
            self.to("Uploading")
            self.keep(containers)
        finally:
            self.billable += time.monotonic() - started

    def to(self, status: str, **members: object) -> None:
        with self.jobs.changed:
            if self.stop.is_set():
                raise JobStopped
            self.jobs.enter(self.job, status, **members)

    def container(self, name: str, port: int) -> Container:
        job, root = self.job, self.folder / name
        config, algorithm = job["ResourceConfig"], job["AlgorithmSpecification"]
        hosts = names(config["InstanceCount"])
        # Like `docker run image train`, unless the job names its own entrypoint.
        told = [] if "ContainerEntrypoint" in algorithm else ["train"]
        entry_point = algorithm.get("ContainerEntrypoint") or self.host.entry_point(algorithm["TrainingImage"])
        command = command_of(self.host, root, entry_point, algorithm.get("ContainerArguments", told))
        container = Container(name, root, command, {})
        container.variables = self.variables(container, hosts, port)
        group = {"instance_group_name": "homogeneousCluster", "instance_type": config["InstanceType"], "hosts": hosts}
        resources = {
            "current_host": name,
            "current_instance_type": config["InstanceType"],
            "current_group_name": group["instance_group_name"],
            "hosts": hosts,
            "instance_groups": [group],
            "network_interface_name": "lo",
        }
        inputs = {
            channel["ChannelName"]: {
                "TrainingInputMode": "File",
                "S3DistributionType": source_of(channel).get("S3DataDistributionType", "FullyReplicated"),
                "RecordWrapperType": "None",
                **({"ContentType": channel["ContentType"]} if "ContentType" in channel else {}),
            }
            for channel in job.get("InputDataConfig", [])
        }
        container.write("input/config/resourceconfig.json", resources)
        container.write("input/config/inputdataconfig.json", inputs)
        container.write("input/config/hyperparameters.json", job["HyperParameters"])
        for made in ("model", "output/data"):
            (root / made).mkdir(parents=True)
        return container

    def variables(self, container: Container, hosts: list[str], port: int) -> dict[str, str]:
        """The variables that SageMaker and its training toolkit set."""
        job, root = self.job, container.root
        chosen = [channel["ChannelName"] for channel in job.get("InputDataConfig", [])]
        made = {
            "TRAINING_JOB_NAME": self.name,
            "TRAINING_JOB_ARN": job["TrainingJobArn"],
            "SM_MODEL_DIR": str(root / "model"),
            "SM_INPUT_DIR": str(root / "input"),
            "SM_INPUT_CONFIG_DIR": str(root / "input" / "config"),
            "SM_OUTPUT_DIR": str(root / "output"),
            "SM_OUTPUT_DATA_DIR": str(root / "output" / "data"),
            "SM_HPS": json.dumps(job["HyperParameters"]),
            "SM_HOSTS": json.dumps(hosts),
            "SM_CURRENT_HOST": container.name,
            "SM_CHANNELS": json.dumps(chosen),
            "SM_NUM_CPUS": str(os.cpu_count() or 1),
            "SM_NUM_GPUS": str(len(list(Path("/dev").glob("nvidia[0-9]*")))),
            "SM_MASTER_ADDR": "127.0.0.1",
            "SM_MASTER_PORT": str(port),
            **{f"SM_CHANNEL_{name.upper()}": str(root / "input" / "data" / name) for name in chosen},
        }
        if "CheckpointConfig" in job:
            made["SM_CHECKPOINT_DIR"] = str(container.path(job["CheckpointConfig"].get("LocalPath", CHECKPOINTS)))
        own: dict[str, str] = job.get("Environment", {})
        return made | own

    def fetch(self, containers: list[Container]) -> list[Mirror]:
        """Fills the channels and the checkpoints of every host; returns the checkpoints' mirrors to S3."""
        try:
            for channel in self.job.get("InputDataConfig", []):
                source = source_of(channel)
                found = channels.find(self.s3, source)
                for index, container in enumerate(containers):
                    part = channels.shared(found, source, index, len(containers))
                    channels.download(self.s3, part, container.root / "input" / "data" / channel["ChannelName"])
        except BadInput as error:
            raise JobFailed(f"ClientError: Data download failed:{error}") from error
        if "CheckpointConfig" not in self.job:
            return []
        config = self.job["CheckpointConfig"]
        local = config.get("LocalPath", CHECKPOINTS)
        mirrors = [Mirror(self.s3, container.path(local), config["S3Uri"]) for container in containers]
        for mirror in mirrors:
            mirror.pull()
        return mirrors

    def train(self, containers: list[Container], mirrors: list[Mirror]) -> None:
        def sync() -> None:
            for mirror in mirrors:
                mirror.push()

        definitions = self.job["AlgorithmSpecification"].get("MetricDefinitions", [])
        patterns = [(one["Name"], re.compile(one["Regex"])) for one in definitions]
        heard = partial(self.jobs.hear, self.job, patterns, self.host.client("cloudwatch", self.job["RoleArn"]))
        seconds = self.job["StoppingCondition"]["MaxRuntimeInSeconds"] - self.billable
        Containers(self.host, self.job["RoleArn"], GROUP, self.name, heard).run(containers, self.stop, seconds, sync)

    def keep(self, containers: list[Container], archives: tuple[str, ...] = ("model", "output")) -> None:
        base = self.job["ModelArtifacts"]["S3ModelArtifacts"].rpartition("/")[0]
        folders = {"model": "model", "output": "output/data"}
        for archive in archives:
            made = [container.root / folders[archive] for container in containers]
            if archive == "model" or any(channels.files_in(folder) for folder in made):
                channels.upload_archive(self.s3, made, f"{base}/{archive}.tar.gz")


def check(request: Json) -> None:
    """Raises ServiceError for an invalid request, and for one that this service does not support."""
    refuse_unsupported(request, SUPPORTED)
    algorithm, limits = request.get("AlgorithmSpecification", {}), request.get("StoppingCondition", {})
    if "TrainingImage" not in algorithm:
        raise invalid("AlgorithmSpecification.TrainingImage is needed on one machine")
    if algorithm["TrainingInputMode"] == "Pipe":
        raise invalid("not supported on one machine: TrainingInputMode Pipe")
    for definition in algorithm.get("MetricDefinitions", []):
        try:
            groups = re.compile(definition["Regex"]).groups
        except re.error as error:
            raise invalid(f"the Regex of metric {definition['Name']} is invalid: {error}") from error
        if groups != 1:
            raise invalid(f"the Regex of metric {definition['Name']} must have one group")
    if not request.get("ResourceConfig", {}).keys() >= {"InstanceType", "InstanceCount", "VolumeSizeInGB"}:
        raise invalid("ResourceConfig with InstanceType, InstanceCount and VolumeSizeInGB is needed")
    if request["ResourceConfig"]["InstanceCount"] < 1:
        raise invalid("ResourceConfig.InstanceCount must be at least 1")
    chosen = [channel["ChannelName"] for channel in request.get("InputDataConfig", [])]
    if len(chosen) != len(set(chosen)):
        raise invalid("the names of channels must be unique")
    for channel in request.get("InputDataConfig", []):
        check_channel(channel)
    if request["OutputDataConfig"].get("CompressionType", "GZIP") != "GZIP":
        raise invalid("not supported on one machine: OutputDataConfig.CompressionType NONE")
    if not request.get("ProfilerConfig", {}).get("DisableProfiler", True):
        raise invalid("not supported on one machine: the profiler")
    if "CheckpointConfig" in request:
        check_path(request["CheckpointConfig"].get("LocalPath", CHECKPOINTS))
    waits, runs = limits.get("MaxWaitTimeInSeconds"), limits.get("MaxRuntimeInSeconds", MAX_RUNTIME)
    if request.get("EnableManagedSpotTraining", False) != (waits is not None):
        raise invalid(
            "Invalid MaxWaitTimeInSeconds. It must be present if and only if EnableManagedSpotTraining is true."
        )
    if waits is not None and waits < runs:
        raise invalid(
            f"Invalid MaxWaitTimeInSeconds. It must be greater than or equal to MaxRuntimeInSeconds ({waits} < {runs})."
        )


def check_channel(channel: Json) -> None:
    name = channel["ChannelName"]
    if "S3DataSource" not in channel["DataSource"]:
        raise invalid(f"channel {name} needs an S3DataSource on one machine")
    for member, allowed in {
        "InputMode": ("File", "FastFile"),
        "CompressionType": ("None",),
        "RecordWrapperType": ("None",),
    }.items():
        if channel.get(member, allowed[0]) not in allowed:
            raise invalid(f"not supported on one machine: {member} {channel[member]} of channel {name}")
    if source_of(channel)["S3DataType"] not in ("S3Prefix", "ManifestFile"):
        raise invalid(f"not supported on one machine: S3DataType {source_of(channel)['S3DataType']} of channel {name}")


def source_of(channel: Json) -> Json:
    source: Json = channel["DataSource"]["S3DataSource"]
    return source


def transition(job: Json, status: str) -> Json:
    """The members that set the job's secondary status to `status`."""
    moment = now()
    past = [{"EndTime": moment, **one} for one in job.get("SecondaryStatusTransitions", [])]
    entered = {"Status": status, "StartTime": moment, "StatusMessage": MESSAGES[status]}
    return {"SecondaryStatus": status, "SecondaryStatusTransitions": [*past, entered]}
