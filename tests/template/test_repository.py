"""The repository besides its code: CI runs the commands that people run, and Dockerfiles are sound."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.emulator import MEMORY

REPOSITORY = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_every_step_of_a_workflow_is_a_make_target(workflow: Path) -> None:
    commands = [step["run"] for step in steps(workflow) if "run" in step]
    assert commands
    for command in commands:
        found = re.fullmatch(r"(?:sudo (?:--preserve-env=PATH )?)?make ([a-z-]+)(?: #.*)?", command)
        assert found and found[1] in TARGETS, command


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read_and_ends(workflow: Path) -> None:
    document = yaml.safe_load(workflow.read_text())
    assert document["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in document["jobs"].values())
    more = {name: job["permissions"] for name, job in document["jobs"].items() if "permissions" in job}
    deploys = {name: {"contents": "read", "id-token": "write"} for name in ("staging", "production")}
    assert more == (deploys if workflow.name == "deploy.yml" else {})


def test_production_follows_staging_and_each_has_an_environment_that_gives_a_role() -> None:
    workflow = REPOSITORY / ".github" / "workflows" / "deploy.yml"
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    assert list(jobs) == ["staging", "production"]
    assert jobs["production"]["needs"] == "staging"
    for name, job in jobs.items():
        assert job["environment"] == name
        (checkout,) = (step for step in job["steps"] if "actions/checkout" in step.get("uses", ""))
        assert checkout["with"]["fetch-depth"] == 0, "the branch of a tag, which version.runbook asks for"
        (sign_in,) = (step for step in job["steps"] if "aws-actions" in step.get("uses", ""))
        assert sign_in["with"]["role-to-assume"] == "${{ vars.DEPLOY_ROLE }}"
        assert not {"aws-access-key-id", "aws-secret-access-key"} & sign_in["with"].keys()
        (deploy,) = (step for step in job["steps"] if step.get("run") == "make deploy")
        assert deploy["env"]["ENVIRONMENT"] == name
        used = set(re.findall(r"\$\(([A-Z]+)\)|\(or \$\(([A-Z]+)", (REPOSITORY / "Makefile").read_text()))
        assert deploy["env"].keys() <= {word for pair in used for word in pair}
    assert "secrets." not in workflow.read_text()


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_an_action_has_one_version_in_all_workflows(workflow: Path) -> None:
    used = {tuple(step["uses"].split("@")) for each in WORKFLOWS for step in steps(each) if "uses" in step}
    assert all(version for _, version in used)
    assert len(dict(used)) == len(used)


def test_hooks_before_a_commit_run_what_is_installed() -> None:
    """`repo: local`: nothing is fetched, and the versions are those that `make check` uses."""
    for repository in yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]:
        assert repository["repo"] == "local"
        for hook in repository["hooks"]:
            assert hook["entry"].startswith(".venv/bin/")
            assert (Path(sys.executable).parent / Path(hook["entry"].split()[0]).name).exists(), hook["entry"]


@pytest.mark.parametrize("dockerfile", ["model/Dockerfile", "training/Dockerfile"])
def test_dockerfiles_are_sound(dockerfile: str) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, REPOSITORY / dockerfile], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_jobs_here_keep_memory_as_those_of_the_image_do() -> None:
    settings = " ".join(f"{name}={value}" for name, value in MEMORY.items())
    assert settings in (REPOSITORY / "training" / "Dockerfile").read_text()
    assert settings in (REPOSITORY / "Makefile").read_text()
