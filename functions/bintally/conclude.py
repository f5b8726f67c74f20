"""Ends a retraining run, however it came to its end: stops its jobs, frees the lock, writes down and tells what came.

The state machine `retrain` asks for it at each of its ends; a rule asks when an execution failed, was aborted or
ran out of time, which no state of it sees. Asked twice, it tells once.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import ClientError

from bintally.aws import table
from bintally.aws.telemetry import logger
from bintally.common.keys import utc
from bintally.common.settings import RetrainSettings, retrain_settings
from bintally.retraining import runs
from bintally.retraining.names import Names, Places, run_of

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_stepfunctions import SFNClient

LEARNED = ("not better", "registered")
"""Outcomes after which the data counts as used: the next run waits for new labels."""
GONE = ("ValidationException", "ResourceNotFound")
"""What SageMaker answers for a job that was never made or has ended already."""


def handler(event: dict[str, Any], context: object) -> dict[str, str]:
    """`event`: execution, started_at, outcome, error, reason, and the plan if there is one; or EventBridge's event of
    an execution that ended. Answers {"outcome", "error", "reason"}, the reason in one line."""
    ended = of_status_change(event["detail"]) if "detail" in event else event
    return conclude(retrain_settings(), ended)


def of_status_change(detail: dict[str, Any]) -> dict[str, Any]:
    """The event does not say why; the execution does, in the words of whoever stopped it."""
    status, found = detail["status"], {}
    with suppress(ClientError):  # a reason that cannot be had keeps no job running
        found = dict(states().describe_execution(executionArn=detail["executionArn"]))
    return {
        "execution": detail["executionArn"],
        "started_at": datetime.fromtimestamp(detail["startDate"] / 1000, UTC).isoformat(),
        "outcome": "failed",
        "error": found.get("error") or {"TIMED_OUT": "States.Timeout", "ABORTED": "Aborted"}.get(status, status),
        "reason": found.get("cause") or f"the execution is {status}",
    }


@cache
def states() -> "SFNClient":
    return boto3.client("stepfunctions")


@cache
def sagemaker() -> "SageMakerClient":
    return boto3.client("sagemaker")


@cache
def s3() -> "S3Client":
    return boto3.client("s3")


@cache
def events() -> "EventBridgeClient":
    return boto3.client("events")


@cache
def sns() -> "SNSClient":
    return boto3.client("sns")


def conclude(settings: RetrainSettings, ended: dict[str, Any]) -> dict[str, str]:
    """Clean-up first, so that whoever reads that the run has ended finds nothing of it at work."""
    dynamodb, execution = table.client(), ended["execution"]
    run = run_of(execution, datetime.fromisoformat(ended["started_at"]))
    answer = {"outcome": ended["outcome"], "error": ended["error"], "reason": one_line(ended["reason"])}
    known = runs.find(dynamodb, settings.counts_table, run)
    if known.get("concluded_at"):
        return answer
    if known:  # else it was refused before it made anything
        clean_up(sagemaker(), Names.of(settings.stack_name, run))
        remove_checkpoints(s3(), settings.artifacts_bucket, run)
    plan = ended.get("plan") or {}
    if answer["outcome"] in LEARNED:
        runs.put(dynamodb, settings.counts_table, next_state(plan))
    runs.free_lock(dynamodb, settings.counts_table, execution)
    tell(settings, run, execution, answer, plan.get("model_version", ""))
    runs.put(
        dynamodb,
        settings.counts_table,
        {**runs.run_key(run), "run": run, "execution": execution, **known, **answer}
        | {name: plan[name] for name in ("model_version", "labels", "champion") if name in plan}
        | {"concluded_at": utc(datetime.now(UTC))},
    )
    return answer


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


def next_state(plan: dict[str, Any]) -> dict[str, Any]:
    places = Places(plan["run"])
    return {
        **runs.STATE,
        "run": plan["run"],
        "watermark": plan["watermark"],
        "index": f"{places.dataset}/index.jsonl",
        "dataset": places.dataset,
        "tuning_job": plan["names"]["tune"] if plan["trials"] else plan["tuning_job"],
    }


def one_line(reason: str) -> str:
    """A failed job's cause is the job's whole description, in JSON: its FailureReason is what a person wants."""
    try:
        found = json.loads(reason)
    except ValueError:
        found = None
    if isinstance(found, dict):
        name = next((found[key] for key in found if key.endswith("JobName")), "")
        reason = f"{name}: {found.get('FailureReason') or found.get('errorMessage') or 'no reason given'}"
    return " ".join(reason.split())[:1000]


def tell(settings: RetrainSettings, run: str, execution: str, answer: dict[str, str], version: str) -> None:
    """The event and the message."""
    detail = {"stack": settings.stack_name, "run": run, "execution": execution, "model_version": version, **answer}
    events().put_events(
        Entries=[
            {
                "Source": "bintally",
                "DetailType": "Retrain Finished",
                "Resources": [execution],
                "Detail": json.dumps(detail),
            }
        ]
    )
    sns().publish(
        TopicArn=settings.alerts_topic,
        Subject=f"{settings.stack_name}: retraining {answer['outcome']}"[:100],
        Message=f"Retraining run {run}: {answer['outcome']}. {answer['reason']}\n{execution}",
    )
    logger.info("concluded", extra=detail)
