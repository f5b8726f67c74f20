"""The release machine: refused, undone, stopped half way, waiting for another; and what each leaves behind.

On a stack of its own, whose models answer what their packages say and have no network: test_release_model.py releases
real ones.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.stack import Local, package_version
from tests.stack.releasing import Description, Files, Releases, failed, inbox_of, overtake, packed, unpacked

pytestmark = [pytest.mark.xdist_group("release"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def releasing(tmp_path_factory: pytest.TempPathFactory, a_port: Callable[[], int]) -> Iterator[Local]:
    serving = json.dumps([sys.executable, str(Path(__file__).with_name("serving.py"))])
    folder = tmp_path_factory.mktemp("releasing")
    package = folder / "model.tar.gz"
    files = unpacked(Local.package.read_bytes())
    package.write_bytes(packed({name: content for name, content in files.items() if not name.startswith("model.")}))
    stack = Local(home=folder / "home", port=a_port(), package=package, variables={"BINTALLY_SERVING": serving})
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
    assert "CreateModel" not in releases.entered(execution)
    releases.assert_as_before(version, config, made)
    assert releases.told(execution)[0]["outcome"] == "already live"


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"model_version": "1"},
        {"model_version": "1", "model_data_url": "s3://elsewhere/models/1/model.tar.gz"},
        {"model_version": "1", "model_data_url": 5},
    ],
)
def test_a_release_of_nothing_is_refused(releases: Releases, request_: Description) -> None:
    machine = releases.outputs["ReleaseStateMachine"]
    started = releases.states.start_execution(stateMachineArn=machine, input=json.dumps(request_))
    found = releases.wait(started["executionArn"])
    assert (found["status"], found["error"]) == ("FAILED", "InvalidInput")
    assert "model_data_url" in found["cause"]
    assert releases.told(started["executionArn"])[0]["outcome"] == "refused"


def test_a_missing_package_changes_nothing(releases: Releases) -> None:
    before = releases.live_version(), releases.config(), releases.made()
    execution = releases.start("missing", f"s3://{releases.bucket}/models/missing/model.tar.gz")
    failed(releases, execution, "SageMaker.SageMakerException", "Could not access model data")
    releases.assert_as_before(*before)


def test_a_package_of_another_version_changes_nothing(releases: Releases) -> None:
    before = releases.live_version(), releases.config(), releases.made()
    url = releases.upload("odd", releases.package("even"))
    failed(releases, releases.start("odd", url), "CandidateWrong", "the package is version even, not odd")
    releases.assert_as_before(*before)


def test_wrong_golden_answers_change_nothing(releases: Releases) -> None:
    """The candidate has fetched a sound package when another one, with other answers, takes its place: else the
    serving app itself would refuse."""

    def answer_otherwise(files: Files, description: Description) -> None:
        for golden in description["golden"]:
            golden["answer"]["count"] = (golden["answer"]["count"] + 1) % 6
            golden["answer"]["is_minimum"] = False

    before = releases.live_version(), releases.config(), releases.made()
    url = releases.upload("wrong", releases.package("wrong"))
    wrong = releases.package("wrong", answer_otherwise)
    execution = releases.start("wrong", url)
    candidates = f"{releases.stack.name}-candidate-*/model/package.json"
    releases.user.wait_for("the candidate's package", lambda: list(releases.stack.home.rglob(candidates)), 200)
    releases.upload("wrong", wrong)
    failed(releases, execution, "CandidateWrong", "count is")
    releases.assert_as_before(*before)


def test_a_live_endpoint_that_answers_wrong_gets_its_previous_configuration_back(releases: Releases) -> None:
    before = releases.live_version(), releases.config(), releases.made()
    execution = overtake(releases, "overtaken")
    failed(releases, execution, "LiveWrong", "the package is version another")
    assert "RestorePrevious" in releases.entered(execution)
    releases.assert_as_before(*before)


def test_one_release_at_a_time(releases: Releases) -> None:
    first = releases.start("first")
    releases.wait_state(first, "CreateCandidate")
    second = releases.start("second")
    found = releases.wait(second)
    assert (found["status"], found["error"]) == ("FAILED", "ReleaseRunning")
    assert found["cause"] == f"another release runs: {first}"
    lock = releases.lock()
    assert lock
    assert lock["owner"] == first  # the second one did not free what is not its own
    assert releases.told(second)[0]["outcome"] == "refused"
    assert releases.wait(first)["status"] == "SUCCEEDED"
    assert releases.live_version() == "first"
    assert releases.lock() is None


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
    releases.wait_state(second, "WaitForLock")
    assert releases.outcome(first) == "released"
    assert releases.outcome(second) == "superseded"
    assert "CreateModel" not in releases.entered(second)
    third = releases.repeat(first)
    assert releases.outcome(third) == "already live"
    assert "CreateModel" not in releases.entered(third)
    assert releases.live_version() == "once"
    assert releases.lock() is None


def test_a_package_that_fails_is_not_tried_again_by_a_repeated_event(releases: Releases) -> None:
    before = releases.live_version(), releases.config(), releases.made()
    package = releases.register("replaced", "PendingManualApproval")
    releases.upload("replaced", releases.package("another"))  # CandidateWrong: not the version that was registered
    releases.decide(package, "Approved")
    first = releases.wait_started_for(package)
    releases.wait_state(first, "CreateCandidate")
    second = releases.repeat(first)
    failed(releases, first, "CandidateWrong", "the package is version another")
    assert releases.outcome(second) == "superseded"
    releases.assert_as_before(*before)
    releases.decide(package, "Rejected")


def test_of_two_approvals_the_newest_becomes_live(releases: Releases) -> None:
    """While the first is released the second waits; one by hand does not."""
    older, newer = (releases.register(version, "PendingManualApproval") for version in ("older", "newer"))
    releases.decide(older, "Approved")
    first = releases.wait_started_for(older)
    releases.wait_state(first, "CreateCandidate")
    releases.decide(newer, "Approved")
    second = releases.wait_started_for(newer)
    releases.wait_state(second, "WaitForLock")
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
    assert "CreateModel" not in releases.entered(third)
    assert releases.live_version() == "newer"


def test_who_waited_takes_the_newest(releases: Releases) -> None:
    """The event of the newest is lost; the one before it waits for a release by hand, and finds the newest then."""
    by_hand = releases.start("first-by-hand")
    releases.wait_state(by_hand, "CreateCandidate")
    older = releases.register("waits")
    waiting = releases.wait_started_for(older)
    releases.wait_state(waiting, "WaitForLock")
    newest = releases.register("newest")
    (lost,) = releases.user.wait_for("its own execution", lambda: releases.started_for(newest), 30)
    releases.states.stop_execution(executionArn=lost, cause="as if the event were lost")
    assert releases.wait(by_hand)["status"] == "SUCCEEDED"
    assert releases.outcome(waiting) == "released"
    assert json.loads(releases.describe(waiting)["output"])["model_version"] == "newest"
    assert releases.live_version() == "newest"


def test_a_package_that_is_no_longer_approved_is_left(releases: Releases) -> None:
    """It was rejected before the release that its approval's event started had a look at it."""
    before = releases.live_version(), releases.config(), releases.made()
    package = releases.register("withdrawn", "Rejected")
    event = json.dumps({"source": "aws.sagemaker", "detail": {"ModelPackageArn": package}})
    machine = releases.outputs["ReleaseStateMachine"]
    execution = releases.states.start_execution(stateMachineArn=machine, input=event)["executionArn"]
    assert releases.outcome(execution) == "not approved"
    event_, message = releases.told(execution)
    assert (event_["outcome"], event_["error"]) == ("not approved", "")
    assert f"{package} is Rejected" in message
    releases.assert_as_before(*before)


def test_up_leaves_the_model_that_has_replaced_the_shipped_one(releases: Releases) -> None:
    assert releases.run("replacement")["status"] == "SUCCEEDED"
    said: list[str] = []
    releases.stack.ship(package_version(releases.stack.package), said.append)
    assert (releases.live_version(), said) == ("replacement", [])


@pytest.mark.parametrize("state", ["CreateCandidate", "DescribeCandidate", "WaitForNew"])
def test_a_stopped_release_is_cleaned_up_after_and_told(releases: Releases, state: str) -> None:
    """Before its candidate is up, with it, and with the live endpoint in mid-update."""
    before = releases.live_version(), releases.config(), releases.made()
    execution = releases.start(f"stopped-in-{state.lower()}")
    releases.wait_state(execution, state)
    releases.states.stop_execution(executionArn=execution, cause="a person pressed stop")
    event, message = releases.told(execution)
    assert (event["outcome"], event["error"], event["reason"]) == ("failed", "Aborted", "a person pressed stop")
    assert event["model_version"] == f"stopped-in-{state.lower()}"
    assert "a person pressed stop" in message
    releases.assert_as_before(*before)


def test_the_lock_of_a_holder_that_no_longer_runs_is_taken_over(releases: Releases) -> None:
    """As when the clean-up after it failed as well."""
    ended = releases.start("ended")
    releases.wait(ended)
    releases.user.table.put_item(Item={"PK": "LOCK#release", "SK": "LOCK", "owner": ended, "model_version": "ended"})
    execution = releases.start("third")
    found = releases.wait(execution)
    assert found["status"] == "SUCCEEDED", found["cause"]
    assert "DescribeHolder" in releases.entered(execution)
    assert releases.live_version() == "third"
    assert releases.endpoints() == {releases.endpoint}
    assert releases.lock() is None


def test_the_last_three_are_kept(releases: Releases) -> None:
    while len(releases.made()[0]) < 3:
        assert releases.run(f"number-{len(releases.made()[0])}")["status"] == "SUCCEEDED"
    previous = releases.config()
    assert releases.run("one-more")["status"] == "SUCCEEDED"
    configs, models = releases.made()
    assert {releases.config(), previous} < configs
    assert len(configs) == 3
    assert models == configs


def test_a_changed_setting_reaches_mapping_and_endpoint_and_counting_goes_on(
    releases: Releases, user: Any, photograph: Callable[..., bytes]
) -> None:
    functions, mapping = releases.stack.client("lambda"), releases.outputs["CountMapping"]
    cloudformation = releases.stack.client("cloudformation")
    previous = cloudformation.describe_stacks(StackName=releases.stack.name)["Stacks"][0]["Parameters"]
    try:
        for concurrency in ("10", "3"):
            cloudformation.update_stack(
                StackName=releases.stack.name,
                UsePreviousTemplate=True,
                Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
                Parameters=[
                    {"ParameterKey": p["ParameterKey"], "UsePreviousValue": True}
                    if p["ParameterKey"] != "CountConcurrency"
                    else {"ParameterKey": "CountConcurrency", "ParameterValue": concurrency}
                    for p in previous
                ],
            )
            cloudformation.get_waiter("stack_update_complete").wait(
                StackName=releases.stack.name, WaiterConfig={"Delay": 1}
            )
            found = functions.get_event_source_mapping(UUID=mapping)
            assert found["ScalingConfig"]["MaximumConcurrency"] == int(concurrency)
            assert found["State"] == "Enabled"
        version = releases.live_version()
        url = f"s3://{releases.bucket}/models/{version}/model.tar.gz"
        assert releases.outcome(releases.start(version, url)) == "released"
        config = releases.sagemaker.describe_endpoint_config(EndpointConfigName=releases.config())
        assert config["ProductionVariants"][0]["ServerlessConfig"]["MaxConcurrency"] == 3
        assert releases.outcome(releases.start(version, url)) == "already live"
    finally:
        user.configure(RETRY_SECONDS="1")  # as the other tests have it
    user.upload("incoming/REL/AFTER/1.jpg", photograph(7))
    user.wait_counts("incoming/REL/AFTER/1.jpg")
