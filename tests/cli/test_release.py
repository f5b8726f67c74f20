"""release and rollback: their input, their output, and their exit codes. tests/stack/test_release.py runs them."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber
from click.testing import CliRunner, Result

from cli import releases
from cli.main import main
from local.stack import REPOSITORY, Local

MACHINE = "arn:aws:states:us-east-1:000000000000:stateMachine:bintally-release"
EXECUTION = MACHINE.replace("stateMachine", "execution") + ":by-hand"
OUTPUTS = {"EndpointName": "bintally-serverless", "ReleaseStateMachine": MACHINE}
BEGAN = datetime(2026, 11, 22, tzinfo=UTC)
PACKAGE = {
    "ModelPackageArn": "arn:aws:sagemaker:us-east-1:000000000000:model-package/bintally/1",
    "ModelApprovalStatus": "Approved",
    "CustomerMetadataProperties": {"model_version": "2"},
    "InferenceSpecification": {"Containers": [{"ModelDataUrl": "s3://artifacts/models/2/model.tar.gz"}]},
}


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Stubber]]:
    found = {
        service: Stubber(boto3.client(service, "us-east-1", aws_access_key_id="test", aws_secret_access_key="test"))
        for service in ("stepfunctions", "sagemaker")
    }
    monkeypatch.setattr(Local, "require_running", lambda self: None)
    monkeypatch.setattr(Local, "outputs", lambda self: OUTPUTS)
    monkeypatch.setattr(Local, "client", lambda self, service: found[service].client)
    monkeypatch.setattr(Local, "packages", lambda self: iter([PACKAGE]))
    monkeypatch.setattr(releases, "POLL_SECONDS", 0)
    with found["stepfunctions"], found["sagemaker"]:
        yield found
    for stubber in found.values():
        stubber.assert_no_pending_responses()


def history(*entered: str, end: str = "") -> list[dict[str, Any]]:
    """Events of an execution that entered these states, one a second."""
    kinds = [("TaskStateEntered", {"stateEnteredEventDetails": {"name": name}}) for name in entered]
    kinds += [(end, {})] if end else []
    return [
        {"timestamp": BEGAN + timedelta(seconds=at), "type": kind, "id": at + 1, **details}
        for at, (kind, details) in enumerate(kinds)
    ]


def expect(states: Stubber, request: dict[str, Any], looks: list[list[dict[str, Any]]], **end: str) -> None:
    """The calls of a release that is seen running, then ended; at each look with one of the histories."""
    asked = {"stateMachineArn": MACHINE, "name": ANY, "input": json.dumps(request)}
    states.add_response("start_execution", {"executionArn": EXECUTION, "startDate": BEGAN}, asked)
    for events in looks:
        status = {"status": "RUNNING"} if events is not looks[-1] else end
        common = {"executionArn": EXECUTION, "stateMachineArn": MACHINE, "startDate": BEGAN}
        states.add_response("describe_execution", common | status, {"executionArn": EXECUTION})
        states.add_response("get_execution_history", {"events": events}, {"executionArn": EXECUTION})


def run(*words: str) -> Result:
    return CliRunner(mix_stderr=False).invoke(main, list(words), env={"COLUMNS": "140"})


def test_release_prints_each_step_once_and_the_outcome(clients: dict[str, Stubber]) -> None:
    entered = ["Begin", "Prepare", "CreateCandidate", "IsCandidateUp", "WaitForCandidate"]
    more = [*entered, "CreateCandidate", "AskCandidate", "FreeLock"]
    output = json.dumps({"outcome": "released", "reason": "version 2 is live", "model_version": "2"})
    expect(
        clients["stepfunctions"],
        {"model_version": "2", "model_data_url": "s3://artifacts/models/2/model.tar.gz"},
        [history(*entered), history(*more, end="ExecutionSucceeded")],
        status="SUCCEEDED",
        output=output,
    )
    shown = run("model", "release", "2")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout.splitlines() == [
        "✓ Checking that no other release runs 2.0 s",
        "✓ Starting a candidate 4.0 s",
        "✓ The candidate answers the golden images 1.0 s",
        "✓ Reporting the outcome 1.0 s",
        "Model 2: released. version 2 is live",
    ]


def test_a_release_that_fails_exits_1_with_its_reason(clients: dict[str, Stubber]) -> None:
    expect(
        clients["stepfunctions"],
        {"model_version": "2", "model_data_url": "s3://artifacts/models/2/model.tar.gz"},
        [history("Begin", "FreeLock", end="ExecutionFailed")],
        status="FAILED",
        error="RolledBack",
        cause="SageMaker went back to the model before: alarm\n x",
    )
    shown = run("model", "release", "2")
    assert shown.exit_code == 1
    assert shown.stderr == "Error: release failed: RolledBack SageMaker went back to the model before: alarm x\n"


def test_the_registered_digest_of_the_package_goes_along(
    clients: dict[str, Stubber], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a package that was replaced in the bucket is refused."""
    monkeypatch.setitem(PACKAGE, "CustomerMetadataProperties", {"model_version": "2", "package_digest": "d" * 64})
    request = {"model_version": "2", "model_data_url": "s3://artifacts/models/2/model.tar.gz"}
    output = json.dumps({"outcome": "released", "reason": "version 2 is live", "model_version": "2"})
    looks = [history("Begin", end="ExecutionSucceeded")]
    expect(clients["stepfunctions"], {**request, "package_digest": "d" * 64}, looks, status="SUCCEEDED", output=output)
    assert run("model", "release", "2").exit_code == 0


def test_a_rejected_version_is_not_released(clients: dict[str, Stubber], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGE, "ModelApprovalStatus", "Rejected")
    shown = run("model", "release", "2")
    assert (shown.exit_code, "bintally model approve 2" in shown.stderr) == (1, True)


@pytest.fixture
def live(clients: dict[str, Stubber], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """live(version, name=version, …): the live version, and the configurations with their versions, newest first."""

    def set_(version: str | None, **configs: str) -> None:
        addresses = {name: f"s3://artifacts/models/{each}/model.tar.gz" for name, each in configs.items()}
        url = f"s3://artifacts/models/{version}/model.tar.gz" if version else None
        monkeypatch.setattr(Local, "live_model_data", lambda self, outputs: url)
        if version is None:
            return
        listed = [
            {"EndpointConfigName": name.replace("_", "-"), "EndpointConfigArn": "a" * 20, "CreationTime": BEGAN}
            for name in addresses
        ]
        clients["sagemaker"].add_response("list_endpoint_configs", {"EndpointConfigs": listed})
        for name, address in addresses.items():
            if not name.startswith("bintally_serverless_") or name.count("_") > 2:
                continue
            described = {"ModelName": name, "ModelArn": "a" * 20, "CreationTime": BEGAN}
            pinned = {"BINTALLY_PACKAGE_DIGEST": "d" * 64} if version == "3" else {}
            container = {"PrimaryContainer": {"ModelDataUrl": address, "Environment": pinned}}
            asked = {"ModelName": name.replace("_", "-")}
            clients["sagemaker"].add_response("describe_model", described | container, asked)
            if address != url:
                return

    return set_


def test_rollback_takes_the_newest_other_model_at_once(clients: dict[str, Stubber], live: Callable[..., None]) -> None:
    live(
        "3",
        bintally_serverless_two_serverless_00000000="9",
        bintally_serverless_00000003="3",
        bintally_serverless_00000002="2",
        bintally_serverless_00000001="1",
    )
    expect(
        clients["stepfunctions"],
        {
            "model_version": "2",
            "model_data_url": "s3://artifacts/models/2/model.tar.gz",
            "package_digest": "d" * 64,  # of the model that was live
            "at_once": True,
        },
        [history("Begin", end="ExecutionSucceeded")],
        status="SUCCEEDED",
        output=json.dumps({"outcome": "released", "reason": "version 2 is live", "model_version": "2"}),
    )
    shown = run("model", "rollback")
    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout.splitlines()[0] == "Rolling back from 3 to 2"


def test_rollback_without_another_model_is_one_line(clients: dict[str, Stubber], live: Callable[..., None]) -> None:
    live("3", bintally_serverless_00000003="3")
    assert run("model", "rollback").stderr == "Error: no model was live before this one\n"
    live(None)
    assert run("model", "rollback").stderr.startswith("Error: no model is live")


def test_every_step_begins_with_a_state_of_the_machine() -> None:
    states = json.loads((REPOSITORY / "machines" / "release.asl.json").read_text())["States"]
    assert releases.STEPS.keys() <= states.keys()
