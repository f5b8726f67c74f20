"""The two images, built from their Dockerfiles as they are, on a base made here. Docker keeps their layers."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from local.stack import REPOSITORY

HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


def output_of(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout.strip()


def base_image() -> str:
    """Its name. Skips the test where it cannot be made."""
    if os.geteuid() or not all(map(shutil.which, ("docker", "debootstrap"))):
        pytest.skip("needs root, docker and debootstrap")
    if subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no Docker daemon runs")
    return output_of(Path(__file__).with_name("python_base_image.sh"))


def build(tag: str, *arguments: str | Path) -> str:
    """With the network of this machine, whose names and proxies pip and apt already know."""
    base = f"BASE_IMAGE={base_image()}"
    output_of("docker", "build", "--network", "host", "--build-arg", base, "--tag", tag, *arguments)
    return tag


def serving_image() -> str:
    return build("bintally-serve:test", REPOSITORY / "model")


def training_image() -> str:
    return build("bintally-train:test", "--file", REPOSITORY / "training" / "Dockerfile", REPOSITORY)
