"""What `stack deploy` and `stack destroy` share: the stack in an account, and the dry run."""

import click
from bintally.retraining.names import LONGEST_STACK_NAME

from cli.errors import USAGE, CliError
from cli.stacks import choice
from deployed.rehearsal import Rehearsal
from deployed.target import Target
from local.stack import REPOSITORY, Local

DRY_RUN = click.option(
    "--dry-run",
    is_flag=True,
    help="Print every call to AWS and every command; change nothing.",
)
PACKAGE = Local.package
FOLDER, LOGS = REPOSITORY, REPOSITORY / ".runs" / "deploy"


def target(dry_run: bool) -> Target:
    """The stack that --stack names, which need not exist. Raises CliError for a name that it cannot have."""
    wanted = choice()
    if wanted.name is None:
        raise CliError("this is for a stack on AWS. Name it: bintally --stack NAME --region REGION …", USAGE)
    name = wanted.name
    if not (name.isascii() and name.islower() and name.replace("-", "").isalnum() and name[0].isalpha()):
        # SageMaker's ARNs are in lower case, and the template's policies name them by the stack's name.
        raise CliError(f"{name} is no name of a stack: lower-case letters, digits and hyphens, a letter first", USAGE)
    if len(name) > LONGEST_STACK_NAME:
        raise CliError(
            f"the name {name} has {len(name)} characters. Retraining takes at most {LONGEST_STACK_NAME}, since a "
            "tuning job's name has at most 32. Choose a shorter one",
            USAGE,
        )
    rehearsal = Rehearsal(click.echo) if dry_run else None
    return Target(name, wanted.profile, wanted.region, package=PACKAGE, rehearsal=rehearsal)


def variables(stack: Target) -> dict[str, str]:
    """With these, other programs use the account and region of this command."""
    region = str(stack.session().region_name)
    profile = {"AWS_PROFILE": stack.profile} if stack.profile else {}
    return {"AWS_REGION": region, "AWS_DEFAULT_REGION": region} | profile
