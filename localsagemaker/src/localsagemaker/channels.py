"""Transfers between S3 and a job's folders: inputs in SageMaker's layout, outputs, archives, checkpoints."""

import contextlib
import json
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from localsagemaker.models import split
from localsagemaker.wire import Json

# Many small files: one thread per file is faster than many threads per file.
TRANSFER = TransferConfig(use_threads=False)
AT_ONCE = 8


class BadInput(Exception):
    """The input is missing, or is not of the declared type."""


@dataclass(frozen=True)
class Found:
    """An object of an input, and its path below the input's folder."""

    bucket: str
    key: str
    path: str

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def find(s3: Any, source: Json) -> list[Found]:
    """The objects of an S3 data source (S3Uri; S3DataType S3Prefix or ManifestFile), by key.

    Raises BadInput when there is no object, a manifest is invalid, or a path would leave the folder.
    """
    url, kind = source["S3Uri"], source.get("S3DataType", "S3Prefix")
    try:
        found = list(of_manifest(s3, url) if kind == "ManifestFile" else of_prefix(s3, url))
    except ClientError as error:
        raise BadInput(
            f'Could not read the S3 URL "{url}" given in the input data source. Please ensure that the bucket exists '
            f"and that the role may s3:ListBucket and s3:GetObject there. ({error})"
        ) from error
    if not found:
        raise BadInput(f'No S3 objects found under S3 URL "{url}" given in input data source.')
    for one in found:
        if one.path.startswith("/") or not set(one.path.split("/")).isdisjoint({"", ".", ".."}):
            raise BadInput(f"The object {one.url} has no path below an input's folder.")
    return sorted(found, key=lambda one: one.key)


def of_prefix(s3: Any, url: str) -> Iterator[Found]:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            key = item["Key"]
            if key.endswith("/"):
                continue  # a folder created in a console
            # The prefix is the whole key, a folder of it, or the beginning of its last part.
            inside = key.startswith(f"{prefix}/") or prefix.endswith("/") or not prefix
            start = len(prefix) if inside else prefix.rfind("/") + 1
            yield Found(bucket, key, key[start:].removeprefix("/"))


def of_manifest(s3: Any, url: str) -> Iterator[Found]:
    """The objects that a manifest lists: [{"prefix": "s3://bucket/folder/"}, "name", …]."""
    bucket, key = split(url)
    try:
        content = json.load(s3.get_object(Bucket=bucket, Key=key)["Body"])
        first, *names = content
        prefix = first["prefix"]
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f'The manifest "{url}" is not a JSON list that begins with {{"prefix": …}}.') from error
    for name in names:
        if not isinstance(name, str):
            raise BadInput(f'The manifest "{url}" contains an invalid name: {name}')
        bucket, key = split(f"{prefix}{name}")
        yield Found(bucket, key, name)


def shared(found: list[Found], source: Json, index: int, hosts: int) -> list[Found]:
    """The objects for host `index` of `hosts`: all, or each `hosts`-th."""
    sharded = source.get("S3DataDistributionType") == "ShardedByS3Key"
    return found[index::hosts] if sharded else found


def download(s3: Any, found: Iterable[Found], folder: Path) -> None:
    """Raises BadInput for an object that cannot be read."""
    folder.mkdir(parents=True, exist_ok=True)

    def one(item: Found) -> None:
        target = folder / item.path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            s3.download_file(item.bucket, item.key, str(target), Config=TRANSFER)
        except ClientError as error:
            raise BadInput(f"Could not read {item.url}: {error}") from error

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, found))


def upload(s3: Any, folder: Path, url: str, files: Iterable[Path] | None = None) -> None:
    """Uploads the folder's files, or only the listed ones, under `url`."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")

    def one(file: Path) -> None:
        key = f"{prefix.rstrip('/')}/{file.relative_to(folder).as_posix()}".removeprefix("/")
        s3.upload_file(str(file), bucket, key, Config=TRANSFER)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, files_in(folder) if files is None else files))


def upload_archive(s3: Any, folders: list[Path], url: str) -> None:
    """Uploads the folders' contents to `url` as one tar.gz. Of files with the same name the first is taken; links are
    followed."""
    bucket, key = split(url)
    members = {file.relative_to(folder).as_posix(): file for folder in reversed(folders) for file in files_in(folder)}
    with tempfile.TemporaryFile() as archive:
        with tarfile.open(fileobj=archive, mode="w:gz", dereference=True) as tar:
            for name, file in sorted(members.items()):
                tar.add(file, name)
        archive.seek(0)
        s3.upload_fileobj(archive, bucket, key)


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []


@dataclass
class Mirror:
    """A folder whose new and changed files each `push` uploads under `url`; used for checkpoints."""

    s3: Any
    folder: Path
    url: str
    _seen: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def pull(self) -> None:
        """Downloads existing files before the job starts."""
        self.folder.mkdir(parents=True, exist_ok=True)
        bucket, _, prefix = self.url.removeprefix("s3://").partition("/")
        folder_url = f"s3://{bucket}/{prefix.rstrip('/')}/" if prefix else f"s3://{bucket}"
        download(self.s3, list(of_prefix(self.s3, folder_url)), self.folder)
        self._seen = self._stamps()

    def push(self) -> None:
        stamps = self._stamps()
        for file in [file for file, stamp in stamps.items() if self._seen.get(file) != stamp]:
            with contextlib.suppress(FileNotFoundError):  # it has just been renamed or removed
                upload(self.s3, self.folder, self.url, [file])
        self._seen = stamps

    def _stamps(self) -> dict[Path, tuple[int, int]]:
        stamps = {}
        for file in files_in(self.folder):
            with contextlib.suppress(FileNotFoundError):
                found = file.stat()
                stamps[file] = (found.st_mtime_ns, found.st_size)
        return stamps
