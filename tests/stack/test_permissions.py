"""Identity checks are on: the count function can do what its role allows and no more."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from bintally.releasing import candidate_logs
from bintally.releasing.endpoints import Endpoints
from bintally.retraining.clean_up import clean_up
from bintally.retraining.names import Names
from botocore.exceptions import ClientError

ROOT = Path(__file__).parents[2]


def role_of(user: Any) -> str:
    arn: str = user.functions.get_function_configuration(FunctionName=user.function)["Role"]
    return arn.rpartition("/")[2]


def without(document: dict[str, Any], action: str) -> dict[str, Any]:
    """The policy less one action."""
    statements = []
    for statement in document["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        if kept := [one for one in actions if one != action]:
            statements.append(statement | {"Action": kept})
    return document | {"Statement": statements}


@pytest.mark.parametrize(
    "action", ["s3:GetObjectVersion", "sagemaker:InvokeEndpoint", "dynamodb:PutItem", "dynamodb:UpdateItem"]
)
def test_one_permission_less_and_back(action: str, user: Any, photograph: Callable[..., bytes]) -> None:
    """Without it nothing is counted and nothing is lost; given back, the photograph is counted."""
    iam = user.stack.client("iam")
    role = role_of(user)
    (policy,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
    document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
    assert action in json.dumps(document)
    key = f"incoming/IAM1/{action.replace(':', '-')}/photo.jpg"
    iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(without(document, action)))
    try:
        before = len(user.postponed())
        user.upload(key, photograph(1))
        user.wait_postponed(before, "AccessDenied")
        assert user.counts(key) == []
        assert user.depth(user.queue) == 1
    finally:
        iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(document))
    (item,) = user.wait_counts(key)
    assert item["status"] == "COUNTED"
    user.wait_drained()
    assert user.depth(user.dead) == 0


@contextlib.contextmanager
def clients_of(user: Any, logical_id: str) -> Iterator[Callable[[str], Any]]:
    """Clients with a role's permissions, which only its service may assume otherwise."""
    iam, cloudformation = user.stack.client("iam"), user.stack.client("cloudformation")
    found = cloudformation.describe_stack_resource(StackName=user.stack.name, LogicalResourceId=logical_id)
    name = found["StackResourceDetail"]["PhysicalResourceId"]
    role = iam.get_role(RoleName=name)["Role"]
    trust = role["AssumeRolePolicyDocument"]
    anyone = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
    more = json.dumps(trust | {"Statement": [*trust["Statement"], anyone]})
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=more)
    try:
        keys = user.stack.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="test")["Credentials"]
        session: Any = boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], "us-east-1")
        yield lambda service: session.client(service, endpoint_url=user.stack.endpoint_url)
    finally:
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(trust))


@pytest.fixture
def job(user: Any) -> Iterator[Any]:
    """S3 as a job of SageMaker."""
    with clients_of(user, "JobRole") as client:
        yield client("s3")


def test_a_job_writes_the_files_of_runs(user: Any, job: Any) -> None:
    for key in ("retrain/261122-aaaaaa/x", "datasets/train/x", "checkpoints/261122-aaaaaa/x"):
        job.put_object(Bucket=user.outputs["ArtifactsBucket"], Key=key, Body=b"x")


def test_a_job_reads_the_live_package_and_cannot_write_it_nor_labels(user: Any, job: Any) -> None:
    bucket = user.outputs["ArtifactsBucket"]
    (live,) = user.s3.list_objects_v2(Bucket=bucket, Prefix="models/", MaxKeys=1)["Contents"]
    assert job.get_object(Bucket=bucket, Key=live["Key"])["ETag"] == live["ETag"]
    for key in (live["Key"], "models/new/model.tar.gz", "labels/2026/11/22/x.jsonl", "reports/x"):
        with pytest.raises(ClientError, match="AccessDenied"):
            job.put_object(Bucket=bucket, Key=key, Body=b"x")
    with pytest.raises(ClientError, match="AccessDenied"):
        job.delete_object(Bucket=bucket, Key=live["Key"])
    with pytest.raises(ClientError, match="AccessDenied"):
        job.put_object(Bucket=user.bucket, Key="incoming/IAM1/x/y.jpg", Body=b"x")


def test_a_runs_package_is_published_by_the_machines_own_state_and_role(user: Any) -> None:
    states, bucket = user.stack.client("stepfunctions"), user.outputs["ArtifactsBucket"]
    machine = states.describe_state_machine(stateMachineArn=user.outputs["RetrainStateMachine"])
    publish = json.loads(machine["definition"])["States"]["Publish"]
    failed = {"Type": "Fail", "Error": "{% $error %}", "Cause": "{% $reason %}"}
    written = "retrain/261122-aaaaaa/training/a-job/output/model.tar.gz"
    given = {"plan": {"model_version": "published"}, "model_data_url": f"s3://{bucket}/{written}"}
    done = {"Type": "Pass", "Output": "{% $model_data_url %}", "End": True}
    definition = {
        "QueryLanguage": "JSONata",
        "StartAt": "Begin",
        "States": {
            "Begin": {"Type": "Pass", "Assign": given, "Next": "Publish"},
            "Publish": publish | {"Next": "Done", "Retry": []},
            "Done": done,
            "Conclude": failed,
        },
    }
    user.s3.put_object(Bucket=bucket, Key=written, Body=b"package")
    arn = states.create_state_machine(name="publish", definition=json.dumps(definition), roleArn=machine["roleArn"])[
        "stateMachineArn"
    ]
    try:
        execution = states.start_execution(stateMachineArn=arn)["executionArn"]
        ended = user.wait_for(
            "the copy",
            lambda: (found := states.describe_execution(executionArn=execution))["status"] != "RUNNING" and found,
            30,
        )
        assert json.loads(ended.get("output", "null")) == f"s3://{bucket}/models/published/model.tar.gz", ended
        assert user.s3.get_object(Bucket=bucket, Key="models/published/model.tar.gz")["Body"].read() == b"package"
    finally:
        states.delete_state_machine(stateMachineArn=arn)
        for key in (written, "models/published/model.tar.gz"):
            user.s3.delete_object(Bucket=bucket, Key=key)


def test_candidates_logs_expire_and_no_others(user: Any) -> None:
    """With the function's own role."""
    logs = user.stack.client("logs")
    base = f"/aws/sagemaker/Endpoints/{user.stack.name}"
    candidate, other = f"{base}-candidate-0123abcd", f"{base}2-candidate-0123abcd"
    jobs = "/aws/sagemaker/TransformJobs"
    with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_group(logGroupName=jobs)
    stream, at = f"{user.stack.name}-261101-0123ab-champion/x", round((time.time() - 40 * 86_400) * 1000)
    logs.create_log_stream(logGroupName=jobs, logStreamName=stream)
    logs.put_log_events(logGroupName=jobs, logStreamName=stream, logEvents=[{"timestamp": at, "message": "answered"}])
    for name in (candidate, other):
        logs.create_log_group(logGroupName=name)
    try:
        event = (ROOT / "events/expire_logs.json").read_bytes()
        answer = json.load(
            user.functions.invoke(FunctionName=user.outputs["ExpireLogsFunction"], Payload=event)["Payload"]
        )
        assert answer.get("limited") and answer.get("streams") == 1, answer
        found = logs.describe_log_groups(logGroupNamePrefix=f"{base}-candidate-")["logGroups"]
        assert {group.get("retentionInDays") for group in found} == {30}
        (untouched,) = logs.describe_log_groups(logGroupNamePrefix=other)["logGroups"]
        assert "retentionInDays" not in untouched
    finally:
        for name in (candidate, other):
            logs.delete_log_group(logGroupName=name)


def test_the_role_cannot_write_photographs(user: Any) -> None:
    with clients_of(user, "CountRole") as client:
        s3 = client("s3")
        with pytest.raises(ClientError, match="AccessDenied"):
            s3.put_object(Bucket=user.bucket, Key="incoming/IAM1/x/y.jpg", Body=b"x")
        with pytest.raises(ClientError, match="AccessDenied"):
            s3.get_object(Bucket=user.outputs["ArtifactsBucket"], Key="models/x")


# Paths that a running stack takes after days, or after a stop in the wrong moment: the functions' own code, with their
# roles' permissions. What it does: tests/functions.


def test_old_logs_of_candidates_are_deleted(user: Any) -> None:
    logs = user.stack.client("logs")
    name = f"/aws/sagemaker/Endpoints/{user.stack.name}-candidate-4567cdef"
    logs.create_log_group(logGroupName=name)
    with clients_of(user, "ExpireLogsRole") as client:
        _, deleted = candidate_logs.expire(client("logs"), user.stack.name, 30, datetime.now(UTC) + timedelta(days=32))
    assert name in deleted
    assert logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"] == []


@pytest.mark.parametrize("role", ["PlanRole", "RemoveEndpointRole"])
def test_a_run_that_was_cut_off_is_cleaned_up_after(user: Any, role: str) -> None:
    """None of its jobs is left here, which SageMaker says of each."""
    with clients_of(user, role) as client:
        clean_up(client("sagemaker"), Names.of(user.stack.name, "261122-aaaaaa"))


def test_a_stack_that_is_deleted_stops_executions(user: Any) -> None:
    """That the first release has ended is its answer here: the tests of this stack have executions of their own."""
    with clients_of(user, "RemoveEndpointRole") as client:
        states, machine = client("stepfunctions"), user.outputs["ReleaseStateMachine"]
        ended = states.list_executions(stateMachineArn=machine, statusFilter="SUCCEEDED")["executions"]
        with pytest.raises(ClientError, match="not running"):
            states.stop_execution(executionArn=ended[-1]["executionArn"])


def test_the_parent_of_a_tuning_job_is_described(user: Any) -> None:
    with clients_of(user, "PlanRole") as client, pytest.raises(ClientError, match="ResourceNotFound"):
        client("sagemaker").describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=f"{user.stack.name}-gone")


def test_a_step_of_a_release_that_is_repeated_finds_what_it_made(user: Any) -> None:
    sagemaker = user.stack.client("sagemaker")
    live = sagemaker.describe_endpoint(EndpointName=user.outputs["EndpointName"])
    config = sagemaker.describe_endpoint_config(EndpointConfigName=live["EndpointConfigName"])
    (variant,) = config["ProductionVariants"]
    model = sagemaker.describe_model(ModelName=variant["ModelName"])
    with clients_of(user, "AdvanceRole") as client:
        endpoints = Endpoints(client("sagemaker"), user.stack.name)
        made = {name: model[name] for name in ("PrimaryContainer", "ExecutionRoleArn")}
        endpoints.create_model(model["ModelName"], made)
        endpoints.create_config(config["EndpointConfigName"], variant, {})
