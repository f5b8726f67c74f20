"""What the template keeps when its stack is deleted (DeletionPolicy): buckets, the table, the user pool."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from deployed.errors import DestroyFailed
from deployed.target import Target

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

WAIT_SECONDS, POLL_SECONDS = 300, 2.0
GONE = {
    *("ResourceNotFound", "ResourceNotFoundException", "ValidationException", "ValidationError", "NoSuchBucket"),
    *("RepositoryNotFoundException", "StateMachineDoesNotExist", "404"),
}
"""Errors of different services about something that does not exist."""
GROUP = "AWS::Cognito::UserPoolGroup"
"""Kept and deleted with its pool."""


def gone(error: ClientError) -> bool:
    """Whether the error is about something that does not exist."""
    return error.response["Error"]["Code"] in GONE


def holds(stack: Target, kind: str, name: str) -> str | None:
    """What a kept resource is and holds, in words; None where it does not exist."""
    try:
        return KEPT[kind][0](stack, name)
    except ClientError as error:
        if gone(error):
            return None
        raise


def delete(stack: Target, kind: str, name: str) -> None:
    """Deletes a kept resource and all that it holds, for ever. Raises DestroyFailed."""
    KEPT[kind][1](stack, name)


def bucket_holds(stack: Target, name: str) -> str:
    found = stack.client("s3").list_object_versions(Bucket=name, MaxKeys=1)
    return f"bucket {name} ({'objects' if found.get('Versions') or found.get('DeleteMarkers') else 'empty'})"


def table_holds(stack: Target, name: str) -> str:
    found = stack.client("dynamodb").describe_table(TableName=name)["Table"]
    return f"table {name} ({found['TableSizeBytes'] / 1e6:,.1f} MB when AWS looked last)"


def pool_holds(stack: Target, name: str) -> str:
    found = stack.client("cognito-idp").describe_user_pool(UserPoolId=name)["UserPool"]
    return f"user pool {name} ({found.get('EstimatedNumberOfUsers', 0)} people)"


def delete_bucket(stack: Target, name: str) -> None:
    s3 = stack.client("s3")
    empty(s3, name, rehearsing=stack.rehearsal is not None)
    s3.delete_bucket(Bucket=name)


def delete_table(stack: Target, name: str) -> None:
    dynamodb = stack.client("dynamodb")
    dynamodb.update_table(TableName=name, DeletionProtectionEnabled=False)
    wait(lambda: dynamodb.describe_table(TableName=name)["Table"]["TableStatus"] == "ACTIVE", stack, f"table {name}")
    dynamodb.delete_table(TableName=name)
    wait(lambda: holds(stack, "AWS::DynamoDB::Table", name) is None, stack, f"table {name}")


def delete_pool(stack: Target, name: str) -> None:
    cognito = stack.client("cognito-idp")
    cognito.update_user_pool(UserPoolId=name, DeletionProtection="INACTIVE")
    cognito.delete_user_pool(UserPoolId=name)


KEPT: dict[str, tuple[Callable[[Target, str], str], Callable[[Target, str], None]]] = {
    "AWS::S3::Bucket": (bucket_holds, delete_bucket),
    "AWS::DynamoDB::Table": (table_holds, delete_table),
    "AWS::Cognito::UserPool": (pool_holds, delete_pool),
}


def empty(s3: "S3Client", bucket: str, prefix: str = "", *, rehearsing: bool = False) -> int:
    """Deletes every version below `prefix`, a thousand at a time, and ends unfinished uploads. Returns how many.

    A rehearsal ends after the first thousand. Raises DestroyFailed for the first one that S3 does not delete.
    """
    number = 0
    while versions := first_versions(s3, bucket, prefix):
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": versions, "Quiet": True})
        for error in answer.get("Errors", ()):
            raise DestroyFailed(f"s3://{bucket}/{error.get('Key')} is not deleted: {error.get('Message')}")
        number += len(versions)
        if rehearsing:
            break
    for uploads in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix):
        for one in uploads.get("Uploads", ()):
            s3.abort_multipart_upload(Bucket=bucket, Key=one["Key"], UploadId=one["UploadId"])
    return number


def first_versions(s3: "S3Client", bucket: str, prefix: str) -> "list[ObjectIdentifierTypeDef]":
    """The first thousand versions and delete markers."""
    page = s3.list_object_versions(Bucket=bucket, Prefix=prefix)
    found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
    return [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]


def wait(done: Callable[[], bool], stack: Target, what: str) -> None:
    """Waits until `done`. Raises DestroyFailed after WAIT_SECONDS."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not stack.rehearsal and not done():
        if time.monotonic() > deadline:
            raise DestroyFailed(f"{what} is not ready after {WAIT_SECONDS} s. Run it again")
        time.sleep(POLL_SECONDS)
