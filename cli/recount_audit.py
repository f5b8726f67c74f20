"""`bintally recount audit`: what recounts of bins drawn at random say of the records and of the model."""

import json
from collections.abc import Mapping
from typing import Any

import click

from cli.recounts import api_of, kept, site_option


@click.command()
@site_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(site: str, as_json: bool) -> None:
    """Show how many records are wrong, and how often the model counts right, by the random audit. For managers.

    A share of the bins (AuditShare) enters the queue at random. Nobody who counts can tell them from others.
    """
    found = api_of(site, "manager").ask("audit")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"{found['recounted']} bins of {site} were drawn at random and recounted in the last 12 months.")
    click.echo(f"Records that are wrong:  {measured(found['records_wrong'])}")
    click.echo(f"Counts that are right:   {measured(found['model_right'])}")
    click.echo(f"The list of recounts takes {found['wrong_share']:.1%} of the records for wrong.")
    click.echo(kept(found["so_far"]))


def measured(share: Mapping[str, Any]) -> str:
    found = "none yet" if share["share"] is None else f"{share['share']:.1%}"
    return f"{found} (95 % interval {share['low']:.1%} to {share['high']:.1%})"
