"""Files by name below "s3://bucket/prefix" or below a folder, depending on the address."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LARGEST = 30 * 1024**2
"""Bytes of a photograph; the count function does not read a larger one either."""
CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 8}, max_pool_connections=16)
READ_ATTEMPTS = 4
"""Tries to read a body: botocore retries a request that fails, but not one that breaks off while its body is read."""


class StoreError(Exception):
    """S3 or the disk failed; the message names the file. Retry the job."""


class Missing(StoreError):
    """The file does not exist, or no longer."""


class TooLarge(StoreError):
    """A photograph of more than `LARGEST` bytes; detected before it is downloaded."""


class Store(Protocol):
    """All methods raise `StoreError`; those that read also raise `Missing`."""

    @property
    def address(self) -> str: ...
    def read(self, name: str) -> bytes: ...
    def download(self, name: str, to: Path) -> None: ...
    def write(self, name: str, content: bytes | Path) -> None: ...
    def holds(self, name: str, since: datetime | None = None) -> bool:
        """Whether there is this file, and it was written `since` then."""

    def stored_between(self, first: datetime, last: datetime) -> Iterator[str]:
        """The names of the files that were last written between these times."""


def store(address: str) -> Store:
    if address.startswith("s3://"):
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        return Bucket(client(), bucket, prefix.rstrip("/"))
    return Folder(Path(address).absolute())


def located(address: str) -> tuple[Store, str]:
    """The store and the file name of an address."""
    folder, _, name = address.rpartition("/")
    return store(folder or "."), name


@cache
def client() -> S3Client:
    """A client configured by the environment, which in a job contains the region and the role."""
    return boto3.client("s3", config=CONFIG)


@dataclass(frozen=True)
class Folder:
    root: Path

    @property
    def address(self) -> str:
        return str(self.root)

    def read(self, name: str) -> bytes:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError as error:
            raise Missing(f"there is no {self.root / name}") from error
        except OSError as error:
            raise StoreError(str(error)) from error

    def download(self, name: str, to: Path) -> None:
        if not self.holds(name):
            raise Missing(f"there is no {self.root / name}")
        shutil.copyfile(self.root / name, to)

    def write(self, name: str, content: bytes | Path) -> None:
        """Writes completely or not at all, like S3."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        if isinstance(content, bytes):
            partial.write_bytes(content)
        else:
            shutil.copyfile(content, partial)
        partial.replace(path)

    def holds(self, name: str, since: datetime | None = None) -> bool:
        path = self.root / name
        return path.is_file() and (since is None or _written(path) >= since)

    def stored_between(self, first: datetime, last: datetime) -> Iterator[str]:
        for path in self.root.rglob("*"):
            if path.is_file() and first <= _written(path) <= last:
                yield str(path.relative_to(self.root))


@dataclass(frozen=True)
class Bucket:
    s3: S3Client
    bucket: str
    prefix: str

    @property
    def address(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}".lstrip("/")

    def read(self, name: str) -> bytes:
        return _read(self.s3, {"Bucket": self.bucket, "Key": self._key(name)}, most=None)

    def download(self, name: str, to: Path) -> None:
        try:
            self.s3.download_file(self.bucket, self._key(name), str(to))
        except (ClientError, BotoCoreError, OSError) as error:
            raise _ours(error, f"{self.address}/{name}") from error

    def write(self, name: str, content: bytes | Path) -> None:
        try:
            if isinstance(content, bytes):
                self.s3.put_object(Bucket=self.bucket, Key=self._key(name), Body=content)
            else:
                self.s3.upload_file(str(content), self.bucket, self._key(name))
        except (ClientError, BotoCoreError, boto3.exceptions.Boto3Error) as error:
            raise _ours(error, f"{self.address}/{name}") from error

    def holds(self, name: str, since: datetime | None = None) -> bool:
        try:
            found = self.s3.head_object(Bucket=self.bucket, Key=self._key(name))
        except (ClientError, BotoCoreError) as error:
            told = _ours(error, f"{self.address}/{name}")
            if isinstance(told, Missing):
                return False
            raise told from error
        return since is None or found["LastModified"] >= since

    def stored_between(self, first: datetime, last: datetime) -> Iterator[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._key(""))
        try:
            for page in pages:
                for one in page.get("Contents", ()):
                    if first <= one["LastModified"] <= last:
                        yield one["Key"].removeprefix(self._key(""))
        except (ClientError, BotoCoreError) as error:
            raise _ours(error, self.address) from error


def _written(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def photograph(bucket: str, key: str, version_id: str) -> bytes:
    """One version of an object. A bucket with a slash in its name is a folder. Raises `StoreError`."""
    if "/" in bucket:
        path = Path(bucket) / key
        if path.is_file() and path.stat().st_size > LARGEST:
            raise TooLarge(f"it has {path.stat().st_size:,} bytes; at most {LARGEST:,} are read")
        return Folder(Path(bucket)).read(key)
    return _read(client(), {"Bucket": bucket, "Key": key, "VersionId": version_id}, most=LARGEST)


def _read(s3: S3Client, request: dict[str, str], most: int | None) -> bytes:
    address = f"s3://{request['Bucket']}/{request['Key']}"
    for attempt in range(READ_ATTEMPTS):
        try:
            answer = s3.get_object(**request)  # type: ignore[arg-type]
        except (ClientError, BotoCoreError) as error:
            raise _ours(error, address) from error
        if most is not None and answer["ContentLength"] > most:
            answer["Body"].close()
            raise TooLarge(f"it has {answer['ContentLength']:,} bytes; at most {most:,} are read")
        try:
            return answer["Body"].read()
        except BotoCoreError as error:
            broken = error
            time.sleep(0.1 * 2**attempt)
    raise StoreError(f"{address}: {broken}") from broken


def _ours(error: Exception, address: str) -> StoreError:
    """Missing for 404 and for archived objects: a retry helps neither. The job may list its buckets, so any other 403
    means that the role is wrong, not the file."""
    if isinstance(error, ClientError):
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return Missing(f"there is no {address}")
        if error.response["Error"]["Code"] == "InvalidObjectState":
            return Missing(f"{address} is archived")
    return StoreError(f"{address}: {error}")
