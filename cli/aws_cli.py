"""Which version of the AWS CLI a shell would run: one that is too old sends requests meant for this machine to AWS."""

import re
import shutil
import subprocess
from pathlib import Path

KNOWS_ENDPOINTS = {1: (1, 29, 0), 2: (2, 13, 0)}
"""The first versions that read AWS_ENDPOINT_URL, by major version: those of July 2023, after the CLI's changelogs."""
SECONDS = 5.0

Version = tuple[int, int, int]


def too_old(search: str | None = None) -> str | None:
    """The version of `aws` on this search path (by default PATH) as text if it ignores AWS_ENDPOINT_URL, else None."""
    command = shutil.which("aws", path=search)
    version = version_of(Path(command)) if command else None
    if version is None or version >= KNOWS_ENDPOINTS.get(version[0], version):
        return None
    return ".".join(map(str, version))


def version_of(command: Path) -> Version | None:
    """From where it is installed, since asking it takes a second; it is asked only where that does not tell."""
    file = command.resolve()
    # /usr/local/aws-cli/v2/2.15.30/dist/aws, /opt/homebrew/Cellar/awscli/2.15.30/bin/aws
    if "aws" in file.parent.as_posix() and (found := re.search(r"/(\d+)\.(\d+)\.(\d+)(?:_\d+)?/", file.as_posix())):
        return parsed(found)
    for packages in file.parent.parent.glob("lib/python3*/*-packages"):
        for info in (*packages.glob("awscli-*.dist-info"), *packages.glob("awscli-*.egg-info")):
            if found := re.match(r"awscli-(\d+)\.(\d+)\.(\d+)", info.name):
                return parsed(found)
    try:
        said = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"aws-cli/(\d+)\.(\d+)\.(\d+)", said.stdout + said.stderr)
    return parsed(found) if found else None


def parsed(found: re.Match[str]) -> Version:
    major, minor, patch = (int(part) for part in found.groups()[:3])
    return major, minor, patch
