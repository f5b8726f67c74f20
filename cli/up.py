"""`bintally up`: from nothing to a stack that counts photographs."""

import signal
from types import FrameType

import click
from rich.console import Console

from local.stack import Stack


def interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@click.command()
def command() -> None:
    """Start AWS on this machine, deploy the stack and release the shipped model.

    Running it again redeploys. Interrupted, it leaves nothing running that it started.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    stack = Stack.from_environment()
    console = Console()
    with console.status("Starting") as status:
        stack.up(lambda step: status.update(step))
    console.print(f"Stack [bold]{stack.name}[/] runs at {stack.endpoint_url}")
    for name, value in stack.outputs().items():
        console.print(f"  {name:<26}{value}", highlight=False)
    console.print('Use it with any AWS client after: eval "$(bintally env)"', highlight=False)
