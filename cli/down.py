"""`bintally down`: stops the stack and all its processes."""

import click

from cli.stacks import on_this_machine


@click.command()
@click.option("--wipe", is_flag=True, help="Also remove the stack's state, logs and builds.")
@click.option("--discard", is_flag=True, help="Stop even if the state cannot be saved; keep items and the last state.")
def command(wipe: bool, discard: bool) -> None:
    """Save the local stack's state and stop it. Its state is kept unless --wipe is given.

    If the state cannot be saved, the stack keeps running and the command fails.
    """
    stack = on_this_machine()
    was_running = stack.down(discard=discard or wipe)
    if wipe:
        stack.wipe()
    click.echo("stopped" if was_running else "nothing was running")
