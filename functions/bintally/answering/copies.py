"""Display copies of photographs: what people see who count blind.

A copy has neither metadata nor EXIF: the link to an original answers with `x-amz-meta-expected-quantity`. It is made
when somebody first needs it, and named by the digest of the original's bytes.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from PIL import Image

from bintally.answering.problems import Problem
from bintally.aws import objects
from bintally.common.arrivals import Arrival
from bintally.common.errors import Gone, Rejected, Transient
from bintally.counting import images

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SECONDS = 300
"""A link's life."""
LONG_SIDE = 1600
SHORT_SIDE = 1200
"""Pixels of the shorter side that are decoded at least: of 4:3, what LONG_SIDE shows."""
THUMBNAIL = 240
"""The long side of a thumbnail, which stands beside its copy: display/<digest>-240.jpg."""
QUALITY = 85
DECODING = Lock()
"""A page's copies are made at once, each in a thread. But one photograph is decoded at a time: it may take 0.8 GB."""


@dataclass(frozen=True)
class Copies:
    """The display copies in a bucket."""

    s3: "S3Client"
    bucket: str

    def link(self, image: Mapping[str, Any]) -> str:
        """A short-lived link to the display copy of an image version. Raises Problem or Transient."""
        key = copy_key(image)
        if not self._exists(key):
            self._make(key, image)
        return self._link(key)

    def thumbnail(self, image: Mapping[str, Any]) -> str:
        """A short-lived link to the small copy of an image version. Raises Problem or Transient."""
        key = copy_key(image, THUMBNAIL)
        if not self._exists(key):
            large = copy_key(image)
            jpeg = self._read(large) if self._exists(large) else self._make(large, image)
            self._put(key, bare(Image.open(io.BytesIO(jpeg), formats=["JPEG"]), THUMBNAIL))
        return self._link(key)

    def _link(self, key: str) -> str:
        where = {"Bucket": self.bucket, "Key": key}
        return self.s3.generate_presigned_url("get_object", Params=where, ExpiresIn=SECONDS)

    def _exists(self, key: str) -> bool:
        try:
            self.s3.head_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return False
            raise Transient(f"S3: {error}") from error
        except BotoCoreError as error:
            raise Transient(f"S3: {error}") from error
        return True

    def _make(self, key: str, image: Mapping[str, Any]) -> bytes:
        names = (image["bucket"], image["key"], image["version_id"], image.get("etag", ""))
        arrival = Arrival("", datetime.now(UTC), *names, image.get("sequencer", ""))
        try:
            data = objects.read(*objects.fetch(self.s3, arrival))
            with DECODING:
                copy = bare(images.decode(images.read(data), SHORT_SIDE), LONG_SIDE)
        except (Gone, Rejected) as error:
            raise Problem(410, "GONE", f"the photograph cannot be shown: {error}") from error
        self._put(key, copy)
        return copy

    def _read(self, key: str) -> bytes:
        try:
            return self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except (ClientError, BotoCoreError) as error:
            raise Transient(f"S3: {error}") from error

    def _put(self, key: str, jpeg: bytes) -> None:
        try:
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=jpeg, ContentType="image/jpeg")
        except (ClientError, BotoCoreError) as error:
            raise Transient(f"S3: {error}") from error


def copy_key(image: Mapping[str, Any], size: int = LONG_SIDE) -> str:
    """By the digest of the original's bytes. Raises Problem for an object that nobody could read."""
    if "digest" not in image:
        raise Problem(410, "GONE", "the photograph cannot be shown: it was not read")
    return f"display/{image['digest']}.jpg" if size == LONG_SIDE else f"display/{image['digest']}-{size}.jpg"


def bare(image: Image.Image, size: int) -> bytes:
    """A JPEG of the pixels alone, at most `size` on a side."""
    image.thumbnail((size, size))
    out = io.BytesIO()
    Image.frombytes("RGB", image.size, image.tobytes()).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
