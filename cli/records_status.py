"""`bintally records status`: shows what the newest files of inventory records gave."""

import json

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.errors import CliError
from cli.records import Summary, newest, outcome, show
from cli.stacks import chosen

ROWS = 20


@click.command()
@click.argument("file", required=False)
@click.option("--top", type=click.IntRange(1), default=ROWS, show_default=True, metavar="N", help="The newest N files.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def command(file: str | None, top: int, as_json: bool) -> None:
    """Show what the newest files of inventory records gave; with FILE, a part of a key, one file row by row."""
    stack, console = chosen(), Console(highlight=False)
    s3, artifacts = stack.client("s3"), stack.outputs()["ArtifactsBucket"]
    found = list(newest(s3, artifacts, 1 if file and not as_json else top, file or ""))
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif file:
        if not found:
            raise CliError(f"no file whose key contains {file} has been read. See: bintally records status")
        show(console, s3, found[0], found[0]["file"]["key"])
    elif not found:
        click.echo("No files have been read yet. Load one with: bintally records load FILE")
    else:
        console.print(table_of(found))


def table_of(found: list[Summary]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("Uploaded (UTC)", "File", "Gave"):
        table.add_column(name, no_wrap=name != "Gave", overflow="ellipsis" if name == "File" else "fold")
    for one in found:
        reason = f": {one['faults'][0]['reason']}" if one["faults"] else ""
        at = one["uploaded_at"][:16].replace("T", " ")
        table.add_row(
            at,
            Text(one["file"]["key"].removeprefix("records/")),
            Text(outcome(one) + reason),
            style="" if one["kept"] else "red",
        )
    return table
