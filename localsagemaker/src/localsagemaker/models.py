"""Model data: reads archives from S3 with the model's role, and unpacks them without trusting their content."""

import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from localsagemaker.wire import ServiceError, invalid

UNPACKED_LIMIT = 2 * 1024**3  # bytes; far above any real package, far below a disk's size

Credentials = dict[str, str]
Assume = Callable[[str], Credentials]
"""Credentials of a role for SageMaker. Raises ServiceError when SageMaker may not assume it."""


class BadModelData(Exception):
    """The object is not a model archive that may be unpacked."""


class ModelData:
    """Reads model archives from the S3 at `endpoint_url`."""

    def __init__(self, endpoint_url: str, region: str, assume: Assume) -> None:
        self.endpoint_url, self.region, self.assume = endpoint_url, region, assume

    def check(self, url: str, role: str) -> None:
        """Raises ServiceError with CreateModel's message when the role cannot read the object."""
        bucket, key = split(url)
        try:
            self.s3(role).head_object(Bucket=bucket, Key=key)
        except (ClientError, ServiceError) as error:
            raise invalid(
                f'Could not access model data at {url}. Please ensure that the role "{role}" exists and that its '
                'trust relationship policy allows the action "sts:AssumeRole" for the service principal '
                '"sagemaker.amazonaws.com". Also ensure that the role has "s3:GetObject" permissions and that the '
                f"object is located in {self.region}. ({error})"
            ) from error

    def fetch(self, url: str, role: str, directory: Path) -> None:
        """Unpacks the archive at `url` into `directory`. Raises BadModelData, ServiceError or ClientError."""
        bucket, key = split(url)
        with tempfile.TemporaryFile() as archive:
            # In one request: in several, the parts of a package that is replaced meanwhile would be of two packages.
            shutil.copyfileobj(self.s3(role).get_object(Bucket=bucket, Key=key)["Body"], archive)
            archive.seek(0)
            try:
                with tarfile.open(fileobj=archive, mode="r:gz") as tar:
                    unpack(tar, directory)
            except (tarfile.TarError, zlib.error, OSError, EOFError, OverflowError, ValueError) as error:
                raise BadModelData(
                    f'Failed to extract model data archive from URL "{url}". Please ensure that the object located '
                    f"at the URL is a valid tar.gz archive. ({error})"
                ) from error

    def s3(self, role: str) -> Any:
        settings = Config(s3={"addressing_style": "path"}, proxies={})
        keys: dict[str, Any] = self.assume(role)
        session: Any = boto3.Session(**keys, region_name=self.region)
        return session.client("s3", endpoint_url=self.endpoint_url, config=settings)


def split(url: str) -> tuple[str, str]:
    """s3://bucket/key as its two parts. Raises ServiceError for anything else."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket or not key:
        raise invalid(f"ModelDataUrl must be an address like s3://bucket/key, not {url}")
    return bucket, key


def unpack(tar: tarfile.TarFile, directory: Path) -> None:
    """Regular files and directories inside `directory`, UNPACKED_LIMIT bytes in all. Raises tarfile.TarError.
    Python 3.11.2, which Debian 12 has, lacks `extractall(filter="data")`."""
    members, root = tar.getmembers(), directory.resolve()
    if sum(member.size for member in members) > UNPACKED_LIMIT:
        raise tarfile.TarError(f"it unpacks to more than {UNPACKED_LIMIT} bytes")
    for member in members:
        path = (root / member.name.lstrip("/")).resolve()
        if not (member.isreg() or member.isdir()) or not path.is_relative_to(root):
            raise tarfile.TarError(f"{member.name} is not a file or directory inside the archive")
        # Whatever the archive says: readable only by its user.
        (path if member.isdir() else path.parent).mkdir(0o700, parents=True, exist_ok=True)
        if source := tar.extractfile(member):
            path.touch(0o600)
            with source, path.open("wb") as file:
                shutil.copyfileobj(source, file)
