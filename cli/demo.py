"""`bintally demo`: from nothing to counted photographs, and how to go on from there."""

import signal
from pathlib import Path

import click
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.errors import CliError
from cli.photographs import Photograph, find, send
from cli.readings import counted, seconds_until_counted, table_of
from cli.up import interrupt, start
from local.stack import REPOSITORY, Stack

PATIENCE_SECONDS = 300.0
NAMES = ("Bin", "Photograph", "Count", "Confidence", "Recorded", "Record\nright", "Took")
NEXT = """
"Record right" is how probable it is that a photograph shows what the inventory record says.
Recount bins where it is low: a count suggests what to recount, and overwrites nothing.

The stack goes on running at {address}. Use it with any AWS client:
  [cyan]eval "$(bintally env)"[/]
  [cyan]aws s3 cp bin.jpg s3://$IMAGES_BUCKET/incoming/SEA1/P-4-B217/2026-11-22T10:15:00Z.jpg[/]
  [cyan]bintally counts --site SEA1 --bin P-4-B217[/]
Stop it with [cyan]make down[/]; its state is kept. Stop it and remove its state with [cyan]make wipe[/].
The bintally command is in .venv: [cyan]source .venv/bin/activate[/]"""


@click.command()
@click.option(
    "--abid",
    envvar="ABID",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Count real photographs: a folder as fetch-abid makes it. Also from the variable ABID.",
)
def command(abid: Path | None) -> None:
    """Start the stack if it does not run, upload sample photographs, wait for their counts, print them.

    The samples are rendered pictures that the repository ships. The model learned from real photographs, so it
    does better on those: --abid. Takes the stack as it runs; leaves it running.
    """
    photographs = real(abid) if abid else find([REPOSITORY / "samples"], None, None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    console, stack = Console(highlight=False), Stack.from_environment()
    if not stack.running() or stack.status()["model"] == "none":
        start(stack, console)
    outputs = stack.outputs()
    table = stack.session().resource("dynamodb", endpoint_url=stack.endpoint_url).Table(outputs["CountsTable"])
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console) as progress:
            sending = progress.add_task("Uploading", total=len(photographs))
            counting = progress.add_task("Counting", total=len(photographs))
            uploads = send(stack.client("s3"), outputs["ImagesBucket"], photographs, lambda: progress.advance(sending))
            found = []
            for upload, count in counted(table, uploads, PATIENCE_SECONDS):
                found.append(count | {"seconds": seconds_until_counted(upload, count)})
                progress.advance(counting)
    except (BotoCoreError, ClientError, OSError) as error:
        raise CliError(f"the stack stopped answering: {error} (see {stack.log_file})") from error
    found.sort(key=lambda count: (-count.get("priority", 1), count["captured_at"]))
    console.print()
    console.print(table_of(found, "What to recount first", NAMES))
    console.print(NEXT.format(address=stack.endpoint_url), soft_wrap=True)
    if len(found) < len(photographs):
        missing = len(photographs) - len(found)
        raise CliError(f"{missing} of {len(photographs)} photographs have no count yet (see {stack.log_file})")


def real(folder: Path) -> list[Photograph]:
    """The photographs of the public data set under `folder`, each a bin of its own at the site ABID."""
    pictures = next((f for f in (folder / "originals", folder / "images") if f.is_dir()), None)
    if pictures is None or not (folder / "labels.csv").is_file():
        raise CliError(
            f"{folder} has no labels.csv with a folder originals or images; make one with: bintally fetch-abid"
        )
    return find([pictures], "ABID", None)
