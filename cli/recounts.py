"""What the verbs of `bintally recount` share."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from cli.stacks import chosen

if TYPE_CHECKING:
    from deployed.api import Api

REASONS = (
    *("MISPLACED", "PICK_ERROR", "RECEIVING_ERROR", "DAMAGED"),
    *("HIDDEN", "BLURRED", "DARK", "OTHER"),
)


def site_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--site", required=True, metavar="SITE", help="The site of the bins.")(command)


def manager_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--manager", is_flag=True, help="Act as a manager, who decides where two people disagree.")(
        command
    )


def kept(so_far: Mapping[str, Any]) -> str:
    """Whether the list found as many wrong records as it had promised."""
    if not so_far["recounted"]:
        return "No recount has ended yet."
    return (
        f"So far: {so_far['expected_wrong']:.0f} wrong records expected,"
        f" {so_far['found_wrong']} found, in {so_far['recounted']} recounts."
    )


def api_of(site: str, role: str) -> "Api":
    from deployed.api import Api

    return Api(chosen(), role, site)
