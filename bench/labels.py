"""`bintally bench retrain labels`: how fast `plan` reads a label log, and its memory."""

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from localsagemaker.ports import free_port
from rich.console import Console

from bench.common import Numbers, bare_table, json_of, progress_bar
from cli.errors import CliError
from local.stack import Local

BUCKET = "artifacts"
LINES = 300_000
LINES_OF_OBJECT = 2_900
"""Counts with 2.1 kB each in a batch of 6 MB."""


def label(number: int) -> dict[str, Any]:
    """A line of the log as `follow` writes it, of a photograph of its own."""
    second = number % 86_400
    moment = f"2026-11-22T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.000000Z"
    key = f"incoming/SEA1/P-{number % 90}-{number:08}/20261122T100000Z.jpg"
    image = {"bucket": "bintally-imagesbucket-abcdefghijkl", "key": key, "version_id": f"{number:032x}"}
    return {
        **{"id": f"{number:032x}", "image": image, "site": "SEA1", "bin": f"P-{number % 90}-{number:08}"},
        **{"quantity": number % 7, "source": "record", "as_of": moment, "told": f"{moment}#{number:032x}"},
        **{"captured_at": moment, "logged_at": moment, "count": 3, "confidence": 0.614321, "p_record": 0.281234},
        "model_version": "2026-11-27-731e9eed",
    }


def objects(lines: int) -> Iterator[tuple[str, bytes]]:
    for place, first in enumerate(range(0, lines, LINES_OF_OBJECT)):
        body = "".join(json.dumps(label(number)) + "\n" for number in range(first, min(first + LINES_OF_OBJECT, lines)))
        yield f"labels/2026/11/22/{place:06}-{place:032x}.jsonl", body.encode()


def measure_labels(console: Console, photographs: Path, rounds: int) -> Numbers:
    """{"summary", "rows"}: LINES lines, each of its own photograph, in the S3 of an emulator of its own."""
    with tempfile.TemporaryDirectory() as home, progress_bar(console) as progress:
        stack = Local(home=Path(home) / "home", port=free_port())
        task = progress.add_task("Labels", total=rounds + 1)
        stack.start_emulator()
        try:
            s3 = stack.client("s3")
            s3.create_bucket(Bucket=BUCKET)
            for key, body in objects(LINES):
                s3.put_object(Bucket=BUCKET, Key=key, Body=body)
            progress.advance(task)
            rows = []
            for turn in range(rounds):
                command = [sys.executable, "-m", "bench.labels_loop", "--bucket", BUCKET, "--folder", f"retrain/{turn}"]
                rows.append(json_of(command, os.environ | stack.credentials()))
                progress.advance(task)
        finally:
            stack.down(discard=True)
    if any(row["labels"] != LINES for row in rows):
        raise CliError(f"{[row['labels'] for row in rows]} labels were read of {LINES}")
    return {"summary": summarise(rows), "rows": rows}


def summarise(rows: list[Numbers]) -> Numbers:
    """Medians over the rounds."""

    def median(part: str, name: str) -> float:
        return float(statistics.median(row[part][name] for row in rows))

    def speed(part: str) -> Numbers:
        return {
            "labels_per_second": LINES / median(part, "seconds"),
            "cpu_us": 1e6 * median(part, "cpu_s") / LINES,
        }

    memory = statistics.median(row["peak_memory_mb"] for row in rows)
    return {"read": speed("read"), "merge": speed("merge"), "slices": rows[0]["slices"], "peak_memory_mb": memory}


def show_labels(console: Console, report: Numbers) -> None:
    summary = report["summary"]
    table = bare_table("Label log", "", "labels/s", "CPU us a label")
    for name, part in (("read in slices", "read"), ("merged into a manifest", "merge")):
        table.add_row(name, f"{summary[part]['labels_per_second']:,.0f}", f"{summary[part]['cpu_us']:.1f}")
    console.print(table)
    console.print(
        f"{LINES:,} labels in {summary['slices']} slices; peak memory of the reader {summary['peak_memory_mb']:.0f} MB"
    )
