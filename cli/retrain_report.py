"""`bintally retrain report`: saves and opens the report of a retraining."""

import sys
from pathlib import Path

import click
from botocore.exceptions import ClientError
from rich.console import Console
from rich.markup import escape

from cli.errors import CliError
from cli.runs import Run, find
from cli.stacks import chosen
from deployed.stack import Deployed


@click.command()
@click.argument("run", metavar="[RUN|VERSION]", required=False)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to save the report in.  [default: report-RUN.html]",
)
@click.option("--no-open", is_flag=True, help="Save the report without opening it in a browser.")
def command(run: str | None, output: Path | None, no_open: bool) -> None:
    """Show the verdict of a retraining, save its report, and open it in a browser.

    RUN is the name of a retraining, VERSION the model that it trained, also one that did not win.
    Without either it is the newest retraining that trained a model.
    """
    stack = chosen()
    found = find(stack, run)
    page = page_of(stack, found)
    file = output or Path(f"report-{found.run}.html")
    try:
        file.write_bytes(page)
    except OSError as error:
        raise CliError(f"cannot write {file}: {error.strerror}") from error
    console = Console(highlight=False)
    console.print(f"Run {found.run}: [bold]{found.outcome}[/]. {escape(found.reason)}", soft_wrap=True)
    console.print(f"Report: {escape(str(file.resolve()))}", soft_wrap=True)
    if not no_open and sys.stdout.isatty():
        click.launch(str(file.resolve()))


def page_of(stack: Deployed, run: Run) -> bytes:
    """The page. Raises CliError when the run has left none."""
    bucket, key = stack.outputs()["ArtifactsBucket"], f"retrain/{run.run}/evaluation/report.html"
    try:
        page: bytes = stack.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchKey":
            raise
        why = "it still runs" if run.outcome == "running" else run.reason or run.outcome
        raise CliError(f"run {run.run} has no report: {why}") from error
    return page
