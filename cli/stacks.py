"""The stack that a command works on: the one that --stack names, else the one on this machine.

boto3 is imported only when a command uses its stack, so that `bintally --help` stays quick.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from deployed.stack import Deployed
    from local.stack import Local


@dataclass(frozen=True)
class Choice:
    """The given options --stack, --profile and --region."""

    name: str | None = None
    profile: str | None = None
    region: str | None = None


def choice() -> Choice:
    context = click.get_current_context(silent=True)
    return (context and context.find_object(Choice)) or Choice()


def chosen() -> "Deployed":
    """The stack that this command works on."""
    from deployed.stack import Account

    wanted = choice()
    return Account(wanted.name, wanted.profile, wanted.region) if wanted.name else on_this_machine()


def on_this_machine() -> "Local":
    """The local stack, whether it runs or not."""
    from local.stack import Local

    return Local.from_environment()
