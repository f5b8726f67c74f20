"""`bintally stack destroy`: removes a stack from an AWS account."""

import sys
from collections import Counter
from collections.abc import Iterator

import click
from rich.console import Console

from cli.errors import NOT_RUNNING, USAGE, CliError
from cli.progress import noting, steps
from cli.targets import DRY_RUN, target
from deployed import destroying
from deployed.destroying import Found
from deployed.kept import GROUP, KEPT
from deployed.target import Target


@click.command()
@click.option("--keep-data", "data", flag_value="keep", help="Keep photographs, counts and people.")
@click.option("--delete-data", "data", flag_value="delete", help="Delete photographs, counts and people, for ever.")
@click.option("--images", is_flag=True, help="Delete the repositories of the two images too.")
@DRY_RUN
def command(data: str | None, images: bool, dry_run: bool) -> None:
    """Remove a stack from your AWS account, and say what is left.

    It lists what it removes and what it keeps, stops retrainings and releases, deletes the stack, and then what the
    stack made: endpoints, models, jobs, logs, code. Buckets, table and user pool are kept, unless you type the stack's
    name when asked, or give --delete-data. Without a terminal give --keep-data or --delete-data.
    Run it again after a failure, or to delete what was kept: it finds what is left.
    """
    stack = target(dry_run)
    found = destroying.find(stack)
    if found is None:
        raise CliError(f"there is no stack {stack.name} in {stack.session().region_name}", NOT_RUNNING)
    kept = list(destroying.what_is_kept(stack, found))
    click.echo("\n".join(listed(stack, found, kept, data, images)))
    delete = data == "delete" if data or not kept else asked(stack)
    if dry_run:
        destroying.destroy(stack, found, data=delete, images=images, say=click.echo, note=lambda line: None)
        click.echo("Nothing was changed.")
        return
    with steps(console := Console(stderr=True)) as say:
        destroying.destroy(stack, found, data=delete, images=images, say=say, note=noting(console))
    data_left, images_left = list(destroying.what_is_kept(stack, found)), list(destroying.images_left(stack))
    if not data_left + images_left:
        click.echo("Nothing is left.")
        return
    click.echo("\n".join(["Kept, and still costs:", *(f"  {line}" for line in data_left + images_left)]))
    options = "--delete-data" * bool(data_left) + " --images" * bool(images_left)
    click.echo(f"Delete it with: bintally --stack {stack.name} stack destroy {options.strip()}")


def listed(stack: Target, found: Found, kept: list[str], data: str | None, images: bool) -> Iterator[str]:
    """What will be removed, and what not."""
    yield "Removes:"
    if found.stack_id:
        kinds = Counter(kind.split("::")[1] for kind, _ in found.resources.values() if kind not in (*KEPT, GROUP))
        yield f"  stack {stack.name}: {', '.join(f'{number} of {kind}' for kind, number in kinds.most_common())}"
    yield "  endpoints, models, versions in the registry, running jobs, logs and code of the stack"
    if images:
        yield "  the repositories of the two images, unless another stack uses them"
    elif repositories := list(destroying.images_left(stack)):
        yield "Keeps, unless you give --images:"
        yield from (f"  {line}" for line in repositories)
    if kept:
        yield {"delete": "Removes for ever:", "keep": "Keeps:"}.get(data or "", "Keeps, unless you say otherwise:")
        yield from (f"  {line}" for line in kept)


def asked(stack: Target) -> bool:
    """Whether the person wants to lose photographs, counts and people. Raises CliError without a terminal."""
    if not sys.stdin.isatty():
        raise CliError("say what becomes of photographs, counts and people: --keep-data or --delete-data", USAGE)
    question = f"Type {stack.name} to delete these for ever, or press Enter to keep them"
    answer = click.prompt(question, default="", show_default=False)
    if answer and answer != stack.name:
        raise CliError(f"{answer} is not {stack.name}. Nothing was removed")
    return bool(answer)
