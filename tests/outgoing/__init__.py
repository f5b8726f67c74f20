"""The connections that processes open."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def opened_by(code: str, folder: Path) -> list[str]:
    """The addresses that a Python process which runs `code` connects to or asks for; it must exit 0.

    `folder`, a new one, is its home: as on a machine that is used for the first time."""
    folder.mkdir()
    noted = folder / "opened"
    noted.touch()
    path = os.pathsep.join(map(str, (Path(__file__).parent, REPOSITORY)))
    environment = os.environ | {"PYTHONPATH": path, "OPENED": str(noted), "HOME": str(folder)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=folder)
    return noted.read_text().splitlines()
