"""`bintally model compare`: two versions of the model on the same labelled photographs."""

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from cli.comparing import Compared, counted_here, labelled, newest_test_set, stored
from cli.stacks import chosen
from training.verdict import comparison
from training.verdict.card import NAMES
from training.verdict.comparison import FEWEST_BINS

VIEWS = {"as_shipped": "As shipped", "as_published": "As published"}


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option(
    "--photographs",
    "folder",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Count these photographs, with a labels.csv as `upload` takes it.  [default: the test set of a retraining]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(first: str, second: str, folder: Path | None, as_json: bool) -> None:
    """Compare version B of the model with version A on the same test photographs, photograph by photograph.

    If retrainings have compared them on one test set, their stored answers are used. Otherwise both packages count the
    newest retraining's test photographs on this machine, some hundred a second and core. With --photographs, choose
    photographs that neither version was trained on: a model is better on those that it knows.

    The figures and their intervals are those of the retraining's report. A positive difference is an advantage of B.
    """
    if first == second:
        raise click.UsageError("A and B are the same version")
    stack = chosen()
    messages = Console(highlight=False, stderr=True)
    if folder:
        found = counted_here(stack, first, second, labelled(folder), f"photographs of {folder}", messages)
    else:
        found = stored(stack, first, second) or count_test_set(stack, first, second, messages)
    figures = comparison.compare(found.seen, first, second)
    bins = len(np.unique(found.seen.groups))
    if as_json:
        click.echo(json.dumps(as_object(found, figures, bins), indent=2))
        return
    console = Console(highlight=False)
    number = f"{len(found.seen.ids):,} photographs of {bins:,} bins: the {found.photographs}, {found.answered}."
    console.print(f"A is {first}, B is {second}. {number}", soft_wrap=True, markup=False)
    if found.unread:
        console.print(f"{found.unread} more photographs cannot be read.")
    for table in (*(table_of(figures, view) for view in VIEWS), groups_of(figures)):
        console.print()
        console.print(table)
    console.print()
    console.print(conclusion(figures["paired"]["rps"], bins), soft_wrap=True)


def count_test_set(stack: Any, first: str, second: str, messages: Console) -> Compared:
    run, tests = newest_test_set(stack)
    return counted_here(stack, first, second, tests, f"test photographs of run {run}", messages)


def as_object(found: Compared, figures: dict[str, Any], bins: int) -> dict[str, Any]:
    """A and B as `a` and `b`; otherwise as in evaluation.json (training/verdict/evaluation.schema.json)."""
    test_set = {"photographs": len(found.seen.ids), "bins": bins, "unread": found.unread}
    named = {"a": figures["champion"], "b": figures["challenger"]}
    more = {name: figures[name] for name in ("constant", "paired", "groups")}
    return {"source": f"{found.photographs}, {found.answered}", "test_set": test_set, **named, **more}


def table_of(figures: dict[str, Any], view: str) -> Table:
    """A row for each figure of a view, with the paired difference where there is one."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    table.add_column(VIEWS[view], no_wrap=True)
    for name in ("A", "B", *(("Difference", "95 % interval") if view == "as_shipped" else ())):
        table.add_column(name, justify="right", no_wrap=True)
    a, b = figures["champion"][view], figures["challenger"][view]
    for name, label in NAMES.items():
        if name not in a:
            continue
        label = label.split(" (")[0].replace(", bins recorded at 0 to 5", ", of 0 to 5")
        cells = [label, figure(name, a[name]), figure(name, b[name])]
        if view == "as_shipped" and (pair := figures["paired"].get(name)):
            cells += [signed(pair["difference"]), f"{signed(pair['interval'][0])} to {signed(pair['interval'][1])}"]
        table.add_row(*cells)
    return table


def groups_of(figures: dict[str, Any]) -> Table:
    """The difference in ranked probability score by group of recorded counts, with simultaneous bounds."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    table.add_column("Recorded")
    for name in ("Photographs", "Bins", "Difference", "Lower bound", "Upper bound"):
        table.add_column(name, justify="right", no_wrap=True)
    for group in figures["groups"]:
        bounds = [signed(group[name]) for name in ("difference", "lower_bound", "upper_bound")]
        table.add_row(group["name"], f"{group['photographs']:,}", f"{group['bins']:,}", *bounds)
    return table


def figure(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1%}" if name.startswith(("accuracy", "within")) else f"{value:.3f}"


def signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"


def conclusion(rps: dict[str, Any], bins: int) -> str:
    """What the difference in ranked probability score shows."""
    if bins < FEWEST_BINS:
        return f"These are {bins} bins: too few to show a difference."
    low, high = rps["interval"]
    gain = f"ranked probability score {signed(rps['difference'])}, 95 % interval {signed(low)} to {signed(high)}"
    if low > 0:
        return f"[bold]B is better[/]: {gain}."
    if high < 0:
        return f"[bold]A is better[/]: {gain}."
    return f"Neither is shown to be better: {gain}."
