"""The serving image by its digest: an address with a tag names another image after the next push."""

import re
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from bintally.releasing.release import Failed

if TYPE_CHECKING:
    from mypy_boto3_ecr import ECRClient

TAGGED = re.compile(
    r"(?P<address>(?P<account>\d{12})\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/(?P<name>[^:@]+))(?::(?P<tag>[^:@]+))?"
)
ABSENT = {"ImageNotFoundException", "RepositoryNotFoundException"}


def by_digest(ecr: "ECRClient", image: str) -> str:
    """The address of `image` by the digest that its tag has now; the same where it has a digest, or is outside ECR.

    Raises Failed where ECR has no such image, ClientError where it cannot say.
    """
    found = TAGGED.fullmatch(image)
    if not found:
        return image
    tag = found["tag"] or "latest"
    try:
        answer = ecr.describe_images(
            registryId=found["account"], repositoryName=found["name"], imageIds=[{"imageTag": tag}]
        )
    except ClientError as error:
        if error.response["Error"]["Code"] in ABSENT:
            raise Failed("ImageNotFound", f"there is no image {image}: push it, then release again") from error
        raise
    return f"{found['address']}@{answer['imageDetails'][0]['imageDigest']}"
