"""Begins a retraining run: takes the lock, looks at what has come in, freezes the input and names what will be made.

The state machine `retrain` decides by the answer's `outcome`; an exception is a fault that may pass.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import boto3
from botocore.exceptions import ClientError

from bintally import conclude
from bintally.aws import table
from bintally.aws.telemetry import logger
from bintally.common.keys import utc
from bintally.common.settings import RetrainSettings, retrain_settings
from bintally.labels import log
from bintally.retraining import runs
from bintally.retraining.names import (
    LONGEST_STACK_NAME,
    TUNED,
    Names,
    Places,
    Refused,
    process_arguments,
    run_of,
    run_of_version,
    version_of,
)
from bintally.retraining.runs import Holder

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_stepfunctions import SFNClient

INPUT = {"force", "approve", "reason", "settings"}


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """`event`: execution (its ARN), started_at, input. Answers the plan, or {"outcome", "error", "reason", "run"}."""
    run = run_of(event["execution"], datetime.fromisoformat(event["started_at"]))
    logger.info("asked to retrain", extra={"run": run, "input": event["input"]})
    try:
        return plan(retrain_settings(), Holder(event["execution"], run), event["input"])
    except Refused as error:
        return {"outcome": "refused", "error": error.error, "reason": str(error), "run": run}


@cache
def s3() -> "S3Client":
    return boto3.client("s3")


@cache
def sagemaker() -> "SageMakerClient":
    return boto3.client("sagemaker")


@cache
def states() -> "SFNClient":
    return boto3.client("stepfunctions")


def plan(settings: RetrainSettings, wanted: Holder, request: Mapping[str, Any]) -> dict[str, Any]:
    """Raises Refused when the run cannot begin."""
    if unknown := sorted(request.keys() - INPUT):
        raise Refused("InvalidInput", f"the input has {', '.join(unknown)}; known are {', '.join(sorted(INPUT))}")
    if len(settings.stack_name) > LONGEST_STACK_NAME:
        raise Refused("InvalidInput", f"the stack's name has more than {LONGEST_STACK_NAME} characters")
    knobs = settings.knobs.with_(request.get("settings") or {})
    take_lock(settings, wanted)
    runs.put(
        table.client(),
        settings.counts_table,
        {
            **runs.run_key(wanted.run),
            "run": wanted.run,
            "execution": wanted.execution,
            "outcome": "running",
            "trigger": str(request.get("reason", "")),
            "started_at": utc(datetime.now(UTC)),
        },
    )
    state = runs.state(table.client(), settings.counts_table)
    champion = live_model(settings)
    places = Places(wanted.run)
    new, watermark = freeze_manifest(settings, places, state.get("watermark", ""))
    enough = new >= settings.minimum_labels
    if not enough and not (request.get("force") and (new or state.get("index"))):
        reason = f"{new} photographs have new labels, a run takes {settings.minimum_labels}"
        return {"outcome": "nothing to do", "error": "", "reason": reason, "run": wanted.run}
    hyperparameters = knobs.hyperparameters(version_of(wanted.run), champion["model_version"])
    return {
        "outcome": "planned",
        "run": wanted.run,
        "model_version": version_of(wanted.run),
        "labels": new,
        "watermark": watermark,
        "names": asdict(Names.of(settings.stack_name, wanted.run)),
        "champion": champion,
        "folder": places.folder,
        "dataset": places.dataset,
        "process_arguments": process_arguments(
            settings.artifacts_bucket,
            places,
            previous=state.get("index", ""),
            reference=reference_of(settings, champion["model_version"]),
            bad_share=settings.bad_share,
        ),
        "hyperparameters": hyperparameters,
        "start": knobs.start,
        "instances": knobs.instances,
        "trials": knobs.trials,
        "parallel": min(knobs.parallel, max(1, knobs.trials)),
        "tuning_job": (before := state.get("tuning_job", "")),
        "tuning_parent": tuning_parent(before, {*hyperparameters, "package", *TUNED}) if knobs.trials else "",
        "approval": "Approved"
        if request.get("approve") or settings.approval == "automatic"
        else "PendingManualApproval",
    }


def take_lock(settings: RetrainSettings, wanted: Holder) -> None:
    """Takes over from an execution that no longer runs, after its clean-up. Raises Refused when one runs."""
    before: Holder | None = None
    while not runs.take_lock(table.client(), settings.counts_table, wanted, utc(datetime.now(UTC)), before):
        before = runs.holder(table.client(), settings.counts_table)
        if before and runs.is_running(states(), before.execution):
            raise Refused("AlreadyRunning", f"another run is under way: {before.execution}")
        if before:
            conclude.clean_up(sagemaker(), Names.of(settings.stack_name, before.run))


def live_model(settings: RetrainSettings) -> dict[str, str]:
    """Version and package of the model that answers now, the champion. Raises Refused when none does."""
    try:
        endpoint = sagemaker().describe_endpoint(EndpointName=settings.endpoint_name)
        config = sagemaker().describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
        model = sagemaker().describe_model(ModelName=config["ProductionVariants"][0]["ModelName"])
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationException":
            raise Refused("NoChampion", f"no model is live, release one first: {error}") from error
        raise
    url = model["PrimaryContainer"]["ModelDataUrl"]  # s3://<artifacts bucket>/models/<version>/…
    return {"model_version": url.split("/")[4], "model_data_url": url}


def freeze_manifest(settings: RetrainSettings, places: Places, watermark: str) -> tuple[int, str]:
    """Writes the labels since the watermark, the winner of each photograph. How many, and the next watermark."""
    since = datetime.fromisoformat(watermark) if watermark else datetime.fromtimestamp(0, UTC)
    found = log.winners(s3(), settings.artifacts_bucket, since)
    new = 0
    with tempfile.TemporaryFile() as file:
        for line in found.lines():
            new += line["logged_at"] > watermark
            file.write(json.dumps(line, sort_keys=True).encode() + b"\n")
        file.seek(0)
        s3().upload_fileobj(file, settings.artifacts_bucket, places.manifest)
    return new, max(watermark, found.newest)


def reference_of(settings: RetrainSettings, version: str) -> str:
    """The description of the data that the champion learned from, as a key; empty when no run of this stack made it."""
    run = run_of_version(version)
    if run is None:
        return ""
    key = f"{Places(run).dataset}/dataset.json"
    try:
        s3().head_object(Bucket=settings.artifacts_bucket, Key=key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return ""
        raise
    return key


def tuning_parent(name: str, hyperparameters: set[str]) -> str:
    """The tuning job to start from warm, if it still is one that can be started from: ended well, with the same
    hyperparameters, given and tuned together. One of an older version of the code may have had others."""
    if not name:
        return ""
    try:
        found = sagemaker().describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    except ClientError as error:
        logger.warning("no warm start", extra={"parent": name, "reason": str(error)})
        return ""
    ranges = cast("dict[str, list[dict[str, Any]]]", found["HyperParameterTuningJobConfig"]["ParameterRanges"])
    had = {one["Name"] for several in ranges.values() for one in several}
    had |= {name for name in found["TrainingJobDefinition"]["StaticHyperParameters"] if not name.startswith("_")}
    completed = found["HyperParameterTuningJobStatus"] == "Completed" and "BestTrainingJob" in found
    if not completed or had != hyperparameters:
        logger.warning("no warm start", extra={"parent": name, "had": sorted(had), "completed": completed})
        return ""
    return name
