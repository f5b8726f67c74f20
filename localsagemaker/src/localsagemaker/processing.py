"""Processing jobs: inputs and outputs at the local paths in the request, one process per host."""

import shutil
from pathlib import Path
from typing import Any

from localsagemaker import channels
from localsagemaker.channels import BadInput, Mirror
from localsagemaker.container import (
    Container,
    Containers,
    Interrupted,
    OutOfTime,
    check_path,
    command_of,
    fresh,
    names,
)
from localsagemaker.host import now
from localsagemaker.jobs import JobFailed, Jobs, JobStopped, Stop, only, refuse_unsupported
from localsagemaker.wire import Json, invalid

GROUP = "/aws/sagemaker/ProcessingJobs"
MAX_RUNTIME = 86400  # seconds, the default
MESSAGE_LIMIT = 1024

SUPPORTED = {
    **only("ProcessingJobName RoleArn Environment Tags"),
    "AppSpecification": only("ImageUri ContainerEntrypoint ContainerArguments"),
    "ProcessingInputs": {
        **only("InputName AppManaged"),
        "S3Input": only("S3Uri LocalPath S3DataType S3InputMode S3DataDistributionType S3CompressionType"),
    },
    "ProcessingOutputConfig": {
        "Outputs": {**only("OutputName AppManaged"), "S3Output": only("S3Uri LocalPath S3UploadMode")}
    },
    "ProcessingResources": {"ClusterConfig": only("InstanceType InstanceCount VolumeSizeInGB")},
    "StoppingCondition": only("MaxRuntimeInSeconds"),
    "NetworkConfig": only("EnableNetworkIsolation EnableInterContainerTrafficEncryption"),
}


class ProcessingJobs(Jobs):
    """CreateProcessingJob and its kind."""

    phase, kind, event = "Processing", "processing-job", "SageMaker Processing Job State Change"
    unknown = "Could not find requested job with name: {name}"
    operations = ("CreateProcessingJob", "DescribeProcessingJob", "ListProcessingJobs", "StopProcessingJob")

    def create_processing_job(self, request: Json) -> Json:
        check(request)
        limits = {"MaxRuntimeInSeconds": MAX_RUNTIME, **request.get("StoppingCondition", {})}
        return self.begin(request["ProcessingJobName"], {**request, "StoppingCondition": limits})

    def describe_processing_job(self, request: Json) -> Json:
        return self.describe(request["ProcessingJobName"])

    def list_processing_jobs(self, request: Json) -> Json:
        return self.list(request)

    def stop_processing_job(self, request: Json) -> Json:
        self.stop(request["ProcessingJobName"])
        return {}

    # One job

    def run(self, job: Json, stop: Stop) -> None:
        role, name = job["RoleArn"], job["ProcessingJobName"]
        folder = fresh(self.host.home / "jobs" / self.kind / name)
        s3 = self.host.client("s3", role)
        outputs = [output["S3Output"] for output in job.get("ProcessingOutputConfig", {}).get("Outputs", [])]
        try:
            self.change(job, ProcessingStartTime=now())
            hosts = names(job["ProcessingResources"]["ClusterConfig"]["InstanceCount"])
            containers = [self.container(job, folder / host, hosts) for host in hosts]
            fetch(s3, job, containers)
            mirrors = [
                Mirror(s3, container.path(output["LocalPath"]), output["S3Uri"])
                for output in outputs
                for container in containers
                if output["S3UploadMode"] == "Continuous"
            ]

            def sync() -> None:
                for mirror in mirrors:
                    mirror.push()

            if stop.is_set():
                raise JobStopped
            seconds = job["StoppingCondition"]["MaxRuntimeInSeconds"]
            try:
                Containers(self.host, role, GROUP, name, heard=lambda lines: None).run(containers, stop, seconds, sync)
            finally:
                if said := message(containers):
                    with self.changed:
                        job["ExitMessage"] = said
            for output in outputs:
                if output["S3UploadMode"] == "EndOfJob":
                    for container in containers:
                        channels.upload(s3, container.path(output["LocalPath"]), output["S3Uri"])
        except Interrupted:
            raise JobFailed("AlgorithmError: the process was killed, exit code: 137") from None
        except OutOfTime:
            raise JobStopped from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def container(self, job: Json, root: Path, hosts: list[str]) -> Container:
        app = job["AppSpecification"]
        command = command_of(self.host, root, app["ContainerEntrypoint"], app.get("ContainerArguments", []))
        made = {"PROCESSING_JOB_NAME": job["ProcessingJobName"], "PROCESSING_JOB_ARN": job["ProcessingJobArn"]}
        container = Container(root.name, root, command, made | job.get("Environment", {}), tells=False)
        container.write("config/resourceconfig.json", {"current_host": root.name, "hosts": hosts})
        shown = ("ProcessingJobArn", "ProcessingJobName", *SUPPORTED)
        container.write("config/processingjobconfig.json", {key: job[key] for key in shown if key in job})
        (root / "output").mkdir()
        for output in job.get("ProcessingOutputConfig", {}).get("Outputs", []):
            container.path(output["S3Output"]["LocalPath"]).mkdir(parents=True, exist_ok=True)
        return container


def fetch(s3: Any, job: Json, containers: list[Container]) -> None:
    """Fills the inputs of every host. Raises JobFailed."""
    try:
        for given in job.get("ProcessingInputs", []):
            source = given["S3Input"]
            found = channels.find(s3, source)
            for index, container in enumerate(containers):
                part = channels.shared(found, source, index, len(containers))
                channels.download(s3, part, container.path(source["LocalPath"]))
    except BadInput as error:
        raise JobFailed(f"ClientError: Failed to download data. {error}") from error


def message(containers: list[Container]) -> str:
    """The job's ExitMessage: the content of /opt/ml/output/message on the first host that has one."""
    files = (container.root / "output" / "message" for container in containers)
    said = (file.read_text(errors="replace").strip() for file in files if file.exists())
    return next(filter(None, said), "")[:MESSAGE_LIMIT]


def check(request: Json) -> None:
    """Raises ServiceError for an invalid request, and for one that this service does not support."""
    refuse_unsupported(request, SUPPORTED)
    if "ContainerEntrypoint" not in request["AppSpecification"]:
        raise invalid("AppSpecification.ContainerEntrypoint is needed on one machine")
    if "ClusterConfig" not in request["ProcessingResources"]:
        raise invalid("ProcessingResources.ClusterConfig is needed")
    if request.get("NetworkConfig", {}).get("EnableNetworkIsolation"):
        raise invalid("not supported on one machine: NetworkConfig.EnableNetworkIsolation")
    inputs = request.get("ProcessingInputs", [])
    outputs = request.get("ProcessingOutputConfig", {}).get("Outputs", [])
    for kind, named in (("InputName", inputs), ("OutputName", outputs)):
        given = [one[kind] for one in named]
        if len(given) != len(set(given)):
            raise invalid(f"each {kind} must be unique")
    for one in (*inputs, *outputs):
        place = one.get("S3Input") or one.get("S3Output")
        if not place or "LocalPath" not in place or one.get("AppManaged"):
            raise invalid("an input or output needs an S3Input or S3Output with a LocalPath on one machine")
        check_path(place["LocalPath"])
    for given in inputs:
        source = given["S3Input"]
        for member, allowed in {
            "S3DataType": ("S3Prefix", "ManifestFile"),
            "S3InputMode": ("File",),
            "S3CompressionType": ("None",),
        }.items():
            if source.get(member, allowed[0]) not in allowed:
                raise invalid(f"not supported on one machine: {member} {source[member]} of input {given['InputName']}")
