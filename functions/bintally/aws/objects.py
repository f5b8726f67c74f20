"""Photographs, and files of records, as S3 keeps them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import IO, TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from bintally.aws.arrivals import Arrival
from bintally.common.errors import Gone, Rejected, Transient

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LARGEST = 30 * 1024**2
"""Bytes; a larger object is rejected without a download."""
DOWNLOAD_SECONDS = 10
CHUNK = 1024**2

# At worst (see count.WORST_SECONDS): two requests of 2 tries x (1 + 4) s and 1 s between = 22 s,
# and a download of 10 s whose last chunk may take another 4 s.
CONFIG = Config(connect_timeout=1, read_timeout=4, retries={"mode": "standard", "total_max_attempts": 2})


@dataclass(frozen=True)
class Stored:
    """What S3 knows of an object version without its bytes."""

    size: int
    uploaded: datetime
    metadata: Mapping[str, str]


@cache
def client() -> "S3Client":
    return boto3.client("s3", config=CONFIG)


def describe(s3: "S3Client", arrival: Arrival) -> Stored:
    """Raises Gone or Transient."""
    try:
        head = s3.head_object(Bucket=arrival.bucket, Key=arrival.key, VersionId=arrival.version_id)
    except (ClientError, BotoCoreError) as error:
        raise _as_ours(error) from error
    return Stored(head["ContentLength"], head["LastModified"], head["Metadata"])


def fetch(s3: "S3Client", arrival: Arrival, stored: Stored) -> bytes:
    """The version's bytes, LARGEST at most. Raises Rejected, Gone or Transient."""
    if stored.size > LARGEST:
        raise Rejected(f"the object has {stored.size:,} bytes; at most {LARGEST:,} are read")
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    data = bytearray()
    try:
        body = s3.get_object(Bucket=arrival.bucket, Key=arrival.key, VersionId=arrival.version_id)["Body"]
        for chunk in body.iter_chunks(CHUNK):
            data += chunk
            if time.monotonic() > deadline:
                raise Transient(f"the download took more than {DOWNLOAD_SECONDS} s")
    except (ClientError, BotoCoreError) as error:
        raise _as_ours(error) from error
    return bytes(data)


def download(s3: "S3Client", arrival: Arrival, file: IO[bytes]) -> None:
    """Writes the version's bytes to `file` and goes back to its beginning. Raises Gone or Transient."""
    try:
        body = s3.get_object(Bucket=arrival.bucket, Key=arrival.key, VersionId=arrival.version_id)["Body"]
        for chunk in body.iter_chunks(CHUNK):
            file.write(chunk)
    except (ClientError, BotoCoreError) as error:
        raise _as_ours(error) from error
    file.seek(0)


def _as_ours(error: ClientError | BotoCoreError) -> Gone | Transient:
    # The role may list the bucket, so what is missing answers 404; a 403 is a fault of ours and not the photograph's.
    if isinstance(error, ClientError) and error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
        return Gone("this version of the object is gone: it was deleted before it could be read")
    return Transient(f"S3: {error}")
