"""A job's containers as processes, one per host, each with its own folder in place of /opt/ml."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from localsagemaker.host import Host, now
from localsagemaker.jobs import JobFailed, JobStopped, Stop
from localsagemaker.logs import LogStream, Tail
from localsagemaker.server import serving_environment
from localsagemaker.wire import Json, invalid

OPT_ML = "/opt/ml"
GRACE_SECONDS = 120.0  # between SIGTERM and SIGKILL, as in SageMaker
CLOSE_SECONDS = 5.0  # the same when the stack stops
POLL_SECONDS = 0.1
SYNC_SECONDS = 3.0  # between two uploads while the job runs
REASON_LIMIT = 1024


class Interrupted(Exception):
    """A host's process was killed from outside, as by a spot interruption."""


class OutOfTime(Exception):
    """The job reached its time limit and was ended."""


@dataclass
class Container:
    """One host: its name, its /opt/ml, its command and its variables."""

    name: str
    root: Path
    command: list[str]
    variables: dict[str, str]
    tells: bool = True
    """Whether its failure has a reason: a processing job's is in its ExitMessage alone."""

    @property
    def log_file(self) -> Path:
        return self.root.with_name(f"{self.name}.log")

    @property
    def pid_file(self) -> Path:
        return self.root.with_name(f"{self.name}.pid")

    def path(self, opt_ml: str) -> Path:
        """This host's path for the job's /opt/ml/…."""
        return self.root / PurePosixPath(opt_ml).relative_to(OPT_ML)

    def write(self, path: str, content: Json) -> None:
        """Writes a file of the contract below /opt/ml, as JSON."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))

    def reason(self, status: int) -> str:
        """The reason of its failure: the content of output/failure, else the last line of its log."""
        if not self.tells:
            return f", exit code: {status}"
        with contextlib.suppress(OSError):
            if said := (self.root / "output" / "failure").read_text(errors="replace").strip():
                return said[:REASON_LIMIT]
        lines = [line for line in self.log_file.read_text(errors="replace").splitlines() if line.strip()]
        last = lines[-1].strip()[:REASON_LIMIT] if lines else "it said nothing"
        return f"{last}, exit code: {status}"


def names(count: int) -> list[str]:
    return [f"algo-{number}" for number in range(1, count + 1)]


def check_path(path: str) -> None:
    """Raises ServiceError for a local path that our containers cannot provide."""
    if not PurePosixPath(path).is_relative_to(OPT_ML) or ".." in PurePosixPath(path).parts:
        raise invalid(f"not supported on one machine: the local path {path} is not below {OPT_ML}")


def command_of(host: Host, root: Path, entrypoint: list[str], arguments: list[str]) -> list[str]:
    """The process for a container's command. Raises JobFailed when its environment is not installed.

    `python` becomes the host's, and /opt/ml the host's folder, also inside a word.
    """
    first, *rest = entrypoint
    if first in ("python", "python3"):
        if not host.python.exists():
            raise JobFailed(f"ClientError: there is no training environment at {host.python}; {host.python_hint}")
        first = str(host.python)
    return [word.replace(OPT_ML, str(root)) for word in (first, *rest, *arguments)]


def environment_of(host: Host, container: Container, role: str) -> dict[str, str]:
    """The process's whole environment: its variables and the job's role, without the emulator's and this user's."""
    keys = {name.upper(): value for name, value in host.assume(role).items()}
    search = os.pathsep.join([str(host.python.parent), os.environ.get("PATH", os.defpath)])
    return {
        **serving_environment({}),
        "PATH": search,
        "PYTHONPATH": os.pathsep.join(map(str, host.search_path)),
        "PYTHONUNBUFFERED": "1",
        "SM_OPT_ML": str(container.root),
        "AWS_REGION": host.region,
        "AWS_DEFAULT_REGION": host.region,
        "AWS_ENDPOINT_URL": host.endpoint_url,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        **keys,
        **host.variables,
        **container.variables,
    }


@dataclass
class Containers:
    """All hosts of one job. Their logs go to `log_group` and `job_name`; `heard` is called with every line."""

    host: Host
    role: str
    log_group: str
    job_name: str
    heard: Callable[[list[str]], None]
    grace_seconds: float = GRACE_SECONDS

    def run(self, containers: list[Container], stop: Stop, seconds: float, sync: Callable[[], None]) -> None:
        """Returns when all have succeeded; calls `sync` every few seconds, and once when all have ended.

        Raises JobFailed with the reason of the first that failed, JobStopped, OutOfTime after `seconds`, or
        Interrupted. In every case all processes have ended.
        """
        stream, deadline = f"{self.job_name}/{{}}-{round(now())}", time.monotonic() + seconds
        running: dict[str, subprocess.Popen[bytes]] = {}
        tails = []
        try:
            for container in containers:
                logs = LogStream(self.host.client("logs", self.role), self.log_group, stream.format(container.name))
                running[container.name] = self._start(container)
                tails.append(Tail(container.log_file, logs, self.heard))
            self._watch(containers, running, stop, deadline, sync)
        finally:
            end(list(running.values()), CLOSE_SECONDS if stop.closing else self.grace_seconds)
            for tail in tails:
                tail.close()
            if not stop.closing:
                sync()

    def _start(self, container: Container) -> subprocess.Popen[bytes]:
        environment = environment_of(self.host, container, self.role)
        with container.log_file.open("ab") as log:
            try:
                process = self.host.spawner.start(container.command, self.host.folder, environment, log)
            except OSError as error:
                raise JobFailed(f"ClientError: {container.command[0]} does not start: {error}") from error
        container.pid_file.write_text(str(process.pid))
        return process

    def _watch(
        self,
        containers: list[Container],
        running: dict[str, subprocess.Popen[bytes]],
        stop: Stop,
        deadline: float,
        sync: Callable[[], None],
    ) -> None:
        next_sync = time.monotonic() + SYNC_SECONDS
        while True:
            statuses = {container.name: running[container.name].poll() for container in containers}
            for container in containers:
                status = statuses[container.name]
                if status == -signal.SIGKILL:
                    raise Interrupted
                if status:
                    raise JobFailed(f"AlgorithmError: {container.reason(status)}")
            if all(status == 0 for status in statuses.values()):
                return
            if stop.wait(POLL_SECONDS):
                raise JobStopped
            if time.monotonic() > deadline:
                raise OutOfTime
            if time.monotonic() > next_sync:
                sync()
                next_sync = time.monotonic() + SYNC_SECONDS


def end(processes: list[subprocess.Popen[bytes]], grace_seconds: float) -> None:
    """Sends SIGTERM to running processes, and after the grace time SIGKILL to them and their children."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + grace_seconds
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
