"""`bintally retrain start`: starts a retraining by hand and optionally watches it."""

from contextlib import suppress
from typing import Any

import click
from bintally.retraining.names import Refused, checked
from rich.console import Console

from cli.errors import CliError
from cli.retraining import follow, running, start, wait_live
from cli.stacks import chosen
from deployed.errors import Denied


@click.command()
@click.option("--force", is_flag=True, help="Retrain even with few new labels.")
@click.option("--approve", is_flag=True, help="Release the new model if it wins, without a person's approval.")
@click.option("--watch", is_flag=True, help="Show each step until the end.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="For this run: epochs, sizes, trials, parallel, instances, start (champion or scratch), learning_rate, "
    "batch_size, calibration_photographs, seed.",
)
def command(force: bool, approve: bool, watch: bool, settings: tuple[str, ...]) -> None:
    """Start a retraining on the new labels, as the schedule does.

    The new model replaces the live one only if it beats it on test bins. With --watch the command exits 1 when the run
    fails; a challenger that does not win is not a failure.
    """
    request = {"reason": "by hand", "force": force, "approve": approve, "settings": parsed(settings)}
    stack, console = chosen(), Console(highlight=False)
    before = None
    with suppress(Denied):  # who may start one need not see the others
        before = running(stack)
    if before:
        raise CliError(f"a retraining runs already: {before.rpartition(':')[2]}. Stop it with: bintally retrain stop")
    execution = start(stack, request)
    if not watch:
        console.print(f"Started {execution}", soft_wrap=True)
        return
    ended = follow(stack, execution, console)
    if ended.get("approval") == "Approved":
        wait_live(stack, ended["model_version"], console)


def parsed(settings: tuple[str, ...]) -> dict[str, Any]:
    """Raises UsageError for a setting that is not NAME=VALUE, given twice, or that `plan` would refuse."""
    given: dict[str, str] = {}
    for setting in settings:
        name, equals, value = (part.strip() for part in setting.partition("="))
        if not equals:
            raise click.UsageError(f"--set takes NAME=VALUE, not {setting}")
        if name in given:
            raise click.UsageError(f"--set {name} is given twice, as {given[name]} and {value}")
        given[name] = value
    try:
        return checked(given)
    except Refused as error:
        raise click.UsageError(f"--set: {error}") from error
