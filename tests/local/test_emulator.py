"""Every gap of ministack that local/emulator.py closes: there without us, closed with us. When a test of the first
kind fails, upstream has closed the gap and our function for it can go."""

import json
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.stack import Local

BOTH = pytest.mark.parametrize("which", ["bare", "ours"])


@pytest.fixture
def stack(which: str, request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(which)


def event_of_upload(stack: Local, versioned: bool) -> tuple[Any, str | None]:
    """The event that EventBridge delivers for an upload, and the upload's version."""
    name = "events-versioned" if versioned else "events-plain"
    s3, sqs, events = stack.client("s3"), stack.client("sqs"), stack.client("events")
    s3.create_bucket(Bucket=name)
    if versioned:
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration={"EventBridgeConfiguration": {}})
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allow = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [{**allow, "Resource": arn}]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": document})
    pattern = {"source": ["aws.s3"], "detail": {"bucket": {"name": [name]}}}
    events.put_rule(Name=name, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn}])
    put = s3.put_object(Bucket=name, Key="incoming/a b+c.jpg", Body=b"x")
    messages = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5)["Messages"]
    return json.loads(messages[0]["Body"]), put.get("VersionId")


@BOTH
def test_events_of_a_versioned_bucket_carry_the_version(stack: Local, which: str) -> None:
    event, version = event_of_upload(stack, versioned=True)
    assert version
    assert event["detail"]["object"]["key"] == "incoming/a b+c.jpg"
    assert event["detail"]["object"].get("version-id") == (version if which == "ours" else None)


def test_events_of_a_plain_bucket_carry_no_version(ours: Local) -> None:
    event, _ = event_of_upload(ours, versioned=False)
    assert "version-id" not in event["detail"]["object"]


@BOTH
def test_versions_of_keys_that_xml_cannot_contain_are_listed(stack: Local, which: str) -> None:
    s3 = stack.client("s3", retries={"total_max_attempts": 1})
    s3.create_bucket(Bucket="odd-keys")
    s3.put_bucket_versioning(Bucket="odd-keys", VersioningConfiguration={"Status": "Enabled"})
    keys = sorted(f"incoming/S/A/{name}.jpg" for name in ("\x01", "&lt; <b>", "%41+ü", "\r\n"))
    for key in keys:
        s3.put_object(Bucket="odd-keys", Key=key, Body=b"x")
    pages = s3.get_paginator("list_object_versions").paginate(
        Bucket="odd-keys", Prefix="incoming/", PaginationConfig={"PageSize": 1}
    )
    if which == "ours":
        assert [version["Key"] for page in pages for version in page["Versions"]] == keys
    else:
        with pytest.raises(ClientError):
            list(pages)


@BOTH
def test_a_policy_that_demands_tls_lets_roles_in_over_loopback(
    stack: Local, which: str, role: Callable[..., str], as_role: Callable[..., Any], policy: Callable[..., str]
) -> None:
    s3 = stack.client("s3")
    s3.create_bucket(Bucket="tls-only")
    s3.put_object(Bucket="tls-only", Key="open", Body=b"x")
    resource = ["arn:aws:s3:::tls-only", "arn:aws:s3:::tls-only/*"]
    insecure = {"Bool": {"aws:SecureTransport": "false"}}
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": resource, "Condition": insecure}
    s3.put_bucket_policy(Bucket="tls-only", Policy=policy(deny))
    open_only = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::tls-only/open"}
    reader = as_role(stack, role(stack, "tls-reader", None, open_only), "s3")
    if which == "ours":
        assert reader.get_object(Bucket="tls-only", Key="open")["Body"].read() == b"x"
    else:
        with pytest.raises(ClientError, match="AccessDenied"):
            reader.get_object(Bucket="tls-only", Key="open")
    with pytest.raises(ClientError, match="AccessDenied"):
        reader.get_object(Bucket="tls-only", Key="closed")


@BOTH
def test_whoever_may_send_a_message_may_send_ten(
    stack: Local, which: str, role: Callable[..., str], as_role: Callable[..., Any]
) -> None:
    queue = stack.client("sqs").create_queue(QueueName="batches")["QueueUrl"]
    actions = ["sqs:SendMessage", "sqs:ReceiveMessage"]
    allow = {"Effect": "Allow", "Action": actions, "Resource": "arn:aws:sqs:us-east-1:000000000000:batches"}
    sqs = as_role(stack, role(stack, "sender", None, allow), "sqs")
    entries = [{"Id": str(number), "MessageBody": "x"} for number in range(10)]
    if which == "ours":
        assert len(sqs.send_message_batch(QueueUrl=queue, Entries=entries)["Successful"]) == 10
    else:
        with pytest.raises(ClientError, match="AccessDenied"):
            sqs.send_message_batch(QueueUrl=queue, Entries=entries)
    received = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages", [])
    delete = [{"Id": "0", "ReceiptHandle": received[0]["ReceiptHandle"] if received else "none"}]
    with pytest.raises(ClientError, match="AccessDenied"):
        sqs.delete_message_batch(QueueUrl=queue, Entries=delete)


@BOTH
def test_metrics_of_one_namespace(
    stack: Local, which: str, role: Callable[..., str], as_role: Callable[..., Any]
) -> None:
    own = {"StringEquals": {"cloudwatch:namespace": ["/aws/sagemaker/TrainingJobs"]}}
    allow = {"Effect": "Allow", "Action": "cloudwatch:PutMetricData", "Resource": "*", "Condition": own}
    cloudwatch = as_role(stack, role(stack, "metrics", None, allow), "cloudwatch")
    data = [{"MetricName": "train:loss", "Value": 0.5}]
    if which == "ours":
        cloudwatch.put_metric_data(Namespace="/aws/sagemaker/TrainingJobs", MetricData=data)
    else:
        with pytest.raises(ClientError, match="AccessDenied"):
            cloudwatch.put_metric_data(Namespace="/aws/sagemaker/TrainingJobs", MetricData=data)
    with pytest.raises(ClientError, match="AccessDenied"):
        cloudwatch.put_metric_data(Namespace="AWS/Lambda", MetricData=data)


@BOTH
def test_log_streams_that_a_role_may_delete(
    stack: Local, which: str, role: Callable[..., str], as_role: Callable[..., Any]
) -> None:
    stack.client("logs").create_log_group(logGroupName="jobs")
    for name in ("mine-1", "yours-1"):
        stack.client("logs").create_log_stream(logGroupName="jobs", logStreamName=name)
    own = "arn:aws:logs:*:*:log-group:jobs:log-stream:mine-*"
    allow = {"Effect": "Allow", "Action": "logs:DeleteLogStream", "Resource": own}
    logs = as_role(stack, role(stack, "streams", None, allow), "logs")
    if which == "ours":
        logs.delete_log_stream(logGroupName="jobs", logStreamName="mine-1")
    else:
        with pytest.raises(ClientError, match="AccessDenied"):
            logs.delete_log_stream(logGroupName="jobs", logStreamName="mine-1")
    with pytest.raises(ClientError, match="AccessDenied"):
        logs.delete_log_stream(logGroupName="jobs", logStreamName="yours-1")


@BOTH
def test_cloudformation_makes_model_package_groups(stack: Local, which: str) -> None:
    cloudformation, sagemaker = stack.client("cloudformation"), stack.client("sagemaker")
    properties = {"ModelPackageGroupName": "made-by-a-stack", "ModelPackageGroupDescription": "described"}
    group = {"Type": "AWS::SageMaker::ModelPackageGroup", "Properties": properties}
    template = {"Resources": {"Group": group}, "Outputs": {"Group": {"Value": {"Ref": "Group"}}}}
    if which == "bare":
        with pytest.raises(ClientError, match="Unrecognized resource types"):
            cloudformation.create_stack(StackName="groups", TemplateBody=json.dumps(template))
        return
    cloudformation.create_stack(StackName="groups", TemplateBody=json.dumps(template))
    cloudformation.get_waiter("stack_create_complete").wait(StackName="groups", WaiterConfig={"Delay": 1})
    found = sagemaker.describe_model_package_group(ModelPackageGroupName="made-by-a-stack")
    assert found["ModelPackageGroupDescription"] == "described"
    (output,) = cloudformation.describe_stacks(StackName="groups")["Stacks"][0]["Outputs"]
    assert output["OutputValue"] == found["ModelPackageGroupArn"]
    cloudformation.delete_stack(StackName="groups")
    cloudformation.get_waiter("stack_delete_complete").wait(StackName="groups", WaiterConfig={"Delay": 1})
    assert sagemaker.list_model_package_groups(NameContains="made-by-a-stack")["ModelPackageGroupSummaryList"] == []


@BOTH
def test_there_is_a_sagemaker(stack: Local, which: str) -> None:
    sagemaker = stack.client("sagemaker", retries={"total_max_attempts": 1})
    if which == "ours":
        assert isinstance(sagemaker.list_endpoints()["Endpoints"], list)
    else:
        with pytest.raises(ClientError):
            sagemaker.list_endpoints()


def run(stack: Local, name: str, role_arn: str, resource: str, arguments: dict[str, Any]) -> Any:
    """The end of an execution of one task."""
    states = stack.client("stepfunctions")
    task = {"Type": "Task", "Resource": resource, "Parameters": arguments, "End": True}
    definition = json.dumps({"StartAt": "Do", "States": {"Do": task}})
    machine = states.create_state_machine(name=name, definition=definition, roleArn=role_arn)["stateMachineArn"]
    execution = states.start_execution(stateMachineArn=machine)["executionArn"]
    while (found := states.describe_execution(executionArn=execution))["status"] == "RUNNING":
        time.sleep(0.05)
    return found


TASKS: dict[str, tuple[str, dict[str, Any], str]] = {
    "sdk": ("arn:aws:states:::aws-sdk:dynamodb:describeTable", {"TableName": "jobs"}, "dynamodb:DescribeTable"),
    "plain": (
        "arn:aws:states:::dynamodb:putItem",
        {"TableName": "jobs", "Item": {"id": {"S": "1"}}},
        "dynamodb:PutItem",
    ),
}


@BOTH
@pytest.mark.parametrize("kind", TASKS)
def test_a_state_machine_may_do_only_what_its_role_may(
    stack: Local, which: str, kind: str, role: Callable[..., str]
) -> None:
    resource, arguments, action = TASKS[kind]
    dynamodb = stack.client("dynamodb")
    if "jobs" not in dynamodb.list_tables()["TableNames"]:
        dynamodb.create_table(
            TableName="jobs",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        )
    table = "arn:aws:dynamodb:us-east-1:000000000000:table/jobs"
    allowed = {"Effect": "Allow", "Action": action, "Resource": table}
    other = {**allowed, "Resource": f"{table}-of-another"}
    may = role(stack, f"states-{kind}-may", "states.amazonaws.com", allowed)
    may_not = role(stack, f"states-{kind}-may-not", "states.amazonaws.com", other)
    assert run(stack, f"{kind}-may", may, resource, arguments)["status"] == "SUCCEEDED"
    refused = run(stack, f"{kind}-may-not", may_not, resource, arguments)
    assert refused["status"] == ("FAILED" if which == "ours" else "SUCCEEDED")
    if which == "ours":
        assert "AccessDenied" in refused["error"]
        assert action in refused["cause"]


def test_a_state_machine_needs_to_be_allowed_to_pass_the_role_of_a_model(ours: Local, role: Callable[..., str]) -> None:
    create = {"Effect": "Allow", "Action": "sagemaker:CreateModel", "Resource": "*"}
    model_role = role(ours, "passed", "sagemaker.amazonaws.com")
    arguments = {
        "ModelName": "passed",
        "PrimaryContainer": {"Image": "serving", "ModelDataUrl": "s3://nowhere/model.tar.gz"},
        "ExecutionRoleArn": model_role,
    }
    resource = "arn:aws:states:::aws-sdk:sagemaker:createModel"
    may_not = role(ours, "states-pass-not", "states.amazonaws.com", create)
    refused = run(ours, "pass-not", may_not, resource, arguments)
    assert refused["error"] == "SageMaker.AccessDeniedException"
    assert "iam:PassRole" in refused["cause"]
    to_sagemaker = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    pass_role = {"Effect": "Allow", "Action": "iam:PassRole", "Resource": model_role, "Condition": to_sagemaker}
    may = role(ours, "states-pass", "states.amazonaws.com", create, pass_role)
    asked = run(ours, "pass", may, resource, arguments)
    assert asked["error"] == "SageMaker.SageMakerException"
    assert "Could not access model data" in asked["cause"]


def test_a_state_machine_needs_to_be_allowed_to_look_at_the_alarms_of_an_update(
    ours: Local, role: Callable[..., str]
) -> None:
    update = {"Effect": "Allow", "Action": "sagemaker:UpdateEndpoint", "Resource": "*"}
    alarm = "arn:aws:cloudwatch:us-east-1:000000000000:alarm:watched"
    look = {"Effect": "Allow", "Action": "cloudwatch:DescribeAlarms", "Resource": alarm}
    rollback = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "watched"}]}}
    request = {"EndpointName": "nothing", "EndpointConfigName": "nothing", "DeploymentConfig": rollback}
    task = ("arn:aws:states:::aws-sdk:sagemaker:updateEndpoint", request)
    refused = run(ours, "look-not", role(ours, "states-look-not", "states.amazonaws.com", update), *task)
    assert refused["error"] == "SageMaker.AccessDeniedException"
    assert "cloudwatch:DescribeAlarms" in refused["cause"]
    asked = run(ours, "look", role(ours, "states-look", "states.amazonaws.com", update, look), *task)
    assert "Could not find endpoint" in asked["cause"]


def test_a_state_machine_needs_to_be_allowed_to_invoke_a_function(ours: Local, role: Callable[..., str]) -> None:
    function = "arn:aws:lambda:us-east-1:000000000000:function:nothing"
    invoke = {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": function}
    task = ("arn:aws:states:::lambda:invoke", {"FunctionName": function, "Payload": {}})
    refused = run(ours, "invoke-not", role(ours, "states-invoke-not", "states.amazonaws.com"), *task)
    assert refused["error"] == "Lambda.AccessDeniedException"
    allowed = run(ours, "invoke", role(ours, "states-invoke", "states.amazonaws.com", invoke), *task)
    assert allowed["error"] == "Lambda.ResourceNotFoundException"


def test_only_loopback_is_bound(ours: Local) -> None:
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = "0A"
    bound = [local for _, local, _, state, *_ in sockets if state == listening and local.endswith(f":{ours.port:04X}")]
    assert bound == [f"0100007F:{ours.port:04X}"]


CONCURRENCY = """
Parameters: {Concurrency: {Type: Number, Default: 2}}
Resources:
  Queue: {Type: AWS::SQS::Queue}
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Statement: [{Effect: Allow, Principal: {Service: lambda.amazonaws.com}, Action: sts:AssumeRole}]
      Policies:
        - PolicyName: own
          PolicyDocument: {Statement: [{Effect: Allow, Action: "sqs:*", Resource: !GetAtt Queue.Arn}]}
  Function:
    Type: AWS::Lambda::Function
    Properties:
      Runtime: python3.13
      Handler: index.handler
      Role: !GetAtt Role.Arn
      Code: {ZipFile: "def handler(event, context): return {}"}
  Mapping:
    Type: AWS::Lambda::EventSourceMapping
    Properties:
      EventSourceArn: !GetAtt Queue.Arn
      FunctionName: !Ref Function
      ScalingConfig: {MaximumConcurrency: !Ref Concurrency}
Outputs: {Queue: {Value: !Ref Queue}}
"""


@BOTH
def test_a_concurrency_that_a_parameter_gives_is_a_number(stack: Local, which: str) -> None:
    cloudformation, sqs = stack.client("cloudformation"), stack.client("sqs")
    cloudformation.create_stack(
        StackName="concurrency", TemplateBody=CONCURRENCY, Capabilities=["CAPABILITY_NAMED_IAM", "CAPABILITY_IAM"]
    )
    try:
        cloudformation.get_waiter("stack_create_complete").wait(StackName="concurrency", WaiterConfig={"Delay": 1})
        (output,) = cloudformation.describe_stacks(StackName="concurrency")["Stacks"][0]["Outputs"]
        queue = output["OutputValue"]
        sqs.send_message(QueueUrl=queue, MessageBody="x")
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]

        def waiting() -> int:
            found = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
            return sum(int(found[name]) for name in names)

        deadline = time.monotonic() + (5 if which == "bare" else 60)
        while waiting() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert waiting() == (1 if which == "bare" else 0)
    finally:
        cloudformation.delete_stack(StackName="concurrency")
        cloudformation.get_waiter("stack_delete_complete").wait(StackName="concurrency", WaiterConfig={"Delay": 1})


SESSIONS = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from local import emulator
from ministack.services import sts
if sys.argv[1] == "ours":
    emulator.close_gaps()
sys.setswitchinterval(1e-6)
def register(number):
    sts.register_session(f"ASIA{number}", {"Expiration": time.time() + 60})
with ThreadPoolExecutor(4) as pool:
    list(pool.map(register, range(4000)))
print(len(sts._sessions))
"""


@BOTH
def test_threads_may_assume_roles_at_once(
    which: str, inside: Callable[[str, str], subprocess.CompletedProcess[str]]
) -> None:
    ran = inside(SESSIONS, which)
    if which == "bare":
        assert "dictionary changed size during iteration" in ran.stderr
    else:
        assert (ran.returncode, ran.stdout) == (0, "4000\n"), ran.stderr


SAVE = """
from ministack import app
streams = {"one": 1}
def copied():
    for name in streams:
        streams["added"] = 1
app.save_all({"logs": copied})
"""


@pytest.mark.upstream
def test_ministack_loses_what_changes_while_it_saves(
    inside: Callable[[str, str], subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Here a child process saves, in which nothing changes: tests/local/test_saving.py."""
    ran = inside(SAVE, "bare")
    assert "error getting state for logs: dictionary changed size during iteration" in ran.stderr + ran.stdout
    assert not (tmp_path / "logs.json").exists()


STORE = """
import asyncio, os, shutil, sys
from pathlib import Path
os.environ["S3_PERSIST"] = "1"
from local.storing import store_before_acknowledging
from ministack.services import s3
if sys.argv[1] == "ours":
    store_before_acknowledging(lambda: 0)
def ask(method, path, body=b""):
    return asyncio.run(s3.handle_request(method, path, {}, body, {}))[0]
ask("PUT", "/bucket")
ask("PUT", "/bucket/kept", b"kept")
folder = Path(s3.DATA_DIR, s3.get_account_id(), "bucket")
folder.rename(folder.with_name("away"))
folder.write_bytes(b"no folder")  # no object can be written
answers = [ask("PUT", "/bucket/new", b"lost"), ask("PUT", "/bucket/kept", b"lost")]
folder.unlink()
folder.with_name("away").rename(folder)
print(*answers, ask("GET", "/bucket/new"), asyncio.run(s3.handle_request("GET", "/bucket/kept", {}, b"", {}))[2])
"""


@BOTH
def test_an_object_that_is_not_stored_is_not_acknowledged(
    which: str, inside: Callable[[str, str], subprocess.CompletedProcess[str]]
) -> None:
    ran = inside(STORE, which)
    assert ran.returncode == 0, ran.stderr
    told = ran.stdout.splitlines()[-1]
    if which == "bare":
        assert told.startswith("200 200")
    else:
        assert told.startswith("500 500 ")
        assert told.endswith(" 404 b'kept'")


TURNS = """
import asyncio, os, threading
os.environ["S3_PERSIST"] = "1"
from local import storing
from ministack.services import s3
storing.store_before_acknowledging(lambda: 0)
wakes, sync, broken = threading.Event(), storing.sync, []
def slowly(path):
    assert wakes.wait(30)
    if "first" in str(path) and broken:
        raise OSError(28, broken.pop())
    sync(path)
async def ask(method, path, body=b"", **query):
    return await s3.handle_request(method, path, {}, body, query)
async def main():
    await ask("PUT", "/bucket")
    await ask("PUT", "/bucket/kept", b"kept")
    storing.sync = slowly
    broken.append("no space")
    tasks = [asyncio.ensure_future(each) for each in (
        ask("PUT", "/bucket/first", b"lost"), ask("PUT", "/bucket/first", b"second"), ask("PUT", "/bucket/third", b"3"),
        ask("DELETE", "/bucket/first"), ask("PUT", "/bucket/first", b"last"), ask("DELETE", "/bucket"),
    )]
    done, _ = await asyncio.wait(tasks, timeout=0.3)
    kept = await ask("GET", "/bucket/kept")
    print(len(done), kept[2])
    wakes.set()
    answers = [answer[0] for answer in await asyncio.gather(*tasks)]
    print(*answers, *[(await ask("GET", f"/bucket/{key}"))[2] for key in ("first", "third")])
asyncio.run(main())
"""


def test_while_an_object_is_written_only_its_own_key_waits(
    inside: Callable[[str, str], subprocess.CompletedProcess[str]],
) -> None:
    """In the order of arrival; a bucket waits for all of its keys. What could not be written leaves nothing behind."""
    ran = inside(TURNS, "ours")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-2:] == ["0 b'kept'", "500 200 200 204 200 409 b'last' b'3'"]


SEVERAL = """
import asyncio, os, re
from pathlib import Path
os.environ["S3_PERSIST"] = "1"
from local import storing
from ministack.services import s3
storing.store_before_acknowledging(lambda: 0)
sync, broken = storing.sync, []
def now_and_then(path):
    if broken:
        raise OSError(28, broken.pop())
    sync(path)
storing.sync = now_and_then
async def ask(method, path, body=b"", **query):
    return await s3.handle_request(method, path, {}, body, {name: [value] for name, value in query.items()})
async def main():
    await ask("PUT", "/bucket")
    upload = re.search(rb"<UploadId>(.*?)<", (await ask("POST", "/bucket/parts", uploads=""))[2])[1].decode()
    etag = (await ask("PUT", "/bucket/parts", b"whole", partNumber="1", uploadId=upload))[1]["ETag"]
    part = f"<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>"
    listed = f"<CompleteMultipartUpload>{part}</CompleteMultipartUpload>"
    broken.append("no space")
    print(*[(await ask("POST", "/bucket/parts", listed.encode(), uploadId=upload))[0] for _ in range(2)])
    both = await asyncio.gather(ask("PUT", "/bucket/a", b"file"), ask("PUT", "/bucket/a/b", b"below"))
    print(*[each[0] for each in both])
    root = 'VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    on = f"<{root}><Status>Enabled</Status></VersioningConfiguration>"
    await ask("PUT", "/bucket", on.encode(), versioning="")
    versions = [(await ask("PUT", "/bucket/twice", body))[1]["x-amz-version-id"] for body in (b"1", b"2")]
    objects = "".join(f"<Object><Key>twice</Key><VersionId>{each}</VersionId></Object>" for each in reversed(versions))
    print((await ask("POST", "/bucket", f"<Delete>{objects}</Delete>".encode(), delete=""))[0])
    for name in ("parts", "a", "a/b", "twice"):
        print(name, (await ask("GET", f"/bucket/{name}"))[2][:5])
    names = [path.name for path in Path(s3.DATA_DIR).rglob("*")]
    print([name for name in names if name.endswith(".tmp") or name.startswith("twice")])
asyncio.run(main())
"""


def test_requests_that_write_several_files_store_all_or_say_so(
    inside: Callable[[str, str], subprocess.CompletedProcess[str]],
) -> None:
    """A multipart upload that failed is completed by its retry; a key may be the folder of another; no file is left of
    an object of which all versions are deleted at once."""
    ran = inside(SEVERAL, "ours")
    assert ran.returncode == 0, ran.stderr
    assert [line for line in ran.stdout.splitlines() if " INFO " not in line] == [
        "500 200",
        "200 200",
        "200",
        "parts b'whole'",
        "a b'file'",
        "a/b b'below'",
        "twice b'<?xml'",
        "[]",
    ]


DELETED = """
import asyncio, os
os.environ["S3_PERSIST"] = "1"
from local.storing import store_before_acknowledging
from ministack.services import s3
room = [0]
store_before_acknowledging(lambda: room[0])
def ask(method, path, body=b"", **query):
    return asyncio.run(s3.handle_request(method, path, {}, body, {name: [value] for name, value in query.items()}))
ask("PUT", "/bucket")
root = 'VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
ask("PUT", "/bucket", f"<{root}><Status>Enabled</Status></VersioningConfiguration>".encode(), versioning="")
for body in (b"one", b"two"):
    newest = ask("PUT", "/bucket/key", body)[1]["x-amz-version-id"]
room[0] = 1 << 60
print(*[ask("DELETE", "/bucket/key", versionId=newest)[0] for _ in range(2)], ask("GET", "/bucket/key")[2])
room[0] = 0
print(ask("DELETE", "/bucket/key", versionId=newest)[0], ask("GET", "/bucket/key")[2])
ask("PUT", "/bucket/new", b"whole")
from pathlib import Path
replace, renamed = Path.replace, []
def crash(self, to):
    if renamed:
        raise SystemExit
    renamed.append(replace(self, to))
Path.replace = crash
for path in ("/bucket/new", "/bucket/newer"):
    renamed.clear()
    try:
        ask("PUT", path, b"other")
    except SystemExit:
        pass
"""
AGAIN = """
import asyncio, os
os.environ["S3_PERSIST"] = "1"
from ministack.services import s3
def ask(method, path, **query):
    return asyncio.run(s3.handle_request(method, path, {}, b"", {name: [value] for name, value in query.items()}))
print(ask("GET", "/bucket/key")[2], ask("GET", "/bucket/newer")[0])
versions = [each["version_id"] for each in s3._object_versions[("bucket", "new")]]
print(ask("GET", "/bucket/new", versionId=versions[0])[2])
"""


def test_a_version_whose_deletion_failed_is_there_until_it_succeeds(
    inside: Callable[[str, str], subprocess.CompletedProcess[str]],
) -> None:
    """Also after a start, at which a version that a crash left half written is not in the place of an older one."""
    ran = inside(DELETED, "ours")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-2:] == ["500 500 b'two'", "204 b'one'"]
    ran = inside(AGAIN, "ours")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-2:] == ["b'one' 404", "b'whole'"]


BUSY = """
import io, os, tempfile, threading, time, zipfile
from pathlib import Path
from local import emulator
from ministack.core import lambda_runtime
from ministack.services import lambda_svc
emulator.START_SECONDS = 1
emulator.let_running_functions_finish()
def function(name, text):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("index.py", text)
    config = {"FunctionName": name, "Runtime": "python3.11", "Handler": "index.handler", "Timeout": 1}
    arn = f"arn:aws:lambda:us-east-1:000000000000:function:{name}"
    return {"config": config | {"FunctionArn": arn, "Version": "$LATEST", "Role": ""}, "code_zip": buffer.getvalue()}
def start(function, number):
    calls = [lambda: lambda_svc._execute_function_warm(function, {}, "id") for _ in range(number)]
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    return threads
began = Path(tempfile.gettempdir(), "began")
hung = start(function("hung", f"import pathlib, time; pathlib.Path({str(began)!r}).touch(); time.sleep(3600)"), 1)
broken = start(function("broken", "import time, os; time.sleep(os.getpid() % 3 / 4); import missing"), 3)
while not began.exists():
    time.sleep(0.1)
lambda_runtime.invalidate_worker("hung")
for thread in hung + broken:
    thread.join(30)
    print(thread.is_alive())
deadline = time.time() + 30
while (left := list(began.parent.glob("ministack-lambda-*"))) and time.time() < deadline:
    time.sleep(0.1)
print(left)
os._exit(0)
"""


def test_processes_of_functions_that_do_not_start_end_with_an_update(
    inside: Callable[[str, str], subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    ran = inside(BUSY, "ours")
    assert ran.stdout.splitlines()[-5:] == [*["False"] * 4, "[]"], ran.stderr


@BOTH
def test_functions_of_the_same_code_share_one_copy(
    stack: Local, which: str, function_role: Callable[..., str], code_of: Callable[[str], bytes]
) -> None:
    functions, role = stack.client("lambda"), function_role(stack, "copies")
    code = code_of("import os; return os.path.realpath(__file__)")  # a second archive would have another time
    places = []
    for name in ("copies-one", "copies-two"):
        functions.create_function(
            FunctionName=name,
            Runtime="python3.13",
            Handler="index.handler",
            Role=role,
            Code={"ZipFile": code},
        )
        places.append(json.loads(functions.invoke(FunctionName=name)["Payload"].read()))
    assert (places[0] == places[1]) == (which == "ours")
    functions.update_function_code(
        FunctionName="copies-two", ZipFile=code_of("import os; return os.path.realpath(__file__) + '!'")
    )
    changed = json.loads(functions.invoke(FunctionName="copies-two")["Payload"].read())
    assert changed.removesuffix("!") not in places


@BOTH
def test_a_function_that_is_updated_ends_what_it_has_begun(
    stack: Local, which: str, function_role: Callable[..., str], code_of: Callable[[str], bytes], tmp_path: Path
) -> None:
    """On AWS too; and then its process ends."""
    functions, began = stack.client("lambda"), tmp_path / "began"
    slowly = f"import os, pathlib, time; pathlib.Path({str(began)!r}).touch(); time.sleep(2); return os.getpid()"
    functions.create_function(
        FunctionName="updated",
        Runtime="python3.13",
        Handler="index.handler",
        Role=function_role(stack, "updated"),
        Code={"ZipFile": code_of(slowly)},
    )

    def invoke() -> Any:
        return json.loads(functions.invoke(FunctionName="updated")["Payload"].read())

    with ThreadPoolExecutor() as threads:
        running = threads.submit(invoke)
        while not began.exists():
            time.sleep(0.05)
        functions.update_function_code(FunctionName="updated", ZipFile=code_of("return 'new'"))
        assert invoke() == "new"
        assert which == "bare" or not running.done(), "the new version does not wait for the old one"
        answer = running.result()
    if which == "bare":
        assert answer["errorType"] == "Runtime.HandlerError"
        return
    deadline = time.monotonic() + 10
    while Path(f"/proc/{answer}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@BOTH
def test_a_table_that_a_stack_has_imported_keeps_its_name_and_its_items(stack: Local, which: str) -> None:
    cloudformation, dynamodb = stack.client("cloudformation"), stack.client("dynamodb")
    key: dict[str, Any] = {
        "AttributeDefinitions": [{"AttributeName": "PK", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "PK", "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
    }
    dynamodb.create_table(TableName="imported-before", **key)
    dynamodb.put_item(TableName="imported-before", Item={"PK": {"S": "kept"}})
    kept = {"Type": "AWS::DynamoDB::Table", "DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
    name = {"StackName": "importing", "ChangeSetName": "adopt"}
    cloudformation.create_change_set(
        **name,
        ChangeSetType="IMPORT",
        TemplateBody=json.dumps({"Resources": {"Table": kept | {"Properties": key}}}),
        ResourcesToImport=[
            {
                "ResourceType": "AWS::DynamoDB::Table",
                "LogicalResourceId": "Table",
                "ResourceIdentifier": {"TableName": "imported-before"},
            }
        ],
    )
    cloudformation.get_waiter("change_set_create_complete").wait(**name, WaiterConfig={"Delay": 1})
    cloudformation.execute_change_set(**name)
    cloudformation.get_waiter("stack_import_complete").wait(StackName="importing", WaiterConfig={"Delay": 1})
    stream = {"StreamSpecification": {"StreamViewType": "NEW_AND_OLD_IMAGES"}}
    cloudformation.update_stack(
        StackName="importing",
        TemplateBody=json.dumps({"Resources": {"Table": kept | {"Properties": key | stream}}}),
    )
    cloudformation.get_waiter("stack_update_complete").wait(StackName="importing", WaiterConfig={"Delay": 1})
    resource = cloudformation.describe_stack_resource(StackName="importing", LogicalResourceId="Table")
    found = resource["StackResourceDetail"]["PhysicalResourceId"]
    assert (found == "imported-before") is (which == "ours")
    assert dynamodb.scan(TableName=found)["Count"] == (1 if which == "ours" else 0)
    if which == "ours":
        assert dynamodb.describe_table(TableName=found)["Table"]["StreamSpecification"]["StreamEnabled"]
