"""The list of what the template grants and no test uses."""

from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from samtranslator.yaml_helper import yaml_parse

from local import grants
from local.grants import TEMPLATE, UNSEEN, granted, unused, used
from tests import removals


def test_every_role_of_the_template_is_known_by_its_actions() -> None:
    resources = yaml_parse(TEMPLATE.read_text())["Resources"]
    found = granted(resources)
    assert set(found) == {name for name, each in resources.items() if each["Type"] == "AWS::IAM::Role"}
    assert {"sagemaker:InvokeEndpoint", "dynamodb:PutItem", "xray:PutTraceSegments"} <= found["CountRole"]


def test_what_nothing_used_is_listed_and_nothing_else() -> None:
    allowed = {"CountRole": {"s3:GetObject", "dynamodb:Query"}, "JobRole": {"s3:Get*"}}
    needed = used("bintally-CountRole-1A s3:GetObject a test\nbintally-JobRole-2B s3:GetObjectVersion \n", allowed)
    assert unused(allowed, needed) == ["CountRole dynamodb:Query"]


def test_no_exception_is_left_over() -> None:
    allowed = granted(yaml_parse(TEMPLATE.read_text())["Resources"])
    named = {f"{role} {action}" for role, mine in allowed.items() for action in mine}
    for pattern in UNSEEN:
        assert any(fnmatchcase(name, pattern) for name in named), pattern


def test_it_ends_with_1_while_something_is_unused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "grants.txt"
    file.write_text("")
    assert grants.main(str(file)) == 1
    assert "CountRole sagemaker:InvokeEndpoint\n" in capsys.readouterr().out


def test_each_action_is_taken_away_in_the_tests_that_used_it() -> None:
    """Of its role's own witnesses first, then the test that uses the fewest actions; the start of a stack at last."""
    lines = "".join(
        f"bintally-{role}-1A {action} {test}\n"
        for role, action, test in (
            ("CountRole", "dynamodb:PutItem", removals.START),
            ("CountRole", "dynamodb:PutItem", "many"),
            ("CountRole", "sagemaker:InvokeEndpoint", "many"),
            ("CountRole", "s3:GetObjectVersion", "many"),
            ("CountRole", "dynamodb:PutItem", "few"),
            ("ReviewRole", "events:PutEvents", "few"),
        )
    )
    found = {grant.name: grant.tests for grant in removals.grants_in(lines, [])}
    assert found == {
        "CountRole dynamodb:PutItem": ["few", "many", removals.START],
        "CountRole s3:GetObjectVersion": ["many"],
        "CountRole sagemaker:InvokeEndpoint": ["many"],
        "ReviewRole events:PutEvents": [removals.WITNESSES["ReviewRole"], "few"],
    }


def test_a_test_that_fails_with_all_permissions_is_no_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = {("slow", ""): False, ("slow", "R a"): False, ("deaf", "R a"): True, ("good", ""): True}
    monkeypatch.setattr(removals, "passes", lambda test, without="": outcomes.get((test, without), False))
    assert removals.look(removals.Grant("R a", ["slow", "deaf", "good"])).broke == "good"
    unmissed = removals.look(removals.Grant("R a", ["slow", "deaf"]))
    assert (unmissed.broke, unmissed.missed) == ("", ["deaf"])
