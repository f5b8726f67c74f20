"""`bintally people add`: lets a person sign in."""

import click

from cli.errors import USAGE, CliError
from cli.people import ROLES, people


@click.command()
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What the person may do.")
@click.option("--site", "sites", multiple=True, metavar="SITE", help="Where; may be given several times.")
@click.option("--all-sites", is_flag=True, help="Everywhere, in place of --site.")
def command(name: str, role: str, sites: tuple[str, ...], all_sites: bool) -> None:
    """Let a person sign in to the web page, and print a temporary password once.

    A viewer sees which bins wait, a counter recounts them without seeing records or counts, and a manager sees and
    decides everything. The person chooses a password of their own at the first sign-in, within 7 days.
    """
    if bool(sites) == all_sites:
        raise CliError("give --site SITE, or --all-sites", USAGE)
    password = people().add(name, role, ("*",) if all_sites else sites)
    click.echo(f"{name} may sign in as {role}. The temporary password, shown only now: {password}")
