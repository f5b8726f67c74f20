"""Finding and ending processes."""

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from local import processes

# The first thread of a process ends as it does when the process is killed: before the others.
FIRST_THREAD_GONE = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print("ready", flush=True)
ctypes.CDLL(None).syscall({exit_thread}, 0)
"""


def test_a_process_without_its_first_thread_is_alive() -> None:
    """It looks like a zombie and keeps its ports: a stack that starts again would find its own one taken."""
    exit_thread = {"x86_64": 60, "aarch64": 93}[platform.machine()]
    script = FIRST_THREAD_GONE.format(exit_thread=exit_thread)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        while ") Z " not in Path(f"/proc/{process.pid}/stat").read_text():
            time.sleep(0.01)
        assert processes.session_members(process.pid) == [process.pid]
        assert processes.end_session(process.pid, 5)
        assert processes.session_members(process.pid) == []


def test_a_process_that_starts_while_ctrl_c_comes_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    before, made, popen = signal.signal(signal.SIGINT, signal.default_int_handler), [], subprocess.Popen

    def interrupted(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        made.append(popen(*args, **options))
        os.kill(os.getpid(), signal.SIGINT)
        return made[0]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt), processes.started([sys.executable, "-c", "import time; time.sleep(60)"]):
            raise AssertionError("never begun")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert processes.session_members(made[0].pid) == []
