"""The release state machine read as text: no way past the lock, and no more permissions than it uses."""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from samcli.yamlhelper import yaml_parse

ROOT = Path(__file__).parents[2]
DEFINITION = json.loads((ROOT / "training" / "release.asl.json").read_text())
STATES: dict[str, Any] = DEFINITION["States"]
TEMPLATE = yaml_parse((ROOT / "template.yaml").read_text())["Resources"]
TASKS = sorted(name for name, state in STATES.items() if state["Type"] == "Task")
TELLING = {"FreeLock", "PutEvent", "Publish", "IsReleased"}


def following(state: dict[str, Any]) -> Iterator[str]:
    for part in (state, *state.get("Choices", []), *state.get("Catch", [])):
        yield from (part[name] for name in ("Next", "Default") if name in part)


def reachable(start: str, without: str = "") -> set[str]:
    found: set[str] = set()
    open_ = [start]
    while open_:
        name = open_.pop()
        if name not in found and name != without:
            found.add(name)
            open_ += following(STATES[name])
    return found


def tasks(states: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Also those inside Map states."""
    for state in states.values():
        if state["Type"] == "Task":
            yield state
        if state["Type"] == "Map":
            yield from tasks(state["ItemProcessor"]["States"])


def action(state: dict[str, Any]) -> str:
    """The permission that a task needs."""
    words = state["Resource"].removeprefix("arn:aws:states:::").removeprefix("aws-sdk:").split(":")
    service = {"sfn": "states", "eventbridge": "events"}.get(words[0], words[0])
    name = {"lambda:invoke": "invokeFunction"}.get(":".join(words), words[1])
    return f"{service}:{name[0].upper()}{name[1:]}"


def test_every_state_can_be_reached() -> None:
    assert reachable(DEFINITION["StartAt"]) == STATES.keys()


def test_every_way_to_an_end_frees_the_lock_and_tells() -> None:
    ends = {"Released", "NotReleased"}
    assert {name for name, state in STATES.items() if state.get("End") or state["Type"] == "Fail"} == ends
    for step in TELLING:
        assert not reachable(DEFINITION["StartAt"], without=step) & ends


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
    """But one that is broken."""
    before = reachable(DEFINITION["StartAt"], without="IsFirst")
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
    assert allowed == {action(task) for task in tasks(STATES)} | {"iam:PassRole"}


def test_the_model_role_is_passed_to_sagemaker_only() -> None:
    (policy,) = TEMPLATE["ReleaseRole"]["Properties"]["Policies"]
    (statement,) = [s for s in policy["PolicyDocument"]["Statement"] if s["Action"] == "iam:PassRole"]
    assert statement["Resource"] == {"Fn::GetAtt": ["ModelRole", "Arn"]}
    assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


def test_the_template_leaves_the_mapping_to_releases() -> None:
    assert "Enabled" not in TEMPLATE["CountMapping"]["Properties"]
    assert TEMPLATE["CountRule"]["DependsOn"] == "ReleasedEndpoint"
    assert TEMPLATE["ReleasedEndpoint"]["Properties"]["Mapping"] == {"Ref": "CountMapping"}
