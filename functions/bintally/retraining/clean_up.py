"""Removes what a retraining run leaves behind, whoever ends it: its jobs, the models made only for it, checkpoints."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from bintally.retraining.names import Names

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef
    from mypy_boto3_sagemaker import SageMakerClient

GONE = ("ValidationException", "ResourceNotFound")
"""What SageMaker answers for a job that was never made or has ended already."""


def clean_up(client: "SageMakerClient", names: Names) -> None:
    """Stops what still runs of a run and removes what it made only for itself. Nothing there is fine."""
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


def remove_checkpoints(client: "S3Client", bucket: str, run: str) -> None:
    """For good, every version: they are of no use to any other run, and several hundred megabytes each."""
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=f"checkpoints/{run}/"):
        found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        objects: list[ObjectIdentifierTypeDef] = [{"Key": o["Key"], "VersionId": o["VersionId"]} for o in found]
        if objects:
            client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})


def _unless_gone(call: Callable[[], object]) -> None:
    try:
        call()
    except ClientError as error:
        if error.response["Error"]["Code"] not in GONE:
            raise
