"""bintally env warns of an AWS CLI that would take requests for this machine to AWS."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli.aws_cli import too_old
from cli.main import main
from local.stack import Local

INSTALLED = {
    "installer": "aws-cli/v2/{}/dist/aws",
    "homebrew": "Cellar/awscli/{}/bin/aws",
    "pip": "venv/bin/aws",
    "another": "somewhere/aws",
}


def install(folder: Path, kind: str, version: str) -> str:
    """Puts an AWS CLI of this version there, in the way of `kind`, and returns the search path."""
    file = folder / INSTALLED[kind].format(version)
    file.parent.mkdir(parents=True)
    answer = f"echo aws-cli/{version} Python/3.11.2 Linux/6" if kind == "another" else "exit 7"
    file.write_text(f"#!/bin/sh\n{answer}\n")
    file.chmod(0o755)
    if kind == "pip":
        (folder / "venv" / "lib" / "python3.11" / "site-packages" / f"awscli-{version}.dist-info").mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "aws").symlink_to(file)
    return str(folder / "bin")


@pytest.mark.parametrize("kind", INSTALLED)
@pytest.mark.parametrize(
    ("version", "is_old"),
    [("2.9.19", True), ("2.12.7", True), ("2.13.0", False), ("2.31.1", False), ("1.22.34", True), ("1.44.9", False)],
)
def test_the_version_is_found_however_it_was_installed(tmp_path: Path, kind: str, version: str, is_old: bool) -> None:
    assert too_old(install(tmp_path, kind, version)) == (version if is_old else None)


def test_no_command_and_one_that_says_nothing_are_no_warning(tmp_path: Path) -> None:
    assert too_old(str(tmp_path)) is None
    silent = tmp_path / "aws"
    silent.write_text("#!/bin/sh\nexit 1\n")
    silent.chmod(0o755)
    assert too_old(str(tmp_path)) is None


def test_the_warning_leaves_the_lines_for_the_shell_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {"AWS_ENDPOINT_URL": "http://127.0.0.1:4566", "AWS_ACCESS_KEY_ID": "key"}
    monkeypatch.setattr(Local, "environment", lambda self: environment)
    path = install(tmp_path, "installer", "2.9.19")

    def shown(**variables: str) -> Any:
        return CliRunner(mix_stderr=False).invoke(main, ["env"], env=variables)

    old = shown(PATH=path)
    assert "the AWS CLI on your PATH, 2.9.19, ignores AWS_ENDPOINT_URL" in old.stderr
    subprocess.run(["sh", "-e", "-c", f'{old.stdout}test "$AWS_ENDPOINT_URL" = http://127.0.0.1:4566'], check=True)
    assert shown(PATH=str(tmp_path)).stderr == ""
    del environment["AWS_ENDPOINT_URL"]  # a stack on AWS
    assert shown(PATH=path).stderr == ""
