"""The command: it finds its verbs, stays quick, and says what is wrong in one line."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import VERBS, main, module_of

FOLDER = Path(__file__).parents[2] / "cli"


def test_every_module_with_a_command_is_a_verb_and_every_verb_has_one() -> None:
    modules = {f"cli.{path.stem}" for path in FOLDER.glob("*.py") if "@click.command" in path.read_text()}
    assert modules == {module_of(verb) for verb in VERBS}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    shown = CliRunner().invoke(main, [*verb.split(), "--help"])
    assert shown.exit_code == 0
    assert f"{verb} [OPTIONS]" in shown.output


def test_help_lists_the_verbs_and_loads_none_of_them() -> None:
    code = "import sys, cli.main; cli.main.main(['--help'], standalone_mode=False); print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    listed, loaded = shown.rsplit("\n", 2)[:2]
    assert all(f"  {verb} " in listed for verb in VERBS)
    assert not {"boto3", "rich.console", "local.stack", "numpy"} & set(loaded.split())


def test_an_unknown_verb_is_a_usage_error() -> None:
    shown = CliRunner().invoke(main, ["nonsense"])
    assert shown.exit_code == 2
    assert "No such command 'nonsense'" in shown.output
