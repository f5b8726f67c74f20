"""`bintally stack adopt`: a new stack of the data that a lost one has left."""

import click
from rich.console import Console

from cli.progress import steps
from cli.targets import DRY_RUN, FOLDER, target
from deployed import adopting


@click.command()
@click.option("--images-bucket", "ImagesBucket", metavar="NAME", help="Bucket of photographs and records.")
@click.option("--artifacts-bucket", "ArtifactsBucket", metavar="NAME", help="Bucket of labels, models and reports.")
@click.option("--table", "CountsTable", metavar="NAME", help="Table of counts, or one restored to a point in time.")
@click.option("--user-pool", "UserPool", metavar="ID", help="User pool of the people who sign in.")
@click.option("--role", metavar="ARN", help="Role as which CloudFormation acts.  [default: your own rights]")
@DRY_RUN
def command(role: str | None, dry_run: bool, **given: str | None) -> None:
    """Make a new stack from the data of a deleted one.

    Without names it takes the buckets, the table and the user pool of the last deleted stack of this name.
    CloudFormation knows them for 90 days. The new stack has only these. Deploy it, and it counts again.
    """
    stack = target(dry_run)
    names = adopting.choose(stack, given)
    click.echo("\n".join(["Adopts:", *(f"  {logical} {name}" for logical, name in names.items())]))
    if "UserPool" not in names:
        click.echo("Adopts no user pool: add people again after the deployment, with bintally people add.")
    if dry_run:
        adopting.adopt(stack, names, FOLDER, role)
        click.echo("Nothing was changed.")
        return
    with steps(Console(stderr=True)) as say:
        say(f"Importing into stack {stack.name}")
        adopting.adopt(stack, names, FOLDER, role)
    click.echo(
        f"Stack {stack.name} has its data, and nothing else yet. Next: bintally --stack {stack.name} stack deploy"
    )
