"""On the search path of a process: writes the address of each connection that it opens to the file OPENED.

Libraries that report to their makers often do not under CI, so these processes do not see it.
"""

import os
import sys
from pathlib import Path

os.environ.pop("CI", None)


def note(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("socket.connect", "socket.getaddrinfo"):
        with Path(os.environ["OPENED"]).open("a") as file:
            file.write(f"{arguments[1] if event == 'socket.connect' else arguments[0]}\n")


sys.addaudithook(note)
