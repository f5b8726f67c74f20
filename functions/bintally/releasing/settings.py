"""The environment of `advance` and of `expire_logs`, read once on first use."""

import os
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True)
class ReleaseSettings:
    """The settings of `advance`."""

    stack_name: str
    counts_table: str
    artifacts_bucket: str
    count_mapping: str
    model_role: str
    image: str
    """Address of the serving image."""
    variant: dict[str, Any]
    """A production variant's capacity: ServerlessConfig, or InstanceType and InitialInstanceCount."""
    scales: bool
    """Whether target tracking decides how many instances there are."""
    capture: dict[str, Any]
    """The DataCaptureConfig of a real-time endpoint that has one."""
    network: dict[str, Any]
    """The VpcConfig of a real-time endpoint's models, where the stack has a VPC."""
    canary_percent: int
    canary_wait: int
    """Seconds that the alarms watch the canary, and then again all traffic."""
    alarms: tuple[str, ...]
    """Names of the alarms that roll a canary back."""


@cache
def release_settings() -> ReleaseSettings:
    """Raises KeyError, which names the variable, when one is missing."""
    realtime = os.environ["ENDPOINT_MODE"] == "realtime"
    return ReleaseSettings(
        stack_name=os.environ["STACK_NAME"],
        counts_table=os.environ["COUNTS_TABLE"],
        artifacts_bucket=os.environ["ARTIFACTS_BUCKET"],
        count_mapping=os.environ["COUNT_MAPPING"],
        model_role=os.environ["MODEL_ROLE"],
        image=os.environ["SERVING_IMAGE"],
        variant=instances() if realtime else serverless(),
        scales=realtime and os.environ["MAXIMUM_INSTANCES"] != "0",
        capture=capture() if realtime else {},
        network=network() if realtime else {},  # a serverless endpoint takes none
        canary_percent=int(os.environ["CANARY_PERCENT"]),
        canary_wait=int(os.environ["CANARY_WAIT_SECONDS"]),
        alarms=tuple(os.environ["CANARY_ALARMS"].split(",")),
    )


def serverless() -> dict[str, Any]:
    """Raises KeyError, which names the variable, when one is missing."""
    config = {
        "MemorySizeInMB": int(os.environ["SERVERLESS_MEMORY"]),
        "MaxConcurrency": int(os.environ["COUNT_CONCURRENCY"]),
    }
    if provisioned := int(os.environ["PROVISIONED_CONCURRENCY"]):
        config["ProvisionedConcurrency"] = min(provisioned, config["MaxConcurrency"])  # SageMaker takes no more
    return {"ServerlessConfig": config}


def instances() -> dict[str, Any]:
    """Raises KeyError, which names the variable, when one is missing."""
    return {
        "InstanceType": os.environ["INSTANCE_TYPE"],
        "InitialInstanceCount": int(os.environ["INSTANCE_COUNT"]),
    }


def capture() -> dict[str, Any]:
    """Raises KeyError, which names the variable, when one is missing."""
    if not (percent := int(os.environ["DATA_CAPTURE_PERCENT"])):
        return {}
    config = {
        "EnableCapture": True,
        "InitialSamplingPercentage": percent,
        "DestinationS3Uri": f"s3://{os.environ['ARTIFACTS_BUCKET']}/captures/",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},  # the rest is stored in Base64
    }
    if key := os.environ["DATA_KEY"]:
        config["KmsKeyId"] = key
    return {"DataCaptureConfig": config}


def network() -> dict[str, Any]:
    """Raises KeyError, which names the variable, when one is missing."""
    if not (subnets := os.environ["SUBNET_IDS"]):
        return {}
    groups = os.environ["SECURITY_GROUP_IDS"]
    return {"VpcConfig": {"Subnets": subnets.split(","), "SecurityGroupIds": groups.split(",")}}


@dataclass(frozen=True)
class LogsSettings:
    """The settings of `expire_logs`."""

    stack_name: str
    retention_days: int


@cache
def logs_settings() -> LogsSettings:
    """Raises KeyError, which names the variable, when one is missing."""
    return LogsSettings(os.environ["STACK_NAME"], int(os.environ["RETENTION_DAYS"]))
