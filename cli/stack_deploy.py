"""`bintally stack deploy`: deploys a stack to an AWS account, or updates it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from cli.errors import CliError
from cli.photographs import Photograph, send
from cli.progress import noting, steps
from cli.readings import counted, table_of
from cli.targets import DRY_RUN, FOLDER, LOGS, target, variables
from deployed import deploying
from deployed.deploying import Wanted
from deployed.shell import Rehearsing, Shell
from deployed.target import Target

PATIENCE_SECONDS = 600.0
"""A serverless endpoint that has just been made answers its first request after a minute or two."""
SAMPLE = Photograph(FOLDER / "samples" / "SEA1" / "P-3-A226" / "20260914T084000Z.jpg", "DEPLOYED", "SAMPLE", None)


def setting(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> dict[str, str]:
    if wrong := [word for word in words if "=" not in word]:
        raise click.BadParameter(f"{wrong[0]} is not Name=value")
    return dict(word.split("=", 1) for word in words)


@click.command()
@click.option(
    "--environment",
    type=click.Choice(list(deploying.sections(FOLDER))),
    default="default",
    show_default=True,
    help="Section of samconfig.toml.",
)
@click.option("--email", metavar="ADDRESS", help="Subscribe this address to alerts.")
@click.option("--set", "parameters", metavar="NAME=VALUE", multiple=True, callback=setting, help="Template parameter.")
@click.option("--role", metavar="ARN", help="Role as which CloudFormation acts.  [default: your own rights]")
@click.option("--serving-image", metavar="ADDRESS", help="Use this image, and build none.")
@click.option("--training-image", metavar="ADDRESS", help="Use this image, and build none.")
@click.option(
    "--built",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Deploy this template, which sam build has made.",
)
@DRY_RUN
def command(environment: str, email: str | None, parameters: dict[str, str], dry_run: bool, **given: Any) -> None:
    """Deploy a stack to your AWS account, or update it.

    It checks the account, builds and pushes the two images unless ECR has them, deploys the template, subscribes an
    address to alerts, releases the shipped model, and counts one sample photograph. Run it again after a failure: it
    finds what is done, and goes on.
    """
    wanted = Wanted(FOLDER, environment, parameters, email, **given)
    stack = target(dry_run)
    shell = Shell(FOLDER, LOGS / stack.name, variables(stack))
    if dry_run:
        rehearsing = Rehearsing(shell.folder, shell.logs, shell.variables, click.echo)
        count_a_sample(deploying.deploy(stack, wanted, rehearsing, click.echo, click.echo), click.echo)
        click.echo("Nothing was changed.")
        return
    with steps(console := Console(stderr=True)) as say:
        stack = deploying.deploy(stack, wanted, shell, say, noting(console))
        found = count_a_sample(stack, say)
    Console(highlight=False).print(table_of(found, "A sample photograph", ("Bin", "Photograph", "Count", "Confidence")))
    click.echo(f"Stack {stack.name} is deployed in {stack.session().region_name}.")
    click.echo(f"The web page: {stack.outputs()['ApiUrl']}")


def count_a_sample(stack: Target, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Uploads one rendered photograph as bin SAMPLE of the site DEPLOYED, and waits for its count."""
    say("Counting a sample photograph")
    outputs = stack.outputs()
    table = stack.counts_table()
    uploads = send(stack.client("s3"), outputs["ImagesBucket"], [SAMPLE], lambda: None)
    found = [count for _, count in counted(table, uploads, 0.1 if stack.rehearsal else PATIENCE_SECONDS)]
    if not found and not stack.rehearsal:
        raise CliError(
            f"the sample photograph has no count after {PATIENCE_SECONDS:.0f} s. Look at the alarms and at the count "
            f"function's log: docs/operations.md#when-an-alarm-fires"
        )
    return found
