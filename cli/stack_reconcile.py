"""`bintally stack reconcile`: sends the photographs without a count to the count queue again."""

import json
import re
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from rich.console import Console

from cli.stacks import chosen

UNITS = {"d": "days", "h": "hours", "m": "minutes"}


class Moment(click.ParamType):
    """A date, a time in ISO 8601 (UTC without a zone), or an age: 7d, 12h, 30m."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        now = datetime.now(UTC)
        if age := re.fullmatch(r"(\d{1,5})([dhm])", value):
            return now - timedelta(**{UNITS[age[2]]: int(age[1])})
        try:
            found = datetime.fromisoformat(value)
            found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is neither a date or time (2026-11-22, 2026-11-22T10:15Z) nor an age (7d, 12h, 30m)")
        if found > now:
            self.fail(f"{value} is in the future")
        return found


@click.command()
@click.option("--since", type=Moment(), help="Check only uploads since this date, time or age (7d, 12h, 30m).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(since: datetime | None, as_json: bool) -> None:
    """Send every photograph without a count, and every file of records that nobody read, to their queues again.

    Run it after a crash, after the table was restored, or when photographs waited for more than 10 days. The stack
    does the same every week. It checks everything that was uploaded before the command started; on AWS it first waits
    a minute for events that are on their way.

    Nothing is counted or recorded twice. A photograph whose message is still in the count queue or in the dead-letter
    queue has no count yet, so it is sent too; whichever message comes second finds the count and adds nothing.

    Exits 0 when everything that was found is sent, also when nothing was found.
    """
    stack, console = chosen(), Console(stderr=True)
    before = queued(stack.client("sqs"), stack.outputs()["CountQueueUrl"])
    with console.status("Waiting for events that are on their way"):
        time.sleep(stack.arrival_seconds)
    with console.status("Comparing the photographs with their counts"):
        execution = stack.start_reconcile(since)
        try:
            found = stack.wait_reconcile(execution)
        except KeyboardInterrupt:
            click.echo(
                f"It goes on. To stop it: aws stepfunctions stop-execution --execution-arn {execution}", err=True
            )
            raise
    if as_json:
        click.echo(json.dumps(asdict(found) | {"queued_before": before}))
        return
    line = f"{found.checked:,} image versions checked, {found.uncounted:,} without a count"
    line += f", {found.requeued:,} sent to the count queue"
    if found.uncounted and before:
        line += f" (which had {before:,} messages before, maybe of the same)"
    click.echo(line)
    click.echo(f"{found.files:,} files of records checked, {found.unread:,} that nobody had read, sent to be read")


def queued(sqs: Any, queue: str) -> int:
    """The messages of a queue, waiting or with a function."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
    return sum(int(found[name]) for name in names)
