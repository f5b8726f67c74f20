"""Models and retrainings over the API: read by everybody, decided by managers of all sites."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from bintally import answer
from bintally.aws import clients
from bintally.aws.table import Table

from tests.functions.conftest import World, plain
from tests.functions.test_answer import CONTEXT, Ask, ask  # noqa: F401

VIEWER, MANAGER = "/machine/viewer/", "/machine/manager/"
POINTS = [
    {"photographs": 90, "confidence": at / 10, "accuracy": at / 10 + 0.03, "interval": [at / 10 - 0.05, at / 10 + 0.08]}
    for at in (2, 3, 4, 6, 8)
]
FIGURES = {
    "as_shipped": {"rps": 0.64, "accuracy": 0.39},
    "as_published": {"rmse": 1.17},
    "confusion": [[10 * recorded + counted for counted in range(7)] for recorded in range(7)],
    "calibration": {"error": 0.02, "reliability": POINTS},
    "per_class": [],
}
ROLE = "arn:aws:iam::123456789012:role/any"


@pytest.fixture
def registry(world: World, ask: Ask) -> Iterator[Any]:  # noqa: F811
    with registered(world.s3):
        yield plain("sagemaker")


@contextlib.contextmanager
def registered(s3: Any) -> Iterator[None]:
    """Two versions, of which the first is live and the second waits; both state machines."""
    sagemaker, states = plain("sagemaker"), plain("stepfunctions")
    definition = json.dumps({"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 60, "End": True}}})
    for name in ("release", "retrain"):
        states.create_state_machine(name=f"bintally-{name}", definition=definition, roleArn=ROLE)
    sagemaker.create_model_package_group(ModelPackageGroupName="bintally")
    for version, status, found in (
        ("one", "Approved", FIGURES),
        (
            "two",
            "PendingManualApproval",
            {"champion": {}, "challenger": FIGURES, "test_set": {"photographs": 9, "bins": 3}},
        ),
    ):
        key = f"models/{version}/figures.json"
        s3.put_object(Bucket="artifacts", Key=key, Body=json.dumps(found))
        sagemaker.create_model_package(
            ModelPackageGroupName="bintally",
            ModelApprovalStatus=status,
            InferenceSpecification={
                "Containers": [{"Image": "serve", "ModelDataUrl": url_of(version)}],
                "SupportedContentTypes": ["image/jpeg"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
            ModelMetrics={
                "ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": f"s3://artifacts/{key}"}}
            },
            CustomerMetadataProperties={
                "model_version": version,
                "parent": "none",
                "package_digest": f"{version}-digest",
            },
        )
    for version in ("zero", "one"):
        name = f"bintally-serverless-{version.encode().hex():0>8}"
        sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=ROLE,
            PrimaryContainer={
                "Image": "serve",
                "ModelDataUrl": url_of(version),
                "Environment": {"BINTALLY_PACKAGE_DIGEST": f"{version}-digest"},
            },
        )
        variants = [
            {"VariantName": "a", "ModelName": name, "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}
        ]
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants)
    sagemaker.create_endpoint(EndpointName="bintally-serverless", EndpointConfigName=name)
    events = clients.sagemaker().meta.events
    events.register("provide-client-params.sagemaker.UpdateModelPackage", with_metadata)
    yield
    events.unregister("provide-client-params.sagemaker.UpdateModelPackage", with_metadata)


def with_metadata(params: dict[str, Any], **_: Any) -> None:
    """An update leaves the metadata as they are; moto's removes them."""
    package = plain("sagemaker").describe_model_package(ModelPackageName=params["ModelPackageArn"])
    params["CustomerMetadataProperties"] = package["CustomerMetadataProperties"]


def url_of(version: str) -> str:
    return f"s3://artifacts/models/{version}/model.tar.gz"


def requests_of(machine: str) -> list[dict[str, Any]]:
    """The input of each execution of a state machine."""
    states = plain("stepfunctions")
    arn = f"arn:aws:states:us-east-1:123456789012:stateMachine:bintally-{machine}"
    found = states.list_executions(stateMachineArn=arn)["executions"]
    return [json.loads(states.describe_execution(executionArn=one["executionArn"])["input"]) for one in found]


@pytest.mark.usefixtures("registry")
def test_everybody_reads_versions_and_their_figures(ask: Ask) -> None:  # noqa: F811
    status, said = ask(VIEWER + "models")
    assert status == 200 and said["live"] == "one" and said["release"] is None and said["cursor"] is None
    two, one = sorted(said["models"], key=lambda each: str(each["model_version"]), reverse=True)
    assert (one["state"], one["live"], two["state"], two["live"]) == ("approved", True, "pending", False)
    assert one["as_shipped"] == two["as_shipped"] == FIGURES["as_shipped"] and "confusion" not in one
    detail = ask(VIEWER + "models/two")[1]
    assert {name: detail[name] for name in FIGURES} == FIGURES
    assert detail["test_set"] == {"photographs": 9, "bins": 3}
    assert ask(VIEWER + "models/none")[1]["code"] == "UNKNOWN"
    assert ask(VIEWER + "retrainings") == (200, {"retrainings": []})


def test_a_manager_approves_and_rejects(ask: Ask, registry: Any) -> None:  # noqa: F811
    assert ask(MANAGER + "models/two/approvals", {"reason": "better"})[1]["release"] == "STARTS"
    said = {each["model_version"]: each for each in ask(VIEWER + "models")[1]["models"]}
    assert (said["two"]["state"], said["two"]["why"]) == ("approved", "better (user/ana)")
    assert ask(MANAGER + "models/two/approvals", {})[1]["release"] == "BEFORE"
    assert ask(MANAGER + "models/one/rejections", {}) == (200, {"model_version": "one", "state": "rejected"})
    assert ask(MANAGER + "models/one/releases", {})[1]["code"] == "REJECTED"
    assert ask(MANAGER + "models/none/approvals", {})[1]["code"] == "UNKNOWN"
    assert ask(MANAGER + "models/two/approvals", {"reason": "x" * 501})[0] == 400
    assert requests_of("release") == [], "the registry's event starts it"


@pytest.mark.usefixtures("registry")
def test_a_rollback_releases_what_was_live_before_and_one_release_runs_at_a_time(ask: Ask) -> None:  # noqa: F811
    status, said = ask(MANAGER + "rollbacks", {})
    assert (status, said["model_version"]) == (202, "zero")
    wanted = {
        "model_version": "zero",
        "model_data_url": url_of("zero"),
        "package_digest": "zero-digest",
        "at_once": True,
    }
    assert requests_of("release") == [wanted]
    assert ask(VIEWER + "models")[1]["release"]["status"] == "RUNNING"
    for path in ("rollbacks", "models/two/releases"):
        assert ask(MANAGER + path, {})[1]["code"] == "RUNNING"


@pytest.mark.usefixtures("registry")
def test_a_release_by_hand_names_its_package(ask: Ask) -> None:  # noqa: F811
    assert ask(MANAGER + "models/two/releases", {})[0] == 202
    assert requests_of("release") == [
        {"model_version": "two", "model_data_url": url_of("two"), "package_digest": "two-digest"}
    ]


@pytest.mark.usefixtures("registry")
def test_a_retraining_is_started_once_and_watched(ask: Ask) -> None:  # noqa: F811
    for body in (
        {"force": "yes"},
        {"settings": {"epochs": 0}},
        {"settings": {"unknown": 1}},
        {"settings": [1]},
        {"x": 1},
    ):
        assert ask(MANAGER + "retrainings", body)[0] == 400
    status, said = ask(MANAGER + "retrainings", {"force": True, "settings": {"epochs": "3"}})
    assert status == 202
    assert requests_of("retrain") == [
        {"reason": "by user/ana, over the API", "force": True, "approve": False, "settings": {"epochs": 3}}
    ]
    assert ask(MANAGER + "retrainings", {})[1]["code"] == "RUNNING"
    table = Table.named("counts")
    run = {"PK": "RETRAIN", "run": "a", "execution": said["execution"], "trigger": "by hand"}
    table.put(run | {"SK": "RUN#a", "outcome": "running", "started_at": "2026-11-29T10"})
    table.put(run | {"SK": "RUN#b", "run": "b", "outcome": "registered", "started_at": "2026-11-29T09"})
    first, second = ask(VIEWER + "retrainings")[1]["retrainings"]
    assert (first["run"], first["outcome"], "step" in first) == ("a", "running", True)
    assert (second["run"], "step" in second) == ("b", False)


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    "path", ["models/two/approvals", "models/one/rejections", "models/two/releases", "rollbacks", "retrainings"]
)
@pytest.mark.parametrize("role", ["viewer", "counter"])
def test_who_is_no_manager_decides_nothing(ask: Ask, path: str, role: str) -> None:  # noqa: F811
    status, said = ask(f"/machine/{role}/{path}", {})
    assert (status, said["code"]) == (403, "FORBIDDEN")
    assert requests_of("release") == requests_of("retrain") == []


@pytest.mark.usefixtures("registry")
def test_a_manager_of_one_site_decides_nothing_about_all(ask: Ask) -> None:  # noqa: F811
    event = json.loads(plain_event())
    answered = answer.handler(event, CONTEXT)
    assert (answered["statusCode"], json.loads(answered["body"])["code"]) == (403, "FORBIDDEN")
    event["requestContext"]["authorizer"]["jwt"]["claims"]["cognito:groups"] = "[manager site:*]"
    assert answer.handler(event, CONTEXT)["statusCode"] == 200


def plain_event() -> str:
    claims = {"token_use": "id", "cognito:username": "max", "cognito:groups": "[manager site:SEA1]"}
    http = {"method": "POST", "path": "/api/models/two/approvals"}
    context = {"http": http, "stage": "$default", "authorizer": {"jwt": {"claims": claims}}}
    return json.dumps({"rawPath": http["path"], "headers": {}, "body": "{}", "requestContext": context})


def test_a_service_that_throttles_is_asked_again_and_a_refusal_is_our_fault(
    ask: Ask,  # noqa: F811
    registry: Any,
    refuse: Any,
) -> None:
    end = refuse(clients.sagemaker(), "ListModelPackages", "ThrottlingException")
    assert ask(VIEWER + "models")[1]["code"] == "TRY_AGAIN"
    end()
    end = refuse(clients.sagemaker(), "ListModelPackages", "ValidationException")
    assert ask(VIEWER + "models", cursor="nonsense")[1]["code"] == "WRONG_REQUEST"
    end()
    refuse(clients.sagemaker(), "ListModelPackages", "AccessDeniedException")
    with pytest.raises(clients.sagemaker().exceptions.ClientError):
        ask(VIEWER + "models")
