"""Runs one model's serving app as a process: starts, asks, watches, restarts and stops it."""

import contextlib
import ctypes
import http.client
import os
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from localsagemaker.ports import free_port

PING_SECONDS = 5.0  # as SageMaker does
PINGS_MISSED = 6  # in a row, before a process that runs but does not answer is replaced
STOP_SECONDS = 10.0
INVOKE_SECONDS = 60.0  # a container must answer within 60 s

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


class Unhealthy(Exception):
    """The process never answered /ping with 200."""


class Unavailable(Exception):
    """The process does not accept requests at the moment."""


class TimedOut(Exception):
    """The process did not answer within a container's time limit."""


def die_with_parent() -> None:
    """Runs in the child: the kernel kills it when the emulator ends, for whatever reason."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Spawner:
    """Starts all processes from one thread: the kernel sends the death signal when the starting thread ends."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "spawner")

    def start(self, command: list[str], cwd: Path, env: dict[str, str], log: BinaryIO) -> subprocess.Popen[bytes]:
        def spawn() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
                process_group=0,  # so that its children can be ended with it
            )

        return self._thread.submit(spawn).result()


@dataclass
class Reply:
    """The container's answer."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """The serving app in `directory` (its model unpacked in `directory/model`).

    `concurrency` is the maximum number of concurrent requests (None: only the app's own limit).
    """

    command: list[str]
    environment: dict[str, str]
    directory: Path
    log_file: Path
    spawner: Spawner
    start_seconds: float
    concurrency: int | None = None
    _port: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _busy: int = 0
    _lock: threading.Condition = field(default_factory=threading.Condition)
    _closing: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Returns when /ping answers 200, and then watches the process. Raises Unhealthy with the reason."""
        self._launch()
        threading.Thread(target=self._watch, name=f"watch {self.directory.name}", daemon=True).start()

    def enter(self) -> bool:
        """Takes a place for one request; False when all are taken. Every True needs one `leave`."""
        with self._lock:
            if self.concurrency is not None and self._busy >= self.concurrency:
                return False
            self._busy += 1
            return True

    def leave(self) -> None:
        with self._lock:
            self._busy -= 1
            self._lock.notify_all()

    def invoke(self, body: bytes, headers: dict[str, str], seconds: float = INVOKE_SECONDS) -> Reply:
        """Raises Unavailable when the process does not run, TimedOut when it takes longer than `seconds`."""
        return self._asked("POST", "/invocations", seconds, body, headers)

    def execution_parameters(self) -> Reply:
        """The app's parameters for batch transform. Raises like `invoke`."""
        return self._asked("GET", "/execution-parameters", 2, b"", {})

    def _asked(self, method: str, path: str, seconds: float, body: bytes, headers: dict[str, str]) -> Reply:
        try:
            return self._request(method, path, seconds, body, headers)
        except TimeoutError as error:
            raise TimedOut from error
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(str(error)) from error

    def close(self, drain_seconds: float = 0) -> None:
        """Waits at most `drain_seconds` for running requests, then ends the process and removes its files."""
        self._closing.set()
        with self._lock:
            self._lock.wait_for(lambda: self._busy == 0, drain_seconds)
        self._end_process()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _request(self, method: str, path: str, seconds: float, body: bytes, headers: dict[str, str]) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=seconds)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def _ping(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self._request("GET", "/ping", 2, b"", {}).status == 200
        return False

    def _launch(self) -> None:
        self._port = free_port()
        with self.log_file.open("ab") as log:
            self._process = self.spawner.start(
                self.command,
                self.directory,
                self.environment
                | {"SM_MODEL_DIR": str(self.directory / "model"), "SAGEMAKER_BIND_TO_PORT": str(self._port)},
                log,
            )
        deadline = time.monotonic() + self.start_seconds
        while not self._ping():
            if self._process.poll() is not None:
                raise Unhealthy(f"the container ended with status {self._process.returncode}: {self._last_words()}")
            if time.monotonic() > deadline or self._closing.is_set():
                self._end_process()
                raise Unhealthy(f"it did not pass the ping health check: {self._last_words()}")
            time.sleep(0.1)
        if self._closing.is_set():  # `close` may have ended the previous process.
            self._end_process()

    def _watch(self) -> None:
        missed, next_ping = 0, time.monotonic() + PING_SECONDS
        while not self._closing.wait(0.2):
            process = self._process
            if process is not None and process.poll() is None:
                if time.monotonic() < next_ping:
                    continue
                next_ping = time.monotonic() + PING_SECONDS
                missed = 0 if self._ping() else missed + 1
                if missed < PINGS_MISSED:
                    continue
            self._end_process()
            with contextlib.suppress(Unhealthy):
                self._launch()
                missed, next_ping = 0, time.monotonic() + PING_SECONDS
                continue
            self._closing.wait(1)  # It does not start: try again, but not in a tight loop.

    def _end_process(self) -> None:
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _last_words(self) -> str:
        lines = [line for line in self.log_file.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else "it said nothing"


def serving_environment(container: dict[str, str]) -> dict[str, str]:
    """A serving process's environment: the container's variables and Python's, without the emulator's."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
    return {name: os.environ[name] for name in kept if name in os.environ} | container
