"""The demo people of a local stack: a viewer, a counter and a manager of all sites, with passwords of this home.

Anybody on this machine reaches the API (docs/security.md), so the passwords are random, and in a file of the owner's.
"""

import json
from pathlib import Path

from deployed.people import ALL_SITES, ROLES, People, new_password
from local.errors import StackError
from local.home import unusable
from local.owner import private_files
from local.stack import Local


def file_of(home: Path) -> Path:
    return home / "people.json"


def demo_people(home: Path) -> dict[str, str]:
    """Their passwords by name, which is the role; empty before the demo. Raises StackError."""
    file = file_of(home)
    try:
        found = json.loads(file.read_text())
        return {str(name): str(found[name]) for name in ROLES}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise unusable(home, error) from error
    except (KeyError, TypeError, ValueError) as error:
        raise StackError(f"{file} does not contain the demo people. Remove it and run: bintally demo") from error


def add_demo_people(stack: Local) -> dict[str, str]:
    """Adds those who are missing; gives all of them their passwords of the file. Raises StackError."""
    people = People(stack)
    there = {member.name for member in people.members()}
    passwords = demo_people(stack.home)
    if not passwords:
        passwords = {role: new_password() for role in ROLES}
        with private_files():
            file_of(stack.home).write_text(json.dumps(passwords))
    for role, password in passwords.items():
        if role not in there:
            people.add(role, role, [ALL_SITES])
        people.keep_password(role, password)
    return passwords
