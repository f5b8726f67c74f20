"""model list, approve and reject, over a registry in moto."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner, Result
from moto import mock_aws

from cli.main import main
from local.errors import NotRunning
from local.stack import Local

SESSION = boto3.Session("test", "test", region_name="us-east-1")
OUTPUTS = {"EndpointName": "bintally-serverless", "ArtifactsBucket": "artifacts"}
SHIPPED = {"as_shipped": {"rps": 0.671, "log_loss": 1.427, "accuracy": 0.385}, "as_published": {"accuracy": 0.375}}
EVALUATION = {"champion": {"as_shipped": {"rps": 0.671}}, "challenger": {"as_shipped": {"rps": 0.652}}}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A session of a running stack's account."""
    with mock_aws():
        session = SESSION
        monkeypatch.setattr(Local, "require_running", lambda self: None)
        monkeypatch.setattr(Local, "outputs", lambda self: OUTPUTS)
        monkeypatch.setattr(Local, "client", lambda self, service: session.client(service))
        session.client("s3").create_bucket(Bucket="artifacts")
        session.client("sagemaker").create_model_package_group(ModelPackageGroupName="bintally")
        yield session


@pytest.fixture
def register(aws: Any) -> Callable[..., str]:
    """register(version, status, statistics, **metadata) puts a version into the registry and answers its ARN."""

    def put(version: str, status: str = "PendingManualApproval", statistics: object = None, **metadata: str) -> str:
        request: dict[str, Any] = {}
        if statistics is not None:
            aws.client("s3").put_object(Bucket="artifacts", Key=version, Body=json.dumps(statistics))
            uri = {"ContentType": "application/json", "S3Uri": f"s3://artifacts/{version}"}
            request["ModelMetrics"] = {"ModelQuality": {"Statistics": uri}}
        container = {"Image": "serve", "ModelDataUrl": address(version)}
        created = aws.client("sagemaker").create_model_package(
            ModelPackageGroupName="bintally",
            ModelApprovalStatus=status,
            InferenceSpecification={"Containers": [container], "SupportedContentTypes": ["image/jpeg"]},
            CustomerMetadataProperties={"model_version": version, **metadata},
            **request,
        )
        return str(created["ModelPackageArn"])

    return put


def address(version: str) -> str:
    return f"s3://artifacts/models/{version}/model.tar.gz"


def go_live(aws: Any, version: str) -> None:
    sagemaker, name = aws.client("sagemaker"), "bintally-serverless-0a1b2c3d"
    container = {"Image": "serve", "ModelDataUrl": address(version)}
    role = "arn:aws:iam::123456789012:role/model"
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer=container)
    variant = {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.c5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="bintally-serverless", EndpointConfigName=name)


def run(*words: str) -> Result:
    return CliRunner(mix_stderr=False).invoke(main, list(words), env={"COLUMNS": "140"})


def status(aws: Any, package: str) -> tuple[str, str | None]:
    found = aws.client("sagemaker").describe_model_package(ModelPackageName=package)
    return found["ModelApprovalStatus"], found.get("ApprovalDescription")


def test_models_says_state_metrics_and_origin(aws: Any, register: Callable[..., str]) -> None:
    register("2026-11-01-aaaaaa", "Approved", SHIPPED)
    register("2026-11-02-bbbbbb", "Rejected", parent="2026-11-01-aaaaaa")
    register("2026-11-03-cccccc", "Approved", EVALUATION, dataset_digest="0123456789abcdef")
    register("2026-11-04-dddddd")
    go_live(aws, "2026-11-03-cccccc")
    shown = run("model", "list")
    assert shown.exit_code == 0
    lines = {line.split()[0]: line.split() for line in shown.stdout.splitlines()}
    assert lines["2026-11-01-aaaaaa"][1:7] == ["approved", "0.671", "1.427", "0.385", "-", "-"]
    assert lines["2026-11-02-bbbbbb"][1:7] == ["rejected", "unknown", "-", "-", "2026-11-01-aaaaaa", "-"]
    assert lines["2026-11-03-cccccc"][1:7] == ["live", "0.652", "-", "-", "-", "01234567"]
    assert lines["2026-11-04-dddddd"][1] == "pending"


def test_a_narrow_terminal_breaks_no_row(aws: Any, register: Callable[..., str]) -> None:
    register("2026-11-03-cccccc", "Approved", SHIPPED, parent="2026-11-01-aaaaaa", dataset_digest="0123456789abcdef")
    shown = CliRunner().invoke(main, ["model", "list"], env={"COLUMNS": "80"}).output.splitlines()
    (row,) = [line.split() for line in shown if "cccccc" in line]
    assert row[:6] == ["2026-11-03-cccccc", "approved", "0.671", "1.427", "0.385", "01234567"]
    assert len(row) == 7
    assert "…" not in "".join(shown)


def test_models_as_json_also_names_a_live_one_that_was_never_registered(aws: Any, register: Callable[..., str]) -> None:
    register("2026-11-01-aaaaaa", "Approved", SHIPPED)
    go_live(aws, "by-hand")
    live, registered = json.loads(run("model", "list", "--json").stdout)
    assert (live["model_version"], live["state"], live["package"]) == ("by-hand", "live", None)
    assert (registered["model_version"], registered["state"]) == ("2026-11-01-aaaaaa", "approved")
    assert registered["metrics"] == SHIPPED["as_shipped"]
    assert registered["model_data_url"] == address("2026-11-01-aaaaaa")


def test_a_version_whose_metrics_were_cleared_away_is_listed_without(aws: Any, register: Callable[..., str]) -> None:
    register("2026-11-01-aaaaaa", "Approved", SHIPPED)
    aws.client("s3").delete_object(Bucket="artifacts", Key="2026-11-01-aaaaaa")
    (found,) = json.loads(run("model", "list", "--json").stdout)
    assert found["metrics"] == {}


def archive(metrics: object, **description: object) -> bytes:
    """A model.tar.gz whose last file is package.json, with these metrics and what else it says."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        contents = {
            "model.bin": b"0" * 100_000,
            "package.json": json.dumps({"metrics": metrics} | description).encode(),
        }
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_a_version_released_or_registered_by_hand_shows_the_metrics_of_its_package(
    aws: Any, register: Callable[..., str]
) -> None:
    register("registered")
    go_live(aws, "released")
    for version in ("registered", "released"):
        body = archive(SHIPPED)
        aws.client("s3").put_object(Bucket="artifacts", Key=f"models/{version}/model.tar.gz", Body=body)
    found = {each["model_version"]: each["metrics"] for each in json.loads(run("model", "list", "--json").stdout)}
    assert found == dict.fromkeys(("released", "registered"), SHIPPED["as_shipped"])


@pytest.mark.parametrize(
    "content",
    [b"no archive", archive(SHIPPED)[:3], archive(SHIPPED)[:150], archive(None), archive([1]), archive({})],
    ids=["no archive", "header cut off", "cut off", "none", "a list", "empty"],
)
def test_metrics_that_a_package_lacks_are_unknown(aws: Any, register: Callable[..., str], content: bytes) -> None:
    register("registered")
    aws.client("s3").put_object(Bucket="artifacts", Key="models/registered/model.tar.gz", Body=content)
    assert run("model", "list").stdout.splitlines()[-1].split()[1:5] == ["pending", "unknown", "-", "-"]


def test_no_models_yet(aws: Any) -> None:
    assert "bintally up" in run("model", "list").stdout
    assert json.loads(run("model", "list", "--json").stdout) == []


def test_approve_sets_the_state_and_nothing_else(aws: Any, register: Callable[..., str]) -> None:
    package = register("2026-11-01-aaaaaa", parent="none")
    shown = run("model", "approve", "2026-11-01-aaaaaa")
    assert (shown.exit_code, shown.stdout.startswith("Model 2026-11-01-aaaaaa is approved and is being")) == (0, True)
    assert status(aws, package) == ("Approved", None)


def test_approving_again_says_how_to_release(aws: Any, register: Callable[..., str]) -> None:
    package = register("2026-11-01-aaaaaa", "Approved")
    shown = run("model", "approve", "2026-11-01-aaaaaa")
    assert (shown.exit_code, "bintally model release 2026-11-01-aaaaaa" in shown.stdout) == (0, True)
    assert status(aws, package) == ("Approved", None)


def test_approve_says_that_a_newer_one_is_in_the_way(aws: Any, register: Callable[..., str]) -> None:
    register("2026-11-01-aaaaaa")
    register("2026-11-02-bbbbbb", "Approved")
    assert "not released: 2026-11-02-bbbbbb is newer" in run("model", "approve", "2026-11-01-aaaaaa").stdout


def test_reject_keeps_the_reason(aws: Any, register: Callable[..., str]) -> None:
    package = register("2026-11-01-aaaaaa", "Approved")
    shown = run("model", "reject", "2026-11-01-aaaaaa", "--why", "counts shelves")
    assert (shown.exit_code, shown.stdout) == (0, "Model 2026-11-01-aaaaaa is rejected\n")
    assert status(aws, package) == ("Rejected", "counts shelves")


def test_a_version_of_which_only_the_package_is_left_is_registered_and_waits(
    aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = {"Parameters": [{"ParameterKey": "ServingImage", "ParameterValue": "serve@sha256:1"}]}
    monkeypatch.setattr(Local, "describe", lambda self: described)
    package = archive(SHIPPED, model_version="2026-11-02-b", parent="2026-11-01-a")
    aws.client("s3").put_object(Bucket="artifacts", Key="models/2026-11-02-b/model.tar.gz", Body=package)
    done = run("model", "register", "2026-11-02-b")
    assert done.exit_code == 0, done.stderr
    assert "bintally model approve 2026-11-02-b" in done.stdout
    (found,) = json.loads(run("model", "list", "--json").stdout)
    assert (found["model_version"], found["state"]) == ("2026-11-02-b", "pending")
    assert (found["parent"], found["metrics"]["accuracy"]) == ("2026-11-01-a", 0.385)
    made = aws.client("sagemaker").describe_model_package(ModelPackageName=found["package"])
    (container,) = made["InferenceSpecification"]["Containers"]
    assert (container["Image"], container["ModelDataUrl"]) == ("serve@sha256:1", address("2026-11-02-b"))
    again = run("model", "register", "2026-11-02-b")
    assert (again.exit_code, "the registry has model 2026-11-02-b" in again.stderr) == (1, True)


def test_a_package_that_is_not_there_or_another_version_is_one_line(aws: Any) -> None:
    done = run("model", "register", "2026-11-03-c")
    assert done.stderr.startswith("Error: there is no s3://artifacts/models/2026-11-03-c/model.tar.gz")
    aws.client("s3").put_object(
        Bucket="artifacts", Key="models/2026-11-03-c/model.tar.gz", Body=archive(SHIPPED, model_version="another")
    )
    done = run("model", "register", "2026-11-03-c")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.endswith("is version another\n")


@pytest.mark.parametrize("verb", ["approve", "reject", "release"])
def test_an_unknown_version_is_one_line(aws: Any, register: Callable[..., str], verb: str) -> None:
    register("2026-11-01-aaaaaa")
    shown = run("model", verb, "other")
    assert shown.exit_code == 1
    assert shown.stderr == "Error: the registry has no model other. See: bintally model list\n"


@pytest.mark.parametrize("words", [["list"], ["approve", "1"], ["reject", "1"], ["release", "1"], ["rollback"]])
def test_without_a_stack_it_exits_3(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    def down(self: Local) -> None:
        raise NotRunning("the stack is not running; start it with: bintally up")

    monkeypatch.setattr(Local, "require_running", down)
    shown = run("model", *words)
    assert (shown.exit_code, shown.stderr.startswith("Error: the stack is not running")) == (3, True)


@pytest.mark.parametrize("words", [["list"], ["approve", "1"]])
def test_a_registry_that_is_not_there_is_one_line(aws: Any, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    def missing(self: Local) -> None:
        raise ClientError({"Error": {"Code": "ValidationException", "Message": "no such group"}}, "ListModelPackages")

    monkeypatch.setattr(Local, "packages", missing)
    shown = run("model", *words)
    assert (shown.exit_code, len(shown.stderr.splitlines())) == (1, 1)
    assert "no such group" in shown.stderr
