"""Batch transform of the local SageMaker: real requests to a serving app, answers as SageMaker lays them out."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError, WaiterError

from local.stack import Local

FAST = {"Delay": 1, "MaxAttempts": 60}


@dataclass(frozen=True)
class Transform:
    """Runs a transform job over objects that are put for it, and describes its end."""

    request: Callable[..., dict[str, Any]]
    sagemaker: Any

    def __call__(self, name: str, objects: dict[str, bytes], **members: Any) -> Any:
        self.sagemaker.create_transform_job(**self.request(name, objects, **members))
        return ended(self.sagemaker, name)


@pytest.fixture(scope="module")
def transform(ours: Local, model: Callable[..., str]) -> Transform:
    s3, sagemaker = ours.client("s3"), ours.client("sagemaker")
    model(ours, "transform", "v1")
    may = {"Effect": "Allow", "Action": ["s3:*", "logs:*"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [may]})
    ours.client("iam").put_role_policy(RoleName="transform-model", PolicyName="jobs", PolicyDocument=policy)
    s3.create_bucket(Bucket="transform")

    def request(
        name: str,
        objects: dict[str, bytes],
        *,
        manifest: bool = False,
        count: int = 1,
        output: Iterable[tuple[str, Any]] = (),
        wanted: Iterable[tuple[str, Any]] = (),
        **members: Any,
    ) -> dict[str, Any]:
        for key, body in objects.items():
            s3.put_object(Bucket="transform", Key=f"{name}/in/{key}", Body=body)
        uri = f"s3://transform/{name}/in/"
        if manifest:
            s3.put_object(Bucket="transform", Key=f"{name}/list", Body=json.dumps([{"prefix": uri}, *objects]))
            uri = f"s3://transform/{name}/list"
        source = {"S3DataType": "ManifestFile" if manifest else "S3Prefix", "S3Uri": uri}
        return {
            "TransformJobName": name,
            "ModelName": "transform",
            "BatchStrategy": "SingleRecord",
            "TransformInput": {
                "DataSource": {"S3DataSource": source},
                "ContentType": "application/x-image",
                **dict(wanted),
            },
            "TransformOutput": {
                "S3OutputPath": f"s3://transform/{name}/out",
                "Accept": "application/json",
                **dict(output),
            },
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": count},
            **members,
        }

    return Transform(request, sagemaker)


def ended(sagemaker: Any, name: str) -> Any:
    deadline = time.monotonic() + 60
    while (found := sagemaker.describe_transform_job(TransformJobName=name))["TransformJobStatus"] in (
        "InProgress",
        "Stopping",
    ):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def answers(stack: Local, name: str) -> dict[str, bytes]:
    s3 = stack.client("s3")
    listed = s3.list_objects_v2(Bucket="transform", Prefix=f"{name}/out/").get("Contents", [])
    return {
        item["Key"].removeprefix(f"{name}/out/"): s3.get_object(Bucket="transform", Key=item["Key"])["Body"].read()
        for item in listed
    }


def test_every_object_gets_an_answer_beside_its_name(ours: Local, transform: Transform) -> None:
    objects = {"a/1.jpg": b"one", "a/2.jpg": b"two", "3.jpg": b"three"}
    found = transform("prefix", objects)
    assert found["TransformJobStatus"] == "Completed"
    assert found["CreationTime"] <= found["TransformStartTime"] <= found["TransformEndTime"]
    made = answers(ours, "prefix")
    assert made.keys() == {f"{key}.out" for key in objects}
    answer = json.loads(made["3.jpg.out"])
    assert (answer["model_version"], answer["type"]) == ("v1", "application/x-image")
    assert "SAGEMAKER_BATCH" in answer["variables"]
    waiter = ours.client("sagemaker").get_waiter("transform_job_completed_or_stopped")
    waiter.wait(TransformJobName="prefix", WaiterConfig=FAST)
    assert not list((ours.home / "jobs" / "transform-job").glob("prefix*"))


def test_a_manifest_is_answered_and_instances_share_it(ours: Local, transform: Transform) -> None:
    objects = {f"deep/{number}.png": b"x" for number in range(5)}
    found = transform("manifest", objects, manifest=True, count=2, output={"AssembleWith": "Line"})
    assert found["TransformJobStatus"] == "Completed"
    made = answers(ours, "manifest")
    assert made.keys() == {f"{key}.out" for key in objects}
    assert all(body.endswith(b"\n") for body in made.values())
    assert len({json.loads(body)["pid"] for body in made.values()}) == 2


def test_as_many_at_once_as_asked(ours: Local, transform: Transform) -> None:
    slow = {str(number): b"slow" for number in range(4)}  # each takes the app one second

    def seconds(name: str, **members: Any) -> float:
        found = transform(name, slow, **members)
        assert found["TransformJobStatus"] == "Completed"
        objects = ours.client("s3").list_objects_v2(Bucket="transform", Prefix=f"{name}/out/")["Contents"]
        moments: list[float] = [one["LastModified"].timestamp() for one in objects]
        return max(moments) - min(moments)

    assert seconds("in-turn") >= 2
    assert seconds("at-once", MaxConcurrentTransforms=4) <= 1


def test_a_photograph_that_is_refused_fails_the_job_but_not_the_others(ours: Local, transform: Transform) -> None:
    found = transform("refused", {"1.jpg": b"fine", "2.jpg": b"415", "3.jpg": b"fine"})
    assert found["TransformJobStatus"] == "Failed"
    assert found["FailureReason"] == "ClientError: See job logs for more information"
    assert answers(ours, "refused").keys() == {"1.jpg.out", "3.jpg.out"}
    logs = ours.client("logs")
    group = {"logGroupName": "/aws/sagemaker/TransformJobs"}
    streams = logs.describe_log_streams(**group, logStreamNamePrefix="refused/algo-1-")["logStreams"]
    (data_log,) = (one["logStreamName"] for one in streams if one["logStreamName"].endswith("/data-log"))
    (event,) = logs.get_log_events(**group, logStreamName=data_log)["events"]
    assert event["message"].startswith("transform/refused/in/2.jpg: Bad HTTP status received from algorithm: 415")
    with pytest.raises(WaiterError):
        ours.client("sagemaker").get_waiter("transform_job_completed_or_stopped").wait(
            TransformJobName="refused", WaiterConfig=FAST
        )


def test_what_may_go_well_the_next_time_is_tried_again(ours: Local, transform: Transform) -> None:
    # The app dies of this body, and of every next try, once it has been started again; the other body outlasts that.
    often = {"InvocationsMaxRetries": 3, "InvocationsTimeoutInSeconds": 5}
    found = transform("dies", {"1": b"die", "2": b"fine"}, ModelClientConfig=often)
    assert found["TransformJobStatus"] == "Failed"
    assert "2.out" in answers(ours, "dies")
    once = {**often, "InvocationsMaxRetries": 1}
    started = time.monotonic()
    assert transform("busy", {"1": b"503"}, ModelClientConfig=once)["TransformJobStatus"] == "Failed"
    assert time.monotonic() - started > 1
    late = {"InvocationsMaxRetries": 0, "InvocationsTimeoutInSeconds": 1}
    assert transform("late", {"1": b"slower"}, ModelClientConfig=late)["TransformJobStatus"] == "Failed"


def test_an_object_above_the_largest_payload_is_refused(ours: Local, transform: Transform) -> None:
    found = transform("large", {"1": bytes(1024 * 1024 + 1), "2": bytes(1024 * 1024)}, MaxPayloadInMB=1)
    assert found["TransformJobStatus"] == "Failed"
    assert answers(ours, "large").keys() == {"2.out"}


def test_a_job_that_is_stopped_answers_no_more(ours: Local, transform: Transform) -> None:
    sagemaker = ours.client("sagemaker")
    sagemaker.create_transform_job(**transform.request("stopped", {f"{number:02}": b"slow" for number in range(30)}))
    deadline = time.monotonic() + 30
    while not answers(ours, "stopped"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    sagemaker.stop_transform_job(TransformJobName="stopped")
    assert ended(sagemaker, "stopped")["TransformJobStatus"] == "Stopped"
    assert len(answers(ours, "stopped")) < 15


def test_a_model_that_does_not_load_fails_the_job(ours: Local, transform: Transform, model: Callable[..., str]) -> None:
    model(ours, "transform-broken", "broken")
    may = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [may]})
    ours.client("iam").put_role_policy(RoleName="transform-broken-model", PolicyName="jobs", PolicyDocument=policy)
    found = transform("broken", {"1": b"x"}, ModelName="transform-broken")
    assert found["TransformJobStatus"] == "Failed"
    assert "the model does not load" in found["FailureReason"]


def test_requests_that_cannot_be_are_refused(ours: Local, transform: Transform) -> None:
    sagemaker = ours.client("sagemaker")
    for changed, said in (
        ({"ModelName": "no-such-model"}, "Could not find model"),
        ({"wanted": {"SplitType": "Line"}}, "SplitType Line"),
        ({"wanted": {"CompressionType": "Gzip"}}, "CompressionType Gzip"),
        ({"DataProcessing": {"JoinSource": "Input"}}, "JoinSource Input"),
        ({"output": {"KmsKeyId": "key"}}, "TransformOutput.KmsKeyId"),
    ):
        with pytest.raises(ClientError, match=rf"\(ValidationException\)(?s:.)*{said}"):
            sagemaker.create_transform_job(**transform.request("cannot-be", {"1": b"x"}, **changed))
    transform("taken", {"1": b"x"})
    with pytest.raises(ClientError, match=r"\(ResourceInUse\).*already exists \(arn:.*:transform-job/taken\)"):
        sagemaker.create_transform_job(**transform.request("taken", {"1": b"x"}))
    for ask in (sagemaker.describe_transform_job, sagemaker.stop_transform_job):
        with pytest.raises(ClientError, match=r"\(ValidationException\).*Could not find requested job with name"):
            ask(TransformJobName="nothing")
    pages = sagemaker.get_paginator("list_transform_jobs").paginate(PaginationConfig={"PageSize": 1})
    assert "taken" in [one["TransformJobName"] for page in pages for one in page["TransformJobSummaries"]]
