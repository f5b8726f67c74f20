"""`bintally recount undo`: takes an entry back."""

import click

from cli.recounts import api_of, manager_option, site_option


@click.command()
@site_option
@click.option("--bin", "bin_", required=True, metavar="BIN", help="The bin that you counted.")
@manager_option
def command(site: str, bin_: str, manager: bool) -> None:
    """Take your last entry about a bin back, for ClaimMinutes and whatever a second person has done since.

    The bin is claimed by you again. The trail keeps the entry and that you took it back.
    """
    api_of(site, "manager" if manager else "counter").ask("undos", {"bin": bin_})
    click.echo(f"Taken back. Bin {bin_} is yours again: enter what you counted.")
