"""`bintally recount enter`: enters what a person counted."""

import uuid

import click

from cli.errors import USAGE, CliError
from cli.recounts import REASONS, api_of, manager_option, site_option


@click.command()
@site_option
@click.option("--bin", "bin_", required=True, metavar="BIN", help="The bin that you claimed.")
@click.option(
    "--seen", required=True, metavar="VERSION", help="The photograph's version, as `recount claim` prints it."
)
@click.option("--cannot-count", is_flag=True, help="Nobody can count this bin, in place of QUANTITY.")
@click.option("--retake", is_flag=True, help="A new photograph is needed, in place of QUANTITY.")
@click.option("--reason", type=click.Choice(REASONS, case_sensitive=False), help="Why, as far as you know.")
@click.option("--note", default="", metavar="TEXT", help="Up to 500 characters.")
@click.option("--id", "id_", metavar="ID", help="Of this entry: sent again, it is stored once.  [default: a new one]")
@manager_option
@click.argument("quantity", type=click.IntRange(min=0), required=False)
def command(
    site: str,
    bin_: str,
    seen: str,
    cannot_count: bool,
    retake: bool,
    reason: str | None,
    note: str,
    id_: str | None,
    manager: bool,
    quantity: int | None,
) -> None:
    """Enter how many items are in the bin that you claimed."""
    if [quantity is not None, cannot_count, retake].count(True) != 1:
        raise CliError("give one of QUANTITY, --cannot-count and --retake", USAGE)
    entry = {"id": id_ or str(uuid.uuid4()), "bin": bin_, "image_version": seen, "reason": reason, "note": note}
    said = {"quantity": quantity} if quantity is not None else {"outcome": "RETAKE" if retake else "CANNOT_COUNT"}
    answer = api_of(site, "manager" if manager else "counter").ask("recounts", entry | said)
    if answer["late"]:
        click.echo("Stored. It came after the recount of this photograph had ended: it is kept, and changes nothing.")
    else:
        click.echo("Stored.")
