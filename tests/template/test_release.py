"""The release state machine read as text: no way past the lock, and no more permissions than it uses."""

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from bintally.releasing.release import POLLS, QUOTA_POLLS
from samcli.yamlhelper import yaml_parse

from tests.template.machine import LOG_DELIVERY, drawn, reachable

ROOT = Path(__file__).parents[2]
DEFINITION = json.loads((ROOT / "machines" / "release.asl.json").read_text())
STATES: dict[str, Any] = DEFINITION["States"]
TEMPLATE = yaml_parse((ROOT / "template.yaml").read_text())["Resources"]
TASKS = sorted(name for name, state in STATES.items() if state["Type"] == "Task")
REPORTING = {"FreeLock", "PutEvent", "Publish", "IsReleased"}


def tasks(states: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from (state for state in states.values() if state["Type"] == "Task")


def action(state: dict[str, Any]) -> str:
    """The permission that a task needs."""
    words = state["Resource"].removeprefix("arn:${Partition}:states:::").removeprefix("aws-sdk:").split(":")
    service = {"sfn": "states", "eventbridge": "events"}.get(words[0], words[0])
    name = {"lambda:invoke": "invokeFunction"}.get(":".join(words), words[1])
    return f"{service}:{name[0].upper()}{name[1:]}"


def test_every_state_can_be_reached() -> None:
    assert reachable(STATES, DEFINITION["StartAt"]) == STATES.keys()


def test_every_way_to_an_end_frees_the_lock_and_tells() -> None:
    ends = {"Released", "NotReleased"}
    assert {name for name, state in STATES.items() if state.get("End") or state["Type"] == "Fail"} == ends
    for step in REPORTING:
        assert not reachable(STATES, DEFINITION["StartAt"], without=step) & ends


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_limited_in_time_tried_again_and_caught(name: str) -> None:
    state = STATES[name]
    assert state["TimeoutSeconds"] <= 330
    assert "States.ALL" in state["Retry"][-1]["ErrorEquals"]
    assert state["Catch"][-1]["ErrorEquals"] == ["States.ALL"]


def test_what_fails_once_something_was_created_restores_what_was_there() -> None:
    created = reachable(STATES, "CreateCandidate", without="Restore") - REPORTING - {"AskLive"}
    for name in created & set(TASKS):
        assert STATES[name]["Catch"][-1]["Next"] == "Restore"


def test_the_report_needs_no_function() -> None:
    """It is also about a function that fails."""
    reported = reachable(STATES, "FreeLock")
    assert not [name for name in reported if "lambda" in STATES[name].get("Resource", "")]


def test_every_step_of_the_function_is_a_state_with_a_choice_for_its_answer() -> None:
    steps = {
        name: state["Arguments"]["Payload"]["step"]
        for name, state in STATES.items()
        if state.get("Arguments", {}).get("FunctionName") == "${AdvanceFunction}"
    }
    assert len(set(steps.values())) == len(steps)
    for name, step in steps.items():
        choice = STATES[STATES[name]["Next"]]
        assert choice["Type"] == "Choice"
        waits = [c["Next"] for c in choice["Choices"] if "'wait'" in c["Condition"]]
        assert [STATES[wait]["Next"] for wait in waits] == ([name] if step != "finish" else [])


def test_every_substitution_is_given_and_used() -> None:
    text = json.dumps(DEFINITION)
    given = TEMPLATE["ReleaseStateMachine"]["Properties"]["DefinitionSubstitutions"]
    assert {name for name in given if f"${{{name}}}" not in text} == set()
    for name in given:
        text = text.replace(f"${{{name}}}", "")
    assert "${" not in text


def allowed(role: str) -> set[str]:
    (policy,) = (each for each in TEMPLATE[role]["Properties"]["Policies"] if "Fn::If" not in each)  # not that of a VPC
    found: set[str] = set()
    for statement in policy["PolicyDocument"]["Statement"]:
        actions = statement["Action"]
        found |= {actions} if isinstance(actions, str) else set(actions)
    assert not [one for one in found if fnmatchcase(one, "*[*]*")]
    return found


def test_the_machines_role_allows_what_its_tasks_do_and_no_more() -> None:
    assert allowed("ReleaseRole") == {action(task) for task in tasks(STATES)} | LOG_DELIVERY


def test_the_functions_role_allows_what_it_calls_and_no_more() -> None:
    """It uses the SageMaker client in one module; the stack tests show that these suffice."""
    text = (ROOT / "functions" / "bintally" / "releasing" / "endpoints.py").read_text()
    called = {found.replace("_", "") for found in re.findall(r"self\.client\.(\w+)\(", text)} | {"listendpoints"}
    mine = allowed("AdvanceRole")
    sagemaker = {name for name in mine if name.startswith("sagemaker:")}
    assert {name.partition(":")[2].lower() for name in sagemaker} == called - {"getpaginator"}
    assert mine - sagemaker == {
        *("dynamodb:GetItem", "dynamodb:PutItem", "states:DescribeExecution", "s3:GetObject", "s3:ListBucket"),
        "ecr:DescribeImages",
        # What SageMaker does in the caller's name: it takes the model's role, and looks at the alarms of a canary.
        *("iam:PassRole", "cloudwatch:DescribeAlarms", "lambda:UpdateEventSourceMapping"),
        "application-autoscaling:DeregisterScalableTarget",
        *("logs:CreateLogStream", "logs:PutLogEvents"),
    }


def test_the_model_role_is_passed_to_sagemaker_only() -> None:
    _, policy = TEMPLATE["AdvanceRole"]["Properties"]["Policies"]
    (statement,) = [s for s in policy["PolicyDocument"]["Statement"] if s["Action"] == "iam:PassRole"]
    assert statement["Resource"] == {"Fn::GetAtt": ["ModelRole", "Arn"]}
    assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


def test_the_template_leaves_the_mapping_to_releases() -> None:
    assert "Enabled" not in TEMPLATE["CountMapping"]["Properties"]
    assert TEMPLATE["CountRule"]["DependsOn"] == "ReleasedEndpoint"
    assert TEMPLATE["ReleasedEndpoint"]["Properties"]["Mapping"] == {"Ref": "CountMapping"}


def test_the_waits_end_before_the_execution_does() -> None:
    """For the lock, candidates left, the endpoint, the candidate up and gone, the live endpoint with the longest
    canary, both again to restore, and a short quota twice."""
    wait = 1800  # CanaryWaitSeconds at most
    lock = sum(min(1 + polls, 60) for polls in range(POLLS + 1))
    endpoint = sum(min(1 + polls, 15) for polls in range(POLLS + 1))
    quota = sum(min(5 * 2**polls, 60) for polls in range(QUOTA_POLLS))
    assert lock + 7 * endpoint + 4 * wait + 2 * quota < DEFINITION["TimeoutSeconds"]
    template = yaml_parse((ROOT / "template.yaml").read_text())
    assert template["Parameters"]["CanaryWaitSeconds"]["MaxValue"] == wait


def test_the_alarms_of_a_canary_are_those_of_the_template() -> None:
    variables = TEMPLATE["AdvanceFunction"]["Properties"]["Environment"]["Variables"]
    alarms = [{"Ref": name} for name in ("EndpointErrorsAlarm", "EndpointLatencyAlarm", "LowConfidenceAlarm")]
    assert variables["CANARY_ALARMS"] == {"Fn::Join": [",", alarms]}


def test_the_documents_show_the_machine() -> None:
    """docs/decisions/release.md has the picture that tests/template/machine.py draws of the machine."""
    page = (ROOT / "docs" / "decisions" / "release.md").read_text()
    assert f"```mermaid\n{drawn(DEFINITION)}```\n" in page


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
