"""`bintally upload`: uploads photographs to the images bucket, by site and bin."""

import os
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from cli.errors import USAGE, CliError
from cli.photographs import DEFAULT_SITE, IPHONES, Photograph, Uploaded, find, kinds, left_out, of_systems, send
from cli.progress import progress_bar
from cli.readings import Count, counted
from cli.stacks import chosen
from training.dataset.labels import unknown

PATIENCE_SECONDS = 300.0


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--site", help="Site of all photographs.")
@click.option("--bin", "bin_", help="Bin of all photographs.")
@click.option("--wait", is_flag=True, help="Wait for their counts, and report how many were counted and rejected.")
def command(paths: tuple[Path, ...], site: str | None, bin_: str | None, wait: bool) -> None:
    """Upload photographs: files, or folders with all subfolders.

    The site and the bin are the last two folders of a photograph's path below a folder that you name
    (<site>/<bin>/<name>). Without them the site is "default" and the bin is the photograph's name; a line says so.
    --site and --bin override both. A labels.csv (columns id, quantity) in the photographs' folder or above it contains
    the recorded quantities. Files of other formats are left out and reported; those of a NAS, macOS or Windows (@eaDir,
    ._*, Thumbs.db) are skipped.

    With --wait the command exits 1 when some are not counted: it stops when no count arrives for 5 minutes.
    """
    for part in (site, bin_):
        if part is not None and not is_id(part):
            raise CliError("a site or a bin cannot have a / or \\ in its name, nor be blank, . or ..", USAGE)
    if tables := [path for path in paths if path.suffix.lower() in (".csv", ".tsv") and path.is_file()]:
        raise CliError(f"{tables[0]} is a table, no photograph. Load it with: bintally records load {tables[0]}", USAGE)
    try:
        photographs = find(paths, site, bin_)
    except ValueError as error:
        raise CliError(str(error), USAGE) from error
    skipped = left_out(paths)
    if not photographs:
        also = f"; {len(skipped)} left out ({kinds(skipped)})" if skipped else ""
        raise CliError(f"no photographs in {', '.join(map(str, paths))}{also}{advice(skipped)}", USAGE)
    if odd := next((photograph for photograph in photographs if not is_id(photograph.site, photograph.bin)), None):
        raise CliError(f"{odd.path} gives no site and bin: {odd.key}. Give both with --site and --bin", USAGE)
    if unsendable := next((photograph for photograph in photographs if not is_utf8(photograph.key)), None):
        raise CliError(f"the name {os.fsencode(unsendable.path)!r} is not UTF-8. Rename it", USAGE)
    stack, console = chosen(), Console(highlight=False)
    bucket = stack.outputs()["ImagesBucket"]
    uploads = send_all(stack.client("s3"), bucket, photographs, console)
    console.print(summary(photographs, skipped, of_systems(paths)), soft_wrap=True, markup=False)
    if site is None and (elsewhere := sum(photograph.site == DEFAULT_SITE for photograph in photographs)):
        console.print(
            f'{elsewhere} have no folder for their site, which is "{DEFAULT_SITE}" then: give it with --site',
            soft_wrap=True,
            markup=False,
        )
    if unnamed := unknown(paths, (photograph.path for photograph in photographs)):
        shown = ", ".join(unnamed[:3]) + (", …" if len(unnamed) > 3 else "")
        console.print(
            f"Ids of labels.csv that name none of them ({len(unnamed)}): {shown}", soft_wrap=True, markup=False
        )
    if wait:
        wait_for_counts(stack.counts_table(), uploads, console)
    else:
        console.print("See their counts with: bintally counts")


def send_all(s3: Any, bucket: str, photographs: list[Photograph], console: Console) -> list[Uploaded]:
    """Uploads with a progress bar. Raises CliError for a file that cannot be read."""
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        advance()

    with progress_bar(console, "Uploading", len(photographs)) as advance:
        try:
            return send(s3, bucket, photographs, tick)
        except OSError as error:
            sent = f"{done} of {len(photographs)} are uploaded"
            raise CliError(f"cannot read {error.filename}: {error.strerror}. {sent}") from error


def is_id(*texts: str) -> bool:
    """Whether texts can be a site or a bin: parts of a key that the count function takes."""
    return all(text.strip() and not {"/", "\\"} & set(text) and text not in (".", "..") for text in texts)


def is_utf8(key: str) -> bool:
    """Whether it can be a key of S3: names on a Linux disk can have any bytes."""
    try:
        return bool(key.encode())
    except UnicodeEncodeError:
        return False


def summary(photographs: list[Photograph], skipped: list[Path], systems: int = 0) -> str:
    """600 uploaded, 590 with a record, 3 left out (HEIC), 2 system files skipped"""
    recorded = sum(photograph.recorded is not None for photograph in photographs)
    parts = [f"{len(photographs)} uploaded", f"{recorded} with a record"]
    parts += [f"{len(skipped)} left out ({kinds(skipped)})"] if skipped else []
    parts += [f"{systems} system files skipped"] if systems else []
    return ", ".join(parts) + advice(skipped)


def advice(skipped: list[Path]) -> str:
    if any(file.suffix.lower() in IPHONES for file in skipped):
        return ". Send HEIC as JPEG: on an iPhone choose Settings > Camera > Formats > Most Compatible"
    return ""


def wait_for_counts(table: Any, uploads: list[Uploaded], console: Console) -> None:
    """Waits with a progress bar, and reports the result. Raises CliError when some are not counted."""
    found: list[tuple[Uploaded, Count]] = []
    try:
        with progress_bar(console, "Counting", len(uploads)) as advance:
            for pair in counted(table, uploads, PATIENCE_SECONDS):
                found.append(pair)
                advance()
    except KeyboardInterrupt:
        console.print("Counting continues. See the counts with: bintally counts")
    rejected = [(upload, count) for upload, count in found if count["status"] == "REJECTED"]
    console.print(f"{len(found) - len(rejected)} counted, {len(rejected)} rejected")
    for upload, count in rejected:
        console.print(f"[red]{escape(upload.photograph.key)}: {escape(count['reason'])}[/]", soft_wrap=True)
    if missing := len(uploads) - len(found):
        raise CliError(f"{missing} of {len(uploads)} are not counted yet. Check that a model is live: bintally status")
