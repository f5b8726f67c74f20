"""`bintally records load`: sends files of inventory records, and shows what each gave."""

import time
from pathlib import Path

import click
from rich.console import Console

from cli.errors import USAGE, CliError
from cli.records import TARGETS, Sent, key_of, send, show, summary_of
from cli.stacks import chosen

PATIENCE_SECONDS = 900.0
PAUSE_SECONDS = 0.3


def parse_names(context: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    """bin=Location as {"bin": "Location"}; `quantity` is short for expected_quantity."""
    found = {}
    for pair in pairs:
        name, equals, column = pair.partition("=")
        target = "expected_quantity" if name.strip() == "quantity" else name.strip()
        if not equals or target not in TARGETS:
            raise click.BadParameter(f"{pair} is no NAME=COLUMN; names are {', '.join(TARGETS)}, such as bin=Location")
        found[target] = column.strip()
    return found


@click.command()
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--map",
    "names",
    metavar="NAME=COLUMN",
    multiple=True,
    callback=parse_names,
    help="Column of site, bin, quantity, as_of or product, such as bin=Location; as_of= uses none. Repeatable.",
)
@click.option("--site", help="Site of files without a column for it.")
@click.option("--dry-run", is_flag=True, help="Read the files on the stack and store nothing.")
def command(files: tuple[Path, ...], names: dict[str, str], site: str | None, dry_run: bool) -> None:
    """Load inventory records from tables (CSV, TSV, text) and show what each row gave.

    The names of columns are found by themselves where they are usual (Location, On Hand Qty, Last Updated), as are the
    delimiter and the encoding. A JSON file is the record of the bin that its name says.

    Exits 1 when no row of a file was kept, or when a file was not read within 15 minutes.
    """
    if site is not None and (not site or "/" in site):
        raise CliError("a site cannot be empty or have a / in its name", USAGE)
    for path in files:
        try:
            key_of(path, site)
        except ValueError as error:
            raise CliError(str(error), USAGE) from error
    stack, console = chosen(), Console(highlight=False)
    outputs, s3 = stack.outputs(), stack.client("s3")
    bucket, artifacts = outputs["ImagesBucket"], outputs["ArtifactsBucket"]
    waiting: list[Sent] = []
    for path in files:
        try:
            waiting.append(send(s3, bucket, path, site, names, dry_run=dry_run))
        except OSError as error:
            raise CliError(f"cannot read {path}: {error.strerror}. {len(waiting)} files are sent") from error
    refused = 0
    deadline = time.monotonic() + PATIENCE_SECONDS
    while waiting:
        for sent in list(waiting):
            if summary := summary_of(s3, artifacts, bucket, sent):
                waiting.remove(sent)
                refused += not summary["kept"]
                show(console, s3, summary, str(sent.path))
        if waiting and time.monotonic() > deadline:
            raise CliError(f"{len(waiting)} of {len(files)} files are not read yet. See: bintally records status")
        if waiting:
            time.sleep(PAUSE_SECONDS)
    if refused:
        raise CliError(f"of {refused} of {len(files)} files no row was kept")
