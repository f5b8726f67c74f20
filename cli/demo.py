"""`bintally demo`: starts a stack, counts sample photographs, and prints the next commands."""

import csv
import signal
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.errors import CliError
from cli.photographs import Photograph, find, send
from cli.readings import Count, counted, seconds_until_counted, table_of
from cli.stacks import choice, chosen, on_this_machine
from cli.up import interrupt, start
from deployed.stack import Deployed
from local.people import add_demo_people
from local.stack import REPOSITORY
from model.answer import AT_LEAST

PATIENCE_SECONDS = 300.0
SAMPLES = REPOSITORY / "samples"
NAMES = ("Bin", "Photograph", "Count", "Confidence", "Recorded", "Record\nright", "Took")
SAMPLE_NAMES = ("Bin", "Photograph", "Really", "Count", "Confidence", "Recorded", "Record\nright")
MEANING = """
"Record right" is the probability that the inventory record is right, by its photograph and the share of wrong records.
Recount bins where it is low: a count suggests what to recount, and overwrites nothing."""
NEXT = """
The stack keeps running at {address}. Use it with any AWS client:
  [cyan]eval "$(bintally env)"[/]
  [cyan]aws s3 cp bin.jpg s3://$IMAGES_BUCKET/incoming/SEA1/P-4-B217/2026-11-22T10:15:00Z.jpg[/]
  [cyan]bintally counts --site SEA1 --bin P-4-B217[/]
Stop it with [cyan]make down[/]; its state is kept. Stop it and remove its state with [cyan]make wipe[/].
The bintally command is in .venv: [cyan]source .venv/bin/activate[/]
See the page: [cyan]bintally open[/]"""


@click.command()
@click.option(
    "--abid",
    envvar="ABID",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Count the real photographs in a folder that fetch-abid has written. Also read from ABID.",
)
def command(abid: Path | None) -> None:
    """Start the stack if it does not run, upload sample photographs, wait for their counts, print them.

    The samples are rendered pictures in the repository, so the table knows what is really in each. --abid
    counts real photographs. The stack keeps running. With --stack the photographs are uploaded to that stack.
    """
    photographs = real(abid) if abid else find([SAMPLES], None, None)
    really = {} if abid else contents(SAMPLES / "labels.csv")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    console = Console(highlight=False)
    stack = ready_stack(console)
    outputs, table = stack.outputs(), stack.counts_table()
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        sending = progress.add_task("Uploading", total=len(photographs))
        counting = progress.add_task("Counting", total=len(photographs))
        uploads = send(stack.client("s3"), outputs["ImagesBucket"], photographs, lambda: progress.advance(sending))
        found = []
        for upload, count in counted(table, uploads, PATIENCE_SECONDS):
            found.append(count | {"seconds": seconds_until_counted(upload, count)})
            if (shown := really.get(upload.photograph.path.with_suffix(""))) is not None:
                found[-1]["really"] = shown
            progress.advance(counting)
    found.sort(key=lambda count: (-count.get("priority", 1), count["captured_at"]))
    console.print()
    console.print(table_of(found, "Bins to recount first", SAMPLE_NAMES if really else NAMES))
    console.print(MEANING, soft_wrap=True)
    if really:
        console.print(what_was_found(found), soft_wrap=True)
    if choice().name is None:
        add_demo_people(on_this_machine())
        console.print(NEXT.format(address=stack.endpoint_url), soft_wrap=True)
    if len(found) < len(photographs):
        missing = len(photographs) - len(found)
        raise CliError(f"{missing} of {len(photographs)} photographs have no count yet{stack.hint}")


def ready_stack(console: Console) -> Deployed:
    """The stack to work on; starts the local one unless it runs. Raises CliError for a stack without a live model."""
    if choice().name is None:
        local = on_this_machine()
        if not local.running() or local.status()["model"] == "none":
            start(local, console)
        return local
    stack = chosen()
    if stack.live_model_data(stack.outputs()) is None:
        raise CliError(f"stack {stack.name} has no live model. Release one first: docs/operations.md")
    return stack


def contents(labels: Path) -> dict[Path, int]:
    """How many items each rendered photograph shows, by its path without the ending."""
    with labels.open(newline="") as sheet:
        return {labels.parent / row["id"]: int(row["shown"]) for row in csv.DictReader(sheet)}


def what_was_found(listed: list[Count]) -> str:
    """One sentence: where the list has the wrong records, and how many counts are right."""
    known = [(line, count) for line, count in enumerate(listed, 1) if "really" in count and "count" in count]
    right = sum(min(count["really"], AT_LEAST) == count["count"] for _, count in known)
    wrong = [str(line) for line, count in known if count.get("recorded_quantity") != count["really"]]
    lines = f"line {wrong[0]}" if len(wrong) == 1 else f"lines {', '.join(wrong[:-1])} and {wrong[-1]}" if wrong else ""
    records = (
        f"{len(wrong)} of {len(known)} records are wrong, and the list has them in {lines}"
        if wrong
        else f"none of {len(known)} records is wrong"
    )
    return f"{records}; {right} of the counts are right."


def real(folder: Path) -> list[Photograph]:
    """The photographs of the public data set under `folder`, each as a separate bin of the site ABID."""
    pictures = next((f for f in (folder / "originals", folder / "images") if f.is_dir()), None)
    if pictures is None or not (folder / "labels.csv").is_file():
        raise CliError(
            f"{folder} has no labels.csv with a folder originals or images; download one with: bintally fetch-abid"
        )
    return find([pictures], "ABID", None)
