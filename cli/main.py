"""The `bintally` command. Every verb is a module of this folder with one click object named `command`, imported only
when it is used, so that `bintally --help` stays quick. A verb of a family, `model list`, is `cli/model_list.py`."""

from importlib import import_module

import click

from cli.errors import USAGE, CliError, failures, of_failure
from cli.stacks import Choice

FAMILIES = {
    "Every day": {
        "up": "Start AWS here, deploy the stack, release the shipped model.",
        "down": "Stop the stack on this machine.",
        "status": "Show where the stack is and which model is live.",
        "env": "Print export lines for any AWS client.",
        "open": "Open the web page, where people recount.",
        "upload": "Upload photographs and, if asked, wait for their counts.",
        "counts": "Show or export counts, and the bins to recount first.",
    },
    "Inventory records": {
        "records load": "Load inventory records from tables, and show what each row gave.",
        "records status": "Show what the newest files of records gave.",
    },
    "Recounts": {
        "recount list": "List the bins that wait for a recount.",
        "recount claim": "Claim a bin and get its photograph.",
        "recount enter": "Enter what you counted.",
        "recount undo": "Take your last entry about a bin back.",
        "recount export": "Export the differences that people found.",
        "recount audit": "Show what the random audit says of records and model.",
    },
    "People": {
        "people add": "Let a person sign in to the web page.",
        "people list": "List who may sign in.",
        "people reset": "Give a person a new temporary password.",
        "people remove": "Remove a person.",
    },
    "Retraining": {
        "retrain start": "Start a retraining on the new labels.",
        "retrain runs": "List the retrainings with their outcomes.",
        "retrain report": "Show the verdict and the report of a retraining.",
        "retrain stop": "Stop the running retraining.",
    },
    "Models": {
        "model list": "List the versions of the model with their metrics.",
        "model compare": "Compare two versions on the same test photographs.",
        "model approve": "Approve a version; this starts its release.",
        "model reject": "Reject a version.",
        "model release": "Release a version by hand.",
        "model rollback": "Release the previously live version.",
        "model register": "Register a version from its package in the bucket.",
    },
    "The stack": {
        "stack deploy": "Deploy a stack to your AWS account, or update it.",
        "stack destroy": "Remove a stack from your AWS account.",
        "stack adopt": "Make a new stack from the data of a deleted one.",
        "stack doctor": "Say what is wrong with a stack, and what to do.",
        "stack redrive": "Retry everything in the dead-letter queues.",
        "stack reconcile": "Count the photographs that have no count.",
        "stack forget": "Delete photographs, counts and labels for ever.",
        "stack cost": "Compute what a stack on AWS costs.",
    },
    "Try and measure": {
        "demo": "Start a stack and count the sample photographs.",
        "demo-retrain": "Retrain on rendered photographs and deploy the better model.",
        "invoke": "Run one function in a container with sam local invoke.",
        "bench": "Measure serving, counting, retraining and recounts.",
        "fetch-abid": "Download a part of the public data set.",
    },
}
VERBS = {verb: text for family in FAMILIES.values() for verb, text in family.items()}
GROUPS = {
    "records": "Load inventory records, and see what their files gave.",
    "recount": "Recount bins without seeing their records, and export what was found.",
    "people": "Say who may sign in to the web page, as what, and at which sites.",
    "retrain": "Start, list, read about and stop retrainings.",
    "model": "List, compare, approve, reject, release, roll back and register versions of the model.",
    "stack": "Deploy, operate, remove and restore a stack, and compute what one costs.",
}
ONLY_LOCAL = ("up", "down")


def module_of(verb: str) -> str:
    return f"cli.{verb.replace('-', '_').replace(' ', '_')}"


def command_of(verb: str) -> click.Command:
    command: click.Command = import_module(module_of(verb)).command
    return command


class Family(click.Group):
    """The verbs that share a first word."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [verb.partition(" ")[2] for verb in VERBS if verb.startswith(f"{self.name} ")]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return command_of(f"{self.name} {name}") if name in self.list_commands(ctx) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, VERBS[f"{self.name} {verb}"]) for verb in self.list_commands(ctx)])


class Verbs(click.Group):
    """Finds subcommands as modules `cli/<verb>.py` with an attribute `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(dict.fromkeys(verb.partition(" ")[0] for verb in VERBS))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in GROUPS:
            return Family(name, help=GROUPS[name])
        return command_of(name) if name in VERBS else None

    def invoke(self, ctx: click.Context) -> object:
        """Runs the subcommand. A failure of the stack or of AWS becomes one line and an exit code."""
        try:
            return super().invoke(ctx)
        except failures() as error:
            raise of_failure(error) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, VERBS))
        for family, verbs in FAMILIES.items():
            with formatter.section(family):
                formatter.write_dl([(verb.ljust(width), text) for verb, text in verbs.items()])


@click.group(cls=Verbs)
@click.option("--stack", metavar="NAME", envvar="BINTALLY_STACK", help="A stack on AWS.  [default: the local stack]")
@click.option("--profile", metavar="NAME", help="AWS profile for --stack.  [default: AWS's own choice]")
@click.option("--region", metavar="NAME", help="AWS region for --stack.  [default: AWS's own choice]")
@click.version_option(package_name="bintally")
@click.pass_context
def main(context: click.Context, stack: str | None, profile: str | None, region: str | None) -> None:
    """Count the items in warehouse bins from photographs, on AWS or on this machine.

    With --stack, or BINTALLY_STACK, every command except up and down works on that stack in your AWS account.
    Without it, commands work on the stack that runs on this machine.
    """
    if stack is None and (profile or region):
        raise CliError("--profile and --region need --stack NAME, or BINTALLY_STACK", USAGE)
    if stack is not None and context.invoked_subcommand in ONLY_LOCAL:
        verb = context.invoked_subcommand
        raise CliError(f"{verb} is for the stack on this machine. Leave out --stack and unset BINTALLY_STACK", USAGE)
    context.obj = Choice(stack, profile, region)
