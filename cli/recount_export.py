"""`bintally recount export`: the differences that people found, for a warehouse system."""

import csv
import json
import sys
from datetime import datetime
from typing import Any

import click

from cli.readings import harmless
from cli.recounts import api_of, site_option

COLUMNS = (
    *("site", "bin", "recorded_quantity", "counted_quantity", "difference", "reason", "note"),
    *("resolved_at", "counted_by", "recorded_as_of", "captured_at", "id"),
)
DAY = click.DateTime(["%Y-%m-%d"])


@click.command()
@site_option
@click.option("--first", type=DAY, help="From this day on (UTC).  [default: 6 days before the last]")
@click.option("--last", type=DAY, help="Until the end of this day (UTC), at most 31 days.  [default: today]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list in place of CSV.")
def command(site: str, first: datetime | None, last: datetime | None, as_json: bool) -> None:
    """Print the records that recounts found wrong, as CSV, by the day on which they were resolved.

    Bintally corrects no stock. Post these in your warehouse system; when its next file of records arrives, the bins are
    settled.
    """
    days = {name: f"{day:%Y-%m-%d}" for name, day in (("first", first), ("last", last)) if day}
    rows = api_of(site, "manager").ask("differences", **days)["differences"]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([cell(row.get(name, "")) for name in COLUMNS])


def cell(value: Any) -> Any:
    """What a spreadsheet shows as it is: no text becomes a formula."""
    return harmless("; ".join(value) if isinstance(value, list) else value)
