"""`bintally people remove`: ends a person's access."""

import click

from cli.people import people


@click.command()
@click.argument("name")
def command(name: str) -> None:
    """Remove a person. What they counted stays; who is signed in can go on for up to 15 minutes."""
    people().remove(name)
    click.echo(f"{name} can no longer sign in.")
