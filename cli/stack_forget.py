"""`bintally stack forget`: deletes what a stack knows of a bin, of a site, or of the time before a date."""

import json
import sys
from datetime import datetime
from typing import Any

import click
from bintally.common.keys import utc

from cli.errors import USAGE, CliError
from cli.stack_reconcile import Moment
from cli.stacks import chosen

KINDS = {
    "bins": "bins with items in the table",
    "photographs": "photographs with a count",
    "items": "items of these bins",
    "in_datasets": "photographs in datasets",
    "objects": "object versions: photographs, display copies, files of records, labels, shards of datasets",
    "labels": "lines of the label log",
}


@click.command()
@click.option("--site", default="", help="Forget this site, or only --bin of it.")
@click.option("--bin", "bin_", default="", help="Forget this bin of --site.")
@click.option("--before", type=Moment(), help="Forget what is older than this date, time or age (400d).")
@click.option("--dry-run", is_flag=True, help="Only say what would be forgotten.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(site: str, bin_: str, before: datetime | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete photographs, display copies, counts, recounts, labels and copies in datasets for ever.

    It also names the models that learned from these photographs. Sums stay: day totals and scores. Models stay; retrain
    from scratch for a model that has not seen the photographs. Two lines below forgotten/ in the artifacts bucket say
    who forgot what and when, and how it ended. Stop uploads and recounts of these bins first. Run it again after a
    failure.
    """
    from deployed.forgetting import Forgetting, Scope

    if bin_ and not site:
        raise CliError("--bin needs --site", USAGE)
    if not site and not before:
        raise CliError("say what to forget: --site, --site with --bin, or --before", USAGE)
    stack, scope = chosen(), Scope(site, bin_, utc(before) if before else "")
    if not yes or dry_run:
        listed = Forgetting(stack, scope, dry_run=True).run()
        if dry_run:
            show(listed, as_json, "Would forget")
            return
        show(listed, False, "This will be deleted for ever", err=True)
        if not sys.stdin.isatty():
            raise CliError("nothing was deleted. Without a terminal, say --yes", USAGE)
        word = bin_ or site or "forget"
        if click.prompt(f"Type {word} to delete it", default="", show_default=False, err=True) != word:
            raise CliError("nothing was deleted")
    show(Forgetting(stack, scope, dry_run=False).run(), as_json, "Forgotten")


def show(report: dict[str, Any], as_json: bool, title: str, *, err: bool = False) -> None:
    if as_json:
        click.echo(json.dumps(report))
        return
    found = [f"  {report[kind]:,} {text}" for kind, text in KINDS.items() if report.get(kind)]
    click.echo("\n".join([f"{title}:", *(found or ["  nothing was found"])]), err=err)
    if "locked_trail" in report:
        text = f"Locked copies of their trail stay in bucket {report['locked_trail']} until TrailLockDays have passed."
        click.echo(text, err=err)
    if report["models"]:
        click.echo(f"Models that learned from these photographs: {', '.join(report['models'])}", err=err)
    if report["unknown"]:
        click.echo(f"Models whose training data is gone, so nobody knows: {', '.join(report['unknown'])}", err=err)
