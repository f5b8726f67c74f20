"""Requests that no client should send: every operation answers them with an error of the service.

Hypothesis puts wrong types, huge numbers, NaN, deep nesting, half surrogate pairs and control characters into sound
requests.
FUZZ_MINUTES=5 searches for that long instead of for moments; a failure prints the example, and how to run it again.
"""

import importlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from localsagemaker.endpoints import Endpoints
from localsagemaker.models import ModelData
from localsagemaker.packages import Packages
from localsagemaker.processing import ProcessingJobs
from localsagemaker.service import Service
from localsagemaker.training import TrainingJobs
from localsagemaker.transform import TransformJobs
from localsagemaker.tuning import TuningJobs
from localsagemaker.wire import ServiceError

from localsagemaker import host
from tests.fuzz import search

ROLE = "arn:aws:iam::000000000000:role/job"
RESOURCES = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
S3_DATA = {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/in"}
TRAINING: dict[str, Any] = {
    "AlgorithmSpecification": {"TrainingImage": "train:latest", "TrainingInputMode": "File"},
    "RoleArn": ROLE,
    "InputDataConfig": [{"ChannelName": "training", "DataSource": {"S3DataSource": S3_DATA}}],
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
    "ResourceConfig": RESOURCES,
    "StoppingCondition": {"MaxRuntimeInSeconds": 60},
}
TUNED = TRAINING | {
    "AlgorithmSpecification": TRAINING["AlgorithmSpecification"]
    | {"MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}]},
    "StaticHyperParameters": {"epochs": "1"},
}
SOUND: dict[str, dict[str, Any]] = {
    "CreateModel": {
        "ModelName": "a",
        "PrimaryContainer": {"Image": "serve:latest", "ModelDataUrl": "s3://bucket/model.tar.gz", "Environment": {}},
        "ExecutionRoleArn": ROLE,
    },
    "CreateEndpointConfig": {
        "EndpointConfigName": "a",
        "ProductionVariants": [
            {"VariantName": "one", "ModelName": "a", "InstanceType": "ml.m5.large", "InitialInstanceCount": 2}
        ],
    },
    "CreateEndpoint": {"EndpointName": "a", "EndpointConfigName": "a"},
    "UpdateEndpoint": {
        "EndpointName": "a",
        "EndpointConfigName": "a",
        "RetainAllVariantProperties": True,
        "DeploymentConfig": {
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": {
                    "Type": "CANARY",
                    "WaitIntervalInSeconds": 1,
                    "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 10},
                },
                "TerminationWaitInSeconds": 1,
                "MaximumExecutionTimeoutInSeconds": 600,
            },
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "a"}]},
        },
    },
    "CreateModelPackageGroup": {"ModelPackageGroupName": "a", "Tags": [{"Key": "a", "Value": "b"}]},
    "CreateModelPackage": {
        "ModelPackageGroupName": "group",
        "InferenceSpecification": {
            "Containers": [{"Image": "serve:latest", "ModelDataUrl": "s3://bucket/model.tar.gz"}],
            "SupportedContentTypes": ["image/jpeg"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
        "ModelApprovalStatus": "Approved",
        "CustomerMetadataProperties": {"version": "1"},
    },
    "UpdateModelPackage": {
        "ModelPackageArn": "arn:aws:sagemaker:us-east-1:000000000000:model-package/group/1",
        "ModelApprovalStatus": "Rejected",
        "CustomerMetadataProperties": {"a": "b"},
    },
    "CreateTrainingJob": {"TrainingJobName": "a", "HyperParameters": {"epochs": "1"}, **TRAINING},
    "CreateHyperParameterTuningJob": {
        "HyperParameterTuningJobName": "a",
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 1},
            "ParameterRanges": {
                "ContinuousParameterRanges": [{"Name": "rate", "MinValue": "0.1", "MaxValue": "1"}],
                "IntegerParameterRanges": [{"Name": "size", "MinValue": "1", "MaxValue": "9"}],
                "CategoricalParameterRanges": [{"Name": "kind", "Values": ["a", "b"]}],
            },
            "RandomSeed": 1,
        },
        "TrainingJobDefinition": TUNED,
    },
    "CreateProcessingJob": {
        "ProcessingJobName": "a",
        "ProcessingResources": {"ClusterConfig": RESOURCES},
        "AppSpecification": {"ImageUri": "train:latest", "ContainerEntrypoint": ["python"]},
        "RoleArn": ROLE,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    },
    "CreateTransformJob": {
        "TransformJobName": "a",
        "ModelName": "a",
        "TransformInput": {"DataSource": {"S3DataSource": S3_DATA}},
        "TransformOutput": {"S3OutputPath": "s3://bucket/out"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    },
    "AddTags": {
        "ResourceArn": "arn:aws:sagemaker:us-east-1:000000000000:model/a",
        "Tags": [{"Key": "a", "Value": "b"}],
    },
}
LISTS = {"NameContains": "a", "MaxResults": 5, "NextToken": "0", "CreationTimeAfter": 1.5, "LastModifiedTimeBefore": 1}
NAMES = {"Endpoint": "EndpointName", "Model": "ModelName", "ModelPackage": "ModelPackageName"}

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**30, -(10**18), 10**400, 2**31, -1, 0, 1e308, float("nan"), float("inf"), -0.0, 253402300800]),
    st.floats(),
    st.text(st.characters(codec=None)),
    st.sampled_from(["", "\ud800", "\0", "9" * 400, "1e999", "NaN", "../../x", "a" * 5000, "s3://", "s3://\0/\0", "²"]),
)
junk = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


def a_service(home: Path) -> Service:
    """Roles cannot be assumed, so that every job ends at once."""

    def assume(role: str) -> dict[str, str]:
        raise ServiceError("ValidationException", "no such role")

    told = host.Host(
        home=home, folder=home, search_path=(), python=home / "python", python_hint="", entry_points={"*": ["true"]},
        endpoint_url="http://127.0.0.1:1", account="000000000000", region="us-east-1", assume=assume,
        put_event=lambda *_: None, record_metric=lambda *_: None, alarmed=lambda *_: None,
    )  # fmt: skip
    data = ModelData(told.endpoint_url, told.region, assume)
    data.check = lambda url, role: None  # type: ignore[method-assign] # nobody answers here
    endpoints, training = Endpoints(told, model_data=data), TrainingJobs(told)
    service = Service(
        *(endpoints, Packages(told), training, TuningJobs(told, training)),
        *(ProcessingJobs(told), TransformJobs(told, endpoints)),
    )
    for name in ("group", "CreateModelPackageGroup"):
        assert ask(service, "CreateModelPackageGroup", json.dumps({"ModelPackageGroupName": name}))[0] == 200
    return service


def ask(service: Service, operation: str, body: bytes | str) -> tuple[int, dict[str, Any]]:
    status, _, answer = service.answer("POST", "/", {"x-amz-target": f"SageMaker.{operation}"}, body)
    found = json.loads(answer or b"{}")
    assert isinstance(found, dict)
    return status, found


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    importlib.import_module("optuna")  # a tuning job imports it in its thread, and Hypothesis would meet it half way
    made = a_service(tmp_path_factory.mktemp("service"))
    yield made
    made.close()


def places(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every member, at any depth."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in pairs:
        yield (*where, key)
        yield from places(member, (*where, key))


def with_junk(request: dict[str, Any], where: tuple[Any, ...], what: Any) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(request))
    inner: Any = copied
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = what
    return copied


def sound(operation: str) -> dict[str, Any]:
    if operation in SOUND:
        return SOUND[operation]
    if operation.startswith("List"):
        return LISTS
    noun = operation.removeprefix("Describe").removeprefix("Delete").removeprefix("Stop")
    return {NAMES.get(noun, f"{noun}Name"): "a"}


OPERATIONS = [name for part in (Endpoints, Packages, TrainingJobs, TuningJobs, ProcessingJobs, TransformJobs)
              for name in part.operations] + ["AddTags", "ListTags", "DeleteTags"]  # fmt: skip


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_member_may_be_missing(service: Service, operation: str) -> None:
    """botocore's models require less from one version to the next: ModelName of a variant, AlgorithmSpecification."""
    request = sound(operation)
    for where in places(request):
        status, answer = ask(service, operation, json.dumps(with_junk(request, where, None)))
        assert status == 200 or (400 <= status < 500 and answer["__type"] and answer["message"]), (where, answer)


@pytest.mark.fuzz
@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_request_is_an_internal_error(service: Service, operation: str) -> None:
    request = sound(operation)
    spots = [*places(request), ("Unknown",)]

    @given(st.sampled_from(spots), junk)
    def send(where: tuple[Any, ...], what: Any) -> None:
        status, answer = ask(service, operation, json.dumps(with_junk(request, where, what)))
        assert status == 200 or (400 <= status < 500 and answer["__type"] and answer["message"]), answer

    search(send, tests=len(OPERATIONS))


NO_OBJECTS = [
    *(b"[]", b"1", b'"a"', b"null", b"true", b"{", b"\xff\xfe", b"\0", "{}".encode("utf-16"), b"9" * 5000),
    *(b'{"a": NaN}', b'{"a": Infinity}', b'{"a": 1e999}', b'{"a": "\\ud800"}', b"[" * 100_000, b'{"a":' * 100_000),
]


@pytest.mark.parametrize("body", NO_OBJECTS, ids=lambda body: str(body[:20]))
def test_what_is_no_json_object_is_a_serialization_exception(service: Service, body: bytes) -> None:
    for operation in OPERATIONS:
        status, answer = ask(service, operation, body)
        assert (status, answer["__type"]) == (400, "SerializationException"), operation
        assert answer["message"]


@pytest.mark.parametrize("member", ["CreationTimeAfter", "LastModifiedTimeBefore"])
@pytest.mark.parametrize("value", [1e18, -1e18, 10**400, "9" * 30, "no time", True, [], 253402300800])
def test_a_time_that_is_none_is_an_error_of_the_service(service: Service, member: str, value: Any) -> None:
    status, answer = ask(service, "ListTrainingJobs", json.dumps({member: value}))
    assert status == 400
    assert answer["__type"] in ("SerializationException", "ValidationException")


@pytest.mark.parametrize("token", ["²", "٣", "-1", "a", "", "9" * 30])
def test_a_token_of_no_page_is_refused(service: Service, token: str) -> None:
    status, answer = ask(service, "ListEndpoints", json.dumps({"NextToken": token}))
    assert (status, answer["__type"]) == (400, "ValidationException")


@pytest.mark.parametrize("value", [0, 1.5, 1795860000, "2026-11-28T10:00:00Z", "1795860000"])
def test_a_time_is_seconds_or_text_in_iso_8601(service: Service, value: Any) -> None:
    assert ask(service, "ListTrainingJobs", json.dumps({"CreationTimeAfter": value}))[0] == 200


def test_a_number_that_is_none_is_refused(service: Service) -> None:
    for value in (True, 2**31, -(2**40)):
        request = with_junk(SOUND["CreateTrainingJob"], ("StoppingCondition", "MaxRuntimeInSeconds"), value)
        assert ask(service, "CreateTrainingJob", json.dumps(request))[0] == 400


def test_jobs_and_endpoints_of_odd_requests_end(
    service: Service, settled: Callable[[Callable[[], bool]], None]
) -> None:
    """A control character that no process can be given ends its endpoint; it does not stay in creation."""
    odd = with_junk(SOUND["CreateModel"], ("PrimaryContainer", "Environment"), {"A": "\0"}) | {"ModelName": "odd"}
    assert ask(service, "CreateModel", json.dumps(odd))[0] == 200
    config = {"EndpointConfigName": "odd", "ProductionVariants": [
        {"VariantName": "one", "ModelName": "odd", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    ]}  # fmt: skip
    assert ask(service, "CreateEndpointConfig", json.dumps(config))[0] == 200
    create = {"EndpointName": "odd", "EndpointConfigName": "odd"}
    assert ask(service, "CreateEndpoint", json.dumps(create))[0] == 200
    settled(lambda: ask(service, "DescribeEndpoint", '{"EndpointName": "odd"}')[1]["EndpointStatus"] == "Failed")


@pytest.fixture
def settled() -> Callable[[Callable[[], bool]], None]:
    def wait(met: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not met():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    return wait
