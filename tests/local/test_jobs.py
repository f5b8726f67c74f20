"""Training jobs of the local SageMaker: real processes under the container contract, asked with boto3."""

import io
import json
import os
import signal
import tarfile
import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, WaiterError

ROLE_MAY = {"Effect": "Allow", "Action": ["s3:*", "logs:*", "cloudwatch:PutMetricData"], "Resource": "*"}
RESOURCES = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
FAST = {"Delay": 1, "MaxAttempts": 60}
HEAD = """
import json, os, signal, sys, time
from pathlib import Path
root = Path(os.environ["SM_OPT_ML"])
"""


@pytest.fixture(scope="module")
def bucket(ours):
    ours.client("s3").create_bucket(Bucket="jobs")
    return "jobs"


@pytest.fixture(scope="module")
def job_role(ours, role):
    return role(ours, "job", "sagemaker.amazonaws.com", ROLE_MAY)


def training_request(stack, role_arn, name, script, bucket="jobs", **members):
    """A training job whose entry point is `script`, given through a channel of its own."""
    stack.client("s3").put_object(Bucket=bucket, Key=f"{name}/code/job.py", Body=(HEAD + script).encode())
    algorithm = {
        "TrainingImage": "training",
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["python", "/opt/ml/input/data/code/job.py"],
        **members.pop("AlgorithmSpecification", {}),
    }
    channels = [channel("code", f"s3://{bucket}/{name}/code/"), *members.pop("InputDataConfig", [])]
    return {
        "TrainingJobName": name,
        "RoleArn": role_arn,
        "AlgorithmSpecification": algorithm,
        "InputDataConfig": channels,
        "OutputDataConfig": {"S3OutputPath": f"s3://{bucket}/{name}/models"},
        "ResourceConfig": RESOURCES,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **members,
    }


def channel(name, uri, kind="S3Prefix", share="FullyReplicated"):
    source = {"S3DataType": kind, "S3Uri": uri, "S3DataDistributionType": share}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


@pytest.fixture
def train(ours, bucket, job_role):
    """Runs a training job to its end and describes it."""
    sagemaker = ours.client("sagemaker")

    def run(name, script, **members):
        sagemaker.create_training_job(**training_request(ours, job_role, name, script, **members))
        return ended(sagemaker, name)

    return run


def ended(sagemaker, name, seconds=60):
    return reached(sagemaker, name, lambda job: job["TrainingJobStatus"] in ("Completed", "Failed", "Stopped"), seconds)


def reached(sagemaker, name, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition(found := sagemaker.describe_training_job(TrainingJobName=name)):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def archive_of(stack, url):
    """The members of a tar.gz in S3, by name."""
    key = url.removeprefix("s3://jobs/")
    body = stack.client("s3").get_object(Bucket="jobs", Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as tar:
        return {member.name: tar.extractfile(member).read().decode() for member in tar.getmembers()}


def seen(found):
    return [one["Status"] for one in found["SecondaryStatusTransitions"]]


WHOLE = """
seen = {"files": {str(p.relative_to(root)): p.read_text() for p in root.rglob("*") if p.is_file() and p.suffix != ".py"},
        "variables": dict(os.environ), "cwd": os.getcwd(), "arguments": sys.argv[1:]}
(root / "model" / "weights").mkdir()
(root / "model" / "weights" / "seen.json").write_text(json.dumps(seen))
(root / "output" / "data" / "profile.txt").write_text("fast")
for loss in (3, 2.5, 2):
    print("epoch", "loss", loss, flush=True)
print("last line without an end", end="")
"""


def test_a_training_job_from_channels_to_archives(ours, train):
    s3, sagemaker = ours.client("s3"), ours.client("sagemaker")
    s3.put_object(Bucket="jobs", Key="whole/data/a/1.txt", Body=b"one")
    s3.put_object(Bucket="jobs", Key="whole/data/2.txt", Body=b"two")
    s3.put_object(Bucket="jobs", Key="whole/m.tar", Body=b"model")
    s3.put_object(Bucket="jobs", Key="whole/list", Body=json.dumps([{"prefix": "s3://jobs/whole/"}, "data/2.txt"]))
    found = train(
        "whole",
        WHOLE,
        HyperParameters={"epochs": "3"},
        Environment={"OWN": "1"},
        AlgorithmSpecification={
            "ContainerArguments": ["--folder", "/opt/ml/model"],
            "MetricDefinitions": [{"Name": "train:loss", "Regex": r"\bloss ([0-9.]+)"}],
        },
        InputDataConfig=[
            channel("data", "s3://jobs/whole/data/"),
            channel("Model", "s3://jobs/whole/m.tar"),
            channel("listed", "s3://jobs/whole/list", "ManifestFile"),
        ],
    )
    assert (found["TrainingJobStatus"], found["SecondaryStatus"]) == ("Completed", "Completed")
    assert seen(found) == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert all("EndTime" in one for one in found["SecondaryStatusTransitions"])
    assert found["CreationTime"] <= found["TrainingStartTime"] <= found["TrainingEndTime"]
    assert found["TrainingTimeInSeconds"] >= found["BillableTimeInSeconds"] >= 1
    assert [(one["MetricName"], one["Value"]) for one in found["FinalMetricDataList"]] == [("train:loss", 2.0)]
    path = found["ModelArtifacts"]["S3ModelArtifacts"]
    assert path == "s3://jobs/whole/models/whole/output/model.tar.gz"
    assert archive_of(ours, path.replace("model.tar.gz", "output.tar.gz")) == {"profile.txt": "fast"}
    inside = json.loads(archive_of(ours, path)["weights/seen.json"])
    root = inside["variables"]["SM_OPT_ML"]
    files = {name: json.loads(text) for name, text in inside["files"].items() if name.startswith("input/config")}
    assert {name: text for name, text in inside["files"].items() if name.startswith("input/data")} == {
        "input/data/data/a/1.txt": "one",
        "input/data/data/2.txt": "two",
        "input/data/Model/m.tar": "model",
        "input/data/listed/data/2.txt": "two",
    }
    assert files["input/config/hyperparameters.json"] == {"epochs": "3"}
    assert files["input/config/inputdataconfig.json"].keys() == {"code", "data", "Model", "listed"}
    hosts = files["input/config/resourceconfig.json"]
    assert (hosts["current_host"], hosts["hosts"]) == ("algo-1", ["algo-1"])
    assert inside["arguments"] == ["--folder", f"{root}/model"]
    assert Path(inside["cwd"]) == Path(__file__).parents[2]
    variables = inside["variables"]
    assert variables["OWN"] == "1"
    assert variables["SM_CHANNEL_MODEL"] == f"{root}/input/data/Model"
    assert json.loads(variables["SM_HPS"]) == {"epochs": "3"}
    assert variables["TRAINING_JOB_ARN"] == found["TrainingJobArn"]
    assert variables["AWS_ACCESS_KEY_ID"] != "test"
    assert not [name for name in variables if name.startswith(("BINTALLY", "MINISTACK", "GATEWAY"))]
    assert not Path(root).exists()
    assert_logged(ours, "whole", ["epoch loss 3", "epoch loss 2.5", "epoch loss 2", "last line without an end"])
    metrics = ours.client("cloudwatch").get_metric_statistics(
        Namespace="/aws/sagemaker/TrainingJobs",
        MetricName="train:loss",
        Dimensions=[{"Name": "TrainingJobName", "Value": "whole"}],
        StartTime=found["CreationTime"],
        EndTime=time.time() + 60,
        Period=3600,
        Statistics=["Minimum", "Maximum", "SampleCount"],
    )["Datapoints"]
    assert sum(point["SampleCount"] for point in metrics) == 3
    assert min(point["Minimum"] for point in metrics) == 2


def assert_logged(stack, job, lines, group="/aws/sagemaker/TrainingJobs", host="algo-1"):
    logs = stack.client("logs")
    (stream,) = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{job}/{host}-")["logStreams"]
    events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True)
    assert [event["message"] for event in events["events"]] == lines
