"""`bintally people reset`: gives a person a new temporary password."""

import click

from cli.people import people


@click.command()
@click.argument("name")
def command(name: str) -> None:
    """Give a person who forgot their password a temporary one, print it once, and end their sessions."""
    click.echo(f"The temporary password of {name}, shown only now: {people().reset(name)}")
