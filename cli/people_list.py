"""`bintally people list`: who may sign in."""

import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from cli.people import people, site_shown

STATES = {"CONFIRMED": "active", "FORCE_CHANGE_PASSWORD": "temporary password"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def command(as_json: bool) -> None:
    """List who may sign in, as what, and at which sites."""
    found: list[dict[str, Any]] = [
        {
            "name": member.name,
            "role": member.role,
            "sites": [site_shown(site) for site in member.sites],
            "state": STATES.get(member.status, member.status),
            "added": f"{member.added:%Y-%m-%d}",
        }
        for member in people().members()
    ]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        click.echo("Nobody may sign in. Add a person with: bintally people add NAME --role counter --site SITE")
        return
    table = Table(box=None, header_style="bold")
    for name in ("Name", "Role", "Sites", "State", "Added"):
        table.add_column(name, overflow="fold")
    for each in found:
        cells = (each["name"], each["role"] or "none", ", ".join(each["sites"]) or "none", each["state"], each["added"])
        table.add_row(*map(str, cells))
    Console(highlight=False, markup=False).print(table)
