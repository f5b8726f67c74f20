"""The `bintally` command. Every verb is a module of this folder with one click object named `command`,
imported when it is asked for, so that `bintally --help` stays quick."""

from importlib import import_module
from importlib.util import find_spec

import click

from cli.errors import of_stack_error
from local.errors import StackError

VERBS = {
    "up": "Start AWS on this machine, deploy the stack, release the shipped model.",
    "down": "Stop the local stack.",
    "status": "Say what runs and which model is live.",
    "env": "Print export lines for any AWS client.",
    "upload": "Upload photographs to the images bucket.",
    "counts": "Show counts, newest first.",
    "redrive": "Send what the dead-letter queues hold through counting and reading again.",
    "retrain": "Retrain on what has come in, by hand.",
    "models": "List the versions of the model with their metrics.",
    "approve": "Approve a version of the model, which releases it.",
    "reject": "Reject a version of the model.",
    "release": "Bring a version of the model into service by hand.",
    "rollback": "Go back to the model that was live before.",
    "demo": "Count a set of sample photographs, from nothing.",
    "demo-retrain": "From labelled photographs to a new model that answers.",
    "bench": "Measure serving, the whole way, the count function and retraining.",
    "fetch-abid": "Download a slice of the public data set.",
}


def module_of(verb: str) -> str:
    return f"cli.{verb.replace('-', '_')}"


class Verbs(click.Group):
    """Finds subcommands as modules `cli/<verb>.py` with an attribute `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [verb for verb in VERBS if find_spec(module_of(verb))]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        command: click.Command = import_module(module_of(name)).command
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Runs the subcommand; what is wrong with the stack becomes one line and an exit code."""
        try:
            return super().invoke(ctx)
        except StackError as error:
            raise of_stack_error(error) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, VERBS[verb]) for verb in self.list_commands(ctx)])


@click.group(cls=Verbs)
@click.version_option(package_name="bintally")
def main() -> None:
    """Count the items in warehouse bins from photographs, on this machine."""
