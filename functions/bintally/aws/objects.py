"""Objects in S3: photographs and record files by their versions, and the files that Bintally writes."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import IO, TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from bintally.common.arrivals import Arrival
from bintally.common.errors import Gone, Rejected, Transient
from bintally.common.keys import DEFAULT_SITE, encode_id

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectVersionTypeDef

LARGEST = 30 * 1024**2
"""Bytes; a larger object is rejected without a download."""
DOWNLOAD_SECONDS = 10
"""A photograph takes at most one GetObject of clients.S3.worst = 11 s, this long for the download, and clients.S3.read
= 4 s for a last chunk that started just in time: 25 s."""
CHUNK = 1024**2


@dataclass(frozen=True)
class Stored:
    """S3's metadata of an object version."""

    size: int
    uploaded: datetime
    metadata: Mapping[str, str]


def describe(s3: "S3Client", arrival: Arrival) -> Stored:
    """Raises Gone or Transient."""
    try:
        head = s3.head_object(Bucket=arrival.bucket, Key=arrival.key, VersionId=arrival.version_id)
    except (ClientError, BotoCoreError) as error:
        raise _as_ours(error) from error
    return Stored(head["ContentLength"], head["LastModified"], head["Metadata"])


def fetch(s3: "S3Client", arrival: Arrival) -> "tuple[Stored, StreamingBody]":
    """The version's metadata and its bytes, which `read` downloads: one request for both. Raises Gone or Transient."""
    try:
        got = s3.get_object(Bucket=arrival.bucket, Key=arrival.key, VersionId=arrival.version_id)
    except (ClientError, BotoCoreError) as error:
        raise _as_ours(error) from error
    return Stored(got["ContentLength"], got["LastModified"], got["Metadata"]), got["Body"]


def read(stored: Stored, body: "StreamingBody") -> bytes:
    """The bytes of what was fetched, LARGEST at most. Raises Rejected or Transient."""
    if stored.size > LARGEST:
        body.close()
        raise Rejected(f"the object has {stored.size:,} bytes; at most {LARGEST:,} are read")
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    data = bytearray()
    try:
        for chunk in body.iter_chunks(CHUNK):
            data += chunk
            if time.monotonic() > deadline:
                body.close()
                raise Transient(f"the download took more than {DOWNLOAD_SECONDS} s")
    except BotoCoreError as error:
        raise _as_ours(error) from error
    return bytes(data)


def download(s3: "S3Client", arrival: Arrival, file: IO[bytes]) -> None:
    """Writes the version's bytes to `file` and rewinds it. Raises Gone or Transient."""
    try:
        body = s3.get_object(Bucket=arrival.bucket, Key=arrival.key, VersionId=arrival.version_id)["Body"]
        for chunk in body.iter_chunks(CHUNK):
            file.write(chunk)
    except (ClientError, BotoCoreError) as error:
        raise _as_ours(error) from error
    file.seek(0)


@dataclass(frozen=True)
class VersionsPage:
    """A page of a bucket's object versions, without delete markers."""

    versions: "list[ObjectVersionTypeDef]"
    next_key: str
    next_version_id: str
    """The place to continue; both empty after the last page."""


def versions_page(s3: "S3Client", bucket: str, prefix: str, key: str, version_id: str) -> VersionsPage:
    """The versions after this one, by key and then the newest first; from the start if both are empty. Raises
    Transient."""
    after = {"KeyMarker": key, "VersionIdMarker": version_id}
    try:
        found = s3.list_object_versions(Bucket=bucket, Prefix=prefix, **{k: v for k, v in after.items() if v})  # type: ignore[arg-type]
    except (ClientError, BotoCoreError) as error:
        raise Transient(f"S3: {error}") from error
    more = found["IsTruncated"]
    return VersionsPage(
        found.get("Versions", []),
        found["NextKeyMarker"] if more else "",
        found.get("NextVersionIdMarker", "") if more else "",
    )


def sites(s3: "S3Client", bucket: str, *, at_most: int) -> list[str]:
    """The sites that have photographs, in the order of their names; of several spellings of a site, the first. Stops
    after `at_most`. Raises Transient."""
    found: dict[str, str] = {}
    try:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="incoming/", Delimiter="/")
        for page in pages:
            names = [entry["Prefix"].split("/")[1] for entry in page.get("CommonPrefixes", ())]
            names += [DEFAULT_SITE for entry in page.get("Contents", ()) if entry["Key"] != "incoming/"]
            for name in names:
                found.setdefault(encode_id(name), name)
            if len(found) >= at_most:
                break
    except (ClientError, BotoCoreError) as error:
        raise _as_ours(error) from error
    return sorted(found.values())[:at_most]


def put(s3: "S3Client", bucket: str, key: str, body: bytes) -> None:
    """Raises Transient."""
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=body)
    except (ClientError, BotoCoreError) as error:
        raise Transient(f"S3: {error}") from error


def located(address: str) -> tuple[str, str]:
    """Bucket and key of s3://bucket/key."""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    return bucket, key


def _as_ours(error: ClientError | BotoCoreError) -> Gone | Transient:
    # The role may list the bucket, so a missing object answers 404; a 403 is our fault, not the photograph's.
    if isinstance(error, ClientError) and error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
        return Gone("this version of the object is gone: it was deleted before it could be read")
    return Transient(f"S3: {error}")
