"""A refusal by AWS gives one line that names the cure, in every verb."""

from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.model import OperationModel
from botocore.stub import Stubber
from click.testing import CliRunner, Result

from cli.main import main
from deployed.access import denied, translate_refusals
from deployed.errors import Denied, NoAccess
from deployed.stack import Account, Deployed

WHO = "User: arn:aws:iam::111122223333:user/ann is not authorized to perform:"
ARN = "arn:aws:states:eu-west-1:111122223333:stateMachine:bintally-release"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No profile, region, keys or instance of whoever runs the tests."""
    for name in ("PROFILE", "REGION", "DEFAULT_REGION", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "ENDPOINT_URL"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.delenv("BINTALLY_STACK", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def run(*words: str, **environment: str) -> Result:
    return CliRunner(mix_stderr=False, env=environment).invoke(main, list(words))


def operation(service: str, name: str) -> OperationModel:
    client: Any = boto3.Session(region_name="us-east-1").client(service)  # type: ignore[call-overload]
    found: OperationModel = client.meta.service_model.operation_model(name)
    return found


@pytest.mark.parametrize(
    ("message", "service", "name", "action", "resource"),
    [
        (
            f"{WHO} states:StartExecution on resource: {ARN}",
            "stepfunctions",
            "StartExecution",
            "states:StartExecution",
            ARN,
        ),
        (
            f'{WHO} s3:ListBucket on resource: "arn:aws:s3:::images" because no identity-based policy allows it',
            *("s3", "ListObjectsV2", "s3:ListBucket", "arn:aws:s3:::images"),
        ),
        (f"{WHO} dynamodb:Query because no policy", "dynamodb", "Query", "dynamodb:Query", ""),
        ("Access Denied", "s3", "ListObjectsV2", "s3:ListBucket", ""),
        ("Forbidden", "s3", "HeadObject", "s3:GetObject", ""),
        ("Forbidden", "stepfunctions", "StartExecution", "states:StartExecution", ""),
    ],
)
def test_the_missing_permission_is_named(message: str, service: str, name: str, action: str, resource: str) -> None:
    error = denied(message, operation(service, name))
    assert (error.action, error.resource) == (action, resource)


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("AccessDeniedException", Denied, "Missing permission: sagemaker:DescribeEndpoint. docs/operations.md"),
        ("ExpiredTokenException", NoAccess, "the AWS session has expired. Sign in again"),
        ("UnrecognizedClientException", NoAccess, "AWS does not accept these credentials"),
    ],
)
def test_a_refusal_is_not_taken_for_an_absent_endpoint(code: str, kind: type[Exception], says: str) -> None:
    session = boto3.Session("test", "test", region_name="us-east-1")
    translate_refusals(session)
    sagemaker = session.client("sagemaker")

    class Own(Account):
        def client(self, service: str, **config: Any) -> Any:
            return sagemaker

    stack: Deployed = Own("bintally")
    with Stubber(sagemaker) as stubber:
        stubber.add_client_error("describe_endpoint", code)
        with pytest.raises(kind, match=says):
            stack.live_model_data({"EndpointName": "bintally-serverless"})
        stubber.add_client_error("describe_endpoint", "ValidationException")
        assert stack.live_model_data({"EndpointName": "bintally-serverless"}) is None


def test_without_a_region() -> None:
    shown = run("--stack", "bintally", "counts")
    assert (shown.exit_code, shown.stderr) == (1, "Error: no AWS region is set. Give --region, or set AWS_REGION\n")


def test_without_credentials() -> None:
    shown = run("--stack", "bintally", "--region", "eu-west-1", "counts")
    assert shown.exit_code == 1
    assert shown.stderr.startswith("Error: no AWS credentials found. Give --profile, or set AWS_PROFILE")
    assert shown.stderr.count("\n") == 1


def test_an_unknown_profile() -> None:
    shown = run("--stack", "bintally", "--profile", "nobody", "status")
    assert shown.exit_code == 1
    assert shown.stderr.startswith("Error: the config profile (nobody) could not be found. List the profiles with:")


def test_an_address_where_nothing_answers() -> None:
    keys = {
        "AWS_ACCESS_KEY_ID": "AKIA",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }
    shown = run("counts", BINTALLY_STACK="bintally", AWS_ENDPOINT_URL="http://127.0.0.1:9", **keys)
    assert (shown.exit_code, shown.stderr.count("\n")) == (1, 1)
    assert "http://127.0.0.1:9" in shown.stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--region", "eu-west-1", "counts"], "--profile and --region need --stack NAME, or BINTALLY_STACK"),
        (["--profile", "x", "counts"], "--profile and --region need --stack NAME, or BINTALLY_STACK"),
        (["--stack", "x", "up"], "up is for the stack on this machine. Leave out --stack and unset BINTALLY_STACK"),
        (["--stack", "x", "bench"], "only bench way measures a stack on AWS; the others measure this machine"),
        (
            ["--stack", "x", "bench", "function"],
            "only bench way measures a stack on AWS; the others measure this machine",
        ),
        (["--stack", "x", "down"], "down is for the stack on this machine. Leave out --stack and unset BINTALLY_STACK"),
    ],
)
def test_wrong_use_exits_2(words: list[str], line: str) -> None:
    shown = run(*words)
    assert (shown.exit_code, shown.stderr) == (2, f"Error: {line}\n")
