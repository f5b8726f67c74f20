"""Ends a retraining run: stops its jobs, releases the lock, stores and reports the outcome."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bintally.aws.items import Item
from bintally.aws.table import Table
from bintally.aws.telemetry import logger
from bintally.common.keys import utc
from bintally.retraining import runs
from bintally.retraining.clean_up import clean_up, remove_leftovers
from bintally.retraining.names import Names, Places, run_of
from bintally.retraining.settings import RetrainSettings

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sns import SNSClient

LEARNED = ("not better", "registered")
"""Outcomes that use up the labels: the next run waits for new ones."""


@dataclass(frozen=True)
class Services:
    """The clients and settings that concluding uses."""

    table: Table
    s3: "S3Client"
    sagemaker: "SageMakerClient"
    events: "EventBridgeClient"
    sns: "SNSClient"


def conclude_run(services: Services, settings: RetrainSettings, ended: dict[str, Any]) -> dict[str, str]:
    """Cleans up before it reports, so that no job of a run still works once the run has ended for its readers."""
    table, execution = services.table, ended["execution"]
    run = run_of(execution, datetime.fromisoformat(ended["started_at"]))
    answer = {"outcome": ended["outcome"], "error": ended["error"], "reason": one_line(ended["reason"])}
    known = runs.find(table, run)
    if known.get("concluded_at") or answer["outcome"] == "under way":  # the other run reports its own end
        return answer
    if known:  # otherwise it was refused before it created anything
        clean_up(services.sagemaker, Names.of(settings.stack_name, run))
        remove_leftovers(services.s3, settings.artifacts_bucket, run)
    plan = ended.get("plan") or {}
    if answer["outcome"] in LEARNED and plan.get("labels_left"):
        answer["reason"] += f" (the run is full; the next one reads the labels after {plan['watermark']})"
    if answer["outcome"] in LEARNED and not runs.store_state(table, execution, next_state(plan)):
        # Its labels are new again for the next run, unless this is a second try and the state is stored.
        logger.warning("the lock is another run's by now, or free", extra={"run": run})
    runs.release_lock(table, execution)
    detail = {"stack": settings.stack_name, "run": run, "execution": execution, **answer}
    detail["model_version"] = plan.get("model_version", "")
    send_event(services, detail)
    table.put(
        {**runs.run_key(run), "run": run, "execution": execution, **known, **answer}
        | {name: plan[name] for name in ("model_version", "labels", "champion") if name in plan}
        | {"concluded_at": utc(datetime.now(UTC))},
    )
    # The message comes last: a topic that refuses it, as with a key that lets nobody use it, must not undo the end.
    services.sns.publish(
        TopicArn=settings.alerts_topic,
        Subject=f"{settings.stack_name}: retraining {answer['outcome']}"[:100],
        Message=f"Retraining run {run}: {answer['outcome']}. {answer['reason']}\n{execution}",
    )
    logger.info("concluded", extra=detail)
    return answer


def next_state(plan: dict[str, Any]) -> Item:
    places = Places(plan["run"])
    return {
        "run": plan["run"],
        "watermark": plan["watermark"],
        "reading": plan.get("reading", ""),  # absent from a plan that was made before an update of the stack
        "index": f"{places.dataset}/index.jsonl",
        "dataset": places.dataset,
        "tuning_job": plan["names"]["tune"] if plan["trials"] else plan["tuning_job"],
    }


def one_line(reason: str) -> str:
    """A reason in one line. A failed job's cause is its whole description in JSON; people need its FailureReason.

    A processing job's says the exit code alone; what its process said is the ExitMessage.
    """
    try:
        found = json.loads(reason)
    except ValueError:
        found = None
    if isinstance(found, dict):
        name = next((found[key] for key in found if key.endswith("JobName")), "")
        said = ("ExitMessage", "FailureReason", "errorMessage")
        reason = f"{name}: {next((found[key] for key in said if found.get(key)), 'no reason given')}"
    return " ".join(reason.split())[:1000]


def send_event(services: Services, detail: dict[str, str]) -> None:
    services.events.put_events(
        Entries=[
            {
                "Source": "bintally",
                "DetailType": "Retrain Finished",
                "Resources": [detail["execution"]],
                "Detail": json.dumps(detail),
            }
        ]
    )
