"""Releases: the state machine and its function together, with an error or a stop at each of their calls."""

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from bintally import advance
from bintally.aws import clients
from bintally.common.events import WrongEvent
from bintally.releasing import settings
from bintally.releasing.advance_release import STOPPED_POLLS, waits_for
from bintally.releasing.images import by_digest
from bintally.releasing.release import POLLS, QUOTA_POLLS, Failed, Release, settings_digest
from bintally.releasing.settings import release_settings
from moto import mock_aws

from tests.functions.releases import (
    DEFINITION,
    ENDPOINT,
    IMAGE,
    MACHINE,
    STACK,
    Cloud,
    Killed,
    Machine,
    Stopped,
    refusal,
    services,
)

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    "STACK_NAME": STACK,
    "COUNTS_TABLE": "counts",
    "ARTIFACTS_BUCKET": "artifacts",
    "COUNT_MAPPING": "6c1d0a3e",
    "MODEL_ROLE": "arn:aws:iam::123456789012:role/model",
    "SERVING_IMAGE": f"{IMAGE}:1",
    "ENDPOINT_MODE": "serverless",
    "SERVERLESS_MEMORY": "3072",
    "COUNT_CONCURRENCY": "5",
    "PROVISIONED_CONCURRENCY": "0",
    "INSTANCE_TYPE": "ml.c7i.large",
    "INSTANCE_COUNT": "2",
    "MAXIMUM_INSTANCES": "0",
    "DATA_CAPTURE_PERCENT": "0",
    "SUBNET_IDS": "",
    "SECURITY_GROUP_IDS": "",
    "DATA_KEY": "",
    "CANARY_PERCENT": "10",
    "CANARY_WAIT_SECONDS": "300",
    "CANARY_ALARMS": "errors,latency,confidence",
}
Configure = Callable[..., None]


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Configure:
    """configure(SERVERLESS_MEMORY="2048") changes settings as a stack update does."""

    def change(**changes: str) -> None:
        for name, value in {**ENVIRONMENT, **changes}.items():
            monkeypatch.setenv(name, value)
        release_settings.cache_clear()

    change()
    return change


@pytest.fixture
def cloud(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    cloud = Cloud()
    monkeypatch.setattr(advance, "services", lambda: services(cloud))
    return cloud


@pytest.fixture
def machine(cloud: Cloud) -> Machine:
    """With version 1 live."""
    machine = Machine(cloud, advance.handler)
    assert machine.run(machine.upload("1"))[0]["outcome"] == "released"
    cloud.calls.clear()
    cloud.told.clear()
    cloud.counting = False
    return machine


def as_before(cloud: Cloud, version: str = "1") -> None:
    """A release that failed leaves the live endpoint, and nothing of its own."""
    assert cloud.live() == version
    assert set(cloud.endpoints) == ({ENDPOINT} if version else set())
    assert set(cloud.configs) == set(cloud.models)
    assert {cloud.version(config) for config in cloud.configs} <= {version}
    assert cloud.items == {}


def names(cloud: Cloud) -> list[str]:
    return [name for name, _ in cloud.calls]


def test_a_release_goes_by_its_candidate_and_enables_counting(machine: Machine, cloud: Cloud) -> None:
    before = cloud.endpoints[ENDPOINT].config
    output, execution = machine.run(machine.upload("2"))
    assert output == {
        "outcome": "released",
        "reason": "version 2 is live",
        "model_version": "2",
        "endpoint": ENDPOINT,
    }
    assert (cloud.live(), cloud.counting, cloud.items) == ("2", True, {})
    assert set(cloud.endpoints) == {ENDPOINT}
    assert set(cloud.configs) == set(cloud.models) == {before, cloud.endpoints[ENDPOINT].config}
    (told,) = cloud.told
    assert (told["outcome"], told["error"], told["model_version"]) == ("released", "", "2")
    assert execution.entered.index("AskCandidate") < execution.entered.index("ChangeLive")


def test_a_first_release_creates_the_endpoint(cloud: Cloud) -> None:
    machine = Machine(cloud, advance.handler)
    assert machine.run(machine.upload("1"))[0]["outcome"] == "released"
    assert cloud.live() == "1"
    created = [request["EndpointName"] for name, request in cloud.calls if name == "create_endpoint"]
    assert created == [created[0], ENDPOINT]


def test_what_a_release_creates_or_updates_has_the_tag_of_the_stack(machine: Machine, cloud: Cloud) -> None:
    """An endpoint that an older version created has none until it is updated."""
    assert machine.run(machine.upload("2"))[0]["outcome"] == "released"
    tagged = {name: request for name, request in cloud.calls if name.startswith("create_") or name == "add_tags"}
    assert tagged.keys() == {"create_model", "create_endpoint_config", "create_endpoint", "add_tags"}
    for name, request in tagged.items():
        assert request["Tags"] == [{"Key": "bintally-stack", "Value": STACK}], name
    assert tagged["add_tags"]["ResourceArn"].endswith(f"/{ENDPOINT}")


def test_the_candidate_is_gone_before_the_update_begins(machine: Machine, cloud: Cloud) -> None:
    """So that an account whose quota has room for one endpoint more can release."""

    beside: list[set[str]] = []

    def look(_number: int, name: str, done: bool) -> None:
        if name == "update_endpoint" and not done:
            beside.append(set(cloud.endpoints))

    cloud.fault = look
    assert machine.run(machine.upload("2"))[0]["outcome"] == "released"
    assert beside == [{ENDPOINT}]


@pytest.mark.parametrize(
    ("broken", "wrong", "error", "reason"),
    [
        ("2", "", "CandidateFailed", "the candidate endpoint is Failed: it does not start"),
        ("", "2", "CandidateWrong", "the candidate answers wrong: it answers as 2"),
        ("", ENDPOINT, "LiveWrong", "the live endpoint answers wrong: it answers as 2"),
    ],
)
def test_what_fails_is_told_and_undone(
    machine: Machine, cloud: Cloud, broken: str, wrong: str, error: str, reason: str
) -> None:
    cloud.broken, cloud.wrong = {broken}, {wrong}
    output, _ = machine.run(machine.upload("2"))
    assert output == {"Error": error, "Cause": reason}
    (told,) = cloud.told
    assert (told["outcome"], told["error"], told["reason"]) == ("failed", error, reason)
    as_before(cloud)


def test_an_update_that_sagemaker_undid_is_not_asked_for_again(machine: Machine, cloud: Cloud) -> None:
    def break_(_number: int, name: str, done: bool) -> None:
        if name == "update_endpoint":
            cloud.broken = {"2"}

    cloud.fault = break_
    output, _ = machine.run(machine.upload("2"))
    assert output == {"Error": "RolledBack", "Cause": "SageMaker went back to the model before: an alarm"}
    assert names(cloud).count("update_endpoint") == 1  # nor is the previous one, which is live
    as_before(cloud)


def test_a_first_release_that_fails_leaves_no_endpoint(cloud: Cloud) -> None:
    machine = Machine(cloud, advance.handler)
    cloud.wrong = {ENDPOINT}
    assert machine.run(machine.upload("1"))[0]["Error"] == "LiveWrong"
    as_before(cloud, "")


def test_an_endpoint_that_cannot_be_restored_is_told(machine: Machine, cloud: Cloud) -> None:
    def refuse(_number: int, name: str, done: bool) -> None:
        if name == "update_endpoint" and names(cloud).count(name) > 1:
            raise refusal("ValidationException", "no")

    cloud.wrong, cloud.fault = {ENDPOINT}, refuse
    output, _ = machine.run(machine.upload("2"))
    assert output["Error"] == "LiveWrong"
    assert f"; and endpoint {ENDPOINT} could not be restored: it is InService: " in output["Cause"]
    assert cloud.items == {}


def test_a_model_that_answered_right_stays_though_counting_cannot_be_enabled(machine: Machine, cloud: Cloud) -> None:
    def refuse(_number: int, name: str, done: bool) -> None:
        if name == "update_event_source_mapping":
            raise refusal("AccessDeniedException", "not you", 403)

    cloud.fault = refuse
    output, _ = machine.run(machine.upload("2"))
    assert output["Error"] == "AccessDeniedException"
    assert (cloud.live(), cloud.items, set(cloud.endpoints)) == ("2", {}, {ENDPOINT})
    cloud.fault = lambda *_: None
    assert machine.run(machine.upload("2"))[0]["outcome"] == "already live"
    assert cloud.counting


# Interrupted


def calls_of_a_release(request: Callable[[Machine], Any]) -> int:
    """How many calls a release makes, which a fault may meet."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        release_settings.cache_clear()
        cloud = Cloud()
        patch.setattr(advance, "services", lambda: services(cloud))
        machine = Machine(cloud, advance.handler)
        machine.run(machine.upload("1"))
        cloud.calls.clear()
        machine.run(request(machine))
        release_settings.cache_clear()
    return len(cloud.calls)


CALLS = calls_of_a_release(lambda machine: machine.register("2"))


def wrong(machine: Machine) -> Any:
    machine.cloud.wrong.add(ENDPOINT)
    return machine.upload("2")


FAILING = calls_of_a_release(wrong)


@pytest.mark.parametrize("done", [False, True], ids=["lost-request", "lost-answer"])
def test_a_function_that_ends_at_any_call_is_tried_again(machine: Machine, cloud: Cloud, done: bool) -> None:
    for number in range(CALLS):
        version = f"2-{number}"
        request = machine.register(version)
        cloud.calls.clear()
        cloud.counting = False
        killed: list[str] = []

        def kill(at: int, name: str, is_done: bool, number: int = number, killed: list[str] = killed) -> None:
            if at == number and is_done == done:
                killed.append(name)
                raise Killed(name)

        cloud.fault = kill
        output, _ = machine.run(request)
        assert killed, number
        assert output.get("outcome") == "released", (killed, output)
        assert (cloud.live(), cloud.counting, cloud.items) == (version, True, {}), killed
        assert set(cloud.endpoints) == {ENDPOINT}
        assert len(cloud.configs) <= 3
        assert names(cloud).count("update_endpoint") == (2 if killed == ["update_endpoint"] and not done else 1)
        cloud.fault = lambda *_: None


@pytest.mark.parametrize("done", [False, True], ids=["lost-request", "lost-answer"])
def test_a_function_that_ends_at_any_call_of_a_release_that_fails_restores_all_the_same(
    machine: Machine, cloud: Cloud, done: bool
) -> None:
    cloud.wrong = {ENDPOINT}
    for number in range(CALLS // 2, FAILING):  # before, nothing differs from a release that succeeds
        request = machine.upload("2")
        cloud.calls.clear()

        def kill(at: int, name: str, is_done: bool, number: int = number) -> None:
            if at == number and is_done == done:
                raise Killed(name)

        cloud.fault = kill
        output, _ = machine.run(request)
        cloud.fault = lambda *_: None
        assert output["Error"] == "LiveWrong", number
        as_before(cloud)


@pytest.mark.parametrize("from_", ["create_endpoint", "put", "update_endpoint", "update_event_source_mapping"])
def test_a_function_that_always_fails_from_some_call_on_leaves_what_was_live(
    machine: Machine, cloud: Cloud, from_: str
) -> None:
    """Until the release ends: then the fault is mended, and the next release finds what this one left."""

    def fail(_number: int, name: str, done: bool) -> None:
        if from_ in names(cloud) and not done:
            raise Killed(name)

    cloud.fault = fail
    output, _ = machine.run(machine.upload("2"))
    assert output["Error"] == "Killed"
    assert len(cloud.told) == 1
    cloud.fault = lambda *_: None
    cloud.now += 100
    assert machine.run(machine.upload("3"))[0]["outcome"] == "released"
    assert cloud.live() == "3"
    assert set(cloud.endpoints) == {ENDPOINT}


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_release_that_is_stopped_at_any_call_is_cleaned_up_after(machine: Machine, cloud: Cloud, done: bool) -> None:
    live, outcomes = "1", set()
    for number in range(CALLS):
        version = f"2-{number}"
        request = machine.register(version)
        cloud.calls.clear()
        cloud.told.clear()

        def stop(at: int, name: str, is_done: bool, number: int = number) -> None:
            if at == number and is_done == done:
                cloud.fault = lambda *_: None
                raise Stopped(name)

        cloud.fault = stop
        output, stopped = machine.stop_and_clean_up(request)
        (told,) = cloud.told
        assert told["execution"] == stopped
        assert "a person pressed stop" in told["reason"]
        assert told["outcome"] == output["outcome"]
        outcomes.add(output["outcome"])
        live = version if output["outcome"] == "released" else live
        assert (cloud.live(), cloud.items) == (live, {}), (number, output)
        assert set(cloud.endpoints) == {ENDPOINT}
        assert set(cloud.configs) == set(cloud.models)
        assert len(cloud.configs) <= 3
    assert outcomes == {"failed", "released"}


def test_a_function_that_outlives_its_execution_changes_nothing(machine: Machine, cloud: Cloud) -> None:
    """The clean-up holds the lock; the stopped release's function is still in the middle of a step."""
    request = machine.upload("2")
    step = {"input": request, "verdict": {}, "execution": f"{MACHINE}:late"}
    begun: dict[str, Any] = {"execution": f"{MACHINE}:late", "stopped": "", "endpoint": ENDPOINT, "outcome": "failed"}
    begun |= {"why": {"Error": "", "Cause": ""}, "restored": True, "model_version": "", "model_data_url": ""}
    prepared = advance.handler({**step, "step": "prepare", "release": begun}, None)
    assert prepared["next"] == "create"
    cloud.items["LOCK#release"]["owner"] = f"{MACHINE}:clean-up"
    for name in ("create_candidate", "change_live", "finish", "restore"):
        cloud.calls.clear()
        found = advance.handler({**step, "step": name, "release": prepared["release"]}, None)
        assert (found["next"], found["release"]["why"]["Error"]) == ("end", "LockLost")
        assert not [one for one in names(cloud) if one.startswith(("create", "update", "delete", "put"))]


def test_without_its_lock_nothing_of_a_stopped_release_is_touched(machine: Machine, cloud: Cloud) -> None:
    """Its names may be those of what is live."""
    cloud.items["LOCK#release"] = {"PK": "LOCK#release", "SK": "LOCK", "owner": "another", "model_version": "9"}
    cloud.executions[f"{MACHINE}:gone"] = "ABORTED"
    event = {"detail": {"executionArn": f"{MACHINE}:gone", "status": "ABORTED"}}
    output, _ = machine.run(event)
    assert output["outcome"] == "failed"
    assert output["reason"] == "a person pressed stop; it held no lock, or no longer: nothing was restored"
    assert not [one for one in names(cloud) if one.startswith(("create", "update", "delete"))]
    assert cloud.items["LOCK#release"]["owner"] == "another"


# Quotas


def test_a_short_quota_is_waited_for(machine: Machine, cloud: Cloud) -> None:
    def free(_number: int, name: str, done: bool) -> None:
        if cloud.now > 200:
            cloud.limit = 100

    cloud.limit, cloud.fault = 1, free
    assert machine.run(machine.upload("2"))[0]["outcome"] == "released"


@pytest.mark.parametrize("operation", ["create_endpoint", "update_endpoint"])
def test_a_quota_that_stays_short_is_named(machine: Machine, cloud: Cloud, operation: str) -> None:
    def refuse(_number: int, name: str, done: bool) -> None:
        if name == operation and not done:
            raise refusal("ResourceLimitExceeded", "The account-level service limit is 5")

    cloud.fault, began = refuse, cloud.now
    output, _ = machine.run(machine.upload("2"))
    assert output["Error"] == "ResourceLimitExceeded"
    assert "quota 'total concurrency of all serverless endpoints'" in output["Cause"]
    assert "needs 5 more" in output["Cause"]
    assert output["Cause"].endswith("The account-level service limit is 5")
    assert cloud.now - began > 500
    assert names(cloud).count(operation) == QUOTA_POLLS + 1
    cloud.fault = lambda *_: None
    as_before(cloud)


def test_the_quota_of_instances_is_named_by_their_type(cloud: Cloud, configure: Configure) -> None:
    configure(ENDPOINT_MODE="realtime")
    machine = Machine(cloud, advance.handler)
    cloud.limit = 0
    output, _ = machine.run(machine.upload("1"))
    assert "quota 'ml.c7i.large for endpoint usage'" in output["Cause"]
    assert "needs 2 more" in output["Cause"]


# The package


def test_the_model_takes_only_the_package_that_was_read(machine: Machine, cloud: Cloud) -> None:
    machine.run(machine.register("2"))
    model = cloud.models[cloud.endpoints[ENDPOINT].config]
    digest = model["PrimaryContainer"]["Environment"]["BINTALLY_PACKAGE_DIGEST"]
    assert re.fullmatch("[0-9a-f]{64}", digest)
    before = cloud.endpoints[ENDPOINT].config
    request = machine.register("3", package_digest=digest)  # which is version 2's
    output, _ = machine.run(request)
    assert output["Error"] == "PackageChanged"
    assert "models/3/model.tar.gz has changed since it was registered" in output["Cause"]
    assert cloud.endpoints[ENDPOINT].config == before


@pytest.mark.parametrize("digest", ["0" * 64, 5])
def test_a_release_by_hand_refuses_another_package_than_it_names(machine: Machine, cloud: Cloud, digest: Any) -> None:
    request = machine.upload("2")
    assert machine.run({**request, "package_digest": digest})[0]["Error"] == "PackageChanged"
    assert machine.run({**request, "package_digest": "none"})[0]["outcome"] == "released"


@pytest.mark.parametrize("registered", ["right", "none", None])
def test_a_package_that_is_as_registered_is_released(machine: Machine, cloud: Cloud, registered: str | None) -> None:
    machine.run(machine.register("2"))
    model = cloud.models[cloud.endpoints[ENDPOINT].config]
    right = model["PrimaryContainer"]["Environment"]["BINTALLY_PACKAGE_DIGEST"]
    known = {"package_digest": right if registered == "right" else registered} if registered else {}
    assert machine.run({**machine.register("2", **known), "again": True})[0]["outcome"] == "released"


def test_a_missing_package_changes_nothing(machine: Machine, cloud: Cloud) -> None:
    request = {"model_version": "9", "model_data_url": "s3://artifacts/models/9/model.tar.gz"}
    assert machine.run(request)[0]["Error"] == "NoSuchKey"
    cloud.objects["models/9/model.tar.gz"] = b"no archive"
    assert machine.run(request)[0]["Error"] == "BadPackage"
    as_before(cloud)


# Settings


@pytest.mark.parametrize(
    "change",
    [
        {"SERVERLESS_MEMORY": "2048"},
        {"COUNT_CONCURRENCY": "6"},
        {"PROVISIONED_CONCURRENCY": "2"},
        {"SERVING_IMAGE": "serve:2"},
    ],
)
def test_a_live_version_is_released_again_when_a_setting_has_changed(
    machine: Machine, cloud: Cloud, configure: Configure, change: dict[str, str]
) -> None:
    request = machine.upload("1")
    output, execution = machine.run(request)
    assert (output["outcome"], cloud.counting) == ("already live", True)
    assert "CreateCandidate" not in execution.entered
    configure(**change)
    assert machine.run(request)[0]["outcome"] == "released"
    assert machine.run(request)[0]["outcome"] == "already live"
    assert machine.run({**request, "again": True})[0]["outcome"] == "released"


def test_an_image_that_was_built_anew_under_its_tag_is_released(machine: Machine, cloud: Cloud) -> None:
    request = machine.upload("1")
    served = next(iter(cloud.models.values()))["PrimaryContainer"]["Image"]
    assert served == f"{IMAGE}@sha256:{'1' * 64}"
    cloud.images["serve:1"] = "sha256:" + "2" * 64
    assert machine.run(request)[0]["outcome"] == "released"
    (model,) = [cloud.models[cloud.configs[cloud.endpoints[ENDPOINT].config]["ProductionVariants"][0]["ModelName"]]]
    assert model["PrimaryContainer"]["Image"] == f"{IMAGE}@sha256:{'2' * 64}"
    assert machine.run(request)[0]["outcome"] == "already live"


def test_an_image_that_was_never_pushed_is_named(machine: Machine, cloud: Cloud) -> None:
    cloud.images.clear()
    failed = machine.run(machine.upload("2"))[0]
    assert failed["Error"] == "ImageNotFound"
    assert f"there is no image {IMAGE}:1" in failed["Cause"]
    as_before(cloud)


def test_the_digest_of_a_tag_in_ecr(environment: None) -> None:
    with mock_aws():
        ecr = clients.ecr()
        ecr.create_repository(repositoryName="team/serve")
        manifest = json.dumps({"mediaType": "application/vnd.oci.image.manifest.v1+json", "config": {}, "layers": []})
        pushed = ecr.put_image(repositoryName="team/serve", imageManifest=manifest, imageTag="latest")
        digest = pushed["image"]["imageId"]["imageDigest"]
        address = "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/serve"
        for named in (address, f"{address}:latest", f"{address}@{digest}"):
            assert by_digest(ecr, named) == f"{address}@{digest}"
        for missing in (f"{address}:1", f"{address}r:latest"):
            with pytest.raises(Failed, match="there is no image"):
                by_digest(ecr, missing)
        assert by_digest(ecr, "bintally-serve:latest") == "bintally-serve:latest"


def test_a_live_version_with_another_package_or_of_an_older_release_is_released_again(
    machine: Machine, cloud: Cloud
) -> None:
    request = machine.upload("1")
    cloud.objects["models/1/model.tar.gz"] += b"\0" * 512  # the same package in another archive
    assert machine.run(request)[0]["outcome"] == "already live"
    live = cloud.endpoints[ENDPOINT]
    old = f"{ENDPOINT}-0a1b2c3d"  # its name names no settings
    cloud.configs[old], cloud.models[old] = cloud.configs[live.config], cloud.models[live.config]
    live.config = old
    assert machine.run(request)[0]["outcome"] == "released"


def test_every_setting_is_in_the_digest() -> None:
    variant = {"ServerlessConfig": {"MemorySizeInMB": 3072, "MaxConcurrency": 5}}
    other = {"ServerlessConfig": {"MemorySizeInMB": 3072, "MaxConcurrency": 6}}
    digests = {
        settings_digest("serve:1", variant, "a"),
        settings_digest("serve:2", variant, "a"),
        settings_digest("serve:1", other, "a"),
        settings_digest("serve:1", variant, "b"),
    }
    assert len(digests) == 4


def test_the_provisioned_concurrency_is_at_most_the_concurrency(configure: Configure) -> None:
    assert "ProvisionedConcurrency" not in release_settings().variant["ServerlessConfig"]
    configure(PROVISIONED_CONCURRENCY="9")
    assert release_settings().variant["ServerlessConfig"]["ProvisionedConcurrency"] == 5


def test_a_broken_live_endpoint_is_replaced(machine: Machine, cloud: Cloud) -> None:
    cloud.endpoints[ENDPOINT].status = cloud.endpoints[ENDPOINT].after = "Failed"
    assert machine.run(machine.upload("2"))[0]["outcome"] == "released"
    assert cloud.live() == "2"


def test_an_endpoint_that_does_not_settle_is_left(machine: Machine, cloud: Cloud) -> None:
    cloud.endpoints[ENDPOINT].status, cloud.endpoints[ENDPOINT].until = "SystemUpdating", 1e9
    output, _ = machine.run(machine.upload("2"))
    assert output == {"Error": "EndpointUnsettled", "Cause": f"endpoint {ENDPOINT} stays SystemUpdating"}
    assert (cloud.items, set(cloud.endpoints)) == ({}, {ENDPOINT})


def test_a_candidate_that_stays_ends_the_release(machine: Machine, cloud: Cloud) -> None:
    def stay(_number: int, name: str, done: bool) -> None:
        if name == "delete_endpoint" and not done:
            raise refusal("ValidationException", "Cannot update in-progress endpoint")

    cloud.fault = stay
    output, _ = machine.run(machine.upload("2"))
    assert output["Error"] == "CandidateRemains"
    assert (cloud.live(), cloud.items) == ("1", {})


# Who may release, and when


@pytest.mark.parametrize(
    "request_",
    [
        {},
        [],
        {"model_version": "1"},
        {"model_version": "1", "model_data_url": "s3://elsewhere/models/1/model.tar.gz"},
        {"model_version": "1", "model_data_url": 5},
        {"detail": "nothing"},
    ],
)
def test_a_release_of_nothing_is_refused(machine: Machine, cloud: Cloud, request_: Any) -> None:
    output, _ = machine.run(request_)
    assert output["Error"] == "InvalidInput"
    assert "model_data_url" in output["Cause"]
    assert cloud.told[0]["outcome"] == "refused"
    as_before(cloud)


def test_an_approval_that_is_withdrawn_is_left(machine: Machine, cloud: Cloud) -> None:
    output, _ = machine.run(machine.register("2", "Rejected"))
    assert (output["outcome"], output["model_version"]) == ("not approved", "2")
    assert output["reason"].endswith("is Rejected")
    as_before(cloud)


@pytest.mark.parametrize("status", ["RUNNING", "PENDING_REDRIVE", "FAILED", "ABORTED", "TIMED_OUT", "GONE"])
@pytest.mark.parametrize("by_registry", [True, False])
def test_a_release_waits_for_another_up_to_a_limit(status: str, by_registry: bool) -> None:
    waits = [waits_for(status, by_registry=by_registry, polls=polls) for polls in range(POLLS + 2)]
    runs = status in ("RUNNING", "PENDING_REDRIVE")
    expected = POLLS + 1 if runs and by_registry else STOPPED_POLLS if status in ("ABORTED", "TIMED_OUT") else 0
    assert waits == [True] * expected + [False] * (POLLS + 2 - expected)


def hold(cloud: Cloud, version: str, status: str) -> str:
    """Another release holds the lock."""
    holder = f"{MACHINE}:holder"
    cloud.items["LOCK#release"] = {"PK": "LOCK#release", "SK": "LOCK", "owner": holder, "model_version": version}
    cloud.executions[holder] = status
    return holder


def test_a_person_sees_at_once_that_another_release_runs(machine: Machine, cloud: Cloud) -> None:
    holder = hold(cloud, "9", "RUNNING")
    output, _ = machine.run(machine.upload("2"))
    assert output == {"Error": "ReleaseRunning", "Cause": f"another release runs: {holder}"}
    assert (cloud.told[0]["outcome"], cloud.told[0]["model_version"]) == ("refused", "2")
    assert cloud.items["LOCK#release"]["owner"] == holder  # which is not freed by another


@pytest.mark.parametrize("status", ["FAILED", "TIMED_OUT", "GONE"])
def test_the_lock_of_a_holder_that_no_longer_runs_is_taken_over(machine: Machine, cloud: Cloud, status: str) -> None:
    """As when the clean-up after it failed as well."""
    holder = hold(cloud, "9", status)
    if status == "GONE":
        del cloud.executions[holder]
    output, execution = machine.run(machine.upload("2"))
    assert (output["outcome"], cloud.live(), cloud.items) == ("released", "2", {})
    waits = execution.entered[: execution.entered.index("CreateCandidate")].count("WaitToPrepare")
    assert waits == (STOPPED_POLLS if status == "TIMED_OUT" else 0)


@pytest.mark.parametrize(
    ("holder", "ends", "newer", "outcome", "live"),
    [
        ("9", "SUCCEEDED", False, "released", "2"),
        ("2", "SUCCEEDED", False, "superseded", "1"),  # it has just tried this version
        ("2", "ABORTED", False, "released", "2"),  # what stopped half way is taken up again
        ("9", "SUCCEEDED", True, "released", "3"),  # who waited takes the newest
    ],
)
def test_a_release_by_the_registry_waits_and_takes_the_newest(
    machine: Machine, cloud: Cloud, holder: str, ends: str, newer: bool, outcome: str, live: str
) -> None:
    request = machine.register("2")
    arn = hold(cloud, holder, "RUNNING")

    def end(_number: int, name: str, done: bool) -> None:
        if cloud.now > 200 and cloud.executions[arn] == "RUNNING":
            cloud.executions[arn] = ends
            if ends == "SUCCEEDED":
                del cloud.items["LOCK#release"]
            if newer:
                machine.register("3")

    cloud.fault, cloud.now = end, 100
    output, execution = machine.run(request)
    assert (output["outcome"], cloud.live()) == (outcome, live)
    assert output["model_version"] == (live if outcome == "released" else "2")
    assert execution.entered.count("WaitToPrepare") > 5
    assert cloud.items == {}


def test_however_long_a_release_has_waited_it_leaves_a_clean_up_its_seconds(machine: Machine, cloud: Cloud) -> None:
    request, arn = machine.register("2"), hold(cloud, "9", "RUNNING")
    stopped: list[float] = []
    taken: list[float] = []

    def follow(_number: int, name: str, done: bool) -> None:
        if cloud.now > 400 and not stopped:
            cloud.executions[arn] = "ABORTED"
            stopped.append(cloud.now)
        if stopped and not taken and cloud.items["LOCK#release"]["owner"] != arn:
            taken.append(cloud.now)

    cloud.fault, cloud.now = follow, 100
    assert machine.run(request)[0]["outcome"] == "released"
    assert taken[0] - stopped[0] >= sum(range(1, STOPPED_POLLS + 1)) - 1


def test_a_list_that_lacks_what_was_approved_just_now_supersedes_nothing(
    machine: Machine, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.register("1")
    request, listed = machine.register("2"), cloud.do_list_model_packages()["ModelPackageSummaryList"]
    monkeypatch.setattr(cloud, "do_list_model_packages", lambda **_: {"ModelPackageSummaryList": listed[1:]})
    assert (machine.run(request)[0]["outcome"], cloud.live()) == ("released", "2")


def test_a_restore_that_is_refused_is_told(machine: Machine, cloud: Cloud) -> None:
    cloud.wrong = {ENDPOINT}

    def refuse(_number: int, name: str, done: bool) -> None:
        if cloud.now and name == "describe_endpoint" and not done and asked:
            raise refusal("ValidationException", "Could not find endpoint")

    asked: list[str] = []
    verified = machine.verified

    def verify(payload: Any) -> Any:
        asked.extend([payload["endpoint"]] if payload["endpoint"] == ENDPOINT else [])
        return verified(payload)

    machine.verified = verify  # type: ignore[method-assign]
    cloud.fault = refuse
    output, execution = machine.run(machine.upload("2"))
    assert execution.variables["release"]["restored"] is False
    assert "could not be restored" in output["Cause"] and "LiveWrong" in (output["Error"], output["Cause"])


def test_of_two_approvals_the_newest_becomes_live(machine: Machine, cloud: Cloud) -> None:
    older = machine.register("2")
    machine.register("3")
    output, _ = machine.run(older)
    assert (output["outcome"], cloud.live(), cloud.items) == ("superseded", "1", {})
    for package in cloud.packages.values():
        package["ModelApprovalStatus"] = "PendingManualApproval"
    machine.register("4")
    assert machine.run(older)[0]["outcome"] == "not approved"


def test_candidates_of_stopped_releases_are_removed_when_they_can_be(machine: Machine, cloud: Cloud) -> None:
    cloud.do_create_endpoint(f"{STACK}-candidate-0a1b2c3d", cloud.endpoints[ENDPOINT].config)
    cloud.do_create_endpoint(f"{STACK}-candidate-of-others", cloud.endpoints[ENDPOINT].config)
    assert machine.run(machine.upload("2"))[0]["outcome"] == "released"
    assert set(cloud.endpoints) == {ENDPOINT, f"{STACK}-candidate-of-others"}


def test_three_configurations_are_kept(machine: Machine, cloud: Cloud) -> None:
    for version in "23456":
        machine.run(machine.upload(version))
    assert {cloud.version(config) for config in cloud.configs} == {"4", "5", "6"}
    assert set(cloud.configs) == set(cloud.models)


# Real-time endpoints


def updates(cloud: Cloud) -> list[dict[str, Any]]:
    return [request for name, request in cloud.calls if name == "update_endpoint"]


def test_a_real_time_endpoint_is_updated_with_a_canary_and_alarms(cloud: Cloud, configure: Configure) -> None:
    configure(ENDPOINT_MODE="realtime")
    machine = Machine(cloud, advance.handler)
    machine.run(machine.upload("1"))
    machine.run(machine.upload("2"))
    (update,) = updates(cloud)
    assert update["DeploymentConfig"] == {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {
                "Type": "CANARY",
                "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 10},
                "WaitIntervalInSeconds": 300,
            },
            "TerminationWaitInSeconds": 300,
        },
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": n} for n in ("errors", "latency", "confidence")]},
    }
    model = cloud.models[cloud.endpoints[ENDPOINT].config]
    assert model["EnableNetworkIsolation"] is True
    machine.run({**machine.upload("3"), "at_once": True})
    assert "DeploymentConfig" not in updates(cloud)[-1]


def test_a_release_keeps_the_number_of_instances_that_scaling_has_chosen(cloud: Cloud, configure: Configure) -> None:
    configure(ENDPOINT_MODE="realtime", MAXIMUM_INSTANCES="8")
    machine = Machine(cloud, advance.handler)
    machine.run(machine.upload("1"))
    machine.run(machine.upload("2"))
    (update,) = updates(cloud)
    assert update["RetainAllVariantProperties"] is True
    # Retained too, it would never change.
    assert update["ExcludeRetainedVariantProperties"] == [{"VariantPropertyType": "DataCaptureConfig"}]
    configure(ENDPOINT_MODE="realtime")  # InstanceCount counts again
    machine.run(machine.upload("3"))
    assert "RetainAllVariantProperties" not in updates(cloud)[-1]


def test_a_real_time_endpoint_stores_a_share_of_its_requests(cloud: Cloud, configure: Configure) -> None:
    configure(ENDPOINT_MODE="realtime")
    machine = Machine(cloud, advance.handler)
    machine.run(machine.upload("1"))
    assert "DataCaptureConfig" not in cloud.configs[cloud.endpoints[ENDPOINT].config]
    configure(ENDPOINT_MODE="realtime", DATA_CAPTURE_PERCENT="20")
    assert machine.run(machine.upload("1"))[0]["outcome"] == "released"  # the same model, another setting
    capture = cloud.configs[cloud.endpoints[ENDPOINT].config]["DataCaptureConfig"]
    assert (capture["InitialSamplingPercentage"], capture["DestinationS3Uri"]) == (20, "s3://artifacts/captures/")
    assert "KmsKeyId" not in capture
    configure(ENDPOINT_MODE="realtime", DATA_CAPTURE_PERCENT="20", DATA_KEY="arn:key")
    assert machine.run(machine.upload("1"))[0]["outcome"] == "released"
    assert cloud.configs[cloud.endpoints[ENDPOINT].config]["DataCaptureConfig"]["KmsKeyId"] == "arn:key"


def test_a_real_time_endpoint_is_in_the_stacks_vpc(cloud: Cloud, configure: Configure) -> None:
    machine, vpc = Machine(cloud, advance.handler), {"SUBNET_IDS": "subnet-a,subnet-b", "SECURITY_GROUP_IDS": "sg-c"}
    configure(ENDPOINT_MODE="realtime")
    machine.run(machine.upload("1"))
    assert "VpcConfig" not in cloud.models[cloud.endpoints[ENDPOINT].config]
    configure(ENDPOINT_MODE="realtime", **vpc)
    assert machine.run(machine.upload("1"))[0]["outcome"] == "released"  # the same model, another setting
    found = cloud.models[cloud.endpoints[ENDPOINT].config]["VpcConfig"]
    assert found == {"Subnets": ["subnet-a", "subnet-b"], "SecurityGroupIds": ["sg-c"]}


def test_a_serverless_endpoint_is_in_no_vpc(cloud: Cloud, configure: Configure) -> None:
    """SageMaker supports none."""
    configure(SUBNET_IDS="subnet-a,subnet-b", SECURITY_GROUP_IDS="sg-c")
    machine = Machine(cloud, advance.handler)
    machine.run(machine.upload("1"))
    assert "VpcConfig" not in cloud.models[cloud.endpoints[ENDPOINT].config]


def test_a_serverless_endpoint_neither_scales_nor_stores(cloud: Cloud, configure: Configure) -> None:
    configure(MAXIMUM_INSTANCES="8", DATA_CAPTURE_PERCENT="20")
    machine = Machine(cloud, advance.handler)
    machine.run(machine.upload("1"))
    machine.run(machine.upload("2"))
    assert "RetainAllVariantProperties" not in updates(cloud)[-1]
    assert "DataCaptureConfig" not in cloud.configs[cloud.endpoints[ENDPOINT].config]


def test_a_serverless_endpoint_has_no_canary_and_no_network_isolation(machine: Machine, cloud: Cloud) -> None:
    """SageMaker supports neither for serverless endpoints."""
    machine.run(machine.upload("2"))
    assert "DeploymentConfig" not in updates(cloud)[-1]
    assert cloud.models[cloud.endpoints[ENDPOINT].config]["EnableNetworkIsolation"] is False


# The event


def test_the_sample_event_is_a_step() -> None:
    sample = json.loads((ROOT / "events" / "advance.json").read_text())
    assert sample["release"].keys() == {each.name for each in fields(Release)}
    steps = [s["Arguments"]["Payload"] for s in DEFINITION["States"].values() if "AdvanceFunction" in json.dumps(s)]
    assert len(steps) == 6
    assert all(step.keys() == sample.keys() for step in steps)
    assert sample["step"] in {step["step"] for step in steps}


def test_another_event_or_step_says_which_it_takes(configure: Configure, cloud: Cloud) -> None:
    sample = json.loads((ROOT / "events" / "advance.json").read_text())
    with pytest.raises(WrongEvent, match="advance takes a step of prepare, create_candidate"):
        advance.handler({**sample, "step": "again"}, None)
    with pytest.raises(WrongEvent, match=re.escape("events/advance.json")):
        advance.handler({"mapping": "x"}, None)


def test_the_sample_event_is_answered(cloud: Cloud, configure: Configure) -> None:
    sample = json.loads((ROOT / "events" / "advance.json").read_text())
    cloud.items["LOCK#release"] = {"PK": "LOCK#release", "SK": "LOCK", "owner": sample["execution"]}
    found = advance.handler(sample, None)
    assert (found["next"], found["seconds"]) == ("wait", 1)
    assert sample["release"]["candidate"] in cloud.endpoints


def test_a_missing_setting_is_named(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODEL_ROLE")
    settings.release_settings.cache_clear()
    with pytest.raises(KeyError, match="MODEL_ROLE"):
        settings.release_settings()
