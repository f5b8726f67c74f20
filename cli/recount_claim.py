"""`bintally recount claim`: claims a bin and fetches its photograph."""

import json
import shlex
from pathlib import Path
from urllib.request import urlopen

import click

from cli.recounts import api_of, manager_option, site_option


@click.command()
@site_option
@click.option("--bin", "bin_", metavar="BIN", help="This bin.  [default: one that matters most]")
@click.option("--skip", multiple=True, metavar="BIN", help="Not this bin; may be given several times.")
@click.option("--save", type=click.Path(path_type=Path), metavar="FILE", help="Write the photograph to this file.")
@manager_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    site: str, bin_: str | None, skip: tuple[str, ...], save: Path | None, manager: bool, as_json: bool
) -> None:
    """Claim a bin, so that nobody else counts it meanwhile, and get a link to its photograph.

    Neither the record nor the model's count is shown. Enter what you counted with the command that this prints.
    """
    wanted = {"bin": bin_} if bin_ else {"skip": list(skip)}
    found = api_of(site, "manager" if manager else "counter").ask("claims", wanted)
    if save and found["photograph"]:
        with urlopen(found["photograph"], timeout=60) as answer:
            save.write_bytes(answer.read())
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    shown = str(save) if save else f"{found['photograph']} (for 5 minutes)"
    if not found["photograph"]:
        shown = "deleted. Enter --cannot-count, or --retake for a new one"
    enter = ["bintally", "recount", "enter", *(["--manager"] if manager else []), "--site", found["site"]]
    enter += ["--bin", found["bin"], "--seen", found["image_version"], "QUANTITY"]
    click.echo(f"Bin {found['bin']} is yours until {found['claimed_until'][:16].replace('T', ' ')} UTC.")
    click.echo(f"Photograph: {shown}")
    click.echo(f"Then: {shlex.join(enter)}")
