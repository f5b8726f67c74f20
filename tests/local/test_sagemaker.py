"""Models, endpoints and InvokeEndpoint on one machine, asked with boto3 as the stack asks them."""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.stack import Local

REALTIME = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}


@pytest.fixture(scope="module")
def live(ours: Local, model: Callable[..., str], settled: Callable[..., dict[str, Any]]) -> str:
    """An endpoint in service that tests may ask but not change."""
    ours.client("sagemaker").create_endpoint(EndpointName="live", EndpointConfigName=model(ours, "live", "v1"))
    assert settled(ours, "live")["EndpointStatus"] == "InService"
    return "live"


def test_an_endpoint_from_model_to_deletion(
    ours: Local, model: Callable[..., str], settled: Callable[..., dict[str, Any]], ask: Callable[..., dict[str, Any]]
) -> None:
    sagemaker = ours.client("sagemaker")
    arn = sagemaker.create_endpoint(EndpointName="whole", EndpointConfigName=model(ours, "whole", "v1"))["EndpointArn"]
    assert sagemaker.describe_endpoint(EndpointName="whole")["EndpointStatus"] == "Creating"
    described = settled(ours, "whole")
    assert described["EndpointArn"] == arn == "arn:aws:sagemaker:us-east-1:000000000000:endpoint/whole"
    assert described["EndpointConfigName"] == "whole"
    assert described["ProductionVariants"][0]["CurrentServerlessConfig"]["MaxConcurrency"] == 20
    answer = ask(ours, "whole")
    assert (answer["model_version"], answer["type"]) == ("v1", "image/jpeg")
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "BINTALLY_HOME"} & set(answer["variables"])
    sagemaker.delete_endpoint(EndpointName="whole")
    with contextlib.suppress(ClientError):
        while True:
            assert sagemaker.describe_endpoint(EndpointName="whole")["EndpointStatus"] == "Deleting"
    assert not Path(f"/proc/{answer['pid']}").exists()
    assert not list((ours.home / "endpoints").glob("whole-*"))
    sagemaker.delete_endpoint_config(EndpointConfigName="whole")
    sagemaker.delete_model(ModelName="whole")
    for describe, name in (
        (sagemaker.describe_endpoint, {"EndpointName": "whole"}),
        (sagemaker.describe_endpoint_config, {"EndpointConfigName": "whole"}),
        (sagemaker.describe_model, {"ModelName": "whole"}),
    ):
        with pytest.raises(ClientError, match=r"\(ValidationException\).*Could not find"):
            describe(**name)


def test_an_update_drops_no_request(
    ours: Local, model: Callable[..., str], settled: Callable[..., dict[str, Any]], ask: Callable[..., dict[str, Any]]
) -> None:
    sagemaker = ours.client("sagemaker")
    sagemaker.create_endpoint(EndpointName="update", EndpointConfigName=model(ours, "update-1", "v1"))
    settled(ours, "update")
    model(ours, "update-2", "v2")
    asking, updated = threading.Barrier(5), threading.Event()

    def keep_asking(_: object) -> list[str]:
        versions = [ask(ours, "update")["model_version"]]
        asking.wait()
        versions.append(ask(ours, "update", b"slow")["model_version"])
        while not updated.is_set():
            versions.append(ask(ours, "update")["model_version"])
        return [*versions, ask(ours, "update")["model_version"]]

    with ThreadPoolExecutor(4) as pool:
        asked = pool.map(keep_asking, range(4))
        asking.wait()
        sagemaker.update_endpoint(EndpointName="update", EndpointConfigName="update-2")
        during = sagemaker.describe_endpoint(EndpointName="update")
        after = settled(ours, "update")
        updated.set()
        seen = list(asked)
    assert (during["EndpointStatus"], during["EndpointConfigName"]) == ("Updating", "update-1")
    assert (after["EndpointConfigName"], "FailureReason" in after) == ("update-2", False)
    for versions in seen:
        assert versions[0] == "v1"
        assert versions[-1] == "v2"
        assert versions == sorted(versions)


def test_a_failed_update_leaves_the_old_model_in_service(
    ours: Local, model: Callable[..., str], settled: Callable[..., dict[str, Any]], ask: Callable[..., dict[str, Any]]
) -> None:
    sagemaker = ours.client("sagemaker")
    sagemaker.create_endpoint(EndpointName="stays", EndpointConfigName=model(ours, "stays-1", "v1"))
    settled(ours, "stays")
    before = ask(ours, "stays")
    model(ours, "stays-2", "broken")
    sagemaker.update_endpoint(EndpointName="stays", EndpointConfigName="stays-2")
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        sagemaker.update_endpoint(EndpointName="stays", EndpointConfigName="stays-2")
    after = settled(ours, "stays")
    assert (after["EndpointStatus"], after["EndpointConfigName"]) == ("InService", "stays-1")
    assert "the model does not load" in after["FailureReason"]
    assert ask(ours, "stays") == before


def test_an_endpoint_that_cannot_start_says_why(
    ours: Local, model: Callable[..., str], settled: Callable[..., dict[str, Any]], ask: Callable[..., dict[str, Any]]
) -> None:
    sagemaker = ours.client("sagemaker")
    sagemaker.create_endpoint(EndpointName="fails", EndpointConfigName=model(ours, "fails", "broken"))
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        sagemaker.delete_endpoint(EndpointName="fails")
    failed = settled(ours, "fails")
    assert failed["EndpointStatus"] == "Failed"
    assert "the model does not load" in failed["FailureReason"]
    with pytest.raises(ClientError, match="Cannot update failed endpoint"):
        sagemaker.update_endpoint(EndpointName="fails", EndpointConfigName="fails")
    with pytest.raises(ClientError, match="not found"):
        ask(ours, "fails")
    sagemaker.delete_endpoint(EndpointName="fails")


def test_model_data_that_is_no_archive_fails_the_endpoint(
    ours: Local, model: Callable[..., str], settled: Callable[..., dict[str, Any]]
) -> None:
    name = model(ours, "garbled", "v1")
    ours.client("s3").put_object(Bucket="garbled-models", Key="v1/model.tar.gz", Body=b"not an archive")
    ours.client("sagemaker").create_endpoint(EndpointName="garbled", EndpointConfigName=name)
    assert "Failed to extract model data archive" in settled(ours, "garbled")["FailureReason"]


def test_a_process_that_dies_is_started_again(
    ours: Local, model: Callable[..., str], settled: Callable[..., dict[str, Any]], ask: Callable[..., dict[str, Any]]
) -> None:
    ours.client("sagemaker").create_endpoint(EndpointName="dies", EndpointConfigName=model(ours, "dies", "v1"))
    settled(ours, "dies")
    first = ask(ours, "dies")["pid"]
    with pytest.raises(ClientError) as caught:
        ask(ours, "dies", b"die")
    assert caught.value.response["Error"]["Code"] == "ServiceUnavailable"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(ClientError):
            assert ask(ours, "dies")["pid"] != first
            return
        time.sleep(0.1)
    raise AssertionError("it did not come back")


def test_errors_of_the_container_arrive_as_model_errors(
    ours: Local, live: str, ask: Callable[..., dict[str, Any]]
) -> None:
    for status in (400, 415, 500, 503):
        with pytest.raises(ClientError) as caught:
            ask(ours, live, str(status).encode())
        response: Any = caught.value.response
        assert response["Error"]["Code"] == "ModelError"
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
        assert response["OriginalStatusCode"] == status
        assert response["OriginalMessage"] == '{"error": "as asked"}'


def test_a_request_above_the_limit_is_refused(ours: Local, live: str, ask: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(ClientError) as caught:
        ask(ours, live, bytes(4 * 1024 * 1024 + 1))
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert ask(ours, live, bytes(4 * 1024 * 1024))["model_version"] == "v1"


def test_slow_requests_run_at_once_and_block_nothing(
    ours: Local, live: str, ask: Callable[..., dict[str, Any]]
) -> None:
    with ThreadPoolExecutor(8) as pool:
        started = time.monotonic()
        slow = [pool.submit(ask, ours, live, b"slow") for _ in range(8)]
        ours.client("s3").list_buckets()
        others = time.monotonic() - started
        assert {one.result()["model_version"] for one in slow} == {"v1"}
        assert others < time.monotonic() - started < 6


def test_more_at_once_than_a_serverless_endpoint_takes_is_throttled(
    ours: Local, model: Callable[..., str], settled: Callable[..., dict[str, Any]], ask: Callable[..., dict[str, Any]]
) -> None:
    serverless = {"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}
    name = model(ours, "narrow", "v1", **serverless)
    ours.client("sagemaker").create_endpoint(EndpointName="narrow", EndpointConfigName=name)
    settled(ours, "narrow")
    codes = []

    def try_it(_: object) -> None:
        try:
            ask(ours, "narrow", b"slow")
        except ClientError as error:
            codes.append(error.response["Error"]["Code"])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(try_it, range(3)))
    assert set(codes) == {"ThrottlingException"}
    assert ask(ours, "narrow")["model_version"] == "v1"


def test_only_a_role_that_may_invoke_this_endpoint_can(
    ours: Local, live: str, role: Callable[..., str], as_role: Callable[..., Any]
) -> None:
    arn = f"arn:aws:sagemaker:us-east-1:000000000000:endpoint/{live}"
    invoke = {"Effect": "Allow", "Action": "sagemaker:InvokeEndpoint"}
    may = role(ours, "asks", None, {**invoke, "Resource": arn})
    another = role(ours, "asks-another", None, {**invoke, "Resource": f"{arn}-of-another"})
    nothing = role(ours, "asks-nothing", None)
    request = {"EndpointName": live, "Body": b"count", "ContentType": "image/jpeg"}
    assert as_role(ours, may, "sagemaker-runtime").invoke_endpoint(**request)["InvokedProductionVariant"]
    for refused in (another, nothing):
        with pytest.raises(ClientError) as caught:
            as_role(ours, refused, "sagemaker-runtime").invoke_endpoint(**request)
        assert caught.value.response["Error"]["Code"] == "AccessDeniedException"
    describe = {"Effect": "Allow", "Action": "sagemaker:DescribeEndpoint", "Resource": arn}
    looks = as_role(ours, role(ours, "looks", None, describe), "sagemaker")
    assert looks.describe_endpoint(EndpointName=live)["EndpointStatus"] == "InService"
    for operation, arguments in (
        (looks.delete_endpoint, {"EndpointName": live}),
        (looks.describe_endpoint, {"EndpointName": "another"}),
        (looks.list_endpoints, {}),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            operation(**arguments)


def test_the_model_is_read_with_its_own_role(ours: Local, role: Callable[..., str]) -> None:
    ours.client("s3").create_bucket(Bucket="unread-models")
    ours.client("s3").put_object(Bucket="unread-models", Key="model.tar.gz", Body=b"x")
    read = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::unread-models/*"}
    cannot_read = role(ours, "unread-1", "sagemaker.amazonaws.com")
    not_for_sagemaker = role(ours, "unread-2", "lambda.amazonaws.com", read)
    may = role(ours, "unread-3", "sagemaker.amazonaws.com", read)
    container = {"Image": "serving", "ModelDataUrl": "s3://unread-models/model.tar.gz"}
    missing = {**container, "ModelDataUrl": "s3://unread-models/missing.tar.gz"}
    sagemaker = ours.client("sagemaker")
    for container_now, role_now in (
        (container, cannot_read),
        (container, not_for_sagemaker),
        (container, f"{may}-missing"),
        (missing, may),
    ):
        with pytest.raises(ClientError, match=r"\(ValidationException\).*Could not access model data"):
            sagemaker.create_model(ModelName="unread", PrimaryContainer=container_now, ExecutionRoleArn=role_now)
    sagemaker.create_model(ModelName="unread", PrimaryContainer=container, ExecutionRoleArn=may)
    with pytest.raises(ClientError, match="Cannot create already existing model"):
        sagemaker.create_model(ModelName="unread", PrimaryContainer=container, ExecutionRoleArn=may)


def test_a_real_time_endpoint_cannot_become_serverless(
    ours: Local, model: Callable[..., str], settled: Callable[..., dict[str, Any]]
) -> None:
    sagemaker = ours.client("sagemaker")
    sagemaker.create_endpoint(EndpointName="fixed", EndpointConfigName=model(ours, "fixed-1", "v1", **REALTIME))
    described = settled(ours, "fixed")
    assert described["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    model(ours, "fixed-2", "v2")
    with pytest.raises(ClientError, match="from real-time to serverless"):
        sagemaker.update_endpoint(EndpointName="fixed", EndpointConfigName="fixed-2")
    assert sagemaker.describe_endpoint(EndpointName="fixed")["EndpointStatus"] == "InService"


def test_what_is_not_supported_is_refused_by_name(ours: Local, model: Callable[..., str]) -> None:
    sagemaker = ours.client("sagemaker")
    name = model(ours, "plain", "v1")
    options = [{"CaptureMode": "Input"}]
    capture = {"InitialSamplingPercentage": 1, "DestinationS3Uri": "s3://x/y", "CaptureOptions": options}
    variant = {"VariantName": "A", "ModelName": name, **REALTIME}
    with pytest.raises(ClientError, match="not supported on one machine: DataCaptureConfig"):
        sagemaker.create_endpoint_config(
            EndpointConfigName="plain-2", ProductionVariants=[variant], DataCaptureConfig=capture
        )
    with pytest.raises(ClientError, match="exactly one production variant"):
        sagemaker.create_endpoint_config(
            EndpointConfigName="plain-2", ProductionVariants=[variant, {**variant, "VariantName": "B"}]
        )
    with pytest.raises(ClientError, match=r"UnknownOperationException.*not supported on one machine"):
        sagemaker.list_notebook_instances()


def test_requests_are_checked_against_the_service_model(ours: Local) -> None:
    sagemaker = ours.client("sagemaker", parameter_validation=False)
    for operation, request, said in (
        (sagemaker.create_endpoint, {"EndpointName": "x"}, "EndpointConfigName"),
        (sagemaker.create_endpoint, {"EndpointName": "a_b", "EndpointConfigName": "x"}, "regular expression"),
        (sagemaker.create_endpoint, {"EndpointName": "a" * 64, "EndpointConfigName": "x"}, "less than or equal to 63"),
        (sagemaker.list_endpoints, {"SortBy": "Colour"}, "enum value set"),
        (sagemaker.list_endpoints, {"MaxResults": 1000}, "less than or equal to 100"),
    ):
        with pytest.raises(ClientError, match=rf"\(ValidationException\)(?s:.)*{said}"):
            operation(**request)


def test_lists_are_filtered_sorted_and_paged(ours: Local, role: Callable[..., str]) -> None:
    ours.client("s3").create_bucket(Bucket="listed-models")
    ours.client("s3").put_object(Bucket="listed-models", Key="m.tar.gz", Body=b"x")
    read = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
    arn = role(ours, "listed", "sagemaker.amazonaws.com", read)
    sagemaker = ours.client("sagemaker")
    container = {"Image": "serving", "ModelDataUrl": "s3://listed-models/m.tar.gz"}
    names = [f"listed-{n}" for n in (2, 0, 3, 1)]
    for name in names:
        sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=arn)
    pages = sagemaker.get_paginator("list_models").paginate(NameContains="listed-", PaginationConfig={"PageSize": 3})
    found = [[model["ModelName"] for model in page["Models"]] for page in pages]
    assert found == [names[::-1][:3], names[::-1][3:]]
    by_name = sagemaker.list_models(NameContains="listed-", SortBy="Name", SortOrder="Ascending")["Models"]
    assert [model["ModelName"] for model in by_name] == sorted(names)


def test_endpoints_come_back_after_a_stop(
    own: Local,
    model: Callable[..., str],
    settled: Callable[..., dict[str, Any]],
    ask: Callable[..., dict[str, Any]],
    serves: Callable[[Local, str], None],
) -> None:
    own.start_emulator()
    own.client("sagemaker").create_endpoint(EndpointName="back", EndpointConfigName=model(own, "back", "v1"))
    settled(own, "back")
    first = ask(own, "back")["pid"]
    assert own.down()
    assert not Path(f"/proc/{first}").exists()
    own.start_emulator()
    assert settled(own, "back")["EndpointStatus"] == "InService"
    serves(own, "back")
    assert ask(own, "back")["model_version"] == "v1"


def test_a_killed_emulator_takes_its_endpoints_with_it(
    own: Local, model: Callable[..., str], settled: Callable[..., dict[str, Any]], ask: Callable[..., dict[str, Any]]
) -> None:
    own.start_emulator()
    own.client("sagemaker").create_endpoint(EndpointName="orphan", EndpointConfigName=model(own, "orphan", "v1"))
    settled(own, "orphan")
    serving = Path(f"/proc/{ask(own, 'orphan')['pid']}")
    assert serving.exists()
    os.kill(int(own.pid_file.read_text()), 9)
    deadline = time.monotonic() + 10
    while serving.exists() and "Z" not in (serving / "stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    own.start_emulator()
    assert own.running()
