"""`bintally retrain stop`: stops the running retraining."""

import click

from cli.errors import CliError
from cli.retraining import running
from cli.stacks import chosen


@click.command()
@click.option("--why", metavar="TEXT", default="stopped by hand", help="Reason, stored with the run.")
def command(why: str) -> None:
    """Stop the running retraining.

    Its jobs are stopped and its lock is released. The live model stays, and the labels stay new for the next run.
    """
    stack = chosen()
    execution = running(stack)
    if execution is None:
        raise CliError("no retraining runs. See: bintally retrain runs")
    stack.client("stepfunctions").stop_execution(executionArn=execution, error="Stopped", cause=why)
    click.echo(f"Stopped {execution}. Its jobs end within a minute; see: bintally retrain runs")
