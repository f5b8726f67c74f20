"""The stack's life on one machine, with a small template in the place of the real one (tests/stack has that)."""

import fcntl
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from deployed.stack import upper_snake
from local import processes
from local.errors import DeployFailed, NotRunning, PackageMissing, PortTaken, ReleaseFailed, StackError
from local.stack import Local, package_version

RELEASE = {
    "StartAt": "Asked",
    "States": {
        "Asked": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.detail", "IsPresent": True, "Next": "Package"}],
            "Default": "Known",
        },
        "Package": {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:sagemaker:describeModelPackage",
            "Parameters": {"ModelPackageName.$": "$.detail.ModelPackageArn"},
            "ResultSelector": {
                "model_version.$": "$.CustomerMetadataProperties.model_version",
                "model_data_url.$": "$.InferenceSpecification.Containers[0].ModelDataUrl",
            },
            "Next": "Known",
        },
        "Known": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.model_version", "StringEquals": "refused", "Next": "Refuse"}],
            "Default": "Model",
        },
        "Refuse": {"Type": "Fail", "Error": "GoldenImages", "Cause": "image 3 is counted 2,\n not 5"},
        "Model": {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:sagemaker:createModel",
            "Parameters": {
                "ModelName.$": "$.model_version",
                "ExecutionRoleArn": "${ModelRole}",
                "PrimaryContainer": {"Image": "serving", "ModelDataUrl.$": "$.model_data_url"},
            },
            "ResultPath": None,
            "Next": "Config",
        },
        "Config": {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:sagemaker:createEndpointConfig",
            "Parameters": {
                "EndpointConfigName.$": "$.model_version",
                "ProductionVariants": [
                    {
                        "VariantName": "AllTraffic",
                        "ModelName.$": "$.model_version",
                        "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 2},
                    }
                ],
            },
            "ResultPath": None,
            "Next": "Endpoint",
        },
        "Endpoint": {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:sagemaker:createEndpoint",
            "Parameters": {"EndpointName": "small-serverless", "EndpointConfigName.$": "$.model_version"},
            "End": True,
        },
    },
}


def role(service: str, *actions: str) -> dict[str, Any]:
    trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    allow = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    policy = {"PolicyName": "own", "PolicyDocument": {"Version": "2012-10-17", "Statement": [allow]}}
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
            "Policies": [policy],
        },
    }


TEMPLATE = {
    "AWSTemplateFormatVersion": "2010-09-09",
    "Transform": "AWS::Serverless-2016-10-31",
    "Resources": {
        "ArtifactsBucket": {"Type": "AWS::S3::Bucket"},
        "ModelRole": role("sagemaker.amazonaws.com", "s3:GetObject"),
        "ReleaseRole": role("states.amazonaws.com", "sagemaker:*", "iam:PassRole"),
        "CountRole": role("lambda.amazonaws.com", "sqs:*"),
        "CountQueue": {"Type": "AWS::SQS::Queue"},
        "CountFunction": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "Runtime": "python3.13",
                "Handler": "index.handle",
                "Role": {"Fn::GetAtt": ["CountRole", "Arn"]},
                "Code": {"ZipFile": "def handle(event, context):\n    return {}\n"},
            },
        },
        "CountMapping": {
            "Type": "AWS::Lambda::EventSourceMapping",
            "Properties": {
                "EventSourceArn": {"Fn::GetAtt": ["CountQueue", "Arn"]},
                "FunctionName": {"Ref": "CountFunction"},
            },
        },
        "Group": {"Type": "AWS::SageMaker::ModelPackageGroup", "Properties": {"ModelPackageGroupName": "small"}},
        "RuleRole": role("events.amazonaws.com", "states:StartExecution"),
        "ReleaseRule": {
            "Type": "AWS::Events::Rule",
            "Properties": {
                "EventPattern": {"source": ["aws.sagemaker"], "detail": {"ModelPackageGroupName": ["small"]}},
                "Targets": [
                    {
                        "Id": "Release",
                        "Arn": {"Ref": "ReleaseStateMachine"},
                        "RoleArn": {"Fn::GetAtt": ["RuleRole", "Arn"]},
                    }
                ],
            },
        },
        "ReleaseStateMachine": {
            "Type": "AWS::Serverless::StateMachine",
            "Properties": {
                "Role": {"Fn::GetAtt": ["ReleaseRole", "Arn"]},
                "Definition": RELEASE,
                "DefinitionSubstitutions": {"ModelRole": {"Fn::GetAtt": ["ModelRole", "Arn"]}},
            },
        },
    },
    "Outputs": {
        "ArtifactsBucket": {"Value": {"Ref": "ArtifactsBucket"}},
        "ReleaseStateMachine": {"Value": {"Ref": "ReleaseStateMachine"}},
        "CountMapping": {"Value": {"Ref": "CountMapping"}},
        "EndpointName": {"Value": "small-serverless"},
    },
}


@pytest.fixture
def small(own: Local, tmp_path: Path, archive: Callable[[str], bytes]) -> Local:
    """A stack of the small template and a package of version v1; not running."""
    (tmp_path / "template.yaml").write_text(json.dumps(TEMPLATE))
    (tmp_path / "model.tar.gz").write_bytes(archive("v1"))
    return replace(own, name="small", template=tmp_path / "template.yaml", package=tmp_path / "model.tar.gz")


class Retrained(Local):
    """One whose live model none of the shipped packages is."""

    def live_model_data(self, outputs: dict[str, Any]) -> str:
        return f"s3://{outputs['ArtifactsBucket']}/models/retrained/model.tar.gz"


def processes_of(stack: Local) -> list[int]:
    return processes.session_members(int(stack.pid_file.read_text()))


@pytest.mark.timeout(900)  # Five times through `sam`; the limit is for a machine that hangs.
def test_up_again_down_up_refused_wipe(
    small: Local, archive: Callable[[str], bytes], ask: Callable[..., dict[str, Any]]
) -> None:
    steps: list[str] = []
    small.up(steps.append)
    assert steps[-1] == "Releasing model v1"
    small.wait_endpoint("small-serverless")
    assert ask(small, "small-serverless")["model_version"] == "v1"
    status = small.status()
    assert status["endpoint"] == "small-serverless InService"
    assert status["model"].endswith("/models/v1/model.tar.gz")
    environment = small.environment()
    assert environment["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{small.port}"
    assert environment["ARTIFACTS_BUCKET"] == small.outputs()["ArtifactsBucket"]
    assert environment["ENDPOINT_NAME"] == "small-serverless"

    def releases() -> int:
        machine = small.outputs()["ReleaseStateMachine"]
        return len(small.client("stepfunctions").list_executions(stateMachineArn=machine)["executions"])

    (package,) = small.packages()
    assert package["ModelApprovalStatus"] == "Approved"
    assert package["CustomerMetadataProperties"].keys() == {"model_version", "package_digest"}
    assert package["CustomerMetadataProperties"]["model_version"] == "v1"

    session = small.pid_file.read_text()
    small.up(steps.append)
    assert (small.pid_file.read_text(), releases(), len(list(small.packages()))) == (session, 1, 1)

    with pytest.raises(StackError, match="stop it first"):
        small.wipe()
    running = processes_of(small)
    assert len(running) >= 2
    assert small.down()
    assert processes.session_members(int(session)) == []
    assert not small.running()
    assert not small.down()

    small.up(steps.append)
    assert releases() == 1
    assert ask(small, "small-serverless")["model_version"] == "v1"

    # A newer shipped package does not take the place of a model that this stack has made since.
    small.package.write_bytes(archive("v2"))
    said: list[str] = []
    for _ in range(2):
        Retrained(**{field.name: getattr(small, field.name) for field in fields(small)}).ship("v2", said.append)
    assert [line.split(": ")[-1] for line in said] == ["bintally model approve v2"]
    waiting = small.find_package("v2")
    assert waiting is not None and waiting["ModelApprovalStatus"] == "PendingManualApproval"
    assert ask(small, "small-serverless")["model_version"] == "v1"
    assert small.down()

    small.package.write_bytes(archive("refused"))
    with pytest.raises(ReleaseFailed, match=r"release failed: GoldenImages image 3 is counted 2, not 5$"):
        small.up(steps.append)
    assert not small.running()
    assert not small.pid_file.exists()
    small.wipe()
    assert not small.home.exists()


def test_a_template_that_does_not_build_says_so(small: Local) -> None:
    small.template.write_text("Resources: [")
    with pytest.raises(DeployFailed, match=r"sam build failed: .*sam-build.log"):
        small.up(lambda step: None)
    assert not small.running()


def test_an_interrupted_up_leaves_nothing_running(small: Local) -> None:
    up = f"""
import signal, sys
from pathlib import Path
from cli.up import interrupt
from local.stack import Local
signal.signal(signal.SIGTERM, interrupt)
template, package = Path({str(small.template)!r}), Path({str(small.package)!r})
stack = Local(Path({str(small.home)!r}), {small.port}, "small", template, package)
stack.up(lambda step: print(step, flush=True))
"""
    process = subprocess.Popen([sys.executable, "-c", up], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    for step in process.stdout:
        if step.startswith("Deploying"):
            break
    session = int(small.pid_file.read_text())
    time.sleep(1)  # `sam deploy` is under way.
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) != 0
    assert processes.session_members(session) == []
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    assert [number for number in numbers if str(small.home) in " ".join(processes.command_line(number))] == []


def test_only_one_up_at_a_time(small: Local) -> None:
    small.home.mkdir()
    with (small.home / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StackError, match="another bintally up is running"):
            small.up(lambda step: None)
    assert not small.running()


def test_a_folder_of_others_is_neither_used_nor_removed(small: Local) -> None:
    small.home.mkdir()
    (small.home / "letter.txt").write_text("dear")
    with pytest.raises(StackError, match="contains files that Bintally did not create"):
        small.up(lambda step: None)
    with pytest.raises(StackError, match="is no stack's folder; nothing is removed"):
        small.wipe()
    assert [path.name for path in small.home.iterdir()] == ["letter.txt"]


def test_a_port_that_another_program_has_is_told(own: Local) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} is taken"):
            replace(own, port=port).start_emulator()
    assert not own.pid_file.exists()


def test_a_missing_or_unreadable_package_is_told_before_anything_starts(small: Local) -> None:
    small.package.write_bytes(b"no archive")
    with pytest.raises(PackageMissing, match="is not a model package"):
        small.up(lambda step: None)
    small.package.unlink()
    with pytest.raises(PackageMissing, match="there is no model package"):
        small.up(lambda step: None)
    assert not small.home.exists()


def test_the_version_is_that_of_the_package(small: Local) -> None:
    assert package_version(small.package) == "v1"


def test_what_needs_a_running_stack_says_so(own: Local) -> None:
    for call in (own.outputs, own.environment, own.status):
        with pytest.raises(NotRunning, match="bintally up"):
            call()
    own.start_emulator()
    with pytest.raises(NotRunning, match="not deployed"):
        own.outputs()


def test_what_a_crash_left_is_ended_by_the_next_down(own: Local) -> None:
    """The emulator dies and a process of its session lives on, as a function in the middle of its work does."""
    start = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", start, "local.emulator"]
    emulator = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert emulator.stdout is not None
    left = int(emulator.stdout.readline())
    own.home.mkdir()
    own.pid_file.write_text(str(emulator.pid))
    emulator.kill()
    emulator.wait()
    assert not own.running()
    assert left in processes.session_members(emulator.pid)
    assert own.down()
    assert processes.session_members(emulator.pid) == []


def test_a_pid_that_is_anothers_is_left_alone(own: Local) -> None:
    other = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        while not processes.command_line(other.pid):
            time.sleep(0.01)  # the kernel shows it a moment after it began
        own.home.mkdir()
        own.pid_file.write_text(str(other.pid))
        assert not own.down()
        assert other.poll() is None
        assert not own.pid_file.exists()
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("ImagesBucket", "IMAGES_BUCKET"),
        ("CountQueueUrl", "COUNT_QUEUE_URL"),
        ("CountDeadLetterQueueUrl", "COUNT_DEAD_LETTER_QUEUE_URL"),
        ("EndpointName", "ENDPOINT_NAME"),
    ],
)
def test_outputs_become_variables(name: str, variable: str) -> None:
    assert upper_snake(name) == variable
