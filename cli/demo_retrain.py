"""`bintally demo-retrain`: retrains on rendered, labelled photographs and deploys the new model, on this machine."""

import json
import signal
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli import retraining
from cli.demo import ready_stack
from cli.errors import PACKAGE_MISSING, CliError
from cli.photographs import Photograph, send
from cli.readings import Count, counted
from cli.up import interrupt
from deployed.stack import Deployed
from local.stack import REPOSITORY, Local

SITE = "DEMO1"
PATIENCE_SECONDS = 300.0
SIZE = (320, 240)
WIDTH, HEIGHT = 224, 168
"""Of the bin in a photograph of SIZE: the camera hangs farther away than the model has ever seen one."""
AROUND = (60, 58, 56)
SETTINGS = {"epochs": 3, "sizes": "128", "trials": 2, "parallel": 1, "calibration_photographs": 64}
"""Small, for two cores; the stack's own defaults are for real data. Not at 64 pixels, where a step costs a quarter:
training the champion's weights at that size makes the answers at the served size worse."""
LABELS_SECONDS = 120.0
LOG = "labels/"


@click.command("demo-retrain")
@click.option("--photographs", default=600, show_default=True, type=click.IntRange(100), help="Photographs to render.")
def command(photographs: int) -> None:
    """Render labelled photographs of a site that the model has never seen, count them, retrain, count others.

    The site stocks one product, and its camera hangs farther away than the shipped model has ever seen one: a few
    hundred photographs are enough to learn both. The new model must beat the live one on test bins to go live;
    otherwise the live model stays. Starts the stack if it does not run, and leaves it running.
    """
    if not (REPOSITORY / ".venv-train" / "bin" / "python").exists():
        raise CliError("retraining needs the training environment. Install it with: make train-venv", PACKAGE_MISSING)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    console = Console(highlight=False)
    stack = ready_stack(console)
    if execution := retraining.running(stack):
        name = execution.rpartition(":")[2]
        raise CliError(f"retraining {name} is running. Wait for its version in: bintally model list")
    rendered = render(REPOSITORY / ".data" / "far-away", photographs, console)
    before = count(stack, rendered, console)
    console.print(f"The live model counts {share_right(before):.0%} of them as recorded.")
    wait_labels(stack, before, console)
    execution = retraining.start(
        stack, {"reason": "by hand", "force": True, "approve": True, "settings": dict(SETTINGS)}
    )
    ended = retraining.follow(stack, execution, console)
    show_report(stack, ended["run"], console)
    if ended["outcome"] == "not better":  # a verdict, which a few dozen test bins may end in
        console.print(
            "The live model stays: the new one is not shown to be better overall and nowhere worse. More test bins show"
            f" more: bintally demo-retrain --photographs {2 * photographs}"
        )
        return
    if ended["outcome"] != "registered":
        raise CliError("the challenger did not beat the live model, which stays")
    retraining.wait_live(stack, ended["model_version"], console)
    others = render(REPOSITORY / ".data" / "far-away-others", 60, console, seed=1_000_000)
    after = count(stack, others, console)
    versions = sorted({str(item["model_version"]) for item in after})
    console.print(
        f"Model {', '.join(versions)} counts {share_right(after):.0%} of {len(after)} new photographs as recorded."
    )


def render(folder: Path, number: int, console: Console, seed: int = 0) -> list[Photograph]:
    """A photograph of each bin, 0 to 9 items; those that exist are not rendered again."""
    wanted = [Rendered(folder, seed + index) for index in range(number)]
    missing = [each for each in wanted if not each.path.exists()]
    with bar(console) as progress, ProcessPoolExecutor() as pool:
        task = progress.add_task("Rendering", total=number, completed=number - len(missing))
        for _ in pool.map(Rendered.save, missing, chunksize=4):
            progress.advance(task)
    return [Photograph(each.path, SITE, each.bin, each.quantity) for each in wanted]


class Rendered:
    """One picture to render; its number determines everything in it."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.bin = f"R-{number:04d}"
        self.quantity = number * 7 % 10
        self.path = folder / self.bin / f"{number:06d}.jpg"

    def save(self) -> None:
        from PIL import Image

        from tools.synthetic import render as picture

        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        near = picture(self.number + 5000, self.quantity, SIZE, one_product=True)
        seen = Image.new("RGB", SIZE, AROUND)
        seen.paste(near.resize((WIDTH, HEIGHT)), ((SIZE[0] - WIDTH) // 2, (SIZE[1] - HEIGHT) // 2))
        seen.save(part, "JPEG", quality=85)
        part.replace(self.path)


def count(stack: Deployed, photographs: list[Photograph], console: Console) -> list[Count]:
    """Uploads them and waits for their counts. Raises CliError when some are missing."""
    outputs, table = stack.outputs(), stack.counts_table()
    with bar(console) as progress:
        sending = progress.add_task("Uploading", total=len(photographs))
        counting = progress.add_task("Counting", total=len(photographs))
        uploads = send(stack.client("s3"), outputs["ImagesBucket"], photographs, lambda: progress.advance(sending))
        found = []
        for _, item in counted(table, uploads, PATIENCE_SECONDS):
            found.append(item)
            progress.advance(counting)
    if len(found) < len(photographs):
        raise CliError(f"{len(photographs) - len(found)} photographs have no count{stack.hint}")
    return found


def wait_labels(stack: Deployed, counts: list[Count], console: Console) -> None:
    """Waits for the labels, which follow the counts through the stream. Raises CliError when some are missing."""
    s3, bucket = stack.client("s3"), stack.outputs()["ArtifactsBucket"]
    deadline = time.monotonic() + LABELS_SECONDS
    waiting = {str(count["image"]["version_id"]) for count in counts if count["status"] == "COUNTED"}
    seen: set[str] = set()
    with console.status("Waiting for the label log"):
        while True:
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=LOG):
                keys = {found["Key"] for found in page.get("Contents", ()) if found["Key"].endswith(".jsonl")}
                for key in keys - seen:
                    lines = s3.get_object(Bucket=bucket, Key=key)["Body"].read().splitlines()
                    waiting -= {json.loads(line)["image"]["version_id"] for line in lines}
                seen |= keys
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise CliError(f"{len(waiting)} photographs have no label yet. Try again with: bintally demo-retrain")
            time.sleep(0.5)


def show_report(stack: Deployed, run: str, console: Console) -> None:
    """Stores the evaluation's report next to the local stack's state, else here, and prints its path."""
    path = (stack.home if isinstance(stack, Local) else Path.cwd()) / f"report-{run}.html"
    key = f"retrain/{run}/evaluation/report.html"
    stack.client("s3").download_file(stack.outputs()["ArtifactsBucket"], key, str(path))
    console.print(f"Report: {path}", soft_wrap=True)


def share_right(items: Iterable[Count]) -> float:
    """The share of counts that agree with the record; six and more are one class."""
    found = [int(item["count"]) == min(6, int(item["recorded_quantity"])) for item in items]
    return sum(found) / len(found)


def bar(console: Console) -> Any:
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)
