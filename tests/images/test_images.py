"""The endpoint's image, built from model/Dockerfile as it is and asked as SageMaker asks it."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from localsagemaker.ports import free_port

from local.stack import REPOSITORY
from model.package import Package, unpack

BASE_IMAGE = Path(__file__).with_name("python_base_image.sh")
TAG = "bintally-serve:test"

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def output_of(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image() -> str:
    if os.geteuid() or not all(map(shutil.which, ("docker", "debootstrap"))):
        pytest.skip("needs root, docker and debootstrap")
    if subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no Docker daemon runs")
    search = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    base = output_of(BASE_IMAGE, REPOSITORY / "model" / "requirements.txt", PATH=search)
    output_of("docker", "build", "--build-arg", f"BASE_IMAGE={base}", "--tag", TAG, REPOSITORY / "model")
    return TAG


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The shipped package, unpacked where a container may read it."""
    folder = tmp_path_factory.mktemp("package")
    return unpack(REPOSITORY / "model" / "pretrained" / "model.tar.gz", folder)


@pytest.fixture(scope="module")
def address(image: str, package: Package) -> Iterator[str]:
    """The running container, with SageMaker's argument and its folder for the model; it can write nothing and has no
    capability."""
    port = free_port()
    container = output_of(
        *("docker", "run", "--detach", "--publish", f"127.0.0.1:{port}:8080"),
        *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--volume", f"{package.directory}:/opt/ml/model:ro", image, "serve"),
    )
    try:
        deadline = time.monotonic() + 120
        while not pings(port):
            logs = subprocess.run(["docker", "logs", container], capture_output=True, text=True)
            assert time.monotonic() < deadline, logs.stdout + logs.stderr
            time.sleep(0.25)
        yield f"http://127.0.0.1:{port}"
    finally:
        output_of("docker", "rm", "--force", container)


def pings(port: int) -> bool:
    with contextlib.suppress(OSError):
        return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).status == 200)
    return False


def test_the_image_counts_as_the_package_says(address: str, package: Package) -> None:
    """Each golden image gets its answer, within what another processor may change."""
    for golden in package.golden:
        request = urllib.request.Request(f"{address}/invocations", golden.data, {"Content-Type": "image/png"})
        answer = json.load(urllib.request.urlopen(request, timeout=60))
        assert golden.difference(answer) is None


def test_the_image_refuses_what_is_no_picture(address: str) -> None:
    request = urllib.request.Request(f"{address}/invocations", b"not a picture", {"Content-Type": "image/jpeg"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code == 400


def test_the_image_contains_what_serves_and_no_more(image: str) -> None:
    """No torch, and of ours the serving modules alone."""
    listed = output_of("docker", "run", "--rm", "--entrypoint", "pip", image, "list", "--format", "freeze")
    assert not any(line.startswith(("torch", "boto")) for line in listed.splitlines())
    files = output_of("docker", "run", "--rm", "--entrypoint", "ls", image, "/opt/bintally/model").split()
    assert files == ["__init__.py", "answer.py", "package.py", "pixels.py", "preprocess.py", "serve.py"]


def test_its_bill_of_materials_names_what_pip_finds_in_it(image: str) -> None:
    output_of("make", "--directory", REPOSITORY, "sbom")
    bill = json.loads((REPOSITORY / ".runs" / "sbom" / "serve.cdx.json").read_text())
    listed = json.loads(output_of("docker", "run", "--rm", "--entrypoint", "pip", image, "list", "--format", "json"))
    found = {(each["name"].lower().replace("_", "-"), each["version"]) for each in listed}
    named = {(each["name"].lower(), each["version"]) for each in bill["components"]}
    assert named and named <= found
    assert {name for name, _ in found - named} <= {"pip", "setuptools", "wheel"}, "what the base image brings"
