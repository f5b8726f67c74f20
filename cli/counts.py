"""`bintally counts`: read the counts table as a table, as CSV or as JSON."""

import csv
import json
import time
from collections.abc import Callable, Iterable, Iterator
from heapq import nlargest
from itertools import chain, islice
from typing import IO, Any

import click
from bintally.aws.items import needs_retake
from bintally.common.keys import encode_id
from rich.console import Console
from rich.live import Live

from cli import promises
from cli.errors import USAGE, CliError
from cli.photographs import DEFAULT_SITE
from cli.readings import (
    ASKED_FOR,
    CSV_FIELDS,
    Count,
    address,
    csv_row,
    latest,
    plain,
    read_history,
    rejected,
    sites,
    table_of,
    table_of_rejected,
)
from cli.stacks import chosen
from deployed.stack import Deployed

REFRESH_SECONDS = 1.0
ROWS = 50
"""Rows of a table on the terminal without --top."""
WIDE = 140
"""Minimum terminal width for a column with the photograph's address."""
LATEST_NAMES = ("Bin", "Taken (UTC)", "Count", "Confidence", "Recorded", "Record\nright")
HISTORY_NAMES = ("Taken (UTC)", "Photograph", *LATEST_NAMES[2:])


class Reading:
    """The counts to read, and the number read so far."""

    def __init__(
        self,
        stack: Deployed,
        site: str | None,
        bin_: str | None,
        recount: bool,
        top: int | None,
        only_rejected: bool = False,
        only_retake: bool = False,
    ) -> None:
        self.table, self.s3 = stack.counts_table(), stack.client("s3")
        outputs = stack.outputs()
        self.bucket, self.parts = outputs["ImagesBucket"], int(outputs.get("SiteParts", "1"))
        self.site, self.bin, self.recount, self.top, self.rejected = site, bin_, recount, top, only_rejected
        self.retake = only_retake
        self.read = self.chosen = 0

    @property
    def site_of_bin(self) -> str:
        return DEFAULT_SITE if self.site is None else self.site

    def all(self) -> Iterator[Count]:
        """Page by page: one bin's history, the newest first; else each bin's newest count, by site and bin.

        With --recount only those that have a record; with --retake those that need a new photograph; with --rejected
        the rejected photographs, also those whose key names no bin.
        """
        self.read = self.chosen = 0
        names = [] if self.bin is not None else sites(self.s3, self.bucket) if self.site is None else [self.site]
        if self.rejected and self.site is None and self.bin is None:
            names = ["", *names]
        found: Iterable[Count] = chain.from_iterable(map(self._of_site, names))
        if self.bin is not None:
            found = read_history(self.table, self.site_of_bin, self.bin)
        for count in found:
            self.read += 1
            if self._wanted(count):
                self.chosen += 1
                yield count

    def _wanted(self, count: Count) -> bool:
        if self.rejected:
            return bool(count["status"] == "REJECTED")
        if not self.retake:
            return not self.recount or "priority" in count
        if promises.is_asked_for(self.table, count):
            count["flags"] = [*count.get("flags", ()), ASKED_FOR]
            return True
        return needs_retake(count)

    def _of_site(self, name: str) -> Iterator[Count]:
        return rejected(self.table, name) if self.rejected else latest(self.table, name, self.parts)

    def first(self, number: int) -> list[Count]:
        """The first `number` in the order of a table; memory holds no more than that."""
        if self.bin is not None:
            return list(islice(self.all(), number))
        if not self.recount:
            return nlargest(number, self.all(), key=uploaded if self.rejected else newest)
        wanted = number
        while True:  # people have settled few of the first
            ranked = nlargest(wanted, self.all(), key=priority)
            found = list(islice(promises.unsettled(self.table, ranked), number))
            if len(found) == number or len(ranked) < wanted:
                return found
            wanted *= 2

    def exported(self) -> Iterator[Count]:
        """For CSV and JSON: the first --top in the order of a table, else all in the order of reading.

        --recount without --top sorts all of them in memory.
        """
        if self.top is not None:
            yield from self.first(self.top)
        elif self.recount:
            yield from sorted(self.all(), key=priority, reverse=True)
        else:
            yield from self.all()

    def explain_nothing(self) -> str:
        """The reason why nothing was found. Raises CliError for a named site or bin that has no photograph."""
        if self.recount and self.read:
            return f"None of the {self.read} counts has a record. Load records: bintally records load FILE"
        if self.retake and self.read:
            return f"None of the {self.read} counts needs a new photograph."
        if self.rejected:
            return "No photograph was rejected" + (f" at site {self.site}" if self.site is not None else "")
        known = sites(self.s3, self.bucket)
        keys = set(map(encode_id, known))
        uploaded = "Sites with photographs: " + ", ".join(known) if known else "No photographs have been uploaded yet"
        if self.bin is not None:
            site = self.site_of_bin
            also = f"See its bins: bintally counts --site {site}" if encode_id(site) in keys else uploaded
            raise CliError(f"site {site} has no count of bin {self.bin}. {also}")
        if self.site is not None and encode_id(self.site) not in keys:
            raise CliError(f"site {self.site} does not exist. {uploaded}")
        if known:
            place = f"site {self.site}" if self.site is not None else f"{len(known)} sites"
            return f"Photographs of {place} are uploaded, but none is counted yet. See: bintally status"
        return "No counts yet. Upload photographs with: bintally upload PATH"


@click.command()
@click.option("--site", help="Only the bins of this site.")
@click.option("--bin", "bin_", help='One bin\'s history, with rejected photographs. Of site "default" without --site.')
@click.option("--recount", is_flag=True, help="Only bins with a record; the record most likely wrong comes first.")
@click.option("--rejected", is_flag=True, help="Rejected photographs, also those whose key names no bin; newest first.")
@click.option("--retake", is_flag=True, help="Only bins that need a new photograph, and why.")
@click.option(
    "--top", type=click.IntRange(1), metavar="N", help=f"Only the first N.  [default: {ROWS} in a table, else all]"
)
@click.option(
    "--csv", "csv_file", type=click.Path(dir_okay=False, allow_dash=True), help="Write a CSV file; - is stdout."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
@click.option("--watch", is_flag=True, help="Show new counts as they arrive, until Ctrl-C.")
def command(
    site: str | None,
    bin_: str | None,
    recount: bool,
    rejected: bool,
    retake: bool,
    top: int | None,
    csv_file: str | None,
    as_json: bool,
    watch: bool,
) -> None:
    """Show the newest count of every bin, the latest photograph first.

    "Record right" is the probability that the inventory record is right. Recount bins first where it is low:
    --recount puts those first that most probably have a wrong record, or the greatest value at stake if records have
    values, leaves out (in a table, and with --top) what people have recounted, and says how many wrong records to
    expect. Where the photograph speaks against the record, the line is yellow.

    A photograph that is dark, blurred, colourless or flat (the model has no clear answer) is counted, but its count
    says little. --retake lists the bins that need a new one, with the reason, and those for which a person who was to
    recount them has asked for one; for that it makes a request for each bin with a record.

    --csv and --json contain the photograph's address (s3://…) and, without --top, every bin, sorted by site and bin.
    A table shows the address if the terminal is wide enough.
    """
    if sum((csv_file is not None, as_json, watch)) > 1:
        raise CliError("--csv, --json and --watch exclude each other. Give one of them", USAGE)
    if recount and bin_ is not None:
        raise CliError("--recount sorts all bins and excludes --bin. Leave out one of them", USAGE)
    if retake and bin_ is not None:
        raise CliError("--retake lists all bins and excludes --bin. Leave out one of them", USAGE)
    if sum((recount, rejected, retake)) > 1:
        raise CliError("--recount, --rejected and --retake exclude each other. Give one of them", USAGE)
    reading = Reading(chosen(), site, bin_, recount, top, rejected, retake)
    try:
        if csv_file is not None:
            export(csv_file, lambda file: write_csv(file, reading.exported()))
            if reading.chosen and csv_file != "-":
                click.echo(
                    f"{reading.chosen if top is None else min(top, reading.chosen)} counts written to {csv_file}"
                )
        elif as_json:
            write_json(click.get_text_stream("stdout"), reading.exported())
        elif watch:
            show_for_ever(reading)
            return
        else:
            show(reading)
    except KeyboardInterrupt:
        return
    if not reading.chosen:
        click.echo(reading.explain_nothing(), err=csv_file is not None or as_json)


def newest(count: Count) -> tuple[str, str]:
    return count["captured_at"], count["bin"]


def uploaded(count: Count) -> tuple[str, str]:
    return count["uploaded_at"], count["image"]["key"]


def priority(count: Count) -> Any:
    """The number of wrong records that a recount finds on average, or their value."""
    return count["priority"]


# Output


def title_of(reading: Reading) -> str:
    place = "All sites" if reading.site is None else f"Site {reading.site}"
    if reading.bin is not None:
        place = f"Bin {reading.bin}, site {reading.site_of_bin}"
    if reading.retake:
        return f"{place}, bins that need a new photograph"
    return place + (", bins to recount first" if reading.recount else ", rejected" if reading.rejected else "")


def names_of(reading: Reading, console: Console) -> tuple[str, ...]:
    names: tuple[str, ...] = LATEST_NAMES if reading.bin is None else HISTORY_NAMES
    if reading.retake:
        names = (*names[:-2], "New photograph")
    return (*names, "Address") if console.width >= WIDE else names


def show(reading: Reading) -> None:
    console = Console(highlight=False)
    counts = reading.first(reading.top or ROWS)
    if not counts:
        return
    if reading.rejected:
        console.print(table_of_rejected(counts, title_of(reading)))
    else:
        console.print(table_of(counts, title_of(reading), names_of(reading, console)))
    if reading.recount:
        scores = {site: promises.scores_of(reading.table, site) for site in sorted({each["site"] for each in counts})}
        for sentence in promises.sentences(counts, scores):
            console.print(sentence)
    if reading.bin is not None and len(counts) == (reading.top or ROWS):
        console.print(f"The newest {len(counts)}. Show more with --top N, or all with --csv FILE.")
    elif len(counts) < reading.chosen:
        what = "rejected photographs" if reading.rejected else "bins"
        console.print(f"{len(counts)} of {reading.chosen} {what}. Show more with --top N, or all with --csv FILE.")


def show_for_ever(reading: Reading) -> None:
    console = Console(highlight=False)
    title, names = f"{title_of(reading)} (Ctrl-C ends)", names_of(reading, console)
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            rows = min(reading.top or ROWS, max(1, console.height - 4))
            counts = reading.first(rows)
            live.update(
                table_of_rejected(counts, title) if reading.rejected else table_of(counts, title, names), refresh=True
            )
            time.sleep(REFRESH_SECONDS)


def export(path: str, write: Callable[[IO[str]], None]) -> None:
    """Writes the file completely or not at all; `-` is stdout."""
    try:
        with click.open_file(path, "w", encoding="utf-8", atomic=path != "-") as file:
            write(file)
    except BrokenPipeError:
        raise  # the reader has closed the pipe; click exits quietly
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror}") from error


def write_csv(file: IO[str], counts: Iterable[Count]) -> None:
    sheet = csv.DictWriter(file, CSV_FIELDS, lineterminator="\n")
    sheet.writeheader()
    for count in counts:
        sheet.writerow(csv_row(count))


def write_json(file: IO[str], counts: Iterable[Count]) -> None:
    """Writes one list, count by count."""
    before = "["
    for count in counts:
        item = plain(count) | {"photograph": address(count)}
        file.write(f"{before}\n{json.dumps(item, indent=2, sort_keys=True, ensure_ascii=False)}")
        before = ","
    file.write("[]\n" if before == "[" else "\n]\n")
