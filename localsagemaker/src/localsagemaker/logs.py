"""A job's log: what its processes write to a file, sent on to CloudWatch Logs line by line while they run."""

import contextlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from localsagemaker.host import now

LOG = logging.getLogger(__name__)
SECONDS = 1.0  # between two reads of the file
LINES = 1000  # sent in one request
LINE_LIMIT = 8000  # characters kept of one line
READ_LIMIT = 1024 * 1024  # bytes per read


class LogStream:
    """Sends lines to one stream of a log group, as the job's role. If the role may not write logs, the logs
    are lost, but the job continues, as on AWS."""

    def __init__(self, logs: Any, group: str, stream: str) -> None:
        self.logs, self.group, self.stream = logs, group, stream
        self._made = False

    def send(self, lines: list[str]) -> None:
        moment = round(now() * 1000)
        try:
            self._make()
            for start in range(0, len(lines), LINES):
                events = [{"timestamp": moment, "message": line[:LINE_LIMIT]} for line in lines[start : start + LINES]]
                self.logs.put_log_events(logGroupName=self.group, logStreamName=self.stream, logEvents=events)
        except (ClientError, BotoCoreError) as error:
            LOG.warning("no logs in %s/%s: %s", self.group, self.stream, error)

    def _make(self) -> None:
        if self._made:
            return
        exists = self.logs.exceptions.ResourceAlreadyExistsException
        with contextlib.suppress(exists):
            self.logs.create_log_group(logGroupName=self.group)
        with contextlib.suppress(exists):
            self.logs.create_log_stream(logGroupName=self.group, logStreamName=self.stream)
        self._made = True


class Tail:
    """Follows a file that a process writes, in a thread: each new line goes to `stream` and to `heard`."""

    def __init__(self, file: Path, stream: LogStream, heard: Callable[[list[str]], None]) -> None:
        self.file, self.stream, self.heard = file, stream, heard
        self._rest, self._offset = b"", 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"log {file}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Returns when everything that was written has been sent."""
        self._end.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._end.wait(SECONDS):
            self._read()
        self._read()
        if self._rest:
            self._tell([self._rest])

    def _read(self) -> None:
        with contextlib.suppress(FileNotFoundError), self.file.open("rb") as file:
            file.seek(self._offset)
            while chunk := file.read(READ_LIMIT):
                self._offset += len(chunk)
                *lines, self._rest = (self._rest + chunk).split(b"\n")
                self._tell(lines)

    def _tell(self, lines: list[bytes]) -> None:
        # CloudWatch Logs refuses empty messages; of a progress bar only the last state is sent.
        texts = [line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2] for line in lines]
        if said := [text for text in texts if text]:
            self.heard(said)
            self.stream.send(said)
