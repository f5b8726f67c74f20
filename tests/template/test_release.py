"""The release state machine read as text: no way past the lock, and no more permissions than it uses."""

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from samcli.yamlhelper import yaml_parse

from tests.template import machine
from tests.template.machine import LOG_DELIVERY, reachable

ROOT = Path(__file__).parents[2]
DEFINITION = json.loads((ROOT / "machines" / "release.asl.json").read_text())
STATES: dict[str, Any] = DEFINITION["States"]
TEMPLATE = yaml_parse((ROOT / "template.yaml").read_text())["Resources"]
TASKS = sorted(name for name, state in STATES.items() if state["Type"] == "Task")
TELLING = {"FreeLock", "PutEvent", "Publish", "IsReleased"}
SUBSTITUTED = {
    "EndpointMode": "realtime",
    "ArtifactsBucket": "artifacts",
    "CanaryPercent": 10,
    "CanaryWaitSeconds": 300,
}
STOPPED = {"executionArn": "arn:aws:states:::execution:bintally-release:0", "status": "ABORTED"}
PACKAGE, NEWER = (f"arn:aws:sagemaker:us-east-1:000000000000:model-package/bintally/{n}" for n in (1, 2))


def tasks(states: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Also those inside Map states."""
    for state in states.values():
        if state["Type"] == "Task":
            yield state
        if state["Type"] == "Map":
            yield from tasks(state["ItemProcessor"]["States"])


def action(state: dict[str, Any]) -> str:
    """The permission that a task needs."""
    words = state["Resource"].removeprefix("arn:${Partition}:states:::").removeprefix("aws-sdk:").split(":")
    service = {"sfn": "states", "eventbridge": "events"}.get(words[0], words[0])
    name = {"lambda:invoke": "invokeFunction"}.get(":".join(words), words[1])
    return f"{service}:{name[0].upper()}{name[1:]}"


def evaluated(value: Any, **variables: Any) -> Any:
    return machine.evaluated(value, SUBSTITUTED, **variables)


def decided(name: str, **variables: Any) -> tuple[str, Any]:
    return machine.decided(STATES[name], SUBSTITUTED, **variables)


def planned(request: dict[str, Any]) -> Any:
    """The variables of an execution with this input."""
    states = {"input": request, "context": {"Execution": {"Id": "arn:aws:states:::execution:bintally-release:1"}}}
    hashed = STATES["Plan"]["Assign"].keys() & {"settings", "release", "candidate"}  # $hash is not in JSONata itself
    assigned = {name: value for name, value in STATES["Plan"]["Assign"].items() if name not in hashed}
    return evaluated(assigned, states=states)


def test_every_state_can_be_reached() -> None:
    assert reachable(STATES, DEFINITION["StartAt"]) == STATES.keys()


def test_every_way_to_an_end_frees_the_lock_and_tells() -> None:
    ends = {"Released", "NotReleased"}
    assert {name for name, state in STATES.items() if state.get("End") or state["Type"] == "Fail"} == ends
    for step in TELLING:
        assert not reachable(STATES, DEFINITION["StartAt"], without=step) & ends


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_limited_in_time_tried_again_and_caught(name: str) -> None:
    state = STATES[name]
    assert state["TimeoutSeconds"] <= 330
    assert "States.ALL" in state["Retry"][-1]["ErrorEquals"]
    assert state["Catch"][-1]["ErrorEquals"] == ["States.ALL"]


def test_what_fails_when_the_live_endpoint_is_touched_puts_it_back() -> None:
    for name in ("CreateLive", "UpdateLive", "DescribeNew", "AskNew"):
        assert STATES[name]["Catch"][-1]["Next"] == "FindToRestore"


def test_nothing_removes_the_live_endpoint_before_it_is_touched() -> None:
    """But one that is broken, or what a stopped release has touched."""
    released = STATES | {"IsCleanUp": {"Next": "FindLive"}}
    before = reachable(released, DEFINITION["StartAt"], without="IsFirst")
    removing = {
        name
        for name in before
        if STATES[name].get("Resource", "").endswith(":deleteEndpoint")
        and STATES[name]["Arguments"]["EndpointName"] == "{% $endpoint %}"
    }
    assert removing == {"RemoveBroken"}


def test_every_substitution_is_given_and_used() -> None:
    text = json.dumps(DEFINITION)
    given = TEMPLATE["ReleaseStateMachine"]["Properties"]["DefinitionSubstitutions"]
    assert {name for name in given if f"${{{name}}}" not in text} == set()
    for name in given:
        text = text.replace(f"${{{name}}}", "")
    assert "${" not in text


def test_the_role_allows_what_the_tasks_do_and_no_more() -> None:
    (policy,) = TEMPLATE["ReleaseRole"]["Properties"]["Policies"]
    allowed: set[str] = set()
    for statement in policy["PolicyDocument"]["Statement"]:
        actions = statement["Action"]
        allowed |= {actions} if isinstance(actions, str) else set(actions)
    assert not [one for one in allowed if fnmatchcase(one, "*[*]*")]
    # What SageMaker does in the caller's name: it takes the model's role, and looks at the alarms of a canary.
    used = {action(task) for task in tasks(STATES)} | {"iam:PassRole", "cloudwatch:DescribeAlarms"}
    assert allowed == used | LOG_DELIVERY


def test_the_model_role_is_passed_to_sagemaker_only() -> None:
    (policy,) = TEMPLATE["ReleaseRole"]["Properties"]["Policies"]
    (statement,) = [s for s in policy["PolicyDocument"]["Statement"] if s["Action"] == "iam:PassRole"]
    assert statement["Resource"] == {"Fn::GetAtt": ["ModelRole", "Arn"]}
    assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


def test_the_template_leaves_the_mapping_to_releases() -> None:
    assert "Enabled" not in TEMPLATE["CountMapping"]["Properties"]
    assert TEMPLATE["CountRule"]["DependsOn"] == "ReleasedEndpoint"
    assert TEMPLATE["ReleasedEndpoint"]["Properties"]["Mapping"] == {"Ref": "CountMapping"}


def test_an_event_of_the_registry_names_the_package_to_describe() -> None:
    variables = planned({"source": "aws.sagemaker", "detail": {"ModelPackageArn": PACKAGE}})
    assert decided("IsInputComplete", **variables)[0] == "DescribePackage"
    described = {"approval": "Approved", "model_version": "1", "model_data_url": "s3://artifacts/models/1/model.tar.gz"}
    assert decided("IsInputComplete", **variables | described)[0] == "TakeLock"
    where, assigned = decided("IsInputComplete", **variables | described | {"approval": "Rejected"})
    assert (where, assigned["outcome"]) == ("FreeLock", "not approved")
    where, assigned = decided("IsInputComplete", **variables | described | {"model_version": ""})
    assert (where, assigned["why"]["Error"]) == ("FreeLock", "InvalidInput")


def test_by_hand_nothing_is_described_or_awaited() -> None:
    variables = planned({"model_version": "1", "model_data_url": "s3://artifacts/models/1/model.tar.gz"})
    assert decided("IsInputComplete", **variables)[0] == "TakeLock"
    assert decided("IsByHand", **variables)[0] == "FindLeftovers"
    where, assigned = decided("DoesHolderRun", **variables | {"holder_status": "RUNNING"})
    assert (where, assigned["why"]["Error"]) == ("FreeLock", "ReleaseRunning")


@pytest.mark.parametrize(
    ("status", "polls", "where"),
    [
        ("RUNNING", 0, "WaitForLock"),
        ("RUNNING", 120, "WaitForLock"),
        ("RUNNING", 121, "FreeLock"),
        ("PENDING_REDRIVE", 0, "WaitForLock"),
        ("FAILED", 0, "TakeLock"),
        ("ABORTED", 4, "WaitForLock"),
        ("TIMED_OUT", 5, "TakeLock"),
    ],
)
def test_a_release_by_the_registry_waits_for_another_up_to_a_limit(status: str, polls: int, where: str) -> None:
    variables = planned({"detail": {"ModelPackageArn": PACKAGE}}) | {"holder": "another"}
    found, assigned = decided("DoesHolderRun", **variables | {"holder_status": status, "polls": polls})
    assert found == where
    assert assigned.get("stale") == ("another" if where == "TakeLock" else None)  # which TakeLock may replace


def test_the_waits_end_before_the_execution_does() -> None:
    """For the lock, for the candidate, for the live endpoint with the longest canary, and for the one put back."""
    wait = 1800  # CanaryWaitSeconds at most
    lock = sum(min(1 + polls, 60) for polls in range(121))
    endpoint = sum(min(1 + polls, 15) for polls in range(121))
    assert lock + 4 * endpoint + 4 * wait < DEFINITION["TimeoutSeconds"]
    template = yaml_parse((ROOT / "template.yaml").read_text())
    assert template["Parameters"]["CanaryWaitSeconds"]["MaxValue"] == wait


@pytest.mark.parametrize(
    ("newest", "holder_status", "holder_version", "where", "outcome"),
    [
        (PACKAGE, "", "", "FindLeftovers", None),
        (PACKAGE, "RUNNING", "0", "FindLeftovers", None),
        (PACKAGE, "RUNNING", "1", "FreeLock", "superseded"),
        (PACKAGE, "ABORTED", "1", "FindLeftovers", None),  # what stopped half way is taken up again
        (NEWER, "", "", "FreeLock", "superseded"),
        (NEWER, "RUNNING", "0", "DescribePackage", None),
        ("", "", "", "FreeLock", "not approved"),
    ],
)
def test_the_newest_approved_package_is_released_once(
    newest: str, holder_status: str, holder_version: str, where: str, outcome: str | None
) -> None:
    variables = planned({"detail": {"ModelPackageArn": PACKAGE}}) | {"model_version": "1", "newest": newest}
    held = {"holder_status": holder_status, "holder_version": holder_version}
    found, assigned = decided("IsNewest", **variables | held)
    assert (found, assigned.get("outcome")) == (where, outcome)
    assert outcome is None or assigned["why"]["Error"] == ""


@pytest.mark.parametrize("outcome", ["superseded", "not approved", "already live", "released"])
def test_what_is_no_failure_succeeds(outcome: str) -> None:
    assert decided("IsReleased", stopped="", restored=True, outcome=outcome)[0] == "Released"
    assert decided("IsReleased", stopped="", restored=True, outcome="failed")[0] == "NotReleased"


@pytest.mark.parametrize(
    ("status", "described", "why"),
    [
        ("ABORTED", {}, ("Aborted", "the execution is ABORTED")),
        ("ABORTED", {"Error": "Stopped", "Cause": "by hand"}, ("Stopped", "by hand")),
        ("TIMED_OUT", {"Error": None, "Cause": None}, ("States.Timeout", "the execution is TIMED_OUT")),
    ],
)
def test_the_end_of_a_stopped_release_is_cleaned_up_after_and_told(
    status: str, described: Any, why: tuple[str, str]
) -> None:
    variables = planned({"source": "aws.states", "detail": STOPPED | {"status": status}})
    assert decided("IsInputComplete", **variables)[0] == "DescribeStopped"
    assert (variables["stopped"], variables["execution"]) == (STOPPED["executionArn"],) * 2
    assert variables["outcome"] == "failed"
    told = evaluated(STATES["DescribeStopped"]["Assign"], **variables, states={"result": described})["why"]
    assert (told["Error"], told["Cause"]) == why


@pytest.mark.parametrize(
    ("noted", "where", "outcome"),
    [
        ({}, "RemoveConfig", None),
        ({"previous": {"S": ""}}, "FindToRestore", None),
        ({"previous": {"S": "before"}}, "FindToRestore", None),
        ({"previous": {"S": "before"}, "verified": {"BOOL": True}}, "ResumeCounting", "released"),
    ],
)
def test_what_a_stopped_release_noted_is_put_back(noted: Any, where: str, outcome: str | None) -> None:
    """Under its own names, also when a clean-up was stopped before this one."""
    variables = planned({"detail": STOPPED})
    lock = {"execution": {"S": "the first"}, "release": {"S": "new"}, "model_version": {"S": "2"}, **noted}
    taken = evaluated(STATES["TakeOver"]["Assign"], **variables, states={"result": {"Attributes": lock}})
    assert (taken["execution"], taken["release"], taken["model_version"]) == ("the first", "new", "2")
    assert taken["previous"] == noted.get("previous", {"S": ""})["S"]
    found, assigned = decided("IsCleanUp", **variables | taken)
    assert (found, assigned.get("outcome")) == (where, outcome)


def test_without_its_lock_nothing_of_a_stopped_release_is_touched() -> None:
    """Its names may be those of what is live."""
    (caught,) = STATES["TakeOver"]["Catch"]
    assert caught["Next"] == "FreeLock"
    assert "attribute_not_exists" not in STATES["TakeOver"]["Arguments"]["ConditionExpression"]
    removing = {name for name in reachable(STATES, "FreeLock") if ":delete" in STATES[name].get("Resource", "")}
    assert removing == {"FreeLock"}


def test_what_is_not_put_back_fails_a_clean_up() -> None:
    cleaning = {"stopped": STOPPED["executionArn"], "outcome": "failed"}
    assert decided("IsReleased", **cleaning, restored=True)[0] == "Released"
    assert decided("IsReleased", **cleaning, restored=evaluated(STATES["NotRestored"]["Assign"]["restored"]))[0] == (
        "NotReleased"
    )


@pytest.mark.parametrize(
    ("ok", "again", "previous", "where"),
    [
        (True, False, "bintally-serverless-aaaa-1111", "ResumeCounting"),
        (True, False, "bintally-serverless-bbbb-1111", "CreateModel"),  # memory, concurrency, instances or image
        (True, False, "bintally-serverless-1111", "CreateModel"),  # of a release that did not name its settings
        (True, True, "bintally-serverless-aaaa-1111", "CreateModel"),
        (False, False, "bintally-serverless-aaaa-1111", "CreateModel"),
    ],
)
def test_a_live_version_is_released_again_when_a_setting_has_changed(
    ok: bool, again: bool, previous: str, where: str
) -> None:
    variables = planned({"model_version": "1", "again": again}) | {"ok": ok, "previous": previous, "settings": "aaaa"}
    assert decided("IsAlreadyLive", **variables)[0] == where


def test_the_settings_of_an_endpoint_are_all_in_its_configurations_name() -> None:
    """CreateConfig and CreateModel use no other."""
    used = set(re.findall(r"\$\{(\w+)\}", json.dumps([STATES["CreateConfig"], STATES["CreateModel"]["Arguments"]])))
    named = set(re.findall(r"\$\{(\w+)\}", STATES["Plan"]["Assign"]["settings"]))
    assert named == used - {"Partition", "ModelRole"}
    assert STATES["Plan"]["Assign"]["settings"].strip("{%} ") in STATES["Plan"]["Assign"]["release"]


def test_candidates_are_removed_when_they_can_be() -> None:
    assert decided("AreLeftoversSettled", creating=1, polls=0)[0] == "WaitForLeftovers"
    assert decided("AreLeftoversSettled", creating=1, polls=121)[0] == "RemoveLeftovers"
    assert decided("AreLeftoversSettled", creating=0, polls=0)[0] == "RemoveLeftovers"
    assert decided("IsCleanUp", **planned({}))[0] == "FindLive"


def update(request: dict[str, Any]) -> Any:
    """What UpdateEndpoint is asked after this input, checked against the service model."""
    variables = planned(request) | {"release": "bintally-realtime-00000000", "previous": "bintally-realtime-11111111"}
    where, assigned = decided("IsFirst", **variables)
    assert where == "UpdateLive"
    asked = evaluated(STATES["UpdateLive"]["Arguments"], **variables | assigned)
    shape: Any = botocore.session.get_session().get_service_model("sagemaker").operation_model("UpdateEndpoint")
    report = ParamValidator().validate(asked, shape.input_shape)
    assert not report.has_errors(), report.generate_report()
    return asked


@pytest.mark.parametrize(("mode", "isolated"), [("realtime", True), ("serverless", False)])
def test_a_model_has_no_network_where_its_endpoint_may_go_without(
    monkeypatch: pytest.MonkeyPatch, mode: str, isolated: bool
) -> None:
    """Serverless inference does not support network isolation."""
    monkeypatch.setitem(SUBSTITUTED, "EndpointMode", mode)
    assert evaluated(STATES["CreateModel"]["Arguments"]["EnableNetworkIsolation"]) is isolated


def test_a_real_time_endpoint_is_updated_with_a_canary_and_alarms() -> None:
    deployment = update({})["DeploymentConfig"]
    assert deployment["BlueGreenUpdatePolicy"] == {
        "TrafficRoutingConfiguration": {
            "Type": "CANARY",
            "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 10},
            "WaitIntervalInSeconds": 300,
        },
        "TerminationWaitInSeconds": 300,
    }
    alarms = {alarm["AlarmName"] for alarm in deployment["AutoRollbackConfiguration"]["Alarms"]}
    assert alarms == {"EndpointErrorsAlarm", "EndpointLatencyAlarm", "LowConfidenceAlarm"}
    given = TEMPLATE["ReleaseStateMachine"]["Properties"]["DefinitionSubstitutions"]
    for alarm in alarms:
        assert given[alarm] == {"Ref": alarm}


def test_a_serverless_endpoint_and_one_to_change_at_once_have_no_canary(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "DeploymentConfig" not in update({"at_once": True})
    assert "DeploymentConfig" in update({"at_once": False})
    monkeypatch.setitem(SUBSTITUTED, "EndpointMode", "serverless")
    assert "DeploymentConfig" not in update({})


def test_an_update_that_sagemaker_undid_is_rolled_back() -> None:
    variables = {"release": "new", "failure": "alarm x", "polls": 3}
    new_up = {**variables, "live_status": "InService", "live_config": "new"}
    assert decided("IsNewUp", **new_up)[0] == "AskNew"
    where, assigned = decided("IsNewUp", **new_up | {"live_config": "old"})
    assert (where, assigned["why"]["Error"]) == ("FindToRestore", "RolledBack")
    assert assigned["why"]["Cause"].endswith("alarm x")
    assert decided("IsNewUp", **new_up | {"live_status": "RollingBack", "live_config": "old"})[0] == "WaitForNew"
    assert decided("IsNewUp", **new_up | {"live_status": "Updating", "polls": 160})[0] == "WaitForNew"
    assert decided("IsNewUp", **new_up | {"live_status": "Updating", "polls": 161})[1]["why"]["Error"] == "LiveFailed"


def test_an_approval_in_the_registry_starts_a_release() -> None:
    rule = TEMPLATE["ReleaseRule"]["Properties"]
    assert rule["EventPattern"] == {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Model Package State Change"],
        "detail": {"ModelPackageGroupName": [{"Ref": "AWS::StackName"}], "ModelApprovalStatus": ["Approved"]},
    }
    (target,) = rule["Targets"]
    assert target["Arn"] == {"Ref": "ReleaseStateMachine"}
    (policy,) = TEMPLATE["ReleaseRuleRole"]["Properties"]["Policies"]
    assert policy["PolicyDocument"]["Statement"] == [
        {"Effect": "Allow", "Action": "states:StartExecution", "Resource": {"Ref": "ReleaseStateMachine"}}
    ]
    _, sender = TEMPLATE["ReleaseDeadLetterQueuePolicy"]["Properties"]["PolicyDocument"]["Statement"]
    rules = [{"Fn::GetAtt": [name, "Arn"]} for name in ("ReleaseRule", "ReleaseStoppedRule")]
    assert sender["Condition"] == {"ArnEquals": {"aws:SourceArn": rules}}
    assert TEMPLATE["ReleaseStoppedRule"]["Properties"]["Targets"] == rule["Targets"]


def test_the_registry_is_emptied_before_it_is_deleted() -> None:
    assert TEMPLATE["ModelPackageGroup"]["Properties"]["ModelPackageGroupName"] == {"Ref": "AWS::StackName"}
    assert "ModelPackageGroup" in TEMPLATE["ReleasedEndpoint"]["DependsOn"]
