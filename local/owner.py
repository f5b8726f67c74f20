"""The owner of a local stack: a random key that the home keeps, and a home that only its owner reads."""

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@dataclass(frozen=True)
class OwnerKey:
    """The access key of the stack's root user."""

    access_key_id: str
    secret_access_key: str


def key_file(home: Path) -> Path:
    return home / "owner.json"


def read_key(home: Path) -> OwnerKey | None:
    """The key of the stack in `home`; None before its first start."""
    try:
        return OwnerKey(**json.loads(key_file(home).read_text()))
    except FileNotFoundError:
        return None


def make_key(home: Path) -> OwnerKey:
    """The key of the stack in `home`, made at its first start. Call it with the umask of `private_files`."""
    if found := read_key(home):
        return found
    # AKIA as AWS's own, so that no client takes offence; never twelve digits, which name an account in ministack.
    identifier = "AKIA" + "".join(secrets.choice(LETTERS) for _ in range(16))
    key = OwnerKey(identifier, secrets.token_urlsafe(30))
    # Written aside: a process that reads meanwhile finds a whole key or none.
    draft = key_file(home).with_suffix(".draft")
    draft.write_text(json.dumps(asdict(key)))
    draft.replace(key_file(home))
    return key


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """Files and folders that this process, or one that it starts, creates meanwhile are its user's alone."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def make_private(folder: Path) -> None:
    """Folders 0700, files 0600, whatever created them: an older version, or a copy that keeps modes."""
    for place, _, files in os.walk(folder):
        set_mode(Path(place), 0o700)
        for name in files:
            set_mode(Path(place, name), 0o600)


def set_mode(path: Path, mode: int) -> None:
    with contextlib.suppress(FileNotFoundError):  # a running stack may remove it meanwhile
        found = path.lstat().st_mode
        if not stat.S_ISLNK(found) and stat.S_IMODE(found) != mode:
            path.chmod(mode)
