"""The release machine on a stack: undone, stopped half way, waiting for another; and what each leaves behind.

On a stack of its own, whose models answer what their packages say and have no network: test_release_model.py releases
real ones. tests/functions/test_advance.py runs machine and function together at each of their turns.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployed import deploying, looks
from deployed.patient import Patient
from local.stack import Local, package_version
from tests.stack.conftest import FEW_SNAPSHOTS
from tests.stack.releasing import Releases, failed, inbox_of, overtake, packed, unpacked

pytestmark = [pytest.mark.xdist_group("release"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def releasing(tmp_path_factory: pytest.TempPathFactory, a_port: Callable[[], int]) -> Iterator[Local]:
    serving = json.dumps([sys.executable, str(Path(__file__).with_name("serving.py"))])
    folder = tmp_path_factory.mktemp("releasing")
    package = folder / "model.tar.gz"
    files = unpacked(Local.package.read_bytes())
    package.write_bytes(packed({name: content for name, content in files.items() if not name.startswith("model.")}))
    variables = FEW_SNAPSHOTS | {"BINTALLY_SERVING": serving}
    stack = Local(home=folder / "home", port=a_port(), package=package, variables=variables)
    stack.up(print)
    yield stack
    stack.down()


@pytest.fixture(scope="module")
def user(releasing: Local, a_user: Callable[[Local], Any]) -> Any:
    user = a_user(releasing)
    user.configure(RETRY_SECONDS="1")
    return user


@pytest.fixture(scope="module")
def releases(releasing: Local, user: Any) -> Iterator[Releases]:
    with inbox_of(releasing) as inbox:
        yield Releases(releasing, user, inbox)


def test_a_live_version_is_not_released_again_but_counting_is_resumed(releases: Releases, user: Any) -> None:
    version, config, made = releases.live_version(), releases.config(), releases.made()
    user.switch_mapping(enabled=False)
    execution = releases.start(version, f"s3://{releases.bucket}/models/{version}/model.tar.gz")
    found = releases.wait(execution)
    assert found["status"] == "SUCCEEDED"
    assert json.loads(found["output"])["outcome"] == "already live"
    assert "CreateCandidate" not in releases.entered(execution)
    releases.assert_as_before(version, config, made)
    assert releases.told(execution)[0]["outcome"] == "already live"


def test_a_missing_package_changes_nothing(releases: Releases) -> None:
    before = releases.live_version(), releases.config(), releases.made()
    execution = releases.start("missing", f"s3://{releases.bucket}/models/missing/model.tar.gz")
    failed(releases, execution, "NoSuchKey", "The specified key does not exist")
    releases.assert_as_before(*before)


def test_a_live_endpoint_that_answers_wrong_gets_its_previous_configuration_back(releases: Releases) -> None:
    before = releases.live_version(), releases.config(), releases.made()
    execution = overtake(releases, "overtaken")
    failed(releases, execution, "LiveWrong", "was replaced: its package.json is")
    assert "Restore" in releases.entered(execution)
    releases.assert_as_before(*before)


def test_only_an_approval_in_the_registry_releases(releases: Releases) -> None:
    before = releases.live_version()
    package = releases.register("approved", "PendingManualApproval")
    releases.decide(package, "Rejected")
    time.sleep(2)
    assert releases.started_for(package) == []
    assert releases.live_version() == before
    releases.decide(package, "Approved")
    assert releases.outcome(releases.wait_started_for(package)) == "released"
    assert releases.live_version() == "approved"


def test_a_registry_event_that_comes_again_releases_nothing_twice(releases: Releases) -> None:
    package = releases.register("once")
    first = releases.wait_started_for(package)
    releases.wait_state(first, "CreateCandidate")
    second = releases.repeat(first)
    releases.wait_state(second, "WaitToPrepare")
    assert releases.outcome(first) == "released"
    assert releases.outcome(second) == "superseded"
    assert "CreateCandidate" not in releases.entered(second)
    third = releases.repeat(first)
    assert releases.outcome(third) == "already live"
    assert "CreateCandidate" not in releases.entered(third)
    assert releases.live_version() == "once"
    assert releases.lock() is None


def test_of_two_approvals_the_newest_becomes_live(releases: Releases) -> None:
    """While the first is released the second waits; one by hand does not."""
    older, newer = (releases.register(version, "PendingManualApproval") for version in ("older", "newer"))
    releases.decide(older, "Approved")
    first = releases.wait_started_for(older)
    releases.wait_state(first, "CreateCandidate")
    releases.decide(newer, "Approved")
    second = releases.wait_started_for(newer)
    releases.wait_state(second, "WaitToPrepare")
    by_hand = releases.run("by-hand")
    assert (by_hand["status"], by_hand["error"]) == ("FAILED", "ReleaseRunning")
    assert releases.outcome(first) == "released"
    assert releases.outcome(second) == "released"
    assert releases.live_version() == "newer"
    releases.decide(older, "Rejected")
    releases.decide(older, "Approved")
    releases.user.wait_for("another execution", lambda: releases.wait_started_for(older) != first, 30)
    third = releases.wait_started_for(older)
    assert releases.outcome(third) == "superseded"
    assert "CreateCandidate" not in releases.entered(third)
    assert releases.live_version() == "newer"


def test_old_configurations_are_deleted(releases: Releases) -> None:
    """But for the one before, to which a failed release goes back, and the newest other one."""
    while len(releases.made()[0]) < 3:
        assert releases.run(f"older-{len(releases.made()[0])}")["status"] == "SUCCEEDED"
    before = releases.made()
    assert releases.run("newest")["status"] == "SUCCEEDED"
    after = releases.made()
    assert [len(names) for names in after] == [3, 3]
    assert [len(names & others) for names, others in zip(before, after, strict=True)] == [2, 2]


def test_up_leaves_the_model_that_has_replaced_the_shipped_one(releases: Releases) -> None:
    assert releases.run("replacement")["status"] == "SUCCEEDED"
    said: list[str] = []
    releases.stack.ship(package_version(releases.stack.package), said.append)
    assert (releases.live_version(), said) == ("replacement", [])


@pytest.mark.parametrize("state", ["WaitForCandidate", "WaitForLive"])
def test_a_stopped_release_is_cleaned_up_after_and_told(releases: Releases, state: str) -> None:
    """While its candidate starts, and with the live endpoint in mid-update. At every other call:
    tests/functions/test_advance.py."""
    before = releases.live_version(), releases.config(), releases.made()
    execution = releases.start(f"stopped-in-{state.lower()}")
    releases.wait_state(execution, state)
    releases.states.stop_execution(executionArn=execution, cause="a person pressed stop")
    event, message = releases.told(execution)
    assert (event["outcome"], event["error"], event["reason"]) == ("failed", "Aborted", "a person pressed stop")
    assert event["model_version"] == f"stopped-in-{state.lower()}"
    assert "a person pressed stop" in message
    releases.assert_as_before(*before)


def update(stack: Local, **changed: str) -> None:
    """Deploys the same template with other parameters."""
    cloudformation = stack.client("cloudformation")
    names = [each["ParameterKey"] for each in stack.describe()["Parameters"]]
    cloudformation.update_stack(
        StackName=stack.name,
        UsePreviousTemplate=True,
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        Parameters=[
            {"ParameterKey": name, "ParameterValue": changed[name]}
            if name in changed
            else {"ParameterKey": name, "UsePreviousValue": True}
            for name in names
        ],
    )
    cloudformation.get_waiter("stack_update_complete").wait(StackName=stack.name, WaiterConfig={"Delay": 1})


def test_a_changed_setting_reaches_mapping_and_endpoint_and_counting_goes_on(
    releases: Releases, user: Any, photograph: Callable[..., bytes]
) -> None:
    functions, mapping = releases.stack.client("lambda"), releases.outputs["CountMapping"]
    try:
        for concurrency, wait in (("10", "20"), ("7", "0")):
            update(releases.stack, CountConcurrency=concurrency, CountWait=wait)
            found = functions.get_event_source_mapping(UUID=mapping)
            assert found["ScalingConfig"]["MaximumConcurrency"] == int(concurrency)
            assert found["MaximumBatchingWindowInSeconds"] == int(wait)
            assert found["State"] == "Enabled"
        version = releases.live_version()
        url = f"s3://{releases.bucket}/models/{version}/model.tar.gz"
        assert releases.outcome(releases.start(version, url)) == "released"
        config = releases.sagemaker.describe_endpoint_config(EndpointConfigName=releases.config())
        assert config["ProductionVariants"][0]["ServerlessConfig"]["MaxConcurrency"] == 7
        assert releases.outcome(releases.start(version, url)) == "already live"
    finally:
        user.configure(RETRY_SECONDS="1")  # as the other tests have it
    user.upload("incoming/REL/AFTER/1.jpg", photograph(7))
    user.wait_counts("incoming/REL/AFTER/1.jpg")


def test_a_line_of_the_trail_has_a_copy_in_a_bucket_of_its_own(
    releases: Releases, user: Any, photograph: Callable[..., bytes]
) -> None:
    """Object Lock, which the emulator lacks: tests/functions/test_review.py."""
    update(releases.stack, TrailLockDays="1")
    user.configure(RETRY_SECONDS="1")
    user.upload("incoming/REL/TRAIL/1.jpg", photograph(9), expected_quantity="9")  # no photograph here shows so many
    bucket = releases.stack.outputs()["TrailBucket"]
    found = user.wait_for("a copy", lambda: user.s3.list_objects_v2(Bucket=bucket, Prefix="trail/").get("Contents"), 60)
    copies = b"".join(user.s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read() for each in found)
    lines = [json.loads(line) for line in copies.splitlines()]
    assert ("TRAIL", "OPENED") in [(line["bin"], line["action"]) for line in lines]


def test_the_endpoint_of_another_mode_takes_the_live_model_along(
    releases: Releases, user: Any, photograph: Callable[..., bytes]
) -> None:
    """As a deployment does it; last, since the stack has another endpoint then."""
    assert releases.run("learned")["status"] == "SUCCEEDED"
    stack, said = releases.stack, list[str]()
    live = stack.live_model_data(stack.outputs())
    update(stack, EndpointMode="realtime")
    deploying.release(stack, package_version(stack.package), said.append)
    endpoint = stack.outputs()["EndpointName"]
    assert endpoint == f"{stack.name}-realtime" and stack.live_model_data(stack.outputs()) == live
    left = f"{stack.name}-serverless"
    assert said == [
        f"Endpoint {left} is no longer used. Delete it: aws sagemaker delete-endpoint --endpoint-name {left}"
    ]
    user.configure(RETRY_SECONDS="1")
    user.upload("incoming/REL/MODE/1.jpg", photograph(8))
    (item,) = user.wait_counts("incoming/REL/MODE/1.jpg")
    assert item["model_version"] == "learned"
    assert [each.about for each in looks.endpoint(Patient(stack))] == [left]
    releases.sagemaker.delete_endpoint(EndpointName=left)
    user.wait_for("a healthy endpoint", lambda: not list(looks.endpoint(Patient(stack))), 60)
