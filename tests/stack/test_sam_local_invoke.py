"""`sam local invoke` runs the count function in Docker, against the running local stack, with the sample event."""

import contextlib
import ipaddress
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.stack import REPOSITORY

pytestmark = pytest.mark.xdist_group("count")  # they hold the queue up, and its services

BASE_IMAGE = REPOSITORY / "tests" / "stack" / "lambda_base_image.sh"


def output_of(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def docker() -> None:
    if os.geteuid() or not all(map(shutil.which, ("docker", "debootstrap", "socat"))):
        pytest.skip("needs root, docker, debootstrap and socat")
    if subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no Docker daemon runs")


@pytest.fixture(scope="module")
def image(docker: None) -> str:
    return output_of(BASE_IMAGE, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template, built for the image's Python 3.11 whatever this machine's is."""
    directory = tmp_path_factory.mktemp("build")
    output_of(
        *(sys.executable, "-m", "samcli", "build", "CountFunction", "--template", REPOSITORY / "template.yaml"),
        *("--build-dir", directory),
        PYTHON_VERSION="3.11",
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        SAM_CLI_TELEMETRY="0",
    )
    template = directory / "template.yaml"
    # `sam local invoke --env-vars` passes on only variables that the template names. On AWS this one has no place.
    known = "        POWERTOOLS_LOG_LEVEL: INFO\n"
    assert template.read_text().count(known) == 1
    template.write_text(template.read_text().replace(known, f"{known}        AWS_ENDPOINT_URL: overridden\n"))
    return template


@pytest.fixture
def way_in(user: Any, docker: None) -> Iterator[str]:
    """The stack's address as a container sees it. The stack listens on loopback alone, and sam puts its containers
    on Docker's bridge whatever --docker-network says, so a relay listens on the bridge, on the stack's own port."""
    inspected = json.loads(output_of("docker", "network", "inspect", "bridge"))
    bridge = ipaddress.ip_network(inspected[0]["IPAM"]["Config"][0]["Subnet"])[1]
    port = user.stack.port
    command = f"TCP-LISTEN:{port},bind={bridge},fork,reuseaddr", f"TCP:127.0.0.1:{port}"
    relay = subprocess.Popen(["socat", *command], start_new_session=True)
    yield f"http://{bridge}:{port}"
    relay.terminate()
    relay.wait()


def status_of(way_in: str) -> int:
    """What the stack answers to a request for its health by the bridge."""
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(f"{way_in}/_ministack/health", timeout=30)
        return 200
    return 403


@pytest.mark.timeout(600)
def test_count_function(
    user: Any, image: str, built: Path, way_in: str, photograph: Callable[..., bytes], tmp_path: Path
) -> None:
    sample = json.loads((REPOSITORY / "events" / "count.json").read_text())
    arrival = json.loads(sample["Records"][0]["body"])
    key = "incoming/SAM1/P-9-A1/2026-11-22T10:15:00Z.jpg"
    with user.held():  # The deployed function must not be the one that counts it.
        version = user.upload(key, photograph(1))
        (sent,) = user.take_events(1)
        real = json.loads(sent)
        assert arrival.keys() == real.keys()
        assert arrival["detail"].keys() >= {"bucket", "object"}
        assert arrival["detail"]["object"].keys() >= {"key", "size", "etag", "version-id", "sequencer"}
        arrival["detail"]["bucket"]["name"] = user.bucket
        arrival["detail"]["object"] |= {"key": key, "version-id": version}
        sample["Records"][0]["body"] = json.dumps(arrival)
        event = tmp_path / "count.json"
        event.write_text(json.dumps(sample))
        variables = user.functions.get_function_configuration(FunctionName=user.function)["Environment"]["Variables"]
        settings = tmp_path / "variables.json"
        settings.write_text(json.dumps({"CountFunction": variables | {"AWS_ENDPOINT_URL": way_in}}))
        assert status_of(way_in) == 403  # No container runs.
        answer = output_of(
            *(sys.executable, "-m", "samcli", "local", "invoke", "CountFunction", "--template", built),
            *("--event", event, "--env-vars", settings, "--invoke-image", image, "--skip-pull-image"),
            **user.stack.credentials(),
            SAM_CLI_TELEMETRY="0",
        )
        assert json.loads(answer.splitlines()[-1]) == {"batchItemFailures": []}
        assert status_of(way_in) == 403  # It has gone.
        (item,) = user.counts(key)
        assert item["status"] == "COUNTED"
        assert item["image"]["version_id"] == version
        assert user.latest("SAM1", "P-9-A1")["image"] == item["image"]
