"""The two images of a stack: named by the content of their sources, built with docker, and kept in ECR.

A tag is the digest of the files that the image is built from, as Git stores them. So an image is built once for each
content, in whatever order commits are deployed, and a second run finds it.
"""

import base64
import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from deployed.errors import DeployFailed
from deployed.shell import Shell
from deployed.version import code_version

if TYPE_CHECKING:
    from mypy_boto3_ecr import ECRClient

BUILD = ("docker", "buildx", "build", "--platform", "linux/amd64", "--provenance=false", "--output", "type=docker")
"""SageMaker hosts x86 images with a Docker manifest (github.com/aws/amazon-sagemaker-feedback/issues/180)."""


@dataclass(frozen=True)
class Image:
    """`sources` are its Dockerfile and all that this copies; `context` is the folder that docker is given."""

    repository: str
    context: str
    dockerfile: str
    sources: tuple[str, ...]


SERVING = Image(
    "bintally-serve", "model", "model/Dockerfile", ("model/*.py", "model/Dockerfile", "model/requirements.txt")
)
TRAINING = Image(
    *("bintally-train", ".", "training/Dockerfile"), ("training", "model/*.py", "samples", "requirements/train.txt")
)
IMAGES = (SERVING, TRAINING)


def tag_of(image: Image, folder: Path) -> str:
    """The tag of the image that the checkout in `folder` makes.

    Raises DeployFailed where a source is not committed: then no tag would say what is in the image.
    """
    changed = git(folder, "status", "--porcelain", "--", *image.sources)
    if changed:
        raise DeployFailed(
            f"{changed.split()[-1]} is changed and not committed. Commit it, so that its image has a name"
        )
    tracked = git(folder, "ls-files", "--stage", "--", *image.sources)
    if not tracked:
        raise DeployFailed(f"Git knows no sources of {image.repository} in {folder}")
    return hashlib.sha256(tracked.encode()).hexdigest()[:16]


def git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise DeployFailed("git is missing. Install it: images are named by what is committed") from error
    if done.returncode:
        raise DeployFailed(f"git {words[0]} failed in {folder}: {done.stderr.strip()}")
    return done.stdout.strip()


def make_repository(ecr: "ECRClient", name: str) -> bool:
    """Creates the repository unless it exists. Returns whether it did.

    Its tags are immutable: a tag names a content for ever, and a push never replaces the image of another stack.
    """
    try:
        ecr.describe_repositories(repositoryNames=[name])
    except ClientError as error:
        if error.response["Error"]["Code"] != "RepositoryNotFoundException":
            raise
        ecr.create_repository(
            repositoryName=name,
            imageTagMutability="IMMUTABLE",
            imageScanningConfiguration={"scanOnPush": True},
            tags=[{"Key": "Project", "Value": "bintally"}],
        )
        return True
    return False


def pushed(ecr: "ECRClient", repository: str, tag: str) -> str | None:
    """The digest of the image with this tag; None where ECR has none."""
    try:
        found = ecr.describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("ImageNotFoundException", "RepositoryNotFoundException"):
            raise
        return None
    return str(found["imageDetails"][0]["imageDigest"])


def sign_in(ecr: "ECRClient", registry: str, shell: Shell) -> None:
    """Lets docker push to the registry, for 12 hours."""
    token = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    user, _, password = base64.b64decode(token).decode().partition(":")
    words = ("docker", "login", "--username", user, "--password-stdin", registry)
    shell.run(*words, log="docker-login", secret=password)


def build_and_push(image: Image, address: str, shell: Shell) -> None:
    """Builds the image for SageMaker, and pushes it. Raises DeployFailed."""
    commit = ("--build-arg", f"CODE_VERSION={code_version(shell.folder)}") if image is TRAINING else ()
    words = (*BUILD, *commit, "--file", image.dockerfile, "--tag", address, image.context)
    shell.run(*words, log=f"build-{image.repository}")
    shell.run("docker", "push", address, log=f"push-{image.repository}")
