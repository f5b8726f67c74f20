"""The owner of a local stack: a random key stored in the home, and a home that only its owner can read."""

import contextlib
import json
import os
import secrets
import stat
import string
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from local.errors import StackError

IDENTIFIER, SECRET = string.ascii_uppercase + "234567", string.ascii_letters + string.digits


@dataclass(frozen=True)
class OwnerKey:
    """The access key of the stack's root user."""

    access_key_id: str
    secret_access_key: str


def key_file(home: Path) -> Path:
    return home / "owner.json"


def read_key(home: Path) -> OwnerKey | None:
    """The key of the stack in `home`; None before its first start. Raises StackError for an invalid key file."""
    file = key_file(home)
    try:
        return OwnerKey(**json.loads(file.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, TypeError, ValueError) as error:
        raise StackError(
            f"{file} is not a key file. Restore it, or remove it and run: bintally down, bintally up"
        ) from error


def make_key(home: Path) -> OwnerKey:
    """The key of the stack in `home`, created at its first start."""
    if found := read_key(home):
        return found
    # The prefix AKIA, as on AWS, is valid for every client; twelve digits would name an account in ministack.
    identifier = "AKIA" + "".join(secrets.choice(IDENTIFIER) for _ in range(16))
    key = OwnerKey(identifier, "".join(secrets.choice(SECRET) for _ in range(40)))
    descriptor, draft = tempfile.mkstemp(dir=home)  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(key), file)
        os.link(draft, key_file(home))
    except FileExistsError:  # Another process was faster.
        key = read_key(home) or key
    finally:
        Path(draft).unlink()
    return key


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """Within this context only the user can read files and folders that this process and its children create."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def make_private(folder: Path) -> None:
    """Sets folders to 0700 and files to 0600, even if an older version or a copy that preserves modes created them."""
    for place, _, files in os.walk(folder):
        set_mode(Path(place), 0o700)
        for name in files:
            set_mode(Path(place, name), 0o600)


def set_mode(path: Path, mode: int) -> None:
    with contextlib.suppress(FileNotFoundError):  # a running stack may remove it at the same time
        found = path.lstat().st_mode
        if not stat.S_ISLNK(found) and stat.S_IMODE(found) != mode:
            path.chmod(mode)
