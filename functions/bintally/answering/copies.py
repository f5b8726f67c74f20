"""Display copies of photographs: what people see who count blind.

A copy has neither metadata nor EXIF: the link to an original answers with `x-amz-meta-expected-quantity`. It is made
when somebody first needs it, and named by the digest of the original's bytes.
"""

import io
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from PIL import Image, ImageOps

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
QUALITY = 85


@dataclass(frozen=True)
class Copies:
    """The display copies in a bucket."""

    s3: "S3Client"
    bucket: str

    def link(self, image: dict[str, Any]) -> str:
        """A short-lived link to the display copy of an image version. Raises Problem or Transient."""
        key = f"display/{image['digest']}.jpg"
        if not self._exists(key):
            self._make(key, image)
        return self.s3.generate_presigned_url(
            "get_object", Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=SECONDS
        )

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

    def _make(self, key: str, image: dict[str, Any]) -> None:
        names = (image["bucket"], image["key"], image["version_id"], image.get("etag", ""))
        arrival = Arrival("", datetime.now(UTC), *names, image.get("sequencer", ""))
        try:
            data = objects.fetch(self.s3, arrival, objects.describe(self.s3, arrival))
            jpeg = images.prepare(data, images.read(data)).jpeg
        except (Gone, Rejected) as error:
            raise Problem(410, "GONE", f"the photograph cannot be shown: {error}") from error
        try:
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=bare(jpeg), ContentType="image/jpeg")
        except (ClientError, BotoCoreError) as error:
            raise Transient(f"S3: {error}") from error


def bare(jpeg: bytes) -> bytes:
    """The pixels alone, upright, at most LONG_SIDE on a side."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(jpeg), formats=["JPEG"])).convert("RGB")
    image.thumbnail((LONG_SIDE, LONG_SIDE))
    out = io.BytesIO()
    Image.frombytes("RGB", image.size, image.tobytes()).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
