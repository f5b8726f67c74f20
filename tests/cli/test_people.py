"""`bintally people` and `bintally open`: who may sign in, as what, and where."""

import json
import re
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from cli.main import main

SHOWN = re.compile(r"[a-z2-9]{5}(-[a-z2-9]{5}){3}")


def run(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "160"}, mix_stderr=False).invoke(main, words)


def listed() -> dict[str, Any]:
    return {each["name"]: each for each in json.loads(run("people", "list", "--json").stdout)}


@pytest.mark.usefixtures("pool")
def test_a_person_is_added_with_a_password_that_is_shown_once(pool: SimpleNamespace) -> None:
    added = run("people", "add", "Ana", "--role", "counter", "--site", "SEA1", "--site", "Halle Süd")
    assert added.exit_code == 0, added.output
    assert len(SHOWN.findall(added.output)) == 1
    ana = listed()["ana"]
    assert (ana["role"], sorted(ana["sites"]), ana["state"]) == ("counter", ["Halle Süd", "SEA1"], "temporary password")
    groups = pool.cognito.admin_list_groups_for_user(UserPoolId=pool.pool, Username="ana")["Groups"]
    assert {group["GroupName"] for group in groups} == {"counter", "site:SEA1", "site:~SGFsbGUgU8O8ZA"}
    assert not SHOWN.search(run("people", "list").output)


@pytest.mark.usefixtures("pool")
def test_two_people_of_one_site_and_one_of_all() -> None:
    assert run("people", "add", "ana", "--role", "counter", "--site", "SEA1").exit_code == 0
    assert run("people", "add", "ben", "--role", "manager", "--site", "SEA1").exit_code == 0
    assert run("people", "add", "vic", "--role", "viewer", "--all-sites").exit_code == 0
    assert {name: (each["role"], each["sites"]) for name, each in listed().items()} == {
        "ana": ("counter", ["SEA1"]),
        "ben": ("manager", ["SEA1"]),
        "vic": ("viewer", ["all"]),
    }
    assert "ana" in run("people", "list").output


@pytest.mark.usefixtures("pool")
def test_reset_and_remove() -> None:
    first = run("people", "add", "ana", "--role", "counter", "--site", "SEA1").output
    again = run("people", "add", "ANA", "--role", "manager", "--site", "SEA1")
    assert again.exit_code == 1 and "ana exists" in again.stderr and "bintally people reset ana" in again.stderr
    assert listed()["ana"]["role"] == "counter"
    second = run("people", "reset", "ANA")
    assert second.exit_code == 0
    assert SHOWN.search(second.output) and SHOWN.findall(second.output) != SHOWN.findall(first)
    assert run("people", "remove", "ana").output == "ana can no longer sign in.\n"
    assert listed() == {}
    for verb in ("remove", "reset"):
        gone = run("people", verb, "ana")
        assert (gone.exit_code, gone.stderr.count("\n")) == (1, 1)
        assert "there is no ana" in gone.stderr
    assert "people add" in run("people", "list").output


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("ana", "--role", "counter"), 2),
        (("ana", "--role", "counter", "--site", "A", "--all-sites"), 2),
        (("ana", "--role", "god", "--site", "A"), 2),
        (("ana", "--site", "A"), 2),
        (("an a", "--role", "counter", "--site", "A"), 1),
        (("user/ana", "--role", "counter", "--site", "A"), 1),
        (("a" * 65, "--role", "counter", "--site", "A"), 1),
        (("", "--role", "counter", "--site", "A"), 1),
        (("ana", "--role", "counter", "--site", "x" * 200), 1),
        (("ana", "--role", "counter", "--site", " "), 1),
    ],
)
def test_what_adds_nobody(words: tuple[str, ...], code: int) -> None:
    refused = run("people", "add", *words)
    assert refused.exit_code == code, refused.output
    assert not SHOWN.search(refused.output)
    assert listed() == {}


def test_half_a_person_is_removed_again(pool: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.cognito.delete_group(UserPoolId=pool.pool, GroupName="manager")
    failed = run("people", "add", "max", "--role", "manager", "--site", "A")
    assert failed.exit_code == 1 and failed.stderr.count("\n") == 1
    assert listed() == {}


@pytest.mark.parametrize("words", [("people", "list"), ("open", "--print")])
def test_a_stack_of_before(aws: SimpleNamespace, words: tuple[str, ...]) -> None:
    refused = run(*words)
    assert (refused.exit_code, refused.stderr.count("\n")) == (3, 1)
    assert "Update it" in refused.stderr


def test_open_opens_the_page_by_the_name_of_its_host(pool: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(click, "launch", opened.append)
    shown = run("open")
    assert opened == ["http://a1.execute-api.localhost:4566/"]
    assert "Add demo people: bintally demo" in shown.output
    (pool.stack.home / "people.json").write_text("[]")
    refused = run("open")
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
