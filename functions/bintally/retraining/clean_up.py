"""Removes what an ended retraining run leaves: running jobs, the models created only for it, and its jobs' files."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from bintally.common.errors import BintallyError
from bintally.retraining.names import Names, Places

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef
    from mypy_boto3_sagemaker import SageMakerClient


GONE = ("ValidationException", "ResourceNotFound")
"""SageMaker's errors for a job that was never created or has already ended."""


class NotDeleted(BintallyError):
    """S3 did not delete an object; the message says which and why. May be tried again."""


def clean_up(client: "SageMakerClient", names: Names) -> None:
    """Stops the run's jobs and removes what it created only for itself. Missing ones are no error."""
    stop = [
        lambda: client.stop_processing_job(ProcessingJobName=names.process),
        lambda: client.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=names.tune),
        lambda: client.stop_training_job(TrainingJobName=names.train),
        lambda: client.stop_transform_job(TransformJobName=names.champion),
        lambda: client.stop_transform_job(TransformJobName=names.challenger),
        lambda: client.stop_processing_job(ProcessingJobName=names.evaluate),
        lambda: client.delete_model(ModelName=names.champion),
        lambda: client.delete_model(ModelName=names.challenger),
    ]
    for each in stop:
        _unless_gone(each)


def remove_leftovers(client: "S3Client", bucket: str, run: str) -> None:
    """Deletes every version of the run's temporary files."""
    pages = client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=f"{Places(run).temporary}/")
    for page in pages:
        found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        objects: list[ObjectIdentifierTypeDef] = [{"Key": o["Key"], "VersionId": o["VersionId"]} for o in found]
        if objects:
            answer = client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
            for error in answer.get("Errors", ()):
                raise NotDeleted(f"s3://{bucket}/{error.get('Key')} is not deleted: {error.get('Message')}")


def _unless_gone(call: Callable[[], object]) -> None:
    try:
        call()
    except ClientError as error:
        if error.response["Error"]["Code"] not in GONE:
            raise
