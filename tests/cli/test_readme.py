"""The README keeps up: every command and option is in it, every link leads somewhere, every folder has its line."""

import re
import subprocess
from pathlib import Path

import click
import pytest

from cli.errors import FAILED, INTERRUPTED, NOT_RUNNING, PACKAGE_MISSING, PORT_TAKEN, USAGE
from cli.main import FAMILIES, GROUPS, VERBS, Verbs, command_of, main
from local.stack import REPOSITORY

README = (REPOSITORY / "README.md").read_text()
ROWS = {
    verb: row
    for row in README.splitlines()
    for verb in VERBS
    if row.startswith((f"| `bintally {verb}` ", f"| `bintally {verb} "))
}
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *(REPOSITORY / "docs").rglob("*.md")]


def commands() -> dict[str, click.Command]:
    return {verb: command_of(verb) for verb in VERBS}


def test_every_command_is_documented_in_the_order_of_the_help() -> None:
    assert list(ROWS) == list(VERBS)
    commands = README.partition("\n## Commands\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| \*\*(.+)\*\* \|", commands, re.MULTILINE) == [family.lower() for family in FAMILIES]


def test_every_family_has_a_verb_and_every_first_word_its_group() -> None:
    assert isinstance(main, Verbs)
    assert {verb.split()[0] for verb in VERBS if " " in verb} == GROUPS.keys()
    assert main.list_commands(click.Context(main)) == list(dict.fromkeys(verb.split()[0] for verb in VERBS))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_commands_that_pages_name_exist(page: Path) -> None:
    named = re.findall(r"(?:`|^|; )bintally ([a-z][a-z-]*)(?: ([a-z]+))?", page.read_text(), re.MULTILINE)
    assert [words for words in named if words[0] not in VERBS and " ".join(words) not in VERBS] == []


def test_exit_codes_are_documented() -> None:
    said = README.partition("Exit codes:")[2].partition("\n\n")[0]
    for code in (FAILED, USAGE, NOT_RUNNING, PORT_TAKEN, PACKAGE_MISSING, INTERRUPTED):
        assert re.search(rf"\b{code} \w", said), code


@pytest.mark.parametrize(("name", "command"), commands().items(), ids=list(commands()))
def test_every_option_is_documented(name: str, command: click.Command) -> None:
    options = {flag for option in command.params for flag in option.opts if flag.startswith("--")}
    missing = {flag for flag in options if not re.search(rf"`{flag}\b|{flag} ", ROWS[name])}
    assert not missing


@pytest.mark.parametrize("name", list(commands()))
def test_every_command_explains_itself(name: str) -> None:
    assert (commands()[name].help or "").split("\n")[0].endswith(".")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: object) -> None:
    assert isinstance(page, type(REPOSITORY))
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_folder_has_its_line() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    folders = {path.split("/")[0] for path in listed.splitlines() if "/" in path and not path.startswith(".")}
    tree = set(re.findall(r"^(\w+)/ ", README, re.MULTILINE))
    assert folders == tree


def test_every_decision_is_listed() -> None:
    folder = REPOSITORY / "docs" / "decisions"
    listed = set(re.findall(r"\]\(([\w-]+\.md)\)", (folder / "README.md").read_text()))
    assert listed == {page.name for page in folder.glob("*.md")} - {"README.md"}


def test_the_demo_block_is_from_a_run() -> None:
    block = README.split("<!-- demo")[1].split("<!-- /demo -->")[0]
    assert "✓ Releasing model" in block
    assert "Bins to recount first" in block
    assert block.count("Z.jpg") >= 16
