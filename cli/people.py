"""What the verbs of `bintally people` share."""

import base64
import binascii
from typing import TYPE_CHECKING

from cli.stacks import chosen

if TYPE_CHECKING:
    from deployed.people import People

ROLES = ("viewer", "counter", "manager")


def people() -> "People":
    from deployed.people import People

    return People(chosen())


def site_shown(encoded: str) -> str:
    """A site of a group, as people spell it."""
    if encoded == "*":
        return "all"
    if not encoded.startswith("~"):
        return encoded
    try:
        return base64.urlsafe_b64decode(encoded[1:] + "=" * (-len(encoded[1:]) % 4)).decode()
    except (ValueError, binascii.Error):
        return f"{encoded} (malformed)"
