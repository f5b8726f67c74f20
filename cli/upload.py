"""`bintally upload`: photographs into the images bucket, under their sites and bins."""

from pathlib import Path

import click
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.errors import USAGE, CliError
from cli.photographs import find, send
from local.stack import Stack


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--site", help="The site they were taken at.")
@click.option("--bin", "bin_", help="The bin they show.")
def command(paths: tuple[Path, ...], site: str | None, bin_: str | None) -> None:
    """Upload photographs: files, or folders with all that lies below.

    A photograph goes to incoming/<site>/<bin>/<name>. Below a folder, site and bin are the names of the folders that
    a photograph lies in (<site>/<bin>/<name>); where there are none, the site is "default" and the bin is the
    photograph's name. --site and --bin overrule. A labels.csv (columns id, quantity) beside the photographs or
    above them says what the records say.
    """
    if any(part and "/" in part for part in (site, bin_)):
        raise CliError("a site or a bin cannot have a / in its name", USAGE)
    try:
        photographs = find(paths, site, bin_)
    except ValueError as error:
        raise CliError(str(error), USAGE) from error
    if not photographs:
        raise CliError(f"no photographs in {', '.join(map(str, paths))}", USAGE)
    stack = Stack.from_environment()
    bucket = stack.outputs()["ImagesBucket"]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(highlight=False)
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("Uploading", total=len(photographs))
            send(stack.client("s3"), bucket, photographs, lambda: progress.advance(task))
    except (BotoCoreError, ClientError, OSError) as error:
        raise CliError(f"upload failed: {error}") from error
    bins = {(photograph.site, photograph.bin) for photograph in photographs}
    console.print(f"{len(photographs)} uploaded, {len(bins)} bins. See their counts with: bintally counts")
