"""The reconcile function: sends photographs without a count, and record files that nobody read, to their queues again.

An event, a message or a whole queue may be lost: in a crash, on a full disk, or after the 14 days that a queue keeps
a message. The photograph is in S3 all the same. The state machine `reconcile` calls this function step by step, each
time with the progress of the step before, until the listings of incoming/ and of records/ end.

At 100 million image versions: 100,000 pages of 1,000. A page is one ListObjectVersions (0.2 s) and two times ten
BatchGetItem of 100 keys (0.02 s each): 0.6 s. A step works 600 of its 900 seconds, 1,000 pages; 100 steps take 17
hours and about 500 of the 25,000 events that an execution may have. It costs 200 million reads of half a unit, 100,000
listings and 100,000 GB-seconds: about 15 dollars. Every uncounted version costs a Query of its bin, unless the version
before is of the same bin, and a tenth of a SendMessageBatch.
"""

from dataclasses import asdict
from datetime import timedelta
from functools import cache
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from bintally.aws import clients
from bintally.aws.table import Table
from bintally.aws.telemetry import logger, metrics
from bintally.common.errors import BintallyError
from bintally.common.events import check_fields
from bintally.common.keys import moment
from bintally.reconciling.reconcile_pages import Progress, Services, Span, reconcile_pages
from bintally.reconciling.settings import reconcile_settings

# No page is started with less. A page takes a second, or a minute when it reads a bin of a million counts or sends
# 1,000 versions. The state machine repeats a page that does not end in time.
PAGE_SECONDS = 300
GRACE_SECONDS = 3600
"""A photograph may need this long without being lost: its eight tries wait 45 minutes in all (template.yaml)."""


class WrongInput(BintallyError):
    """The execution's input cannot be used; retries do not help."""


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """`event`: started_at of the execution, its input {"since": ISO 8601, "grace_seconds": 3600}, both optional, and
    the answer of the step before, {} at first. Returns the progress: `done`, the sums `checked`, `uncounted`,
    `requeued`, `young`, `files` and `unread`, and the place in the listing; or {"refused": the reason} for an input
    that cannot be used.
    Raises WrongEvent, Transient."""
    check_fields(event, "reconcile", "a step of its state machine", "started_at", "input", "progress")
    before = Progress(**event["progress"])
    try:
        wanted = span(event["started_at"], event["input"])
    except WrongInput as error:
        return {"refused": str(error)}

    def in_time() -> bool:
        return context.get_remaining_time_in_millis() > PAGE_SECONDS * 1000

    progress = reconcile_pages(services(), wanted, before, in_time)
    metrics.add_metric("Checked", MetricUnit.Count, progress.checked - before.checked)
    metrics.add_metric("Uncounted", MetricUnit.Count, progress.uncounted - before.uncounted)
    metrics.add_metric("Unread", MetricUnit.Count, progress.unread - before.unread)
    logger.info("reconciled", **asdict(progress))
    return asdict(progress)


def span(started_at: str, request: dict[str, Any]) -> Span:
    """The uploads to check. Raises WrongInput."""
    if unknown := sorted(request.keys() - {"since", "grace_seconds"}):
        raise WrongInput(f"the input has {', '.join(unknown)}; known are grace_seconds, since")
    try:
        since = moment(request.get("since") or "1970-01-01")
        until = moment(started_at) - timedelta(seconds=request.get("grace_seconds", GRACE_SECONDS))
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise WrongInput(f"since takes ISO 8601 and grace_seconds a number: {error}") from error
    return Span(since, until)


@cache
def services() -> Services:
    return Services(
        s3=clients.s3_bulk(),
        table=Table.named(reconcile_settings().counts_table),
        images_bucket=reconcile_settings().images_bucket,
        artifacts_bucket=reconcile_settings().artifacts_bucket,
        count_queue_url=reconcile_settings().count_queue_url,
        record_queue_url=reconcile_settings().record_queue_url,
    )
