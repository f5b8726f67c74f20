"""`bintally recount list`: the bins that wait for a recount."""

import json
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from cli.recounts import api_of, kept, site_option


@click.command()
@site_option
@click.option(
    "--top", type=click.IntRange(1, 100), default=20, show_default=True, metavar="N", help="Only the first N."
)
@click.option("--why", is_flag=True, help="Show records, counts and what people entered. For managers.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def command(site: str, top: int, why: bool, as_json: bool) -> None:
    """List the bins of a site that wait for a recount.

    Without --why the list is by name, and shows neither records nor counts: who counts should not know what to expect.
    With --why those that matter most come first. "Right" is the probability that the record is right; "If wrong" says
    by how many items the bin probably differs if it is not.
    """
    answer = api_of(site, "manager" if why else "viewer").ask("recounts", limit=str(top))
    found = answer["recounts"]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        click.echo(f"No bin of {site} waits for a recount.")
        return
    table = Table(box=None, header_style="bold", title=f"Recounts of {site}", title_justify="left")
    for name in ("Bin", "Photographed", *(("Stage", "Record", "Count", "Right", "If wrong", "Entered") if why else ())):
        table.add_column(name, justify="right" if name in ("Record", "Count", "Right") else "left", overflow="ellipsis")
    for each in found:
        said = ", ".join(f"{entry['quantity']}" for entry in each.get("entries", []))
        numbers = (str(each["recorded_quantity"]), str(each["count"]), f"{each['p_record']:.0%}") if why else ()
        reasons = (each["stage"], *numbers, if_wrong(each), said) if why else ()
        table.add_row(each["bin"], each["captured_at"][:16].replace("T", " "), *reasons)
    Console(highlight=False).print(table)
    if why:
        click.echo(f"Of these {len(found)} records, about {answer['expected_wrong']:.0f} are wrong.")
        click.echo(kept(answer["so_far"]))


def if_wrong(review: Mapping[str, Any]) -> str:
    """By how many items the bin probably differs from a wrong record; "-" of a review of an older version."""
    return f"about {review['likely_size']:.0f} {review['direction']}" if "likely_size" in review else "-"
