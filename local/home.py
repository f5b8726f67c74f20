"""The folder of a local stack: whether it can be used, has room, and who uses its port."""

import errno
import os
import shutil
from pathlib import Path

from local import processes
from local.errors import HomeUnusable, NotStored

CURE = "Set BINTALLY_HOME to a folder of your own"
FIRST_BYTES, AGAIN_BYTES = 250_000_000, 150_000_000
"""Room that the first start needs (builds, models, an unpacked copy of each running function), and a later one."""
LONGEST_PATH = 2048
"""Bytes. Linux takes 4,096, and objects and builds lie deep below the home."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_home(home: Path) -> None:
    """Raises HomeUnusable where the folder can neither be read nor be created. Creates nothing."""
    for place in (home, *home.parents):
        try:
            found = place.stat()
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            continue  # the file is further up
        except OSError as error:
            raise HomeUnusable(f"{home} cannot be used: {error.strerror}. {CURE}") from error
        if not place.is_dir():
            named = f"{home} is a file" if place == home else f"{home} cannot be a folder: {place} is a file"
            raise HomeUnusable(f"{named}. {CURE}")
        if place == home and found.st_uid == os.geteuid() and not os.access(home, os.R_OK | os.X_OK):
            raise HomeUnusable(f"{home} cannot be read. Allow it with: chmod u+rwx {home}")
        longest = os.pathconf(place, "PC_NAME_MAX")
        if len(os.fsencode(home)) > LONGEST_PATH or any(len(os.fsencode(part)) > longest for part in home.parts):
            raise HomeUnusable(f"{home} cannot be used: {os.strerror(errno.ENAMETOOLONG)}. {CURE}")
        return


def unusable(home: Path, error: OSError) -> HomeUnusable | NotStored:
    """What a failed write in the home means to its user."""
    if error.errno in FULL:
        return disk_full(home)
    return HomeUnusable(f"{error.filename or home} cannot be written: {error.strerror}. {CURE}")


def free_bytes(home: Path) -> int:
    """Free room on the disk of a folder that may not exist yet."""
    place = next(place for place in (home, *home.parents) if place.exists())
    return shutil.disk_usage(place).free


def check_space(home: Path) -> None:
    """Raises NotStored where a start would fill the disk."""
    needed, free = AGAIN_BYTES if (home / "build").exists() else FIRST_BYTES, free_bytes(home)
    if free < needed:
        raise NotStored(
            f"the disk of {home} has {megabytes(free)} free, and a start needs {megabytes(needed)}. "
            "Free some space, or set BINTALLY_HOME to a folder on another disk"
        )


def disk_full(home: Path, what: str = "") -> NotStored:
    return NotStored(
        f"{what}the disk of {home} is full ({megabytes(free_bytes(home))} free). Free some space, then try again"
    )


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def holder_of_port(port: int) -> Path | None:
    """The home of the local stack of this user that has the port."""
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit() or "local.emulator" not in processes.command_line(int(directory.name)):
            continue
        try:
            pairs = (directory / "environ").read_bytes().decode(errors="surrogateescape").split("\0")
        except OSError:
            continue  # another user's
        variables = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        if variables.get("BINTALLY_PORT") == str(port) and "BINTALLY_HOME" in variables:
            return Path(variables["BINTALLY_HOME"])
    return None
