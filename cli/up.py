"""`bintally up`: starts the local stack and releases the shipped model."""

import signal
from dataclasses import replace
from types import FrameType
from zoneinfo import available_timezones

import click
from rich.console import Console

from cli.progress import steps
from cli.stacks import on_this_machine
from local.stack import Local


def interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def start(stack: Local, console: Console) -> None:
    """Runs `stack.up`; shows each step while it runs and, with its seconds, when it is done."""
    with steps(console) as say:
        stack.up(say)


def known(context: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    if name is not None and name not in available_timezones():
        raise click.BadParameter(f"{name} is no IANA time zone; Europe/Berlin, America/New_York and UTC are")
    return name


@click.command()
@click.option(
    "--timezone",
    metavar="NAME",
    callback=known,
    help="Zone of times that name none, such as Europe/Berlin. Kept until another is given.  [default: UTC]",
)
def command(timezone: str | None) -> None:
    """Start AWS on this machine, deploy the stack and release the shipped model.

    Run it again to redeploy. When interrupted, it stops everything that it started.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    stack = on_this_machine()
    if timezone:
        stack = replace(stack, parameters=(*stack.parameters, f"SiteTimezone={timezone}"))
    start(stack, Console(stderr=True))
    click.echo(f"Stack {stack.name} runs at {stack.endpoint_url}")
    outputs = stack.outputs()
    width = max(map(len, outputs), default=0) + 2
    for name, value in outputs.items():
        click.echo(f"  {name:<{width}}{value}")
    click.echo('Use it with any AWS client after: eval "$(bintally env)"')
