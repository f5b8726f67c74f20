"""Finds objects that no rule sends anywhere, by a few requests however many objects the bucket holds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from bintally.common.errors import Transient
from bintally.common.keys import is_folder_marker

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

READ = ("incoming/", "records/")
MOST_PAGES = 10
"""Pages of 1,000 objects and folders at the top of the bucket."""
MOST_FOLDERS = 20
"""Folders whose objects are counted; of each a page of 1,000."""


@dataclass(frozen=True)
class Stray:
    """A folder at the top of the bucket, or an object there."""

    place: str
    objects: int
    more: bool = False
    """Whether there are more than these."""

    def __str__(self) -> str:
        if not self.place.endswith("/"):
            return self.place
        return f"{self.place} ({self.objects:,}{' or more' if self.more else ''})"


def find_strays(s3: "S3Client", bucket: str) -> list[Stray]:
    """What is at the top of the bucket besides incoming/ and records/, without folders that are empty.

    At most MOST_PAGES + MOST_FOLDERS requests. Raises Transient.
    """
    try:
        return [stray for stray in _strays(s3, bucket) if stray.objects]
    except (ClientError, BotoCoreError) as error:
        raise Transient(f"S3: {error}") from error


def _strays(s3: "S3Client", bucket: str) -> list[Stray]:
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Delimiter="/", PaginationConfig={"MaxItems": 1000 * MOST_PAGES}
    )
    found, folders = [], []
    for page in pages:
        found += [Stray(each["Key"], 1) for each in page.get("Contents", [])]
        folders += [each["Prefix"] for each in page.get("CommonPrefixes", []) if each["Prefix"] not in READ]
    for folder in folders[:MOST_FOLDERS]:
        page = s3.list_objects_v2(Bucket=bucket, Prefix=folder, MaxKeys=1000)
        objects = [each for each in page.get("Contents", []) if not is_folder_marker(each["Key"], each["Size"])]
        found.append(Stray(folder, len(objects), page["IsTruncated"]))
    return found + [Stray(folder, 1, more=True) for folder in folders[MOST_FOLDERS:]]
