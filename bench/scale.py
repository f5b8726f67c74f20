"""`bintally bench scale`: a site of a million bins, 100,000 records, a label log of ten million.

Each grows tenfold at a time: what a thousand of them cost should not, and memory should not either."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localsagemaker.ports import free_port
from rich.console import Console

from bench.common import Numbers, bare_table, json_of, progress_bar
from bench.labels import BUCKET, objects
from bench.people import made_table
from local.stack import Local

SIZES = {
    "follow": (10_000, 100_000, 1_000_000),
    "records": (1_000, 10_000, 100_000),
    "labels": (100_000, 1_000_000, 10_000_000),
}
LARGEST_NAMES = {"follow": "changes", "records": "rows", "labels": "labels"}


def measure_scale(console: Console, part: str, largest: int) -> Numbers:
    """{"rows"}: one for each size up to `largest`, in a process of its own, on an emulator of its own."""
    sizes = [size for size in SIZES[part] if size <= largest] or [largest]
    rows = []
    with progress_bar(console) as progress:
        task = progress.add_task(part.capitalize(), total=len(sizes))
        for size in sizes:
            with emulator() as stack:
                rows.append({"size": size} | loop(stack, part, size))
            progress.advance(task)
    return {"rows": rows}


@contextmanager
def emulator() -> Iterator[Local]:
    """One with the template's table and a bucket."""
    with tempfile.TemporaryDirectory() as home:
        stack = Local(home=Path(home) / "home", port=free_port(), variables={"BINTALLY_SNAPSHOT_SECONDS": "3600"})
        stack.start_emulator()
        try:
            stack.client("s3").create_bucket(Bucket=BUCKET)
            made_table(stack.client("dynamodb"))
            yield stack
        finally:
            stack.down(discard=True)


def loop(stack: Local, part: str, size: int) -> Numbers:
    if part == "labels":
        for key, body in objects(size):
            stack.client("s3").put_object(Bucket=BUCKET, Key=key, Body=body)
    command = [sys.executable, "-m", "bench.scale_loop", part, str(size)]
    return json_of(command, os.environ | stack.credentials())


def show_scale(console: Console, part: str, report: Numbers) -> None:
    columns = [name for name in report["rows"][0] if name != "size"]
    table = bare_table(f"{part.capitalize()}: what grows", LARGEST_NAMES[part], *columns)
    for row in report["rows"]:
        table.add_row(f"{row['size']:,}", *(shown(row[name]) for name in columns))
    console.print(table)


def shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"
