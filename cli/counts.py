"""`bintally counts`: what stands in the counts table."""

import json
import time
from typing import Any

import click
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.live import Live

from cli.errors import USAGE, CliError
from cli.photographs import DEFAULT_SITE
from cli.readings import Count, history, latest, plain, sites, table_of
from local.stack import Stack

REFRESH_SECONDS = 1.0
LATEST_NAMES = ("Bin", "Taken (UTC)", "Count", "Confidence", "Recorded", "Record\nright")
HISTORY_NAMES = ("Taken (UTC)", "Photograph", *LATEST_NAMES[2:])


@click.command()
@click.option("--site", help="Only the bins of this site.")
@click.option("--bin", "bin_", help='One bin\'s history, rejected photographs too. Of site "default" without --site.')
@click.option("--recount", is_flag=True, help="Bins with a record, the one most likely wrong first.")
@click.option("--watch", is_flag=True, help="Show new counts as they come, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def command(site: str | None, bin_: str | None, recount: bool, watch: bool, as_json: bool) -> None:
    """Show the newest count of every bin, the latest photograph first.

    "Record right" is the probability that the inventory record is right. Recount first where it is low (--recount
    sorts by it); where it is lower than a blind guess, the line is yellow.
    """
    if watch and as_json:
        raise CliError("--watch and --json do not go together", USAGE)
    if recount and bin_ is not None:
        raise CliError("--recount is of all bins, not of one bin's history", USAGE)
    stack = Stack.from_environment()
    outputs = stack.outputs()
    s3 = stack.client("s3")
    table = stack.session().resource("dynamodb", endpoint_url=stack.endpoint_url).Table(outputs["CountsTable"])
    console = Console(highlight=False)

    def read() -> list[Count]:
        found = counts_of(table, s3, outputs["ImagesBucket"], site, bin_)
        return to_recount(found) if recount else found

    names = LATEST_NAMES if bin_ is None else HISTORY_NAMES
    title = (
        f"Bin {bin_}, site {DEFAULT_SITE if site is None else site}"
        if bin_ is not None
        else f"Site {site}"
        if site
        else "All sites"
    ) + (", what to recount first" if recount else "")
    try:
        if as_json:
            click.echo(json.dumps(plain(read()), indent=2, sort_keys=True, ensure_ascii=False))
        elif watch:
            with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
                while True:
                    live.update(table_of(read()[: console.height - 4], f"{title} (Ctrl-C ends)", names), refresh=True)
                    time.sleep(REFRESH_SECONDS)
        elif counts := read():
            console.print(table_of(counts, title, names))
        else:
            console.print("No counts yet. Upload photographs with: bintally upload PATH")
    except KeyboardInterrupt:
        return
    except (BotoCoreError, ClientError) as error:
        raise CliError(f"cannot read the counts: {error}") from error


def counts_of(table: Any, s3: Any, bucket: str, site: str | None, bin_: str | None) -> list[Count]:
    """The history of one bin, or the newest count of each bin of one or all sites; latest photograph first."""
    if bin_ is not None:
        return history(table, DEFAULT_SITE if site is None else site, bin_)
    found = [count for name in (sites(s3, bucket) if site is None else [site]) for count in latest(table, name)]
    return sorted(found, key=lambda count: (count["captured_at"], count["bin"]), reverse=True)


def to_recount(counts: list[Count]) -> list[Count]:
    """Those that were compared with a record, the one that is most likely wrong first."""
    return sorted((count for count in counts if "priority" in count), key=lambda count: count["priority"], reverse=True)
