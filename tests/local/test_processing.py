"""Processing jobs of the local SageMaker: real processes, their inputs and outputs at local paths."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, WaiterError

from local.stack import Local

ROLE_MAY = {"Effect": "Allow", "Action": ["s3:*", "logs:*"], "Resource": "*"}
CLUSTER = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
FAST = {"Delay": 1, "MaxAttempts": 60}
HEAD = """
import json, os, signal, sys, time
from pathlib import Path
root = Path(os.environ["SM_OPT_ML"])
out = root / "processing" / "output"
"""


@dataclass(frozen=True)
class Processing:
    """Starts a processing job whose entry point is a script, and waits for its end."""

    request: Callable[..., dict[str, Any]]
    sagemaker: Any

    def __call__(self, name: str, script: str, **members: Any) -> Any:
        self.sagemaker.create_processing_job(**self.request(name, script, **members))
        return ended(self.sagemaker, name)


@pytest.fixture(scope="module")
def process(ours: Local, role: Callable[..., str]) -> Processing:
    s3, sagemaker = ours.client("s3"), ours.client("sagemaker")
    s3.create_bucket(Bucket="processing")
    arn = role(ours, "processing-job", "sagemaker.amazonaws.com", ROLE_MAY)

    def request(
        name: str,
        script: str,
        *,
        inputs: Iterable[dict[str, Any]] = (),
        uploaded: str = "EndOfJob",
        count: int = 1,
        **members: Any,
    ) -> dict[str, Any]:
        s3.put_object(Bucket="processing", Key=f"{name}/code/job.py", Body=(HEAD + script).encode())
        code = given("code", f"s3://processing/{name}/code/job.py", "/opt/ml/processing/input/code")
        output = {"S3Uri": f"s3://processing/{name}/out", "LocalPath": "/opt/ml/processing/output"}
        return {
            "ProcessingJobName": name,
            "RoleArn": arn,
            "AppSpecification": {
                "ImageUri": "training",
                "ContainerEntrypoint": ["python3", "/opt/ml/processing/input/code/job.py"],
                "ContainerArguments": ["--name", name],
            },
            "ProcessingInputs": [code, *inputs],
            "ProcessingOutputConfig": {
                "Outputs": [{"OutputName": "out", "S3Output": {**output, "S3UploadMode": uploaded}}]
            },
            "ProcessingResources": {"ClusterConfig": {**CLUSTER, "InstanceCount": count}},
            **members,
        }

    return Processing(request, sagemaker)


def given(name: str, uri: str, path: str, kind: str = "S3Prefix", share: str = "FullyReplicated") -> dict[str, Any]:
    source = {"S3Uri": uri, "LocalPath": path, "S3DataType": kind, "S3InputMode": "File"}
    return {"InputName": name, "S3Input": {**source, "S3DataDistributionType": share}}


def ended(sagemaker: Any, name: str) -> Any:
    deadline = time.monotonic() + 60
    while (found := sagemaker.describe_processing_job(ProcessingJobName=name))["ProcessingJobStatus"] in (
        "InProgress",
        "Stopping",
    ):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def outputs(stack: Local, name: str) -> dict[str, bytes]:
    s3 = stack.client("s3")
    listed = s3.list_objects_v2(Bucket="processing", Prefix=f"{name}/out/").get("Contents", [])
    return {
        item["Key"].removeprefix(f"{name}/out/"): s3.get_object(Bucket="processing", Key=item["Key"])["Body"].read()
        for item in listed
    }


def test_a_processing_job_from_inputs_to_outputs(ours: Local, process: Processing) -> None:
    s3 = ours.client("s3")
    s3.put_object(Bucket="processing", Key="whole/data/a/1.txt", Body=b"one")
    s3.put_object(Bucket="processing", Key="whole/list", Body=b'[{"prefix": "s3://processing/whole/"}, "data/a/1.txt"]')
    found = process(
        "whole",
        """
config = json.loads((root / "config" / "processingjobconfig.json").read_text())
hosts = json.loads((root / "config" / "resourceconfig.json").read_text())
seen = {"config": config, "hosts": hosts, "arguments": sys.argv[1:], "variables": dict(os.environ),
        "files": sorted(str(path.relative_to(root)) for path in root.rglob("*.txt"))}
(out / "deep").mkdir()
(out / "deep" / "seen.json").write_text(json.dumps(seen))
(root / "output" / "message").write_text("all is well")
print("processed")
""",
        inputs=[
            given("data", "s3://processing/whole/data", "/opt/ml/processing/input/data"),
            given("listed", "s3://processing/whole/list", "/opt/ml/processing/input/listed", "ManifestFile"),
        ],
        Environment={"OWN": "1"},
    )
    assert found["ProcessingJobStatus"] == "Completed"
    assert found["ExitMessage"] == "all is well"
    assert found["CreationTime"] <= found["ProcessingStartTime"] <= found["ProcessingEndTime"]
    seen = json.loads(outputs(ours, "whole")["deep/seen.json"])
    assert seen["arguments"] == ["--name", "whole"]
    assert seen["files"] == ["processing/input/data/a/1.txt", "processing/input/listed/data/a/1.txt"]
    assert (seen["hosts"]["current_host"], seen["hosts"]["hosts"]) == ("algo-1", ["algo-1"])
    assert seen["config"]["ProcessingJobArn"] == found["ProcessingJobArn"]
    assert seen["config"]["ProcessingInputs"][1]["InputName"] == "data"
    assert seen["variables"]["OWN"] == "1"
    assert seen["variables"]["AWS_ACCESS_KEY_ID"] != "test"
    assert not Path(seen["variables"]["SM_OPT_ML"]).exists()
    logs = ours.client("logs")
    group = {"logGroupName": "/aws/sagemaker/ProcessingJobs"}
    (stream,) = logs.describe_log_streams(**group, logStreamNamePrefix="whole/algo-1-")["logStreams"]
    events = logs.get_log_events(**group, logStreamName=stream["logStreamName"])["events"]
    assert [event["message"] for event in events] == ["processed"]


def test_hosts_share_the_objects_and_all_their_outputs_are_kept(ours: Local, process: Processing) -> None:
    for number in range(3):
        ours.client("s3").put_object(Bucket="processing", Key=f"hosts/data/{number}", Body=b"x")
    script = """
host = json.loads((root / "config" / "resourceconfig.json").read_text())["current_host"]
(out / host).write_text(" ".join(sorted(path.name for path in (root / "processing/input/data").iterdir())))
"""
    data = given("data", "s3://processing/hosts/data/", "/opt/ml/processing/input/data", share="ShardedByS3Key")
    assert process("hosts", script, inputs=[data], count=2)["ProcessingJobStatus"] == "Completed"
    assert outputs(ours, "hosts") == {"algo-1": b"0 2", "algo-2": b"1"}


def test_a_job_that_fails_says_why_and_uploads_nothing(ours: Local, process: Processing) -> None:
    failed = process(
        "fails", "(out / 'half').write_text('x'); (root / 'output' / 'message').write_text('all bad'); sys.exit(1)"
    )
    assert (failed["ProcessingJobStatus"], failed["FailureReason"]) == ("Failed", "AlgorithmError: , exit code: 1")
    assert failed["ExitMessage"] == "all bad"
    assert outputs(ours, "fails") == {}
    sagemaker = ours.client("sagemaker")
    with pytest.raises(WaiterError):
        sagemaker.get_waiter("processing_job_completed_or_stopped").wait(ProcessingJobName="fails", WaiterConfig=FAST)
    missing = process("lacks", "", inputs=[given("data", "s3://processing/no/", "/opt/ml/processing/input/data")])
    assert "No S3 objects found under S3 URL" in missing["FailureReason"]


def test_a_continuous_output_is_there_before_the_end_and_after_a_stop(ours: Local, process: Processing) -> None:
    sagemaker = ours.client("sagemaker")
    script = "(out / 'first').write_text('1'); time.sleep(300)"
    sagemaker.create_processing_job(**process.request("goes-on", script, uploaded="Continuous"))
    deadline = time.monotonic() + 30
    while outputs(ours, "goes-on") != {"first": b"1"}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert sagemaker.describe_processing_job(ProcessingJobName="goes-on")["ProcessingJobStatus"] == "InProgress"
    sagemaker.stop_processing_job(ProcessingJobName="goes-on")
    sagemaker.get_waiter("processing_job_completed_or_stopped").wait(ProcessingJobName="goes-on", WaiterConfig=FAST)
    assert ended(sagemaker, "goes-on")["ProcessingJobStatus"] == "Stopped"
    with pytest.raises(ClientError, match="processing job is in status Stopped"):
        sagemaker.stop_processing_job(ProcessingJobName="goes-on")


def test_a_job_runs_no_longer_than_it_may(process: Processing) -> None:
    found = process("limited", "time.sleep(300)", StoppingCondition={"MaxRuntimeInSeconds": 1})
    assert found["ProcessingJobStatus"] == "Stopped"


def test_requests_that_cannot_be_are_refused(ours: Local, process: Processing) -> None:
    sagemaker = ours.client("sagemaker")
    data = given("data", "s3://processing/x", "/opt/ml/processing/x")
    vpc = {"VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}}
    piped = {**data, "S3Input": {**data["S3Input"], "S3InputMode": "Pipe"}}
    redshift = {
        "LocalPath": "/opt/ml/processing/r",
        "RedshiftDatasetDefinition": {
            "ClusterId": "c",
            "Database": "d",
            "DbUser": "u",
            "QueryString": "q",
            "ClusterRoleArn": "arn:aws:iam::000000000000:role/r",
            "OutputS3Uri": "s3://b/k",
            "OutputFormat": "CSV",
        },
    }
    for changed, said in (
        ({"NetworkConfig": vpc}, "not supported on one machine: NetworkConfig.VpcConfig"),
        ({"NetworkConfig": {"EnableNetworkIsolation": True}}, "one machine: NetworkConfig.EnableNetworkIsolation"),
        ({"inputs": [piped]}, "S3InputMode Pipe of input data"),
        ({"inputs": [data, data]}, "each InputName must be unique"),
        ({"inputs": [given("data", "s3://processing/x", "/home/x")]}, "not below /opt/ml"),
        ({"inputs": [{"InputName": "r", "DatasetDefinition": redshift}]}, "ProcessingInputs.DatasetDefinition"),
        ({"AppSpecification": {"ImageUri": "x"}}, "ContainerEntrypoint is needed"),
    ):
        with pytest.raises(ClientError, match=rf"\(ValidationException\)(?s:.)*{said}"):
            sagemaker.create_processing_job(**process.request("refused", "", **changed))
    process("taken", "")
    with pytest.raises(ClientError, match=r"\(ResourceInUse\).*already exists \(arn:.*:processing-job/taken\)"):
        sagemaker.create_processing_job(**process.request("taken", ""))
    for ask in (sagemaker.describe_processing_job, sagemaker.stop_processing_job):
        with pytest.raises(ClientError, match=r"\(ValidationException\).*Could not find requested job with name"):
            ask(ProcessingJobName="nothing")
    pages = sagemaker.get_paginator("list_processing_jobs").paginate(PaginationConfig={"PageSize": 1})
    assert "taken" in [one["ProcessingJobName"] for page in pages for one in page["ProcessingJobSummaries"]]
