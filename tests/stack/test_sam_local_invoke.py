"""`bintally invoke` runs the count function in Docker, as part of the running local stack."""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.relay import bridge_address, relay
from local.stack import REPOSITORY

BASE_IMAGE = REPOSITORY / "tools" / "lambda_base_image.sh"
BINTALLY = Path(sys.executable).with_name("bintally")


def output_of(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def docker() -> None:
    if os.geteuid() or not all(map(shutil.which, ("docker", "debootstrap"))):
        pytest.skip("needs root, docker and debootstrap")
    if subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no Docker daemon runs")


@pytest.fixture(scope="module")
def image(docker: None) -> str:
    return output_of(BASE_IMAGE, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@pytest.fixture(scope="module")
def settings(stack: Any) -> dict[str, str]:
    """The environment of a person at this stack."""
    return {"BINTALLY_HOME": str(stack.home), "BINTALLY_PORT": str(stack.port)}


@pytest.fixture
def waiting(user: Any, photograph: Callable[..., bytes]) -> Iterator[tuple[str, str]]:
    """Key and version of a photograph that the deployed function does not count meanwhile, with its event taken."""
    key = "incoming/SAM1/P-9-A1/2026-11-22T10:15:00Z.jpg"
    with user.held():
        version = user.upload(key, photograph(1))
        (sent,) = user.take_events(1)
        sample = json.loads(json.loads((REPOSITORY / "events" / "count.json").read_text())["Records"][0]["body"])
        real = json.loads(sent)
        assert sample.keys() == real.keys()
        assert sample["detail"].keys() >= {"bucket", "object"}
        assert sample["detail"]["object"].keys() >= {"key", "size", "etag", "version-id", "sequencer"}
        yield key, version


def status_by_the_bridge(port: int) -> int:
    """What the stack answers to a request for its health that comes by the bridge."""
    with relay(bridge_address(), port) as way_in, contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(f"{way_in}/_ministack/health", timeout=30)
        return 200
    return 403


@pytest.mark.timeout(600)
def test_count_function_runs_in_a_container(
    user: Any, image: str, settings: dict[str, str], waiting: tuple[str, str]
) -> None:
    """With the relay that the command starts itself; built for the image's Python, whatever the template names."""
    key, version = waiting
    assert status_by_the_bridge(user.stack.port) == 403  # No container runs.
    answer = output_of(BINTALLY, "invoke", "count", f"s3://{user.bucket}/{key}", "--image", image, "--run", **settings)
    assert json.loads(answer.splitlines()[-1]) == {"batchItemFailures": []}
    assert status_by_the_bridge(user.stack.port) == 403  # It has gone.
    (item,) = user.counts(key)
    assert item["status"] == "COUNTED"
    assert item["image"]["version_id"] == version
    assert user.latest("SAM1", "P-9-A1")["image"] == item["image"]


@pytest.mark.timeout(600)
def test_the_printed_line_runs_beside_the_printed_relay(user: Any, image: str, settings: dict[str, str]) -> None:
    """With the sample event, whose photograph this stack does not have: the function answers, and rejects it."""
    line = shlex.split(output_of(BINTALLY, "invoke", "count", "--image", image, **settings))
    assert line[:4] == ["sam", "local", "invoke", "CountFunction"]
    assert line[-3:] == ["--invoke-image", image, "--skip-pull-image"]
    started = subprocess.Popen(
        [sys.executable, "-m", "local.relay"],
        cwd=REPOSITORY,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert started.stdout is not None
        assert started.stdout.readline().startswith(f"Relaying http://{bridge_address()}:{user.stack.port} to")
        printed = output_of(
            sys.executable, "-m", "samcli", *line[1:], **user.stack.credentials(), SAM_CLI_TELEMETRY="0"
        )
    finally:
        started.terminate()
        started.wait()
    assert "batchItemFailures" in json.loads(printed.splitlines()[-1])


def test_without_an_image_sam_takes_its_own(user: Any, docker: None, settings: dict[str, str]) -> None:
    """AWS's registry is out of reach here: the line names no image; the build is for the template's Python."""
    line = shlex.split(output_of(BINTALLY, "invoke", "record", **settings))
    assert line[3] == "RecordFunction"
    assert not {"--invoke-image", "--skip-pull-image"} & set(line)
    template, event, variables = (Path(line[line.index(flag) + 1]) for flag in ("--template", "--event", "--env-vars"))
    assert json.loads(event.read_text()) == json.loads((REPOSITORY / "events" / "record.json").read_text())
    deployed = user.functions.get_function_configuration(FunctionName=user.outputs["RecordFunction"])["Environment"]
    address = f"http://{bridge_address()}:{user.stack.port}"
    assert json.loads(variables.read_text()) == {
        "RecordFunction": deployed["Variables"] | {"AWS_ENDPOINT_URL": address}
    }
    assert "AWS_ENDPOINT_URL" in template.read_text()
    compiled = {path.name.split(".")[1] for path in (template.parent / "RecordFunction").rglob("*.cpython-*.so")}
    assert all("cpython-313" in name for name in compiled)
