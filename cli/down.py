"""`bintally down`: stops the stack and all its processes."""

import click

from cli.stacks import on_this_machine


@click.command()
@click.option("--wipe", is_flag=True, help="Also remove the stack's state, logs and builds.")
def command(wipe: bool) -> None:
    """Stop the local stack. Its state is kept unless --wipe is given."""
    stack = on_this_machine()
    was_running = stack.down()
    if wipe:
        stack.wipe()
    click.echo("stopped" if was_running else "nothing was running")
