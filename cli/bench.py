"""`bintally bench`: measures serving, the whole path, the count function, retraining and recounts.

docs/benchmarks.md describes how each figure is measured.
"""

from pathlib import Path

import click
from rich.console import Console

import bench.page
import bench.people
import bench.ranking
import bench.retrain
import bench.scale
import bench.serving
import bench.stack
from bench.common import write
from cli.errors import PACKAGE_MISSING, USAGE, CliError
from cli.stacks import choice, on_this_machine
from local.stack import REPOSITORY

photographs_option = click.option(
    "--photographs",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=REPOSITORY / "samples",
    help="Folder of JPEGs to measure with (default: the repository's samples).",
)
json_option = click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="File for all measurements."
)


@click.group(invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """Measure serving, the whole path and the count function; all three when none is named.

    Measure on an idle machine. `way` and `function` measure the running stack, and `way` also one on AWS (--stack);
    `retrain`, `review` and `scale` start their own, and are measured only when they are named.
    """
    if choice().name is not None and context.invoked_subcommand != "way":
        raise CliError("only bench way measures a stack on AWS; the others measure this machine", USAGE)
    if context.invoked_subcommand is None:
        on_this_machine().require_running()
        for measure in (serving, way, function):
            context.invoke(measure)


@click.command()
@photographs_option
@click.option(
    "--package",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=REPOSITORY / "model" / "pretrained" / "model.tar.gz",
    help="The model package to serve (default: the shipped one).",
)
@click.option(
    "--eager-python",
    type=click.Path(dir_okay=False, path_type=Path),
    default=REPOSITORY / ".venv-train" / "bin" / "python",
    help="Python with torch, for the comparison (default: that of `make train-venv`).",
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.5), default=5.0, show_default=True, help="Each measurement lasts.")
@json_option
def serving(
    photographs: Path, package: Path, eager_python: Path, rounds: int, seconds: float, json_file: Path | None
) -> None:
    """Measure the serving app over HTTP, the same network in eager torch, and a loop without HTTP."""
    if not eager_python.exists():
        raise CliError(f"{eager_python} does not exist. Install it with: make train-venv", PACKAGE_MISSING)
    console = Console(highlight=False)
    report = bench.serving.measure(console, photographs, package, eager_python, rounds, seconds)
    bench.serving.show(console, report["summary"])
    write(json_file, "serving", report)


@click.command()
@photographs_option
@click.option(
    "--count", "burst", type=click.IntRange(1), default=2000, show_default=True, help="Photographs in the burst."
)
@click.option("--steady", type=click.IntRange(1), default=60, show_default=True, help="Photographs sent one a second.")
@json_option
def way(photographs: Path, burst: int, steady: int, json_file: Path | None) -> None:
    """Measure from S3 to the table on the running stack: a burst, then one photograph a second."""
    console = Console(highlight=False)
    report = bench.stack.measure_way(console, photographs, burst, steady)
    bench.stack.show_way(console, report)
    write(json_file, "way", report)
    if (once := report["burst"]["counted_once"]) != burst or report["burst"]["day_total"] != burst:
        raise CliError(f"{once} of {burst} photographs were counted once, the day total is wrong or short")


@click.command()
@photographs_option
@click.option("--count", type=click.IntRange(1), default=200, show_default=True, help="Photographs to count.")
@json_option
def function(photographs: Path, count: int, json_file: Path | None) -> None:
    """Measure the count function's import time, unzipped size and CPU time, and the endpoint's time."""
    console = Console(highlight=False)
    report = bench.stack.measure_function(console, photographs, count)
    bench.stack.show_function(console, report)
    write(json_file, "function", report)


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(bench.retrain.MEASUREMENTS)))
@photographs_option
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Except of `whole`.")
@click.option("--number", type=click.IntRange(50), help="Photographs that `whole` retrains on (default: all).")
@json_option
def retrain(parts: tuple[str, ...], photographs: Path, rounds: int, number: int | None, json_file: Path | None) -> None:
    """Measure the parts of a retraining run; all PARTS when none is named.

    `labels`, `redeploy` and `whole` start their own stack; `whole` needs a folder with images/ and a labels.csv.
    """
    console = Console(highlight=False)
    report = {}
    for part in parts or bench.retrain.MEASUREMENTS:
        measure, show = bench.retrain.MEASUREMENTS[part]
        report[part] = measure(console, photographs, rounds, **({"number": number} if part == "whole" else {}))
        show(console, report[part])
        write(json_file, "retrain", report)
    if failed := report.get("redeploy", {}).get("failed"):
        raise CliError(f"{failed} requests failed while models were redeployed")


REVIEW = ("ranking", "people", "queue", "page", "api")


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(REVIEW))
@click.option("--site", default="SEA1", show_default=True, help="Whose queue `api` asks.")
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), help="SVG of what `ranking` finds, by bins recounted."
)
@json_option
def review(parts: tuple[str, ...], site: str, picture: Path | None, json_file: Path | None) -> None:
    """Measure how soon recounts find wrong records, and the queue; all PARTS but `api` when none is named.

    `ranking` needs the shipped model's predictions alone; `people` and `queue` start their own emulator; `page` starts
    its own stack, and counts in Chromium; `api` measures the running stack, which needs a bin that waits for a recount:
    it counts that bin and undoes it, and the bin's trail keeps both.
    """
    console = Console(highlight=False)
    report = {}
    for part in parts or REVIEW[:-1]:
        if part == "ranking":
            report[part] = bench.ranking.measure_ranking(console)
            bench.ranking.show_ranking(console, report[part])
            if picture:
                picture.write_text(bench.ranking.picture(report[part]["curves"]))
        elif part == "people":
            report[part] = bench.people.measure_people(console)
            bench.people.show_people(console, report[part])
        elif part == "queue":
            report[part] = bench.people.measure_queue(console)
            bench.people.show_queue(console, report[part])
        elif part == "page":
            report[part] = bench.page.measure_page(console)
            bench.page.show_page(console, report[part])
        else:
            (stack := on_this_machine()).require_running()
            report[part] = bench.people.measure_api(console, stack, site)
            bench.people.show_api(console, report[part])
        write(json_file, "review", report)


@click.command()
@click.argument("part", required=False, type=click.Choice(list(bench.scale.SIZES)))
@click.option("--largest", type=click.IntRange(1), default=10**7, help="Leave out larger sizes.  [default: all]")
@json_option
def scale(part: str | None, largest: int, json_file: Path | None) -> None:
    """Measure how following, records and the label log grow: to a million bins, 100,000 records, ten million labels."""
    console, report = Console(highlight=False), {}
    for each in [part] if part else bench.scale.SIZES:
        report[each] = bench.scale.measure_scale(console, each, largest)
        bench.scale.show_scale(console, each, report[each])
        write(json_file, "scale", report)


for one in (serving, way, function, retrain, review, scale):
    command.add_command(one)
