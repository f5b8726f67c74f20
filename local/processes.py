"""Starts the stack's processes in sessions of their own, finds them by these, and ends them. Linux."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def started(arguments: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, which ends with all its children if the block raises. Ctrl-C while it starts
    is handled once its id is known: nobody could end it otherwise."""
    came: list[Any] = []
    handler = signal.getsignal(signal.SIGINT)
    waits = callable(handler) and threading.current_thread() is threading.main_thread()
    process = None
    if waits:
        signal.signal(signal.SIGINT, lambda *told: came.append(told))
    try:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, start_new_session=True, **options)
        if waits:
            signal.signal(signal.SIGINT, handler)
        if came and callable(handler):
            handler(*came[0])
        yield process
    except BaseException:
        if process:
            end_session(process.pid, seconds=0)
        raise
    finally:
        if waits:
            signal.signal(signal.SIGINT, handler)


def session_members(session: int) -> list[int]:
    """Every live process of a session. The emulator leads one, and its children stay in it, so this finds processes
    that a crash left, even without the leader. A process whose first thread has ended is a zombie (`Z`) but lives, and
    keeps its ports, until its other threads have ended too."""
    members = []
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            # The name in brackets may contain spaces; state, parent, group and session follow it.
            state, _, _, found = (directory / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(found) == session and (state != "Z" or len(list((directory / "task").iterdir())) > 1):
                members.append(int(directory.name))
    return members


def command_line(pid: int) -> list[str]:
    """The arguments of a process; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except OSError:
        return []


def wait_gone(session: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while session_members(session):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def end_session(session: int, seconds: float) -> bool:
    """Sends SIGTERM to the leader, and after `seconds` SIGKILL to the remaining processes. True if none remained."""
    orderly = session in session_members(session)
    if orderly:
        with contextlib.suppress(ProcessLookupError):
            os.kill(session, signal.SIGTERM)
        orderly = wait_gone(session, seconds)
    while members := session_members(session):
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return orderly
