"""The custom resource: it disables counting on creation, removes all releases on deletion, and always answers."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from bintally import remove_endpoint
from bintally.aws import clients
from bintally.releasing import remove_all
from bintally.retraining import LONGEST_STACK_NAME
from botocore.stub import Stubber
from moto import mock_aws

EVENT = json.loads((Path(__file__).parents[2] / "events" / "remove_endpoint.json").read_text())
RETRAINING = "arn:aws:states:us-east-1:000000000000:execution:bintally-retrain:one"
ROLE = "arn:aws:iam::123456789012:role/model"
MAPPING = EVENT["ResourceProperties"]["Mapping"]


class CloudFormation(HTTPServer):
    """Where the function puts its answers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), AnswerHandler)
        self.answers: list[dict[str, str]] = []


class AnswerHandler(BaseHTTPRequestHandler):
    server: CloudFormation

    def do_PUT(self) -> None:
        self.server.answers.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def cloudformation() -> Iterator[CloudFormation]:
    server = CloudFormation()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def sagemaker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with mock_aws():
        client = boto3.client("sagemaker", "us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
        client.create_model_package_group(ModelPackageGroupName="bintally")
        monkeypatch.setattr(clients, "sagemaker", lambda: client)
        yield client


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    stubber = Stubber(boto3.client("stepfunctions", "us-east-1"))
    monkeypatch.setattr(clients, "states", lambda: stubber.client)
    machine = EVENT["ResourceProperties"]["ReleaseStateMachine"]
    execution = {
        "executionArn": "arn:aws:states:us-east-1:000000000000:execution:bintally-release:up",
        "stateMachineArn": machine,
        "name": "up",
        "status": "RUNNING",
        "startDate": datetime.fromtimestamp(0, UTC),
    }
    asked = {"stateMachineArn": machine, "statusFilter": "RUNNING"}
    stubber.add_response("list_executions", {"executions": [execution]}, asked)
    stop = {"executionArn": execution["executionArn"], "cause": "the stack is deleted"}
    stubber.add_response("stop_execution", {"stopDate": 0}, stop)
    retrain = EVENT["ResourceProperties"]["RetrainStateMachine"]
    execution = execution | {"executionArn": RETRAINING, "stateMachineArn": retrain}
    stubber.add_response("list_executions", {"executions": [execution]}, asked | {"stateMachineArn": retrain})
    stubber.add_response("stop_execution", {"stopDate": 0}, stop | {"executionArn": RETRAINING})
    with stubber:
        yield stubber


@pytest.fixture(autouse=True)
def cleaned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The training jobs of the retrainings that were cleaned up after."""
    found: list[str] = []
    monkeypatch.setattr(remove_endpoint, "clean_up", lambda client, names: found.append(names.train))
    return found


@pytest.fixture
def mappings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    stubber = Stubber(boto3.client("lambda", "us-east-1"))
    monkeypatch.setattr(clients, "lambda_", lambda: stubber.client)
    with stubber:
        yield stubber


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr(remove_all, "POLL_SECONDS", 0.05)


def run(cloudformation: CloudFormation, request: str, seconds: float = 60, stack: str = "bintally") -> dict[str, str]:
    url = f"http://127.0.0.1:{cloudformation.server_address[1]}/answer"
    left = (seconds + remove_endpoint.SPARE_SECONDS) * 1000
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: left)
    properties = EVENT["ResourceProperties"] | {"StackName": stack}
    remove_endpoint.handler(
        EVENT | {"RequestType": request, "ResponseURL": url, "ResourceProperties": properties}, context
    )
    (answer,) = cloudformation.answers
    assert answer["PhysicalResourceId"] == "bintally-endpoint"
    assert [answer[name] for name in ("StackId", "RequestId", "LogicalResourceId")] == [
        EVENT[name] for name in ("StackId", "RequestId", "LogicalResourceId")
    ]
    return answer


def make(sagemaker: Any, endpoint: str, config: str) -> None:
    sagemaker.create_model(ModelName=config, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "serve"})
    variant = {"VariantName": "AllTraffic", "ModelName": config, "InitialInstanceCount": 1}
    variants = [variant | {"InstanceType": "ml.c5.large"}]
    sagemaker.create_endpoint_config(EndpointConfigName=config, ProductionVariants=variants)
    sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=config)


def names(sagemaker: Any) -> set[str]:
    return {
        *(found["EndpointName"] for found in sagemaker.list_endpoints()["Endpoints"]),
        *(found["EndpointConfigName"] for found in sagemaker.list_endpoint_configs()["EndpointConfigs"]),
        *(found["ModelName"] for found in sagemaker.list_models()["Models"]),
    }


def test_delete_removes_what_releases_made_and_nothing_else(
    cloudformation: CloudFormation, sagemaker: Any, states: Stubber, cleaned: list[str]
) -> None:
    make(sagemaker, "bintally-serverless", "bintally-serverless-0a1b2c3d-4e5f6a7b")
    make(sagemaker, "bintally-realtime", "bintally-realtime-0a1b2c3d")
    make(sagemaker, "bintally-candidate-00000000", "bintally-serverless-00000000")
    make(sagemaker, "bintally-two-serverless", "bintally-two-serverless-0a1b2c3d")
    make(sagemaker, "not-bintally-serverless", "not-bintally-serverless-0a1b2c3d")
    others = {name for name in names(sagemaker) if "two" in name or "not" in name}
    assert run(cloudformation, "Delete")["Status"] == "SUCCESS"
    assert names(sagemaker) == others
    states.assert_no_pending_responses()
    assert [name.rpartition("-")[2] for name in cleaned] == ["train"]


def test_delete_empties_the_registry(
    cloudformation: CloudFormation, sagemaker: Any, states: Stubber, monkeypatch: pytest.MonkeyPatch
) -> None:
    sagemaker.create_model_package_group(ModelPackageGroupName="bintally-two")
    made = [
        sagemaker.create_model_package(ModelPackageGroupName=group)["ModelPackageArn"]
        for group in ("bintally", "bintally", "bintally-two")
    ]
    deleted: list[str] = []  # moto has no DeleteModelPackage
    monkeypatch.setattr(sagemaker, "delete_model_package", lambda ModelPackageName: deleted.append(ModelPackageName))
    assert run(cloudformation, "Delete")["Status"] == "SUCCESS"
    assert sorted(deleted) == sorted(made[:2])


def test_delete_waits_for_an_endpoint_in_change(
    cloudformation: CloudFormation, sagemaker: Any, states: Stubber, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(sagemaker, "bintally-serverless", "bintally-serverless-0a1b2c3d")
    settled = time.monotonic() + 0.3
    delete = sagemaker.delete_endpoint

    def in_change(EndpointName: str) -> None:
        if time.monotonic() < settled:
            sagemaker.describe_endpoint(EndpointName="Cannot update in-progress endpoint")  # a ClientError
        delete(EndpointName=EndpointName)

    monkeypatch.setattr(sagemaker, "delete_endpoint", in_change)
    assert run(cloudformation, "Delete")["Status"] == "SUCCESS"
    assert time.monotonic() > settled
    assert names(sagemaker) == set()


def test_an_endpoint_that_stays_is_told(
    cloudformation: CloudFormation, sagemaker: Any, states: Stubber, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(sagemaker, "bintally-serverless", "bintally-serverless-0a1b2c3d")
    monkeypatch.setattr(sagemaker, "delete_endpoint", lambda EndpointName: None)
    answer = run(cloudformation, "Delete", seconds=0.2)
    assert answer["Status"] == "FAILED"
    assert "bintally-serverless" in answer["Reason"]


def test_a_permission_that_is_missing_is_told(cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch) -> None:
    stubber = Stubber(boto3.client("stepfunctions", "us-east-1"))
    stubber.add_client_error("list_executions", "AccessDeniedException", "not you", 400)
    monkeypatch.setattr(clients, "states", lambda: stubber.client)
    with stubber:
        answer = run(cloudformation, "Delete")
    assert answer["Status"] == "FAILED"
    assert "not you" in answer["Reason"]


def test_create_switches_counting_off(cloudformation: CloudFormation, mappings: Stubber) -> None:
    asked = {"UUID": MAPPING, "Enabled": False}
    mappings.add_client_error("update_event_source_mapping", "ResourceInUseException", "it is being made")
    mappings.add_response("update_event_source_mapping", {"State": "Disabling"}, asked)
    assert run(cloudformation, "Create")["Status"] == "SUCCESS"
    mappings.assert_no_pending_responses()


def test_create_fails_when_counting_cannot_be_switched_off(cloudformation: CloudFormation, mappings: Stubber) -> None:
    mappings.add_client_error("update_event_source_mapping", "AccessDeniedException", "not you", 403)
    assert run(cloudformation, "Create")["Status"] == "FAILED"


def test_a_stack_name_too_long_to_retrain_is_refused_at_deployment(
    cloudformation: CloudFormation, mappings: Stubber
) -> None:
    answer = run(cloudformation, "Create", stack="bintally-production")
    assert answer["Status"] == "FAILED"
    assert "bintally-production has 19 characters. Retraining takes at most 18" in answer["Reason"]


def test_the_longest_stack_name_is_taken(cloudformation: CloudFormation, mappings: Stubber) -> None:
    mappings.add_response("update_event_source_mapping", {"State": "Disabling"}, {"UUID": MAPPING, "Enabled": False})
    assert run(cloudformation, "Create", stack="b" * LONGEST_STACK_NAME)["Status"] == "SUCCESS"


def test_update_does_nothing(
    cloudformation: CloudFormation, mappings: Stubber, states: Stubber, sagemaker: Any
) -> None:
    make(sagemaker, "bintally-serverless", "bintally-serverless-0a1b2c3d")
    assert run(cloudformation, "Update")["Status"] == "SUCCESS"
    assert "bintally-serverless" in names(sagemaker)
