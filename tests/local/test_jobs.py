"""Training jobs of the local SageMaker: real processes under the container contract, asked with boto3."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, WaiterError

from local import processes
from local.stack import Local
from localsagemaker import channels, container

ROLE_MAY = (
    {"Effect": "Allow", "Action": ["s3:*", "logs:*"], "Resource": "*"},
    {
        **{"Effect": "Allow", "Action": "cloudwatch:PutMetricData", "Resource": "*"},  # as the template's JobRole
        "Condition": {"StringEquals": {"cloudwatch:namespace": ["/aws/sagemaker/TrainingJobs"]}},
    },
)
RESOURCES = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
FAST = {"Delay": 1, "MaxAttempts": 60}
HEAD = """
import json, os, signal, sys, time
from pathlib import Path
root = Path(os.environ["SM_OPT_ML"])
"""


@pytest.fixture(scope="module")
def bucket(ours: Local) -> str:
    ours.client("s3").create_bucket(Bucket="jobs")
    return "jobs"


@pytest.fixture(scope="module")
def job_role(ours: Local, role: Callable[..., str]) -> str:
    return role(ours, "job", "sagemaker.amazonaws.com", *ROLE_MAY)


def training_request(
    stack: Local, role_arn: str, name: str, script: str, bucket: str = "jobs", **members: Any
) -> dict[str, Any]:
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


def channel(name: str, uri: str, kind: str = "S3Prefix", share: str = "FullyReplicated") -> dict[str, Any]:
    source = {"S3DataType": kind, "S3Uri": uri, "S3DataDistributionType": share}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


@pytest.fixture
def train(ours: Local, bucket: str, job_role: str) -> Callable[..., Any]:
    """Runs a training job to its end and describes it."""
    sagemaker = ours.client("sagemaker")

    def run(name: str, script: str, **members: Any) -> Any:
        sagemaker.create_training_job(**training_request(ours, job_role, name, script, **members))
        return ended(sagemaker, name)

    return run


def ended(sagemaker: Any, name: str, seconds: float = 60) -> Any:
    return reached(sagemaker, name, lambda job: job["TrainingJobStatus"] in ("Completed", "Failed", "Stopped"), seconds)


def reached(sagemaker: Any, name: str, condition: Callable[[Any], object], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not condition(found := sagemaker.describe_training_job(TrainingJobName=name)):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def archive_of(stack: Local, url: str) -> dict[str, str]:
    """The members of a tar.gz in S3, by name."""
    key = url.removeprefix("s3://jobs/")
    body = stack.client("s3").get_object(Bucket="jobs", Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as tar:
        files = {member.name: tar.extractfile(member) for member in tar.getmembers()}
        return {name: file.read().decode() for name, file in files.items() if file}


def seen(found: dict[str, Any]) -> list[str]:
    return [one["Status"] for one in found["SecondaryStatusTransitions"]]


WHOLE = """
files = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".py"]
seen = {"files": {str(path.relative_to(root)): path.read_text() for path in files},
        "variables": dict(os.environ), "cwd": os.getcwd(), "arguments": sys.argv[1:]}
(root / "model" / "weights").mkdir()
(root / "model" / "weights" / "seen.json").write_text(json.dumps(seen))
(root / "output" / "data" / "profile.txt").write_text("fast")
for loss in (3, 2.5, 2):
    print("epoch", "loss", loss, flush=True)
print("last line without an end", end="")
"""


def test_a_training_job_from_channels_to_archives(ours: Local, train: Callable[..., Any]) -> None:
    s3 = ours.client("s3")
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
    leaked = {name for name in variables if name.startswith(("BINTALLY", "MINISTACK", "GATEWAY"))}
    assert leaked == {"BINTALLY_REQUIRE_GPU"}  # that the local service gives every job
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


def assert_logged(
    stack: Local, job: str, lines: list[str], group: str = "/aws/sagemaker/TrainingJobs", host: str = "algo-1"
) -> None:
    logs = stack.client("logs")
    (stream,) = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{job}/{host}-")["logStreams"]
    events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True)
    assert [event["message"] for event in events["events"]] == lines


def test_a_job_that_fails_says_why(ours: Local, train: Callable[..., Any]) -> None:
    failed = train(
        "fails",
        """
(root / "output" / "failure").write_text("the photographs are all black")
(root / "output" / "data" / "trace.txt").write_text("where")
sys.exit(3)
""",
    )
    assert (failed["TrainingJobStatus"], failed["SecondaryStatus"]) == ("Failed", "Failed")
    assert failed["FailureReason"] == "AlgorithmError: the photographs are all black"
    output = "s3://jobs/fails/models/fails/output/output.tar.gz"
    assert archive_of(ours, output) == {"trace.txt": "where"}
    silent = train("fails-silently", "print('last words'); sys.exit(3)")
    assert silent["FailureReason"] == "AlgorithmError: last words, exit code: 3"
    killed = train("killed", "os.kill(os.getpid(), signal.SIGKILL)")
    assert killed["FailureReason"] == "AlgorithmError: the process was killed, exit code: 137"
    with pytest.raises(WaiterError):
        ours.client("sagemaker").get_waiter("training_job_completed_or_stopped").wait(
            TrainingJobName="fails", WaiterConfig=FAST
        )


def test_what_is_missing_or_not_allowed_fails_the_job_and_names_it(
    ours: Local, train: Callable[..., Any], role: Callable[..., str], bucket: str
) -> None:
    ours.client("s3").put_object(Bucket=bucket, Key="no-list", Body=b'{"prefix": "s3://jobs/"}')
    for name, given, said in (
        ("missing-1", channel("data", "s3://jobs/nothing/"), "No S3 objects found"),
        ("missing-2", channel("data", "s3://no-such-bucket/x"), "Could not read the S3 URL"),
        ("missing-3", channel("data", "s3://jobs/no-list", "ManifestFile"), "not a JSON list"),
    ):
        found = train(name, "", InputDataConfig=[given])
        assert found["TrainingJobStatus"] == "Failed"
        assert found["FailureReason"].startswith("ClientError: Data download failed:")
        assert said in found["FailureReason"]
    for name, service, said in (
        ("poor-1", "lambda.amazonaws.com", "SageMaker may not assume the role"),
        ("poor-2", "sagemaker.amazonaws.com", "AccessDenied"),
    ):
        found = train(name, "", RoleArn=role(ours, name, service))
        assert found["TrainingJobStatus"] == "Failed"
        assert said in found["FailureReason"]


def test_a_role_that_may_not_write_logs_costs_the_logs_alone(
    ours: Local, train: Callable[..., Any], role: Callable[..., str]
) -> None:
    arn = role(
        ours, "unlogged", "sagemaker.amazonaws.com", {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::*"}
    )
    definitions = {"MetricDefinitions": [{"Name": "n", "Regex": "n=([0-9]+)"}]}
    found = train("unlogged", "print('n=3')", RoleArn=arn, AlgorithmSpecification=definitions)
    assert found["TrainingJobStatus"] == "Completed"
    assert found["FinalMetricDataList"][0]["Value"] == 3


STOPPABLE = """
def end(*_):
    (root / "model" / "half.txt").write_text("half of it")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("started", flush=True)
while True:
    time.sleep(0.05)
"""


def start(stack: Local, role_arn: str, name: str, script: str, until: str = "Training", **members: Any) -> Any:
    """A training job that has got as far as `until`, and said a first word where that is Training."""
    sagemaker = stack.client("sagemaker")
    definitions = {"MetricDefinitions": [{"Name": "started", "Regex": "starte(d)"}, {"Name": "at", "Regex": "at (.+)"}]}
    request = training_request(stack, role_arn, name, script, AlgorithmSpecification=definitions, **members)
    sagemaker.create_training_job(**request)
    file = stack.home / "jobs" / "training-job" / name / "algo-1.log"
    reached(sagemaker, name, lambda found: found["SecondaryStatus"] == until and file.exists() and file.read_text())
    return sagemaker


def test_a_job_that_is_stopped_keeps_what_it_saved_in_time(ours: Local, bucket: str, job_role: str) -> None:
    sagemaker = start(ours, job_role, "stopped", STOPPABLE)
    sagemaker.stop_training_job(TrainingJobName="stopped")
    assert sagemaker.describe_training_job(TrainingJobName="stopped")["TrainingJobStatus"] in ("Stopping", "Stopped")
    waiter = sagemaker.get_waiter("training_job_completed_or_stopped")
    waiter.wait(TrainingJobName="stopped", WaiterConfig=FAST)
    found = sagemaker.describe_training_job(TrainingJobName="stopped")
    assert (found["TrainingJobStatus"], found["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert seen(found)[-3:] == ["Training", "Stopping", "Stopped"]
    assert archive_of(ours, found["ModelArtifacts"]["S3ModelArtifacts"]) == {"half.txt": "half of it"}
    with pytest.raises(ClientError, match=r"\(ValidationException\).*training job is in status Stopped"):
        sagemaker.stop_training_job(TrainingJobName="stopped")


def test_a_job_runs_no_longer_than_it_may(ours: Local, train: Callable[..., Any]) -> None:
    found = train("limited", STOPPABLE, StoppingCondition={"MaxRuntimeInSeconds": 5})
    assert (found["TrainingJobStatus"], found["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert "FailureReason" not in found
    assert archive_of(ours, found["ModelArtifacts"]["S3ModelArtifacts"]) == {"half.txt": "half of it"}


SPOT = """
folder = Path(os.environ["SM_CHECKPOINT_DIR"])
done = int((folder / "step").read_text()) if (folder / "step").exists() else 0
print(f"at {done}", flush=True)
while done < 60:
    time.sleep(0.1)
    done += 1
    (folder / "step.new").write_text(str(done))
    (folder / "step.new").rename(folder / "step")
(root / "model" / "steps").write_text(str(done))
"""


def test_a_spot_job_that_is_interrupted_goes_on_from_its_checkpoint(ours: Local, bucket: str, job_role: str) -> None:
    spot: dict[str, Any] = {
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 120},
        "CheckpointConfig": {"S3Uri": "s3://jobs/spot/checkpoints/"},
    }
    sagemaker = start(ours, job_role, "spot", SPOT, **spot)
    s3 = ours.client("s3")
    deadline = time.monotonic() + 30
    while not s3.list_objects_v2(Bucket=bucket, Prefix="spot/checkpoints/step").get("Contents"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # Checkpoints come to S3 while the job runs, so the kill finds one there.
    os.kill(int((ours.home / "jobs" / "training-job" / "spot" / "algo-1.pid").read_text()), signal.SIGKILL)
    found = ended(sagemaker, "spot")
    assert found["TrainingJobStatus"] == "Completed"
    once = ["Starting", "Downloading", "Training"]
    assert seen(found) == [*once, "Interrupted", *once, "Uploading", "Completed"]
    begun_at = [one["Value"] for one in found["FinalMetricDataList"] if one["MetricName"] == "at"]
    assert begun_at[0] > 5
    assert archive_of(ours, found["ModelArtifacts"]["S3ModelArtifacts"]) == {"steps": "60"}
    assert s3.get_object(Bucket=bucket, Key="spot/checkpoints/step")["Body"].read() == b"60"
    assert 6 <= found["BillableTimeInSeconds"] <= found["TrainingTimeInSeconds"] + 1


def test_several_hosts_share_a_job(ours: Local, train: Callable[..., Any]) -> None:
    s3 = ours.client("s3")
    for number in range(5):
        s3.put_object(Bucket="jobs", Key=f"hosts/data/{number}", Body=b"x")
    script = """
files = sorted(p.name for p in (root / "input" / "data" / "shard").iterdir())
config = json.loads((root / "input" / "config" / "resourceconfig.json").read_text())
name = config["current_host"]
(root / "model" / name).write_text(json.dumps([config["hosts"], files, os.environ["SM_MASTER_PORT"]]))
(root / "model" / "same").write_text(name)
print(name)
"""
    found = train(
        "hosts",
        script,
        ResourceConfig={**RESOURCES, "InstanceCount": 2},
        InputDataConfig=[channel("shard", "s3://jobs/hosts/data/", share="ShardedByS3Key")],
    )
    assert found["TrainingJobStatus"] == "Completed"
    model = archive_of(ours, found["ModelArtifacts"]["S3ModelArtifacts"])
    assert model.pop("same") == "algo-1"
    one, two = json.loads(model["algo-1"]), json.loads(model["algo-2"])
    assert (one[0], one[2]) == (two[0], two[2])
    assert (one[1], two[1]) == (["0", "2", "4"], ["1", "3"])
    assert_logged(ours, "hosts", ["algo-2"], host="algo-2")
    failed = train(
        "hosts-fail",
        "sys.exit('enough') if os.environ['SM_CURRENT_HOST'] == 'algo-2' else time.sleep(300)",
        ResourceConfig={**RESOURCES, "InstanceCount": 2},
    )
    assert failed["FailureReason"] == "AlgorithmError: enough, exit code: 1"


def test_requests_that_cannot_be_are_refused(
    ours: Local, bucket: str, job_role: str, train: Callable[..., Any]
) -> None:
    sagemaker = ours.client("sagemaker")
    spot = {"EnableManagedSpotTraining": True}
    pipe = {"TrainingInputMode": "Pipe"}
    for changed, said in (
        (spot, "Invalid MaxWaitTimeInSeconds"),
        (
            {"StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 90}},
            "Invalid MaxWaitTimeInSeconds",
        ),
        (
            {**spot, "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 30}},
            "greater than or equal",
        ),
        (
            {"VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}},
            "not supported on one machine: VpcConf",
        ),
        ({"ResourceConfig": {**RESOURCES, "VolumeKmsKeyId": "k"}}, "one machine: ResourceConfig.VolumeKmsKeyId"),
        ({"AlgorithmSpecification": pipe}, "TrainingInputMode Pipe"),
        ({"AlgorithmSpecification": {"MetricDefinitions": [{"Name": "n", "Regex": "("}]}}, "metric n is invalid"),
        ({"AlgorithmSpecification": {"MetricDefinitions": [{"Name": "n", "Regex": "x"}]}}, "must have one group"),
        ({"CheckpointConfig": {"S3Uri": "s3://jobs/x", "LocalPath": "/tmp/x"}}, "not below /opt/ml"),
        ({"CheckpointConfig": {"S3Uri": "s3://jobs/x", "LocalPath": "/opt/ml/../x"}}, "not below /opt/ml"),
        ({"InputDataConfig": [channel("code", "s3://jobs/x")]}, "must be unique"),
        ({"TrainingJobName": "under_score"}, "regular expression"),
    ):
        request = training_request(ours, job_role, "refused", "", **changed)
        with pytest.raises(ClientError, match=rf"\(ValidationException\)(?s:.)*{said}"):
            sagemaker.create_training_job(**request)
    train("taken", "")
    with pytest.raises(ClientError, match=r"\(ResourceInUse\).*already exists \(arn:.*:training-job/taken\)"):
        sagemaker.create_training_job(**training_request(ours, job_role, "taken", ""))
    for ask in (sagemaker.describe_training_job, sagemaker.stop_training_job):
        with pytest.raises(ClientError, match=r"\(ValidationException\).*Requested resource not found\."):
            ask(TrainingJobName="nothing")
    with pytest.raises(WaiterError):
        sagemaker.get_waiter("training_job_completed_or_stopped").wait(TrainingJobName="nothing", WaiterConfig=FAST)


def test_lists_are_filtered_sorted_and_paged(ours: Local, train: Callable[..., Any]) -> None:
    names = [f"ordered-{number}" for number in (2, 0, 1)]
    for name in names:
        train(name, "sys.exit(name := 1)" if name == "ordered-0" else "")
    sagemaker = ours.client("sagemaker")
    pages = sagemaker.get_paginator("list_training_jobs").paginate(
        NameContains="ORDERED-", PaginationConfig={"PageSize": 2}
    )
    found = [[one["TrainingJobName"] for one in page["TrainingJobSummaries"]] for page in pages]
    assert found == [["ordered-1", "ordered-0"], ["ordered-2"]]
    failed = sagemaker.list_training_jobs(NameContains="ordered-", StatusEquals="Failed")["TrainingJobSummaries"]
    assert [one["TrainingJobName"] for one in failed] == ["ordered-0"]
    assert failed[0]["SecondaryStatus"] == "Failed"
    by = {"NameContains": "ordered-", "SortBy": "Name", "SortOrder": "Ascending"}
    ordered = sagemaker.list_training_jobs(**by)["TrainingJobSummaries"]
    assert [one["TrainingJobName"] for one in ordered] == sorted(names)
    later = sagemaker.list_training_jobs(CreationTimeAfter=ordered[0]["CreationTime"], **by)["TrainingJobSummaries"]
    assert [one["TrainingJobName"] for one in later] == ["ordered-1"]


def test_roles_need_permission_on_the_job(
    ours: Local, train: Callable[..., Any], role: Callable[..., str], as_role: Callable[..., Any]
) -> None:
    train("guarded", "")
    arn = "arn:aws:sagemaker:us-east-1:000000000000:training-job/guarded"
    looks = {"Effect": "Allow", "Action": "sagemaker:DescribeTrainingJob", "Resource": arn}
    sagemaker = as_role(ours, role(ours, "looks-at-jobs", None, looks), "sagemaker")
    assert sagemaker.describe_training_job(TrainingJobName="guarded")["TrainingJobArn"] == arn
    for ask, arguments in (
        (sagemaker.describe_training_job, {"TrainingJobName": "another"}),
        (sagemaker.stop_training_job, {"TrainingJobName": "guarded"}),
        (sagemaker.list_training_jobs, {}),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            ask(**arguments)


def test_without_the_training_environment_a_job_says_how_to_make_it(
    own: Local, role: Callable[..., str], tmp_path: Path
) -> None:
    own = dataclasses.replace(own, variables={"BINTALLY_TRAINING_PYTHON": str(tmp_path / "python")})
    own.start_emulator()
    own.client("s3").create_bucket(Bucket="jobs")
    arn = role(own, "job", "sagemaker.amazonaws.com", *ROLE_MAY)
    sagemaker = own.client("sagemaker")
    sagemaker.create_training_job(**training_request(own, arn, "poor", ""))
    assert "make train-venv" in ended(sagemaker, "poor")["FailureReason"]


def test_jobs_of_before_a_stop_are_told_as_ended_and_leave_no_process(own: Local, role: Callable[..., str]) -> None:
    own.start_emulator()
    own.client("s3").create_bucket(Bucket="jobs")
    arn = role(own, "job", "sagemaker.amazonaws.com", *ROLE_MAY)
    script = """
import subprocess
child = subprocess.Popen(["sleep", "300"])
print("at", child.pid, flush=True)
time.sleep(300)
"""
    sagemaker = start(own, arn, "cut", script)
    own_pid = int((own.home / "jobs" / "training-job" / "cut" / "algo-1.pid").read_text())
    log = (own.home / "jobs" / "training-job" / "cut" / "algo-1.log").read_text()
    assert own.down()
    for pid in (own_pid, int(log.split()[1])):
        assert not processes.command_line(pid)  # gone, or a zombie that init has not reaped yet
    own.start_emulator()
    found = ended(sagemaker, "cut")
    assert (found["TrainingJobStatus"], found["SecondaryStatus"]) == ("Failed", "Failed")
    assert found["FailureReason"] == "The job was interrupted by a stop of the local stack."
    with pytest.raises(ClientError, match="ResourceInUse"):
        sagemaker.create_training_job(**training_request(own, arn, "cut", ""))


def test_every_change_of_a_job_is_an_event(ours: Local, train: Callable[..., Any]) -> None:
    sqs, events = ours.client("sqs"), ours.client("events")
    queue = sqs.create_queue(QueueName="job-events")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allow = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [{**allow, "Resource": arn}]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": document})
    pattern = {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Training Job State Change"],
        "detail": {"TrainingJobName": ["told"]},
    }
    events.put_rule(Name="job-events", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="job-events", Targets=[{"Id": "queue", "Arn": arn}])
    found = train("told", "sys.exit('all black')", Tags=[{"Key": "run", "Value": "7"}])
    told: list[dict[str, Any]] = []
    while not told or told[-1]["detail"]["TrainingJobStatus"] == "InProgress":
        for message in sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5)["Messages"]:
            told.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    order = ["Starting", "Downloading", "Training", "Failed"]
    assert sorted((event["detail"]["SecondaryStatus"] for event in told), key=order.index) == order
    (last,) = (event for event in told if event["detail"]["TrainingJobStatus"] == "Failed")
    assert last["resources"] == [found["TrainingJobArn"]]
    assert last["detail"]["FailureReason"] == "AlgorithmError: all black, exit code: 1"
    assert last["detail"]["CreationTime"] == round(found["CreationTime"].timestamp() * 1000)
    assert last["detail"]["Tags"] == {"run": "7"}


def test_a_process_that_does_not_heed_sigterm_is_killed_with_all_that_it_started() -> None:
    script = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]).pid, flush=True)
time.sleep(300)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, process_group=0)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    started = time.monotonic()
    container.end([process], grace_seconds=0.5)
    assert 0.5 <= time.monotonic() - started < 5
    assert process.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_objects_path_below_an_inputs_folder(ours: Local, bucket: str) -> None:
    s3 = ours.client("s3")
    for key in ("paths/a/1.txt", "paths/a/b/2.txt", "paths/ab.txt", "paths/a/"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")

    def paths(uri: str) -> list[str]:
        return [one.path for one in channels.find(s3, {"S3Uri": f"s3://{bucket}/{uri}"})]

    assert paths("paths/a/") == ["1.txt", "b/2.txt"]
    assert paths("paths/a/1.txt") == ["1.txt"]
    assert paths("paths/a") == ["1.txt", "b/2.txt", "ab.txt"]
    s3.put_object(Bucket=bucket, Key="climbs/x/../../y", Body=b"x")
    with pytest.raises(channels.BadInput, match="no path below"):
        paths("climbs/")
