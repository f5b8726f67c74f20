"""Starts a retraining run: takes the lock, reads the new labels, freezes the input and names the jobs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import ClientError

from bintally.aws.table import Table
from bintally.aws.telemetry import logger
from bintally.common.keys import utc
from bintally.labels import slices
from bintally.labels.slices import Ended, Limits, Reading
from bintally.retraining import runs
from bintally.retraining.clean_up import clean_up
from bintally.retraining.names import (
    TUNED,
    Names,
    Places,
    Refused,
    check_stack_name,
    process_arguments,
    run_of_version,
    version_of,
)
from bintally.retraining.runs import Holder
from bintally.retraining.settings import RetrainSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_stepfunctions import SFNClient

INPUT = {"force", "approve", "reason", "settings"}
LEAST_LEFT = timedelta(days=14)
"""Time that a photograph in a dataset has left when a run takes it: a run may take three days, and then people compare
versions on its test photographs."""


@dataclass(frozen=True)
class Services:
    """The clients and settings that planning uses."""

    table: Table
    s3: "S3Client"
    """The client for the label log's thousands of objects."""
    sagemaker: "SageMakerClient"
    states: "SFNClient"


def plan_run(
    services: Services, settings: RetrainSettings, wanted: Holder, request: Mapping[str, Any], deadline: float
) -> dict[str, Any]:
    """The plan, or why there is none: its outcome is `reading` when `deadline`, a time of time.monotonic, came before
    the end of the labels. Call it again then, it goes on. Raises Refused when the run cannot start."""
    if unknown := sorted(request.keys() - INPUT):
        raise Refused("InvalidInput", f"the input has {', '.join(unknown)}; known are {', '.join(sorted(INPUT))}")
    check_stack_name(settings.stack_name)
    knobs = settings.knobs.with_(request.get("settings") or {})
    take_lock(services, settings, wanted)
    services.table.put(
        {
            **runs.run_key(wanted.run),
            "run": wanted.run,
            "execution": wanted.execution,
            "outcome": "running",
            "trigger": str(request.get("reason", "")),
            "started_at": utc(datetime.now(UTC)),
        },
        only_if="attribute_not_exists(PK)",
    )
    state = runs.state(services.table)
    champion = live_model(services.sagemaker, settings.endpoint_name)
    places = Places(wanted.run)
    reading, ended = read_labels(services.s3, settings, places, state, deadline)
    if ended == "time":
        reason = f"{reading.labels} labels are read, up to {reading.watermark}"
        return {"outcome": "reading", "error": "", "reason": reason, "run": wanted.run}
    new = slices.merge(services.s3, settings.artifacts_bucket, reading, places.manifest)
    enough = new >= settings.minimum_labels or reading.labels >= settings.maximum_labels
    if not enough and not (request.get("force") and (new or state.get("index"))):
        reason = f"{new} photographs have new labels, a run takes {settings.minimum_labels}"
        return {"outcome": "nothing to do", "error": "", "reason": reason, "run": wanted.run}
    hyperparameters = knobs.hyperparameters(version_of(wanted.run), champion["model_version"])
    return {
        "outcome": "planned",
        "run": wanted.run,
        "model_version": version_of(wanted.run),
        "labels": new,
        "watermark": reading.watermark,
        "reading": slices.keep(services.s3, settings.artifacts_bucket, places.folder, reading),
        "labels_left": ended == "full",
        "names": asdict(Names.of(settings.stack_name, wanted.run)),
        "champion": champion,
        "folder": places.folder,
        "dataset": places.dataset,
        "process_arguments": process_arguments(
            settings.artifacts_bucket,
            places,
            previous=state.get("index", ""),
            reference=reference_of(services.s3, settings.artifacts_bucket, champion["model_version"]),
            bad_share=settings.bad_share,
            stored_between=not_expiring(settings.dataset_days, datetime.now(UTC)),
        ),
        "hyperparameters": hyperparameters,
        "start": knobs.start,
        "instances": knobs.instances,
        "trials": knobs.trials,
        "parallel": min(knobs.parallel, max(1, knobs.trials)),
        "tuning_job": (before := state.get("tuning_job", "")),
        "tuning_parent": tuning_parent(services.sagemaker, before, {*hyperparameters, "package", *TUNED})
        if knobs.trials
        else "",
        "approval": "Approved"
        if request.get("approve") or settings.approval == "automatic"
        else "PendingManualApproval",
    }


def take_lock(services: Services, settings: RetrainSettings, wanted: Holder) -> None:
    """Cleans up after an execution that no longer runs, and takes its lock. Raises Refused when it still runs."""
    before: Holder | None = None
    while not runs.take_lock(services.table, wanted, utc(datetime.now(UTC)), before):
        before = runs.holder(services.table)
        if before and runs.is_running(services.states, before.execution):
            raise Refused("AlreadyRunning", f"another run is under way: {before.execution}")
        if before:
            clean_up(services.sagemaker, Names.of(settings.stack_name, before.run))


def live_model(sagemaker: "SageMakerClient", endpoint_name: str) -> dict[str, str]:
    """Version and package of the live model, the champion, and the endpoint's configuration. Raises Refused when no
    model is live."""
    try:
        endpoint = sagemaker.describe_endpoint(EndpointName=endpoint_name)
        config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
        model = sagemaker.describe_model(ModelName=config["ProductionVariants"][0]["ModelName"])
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationException":
            raise Refused("NoChampion", f"no model is live, release one first: {error}") from error
        raise
    url = model["PrimaryContainer"]["ModelDataUrl"]  # s3://<artifacts bucket>/models/<version>/…
    return {"model_version": url.split("/")[4], "model_data_url": url, "config": endpoint["EndpointConfigName"]}


def read_labels(
    s3: "S3Client", settings: RetrainSettings, places: Places, state: Mapping[str, Any], deadline: float
) -> tuple[Reading, Ended]:
    """Reads the labels after the last run that used its labels up, from where an earlier call for this run stopped."""
    bucket = settings.artifacts_bucket
    before = slices.load(s3, bucket, slices.reading_key(places.folder))
    if before is None:
        last = slices.load(s3, bucket, state["reading"]) if state.get("reading") else None
        before = Reading(state.get("watermark", ""), last.known if last else frozenset())
    limits = Limits(settings.maximum_labels, settings.label_share)
    reading, ended = slices.read_slices(s3, bucket, places.folder, before, limits, deadline)
    logger.info("read labels", watermark=reading.watermark, labels=reading.labels, ended=ended)
    return reading, ended


def reference_of(s3: "S3Client", bucket: str, version: str) -> str:
    """The key of the description of the champion's training data; empty if no run of this stack trained it."""
    run = run_of_version(version)
    if run is None:
        return ""
    key = f"{Places(run).dataset}/dataset.json"
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return ""
        raise
    return key


def not_expiring(days: int, now: datetime) -> tuple[str, ...]:
    """Of photographs that expire in so many days after they are stored: between when those were stored that a run may
    still use. Empty when none expires."""
    return (utc(now - timedelta(days=days) + LEAST_LEFT), utc(now)) if days else ()


def tuning_parent(sagemaker: "SageMakerClient", name: str, hyperparameters: set[str]) -> str:
    """The previous tuning job for a warm start, if it completed and has the same hyperparameters, fixed and tuned
    together. A tuning job of an older version of the code may have had others."""
    if not name:
        return ""
    try:
        found = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
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
