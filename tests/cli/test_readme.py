"""The README keeps up: every command and option is in it, every link leads somewhere, every folder has its line."""

import re
import subprocess

import click
import pytest

from cli.main import main
from local.stack import REPOSITORY

README = (REPOSITORY / "README.md").read_text()
ROWS = {row.split("`")[1].split()[1]: row for row in README.splitlines() if row.startswith("| `bintally ")}
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *(REPOSITORY / "docs").rglob("*.md")]


def commands() -> dict[str, click.Command]:
    context = click.Context(main)
    found = {name: main.get_command(context, name) for name in main.list_commands(context)}
    return {name: command for name, command in found.items() if command}


def test_every_command_is_documented() -> None:
    assert set(commands()) <= set(ROWS)


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
    assert "What to recount first" in block
    assert block.count("Z.jpg") >= 16
