"""Saves the emulator's state while it runs, and restores it at the start.

ministack saves each service at an orderly stop, and only then. Here a child process writes a snapshot of all services
(local/snapshots.py) at most 30 seconds behind, and a journal has what tables stored since then (local/journal.py). The
child is a fork: it has the state of one moment, and the emulator serves requests meanwhile; docs/reliability.md says
how long the fork stalls it.

This module touches ministack's internals, as local/emulator.py does.
"""

import contextlib
import copy
import gc
import json
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, NoReturn

from local.gate import App, Receive, Scope, Send
from local.journal import RESERVED, Journal, encoded, journal_before_acknowledging, replay
from local.snapshots import JOURNAL, Snapshot, Snapshots

EVERY_SECONDS = float(os.environ.get("BINTALLY_SNAPSHOT_SECONDS", "10"))
"""From one snapshot to the next. With at most 20 seconds to write one, the newest is at most 30 seconds behind. Tests
take few of stacks that nobody kills: each costs a second of a processor."""
PATIENCE_SECONDS = 120
"""A child that takes longer waits for a lock that another thread held when it was forked: the next one succeeds."""
DEPLOYING_SECONDS = 60
LEAST_BYTES = 4 << 20
LARGE = ("dynamodb", "cloudwatch_logs")
"""States that grow with the photographs; in these, numbers are texts or integers."""
READS = ("Describe", "Get", "List", "Query", "Scan", "BatchGet", "Head")
RECENT = timedelta(minutes=10)
CUT_OFF = "The local stack stopped while the execution ran."

logger = logging.getLogger("saving")


class Saver:
    """Takes snapshots of the emulator in this process.

    `prepared` are services whose state needs a lock that the child could find locked: it is read before the fork.
    `at_rest` is held during the fork, so that the child finds it free. `end` ends this process after an orderly stop.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        prepared: Mapping[str, Callable[[], Any]],
        at_rest: AbstractContextManager[Any],
        end: Callable[[], None],
    ) -> None:
        self.snapshots, self.prepared, self.at_rest, self.end = snapshots, prepared, at_rest, end
        self.journal = Journal(snapshots.root)
        self.changed, self.asked, self.loaded = threading.Event(), threading.Event(), threading.Event()
        self._turn = threading.Lock()  # one snapshot at a time
        self._forked: Future[tuple[int, int]] = Future()
        self.cut_off: list[str] = []
        """ARNs of executions that ended abnormally with the stop, or just before it."""
        self.newest: Snapshot | None = None
        self._newest_bytes = 0

    def bytes_of_next(self) -> int:
        """The room that the next snapshot may need: the state may double meanwhile."""
        return RESERVED + LEAST_BYTES + 2 * self._newest_bytes

    def install(self) -> None:
        """Puts this in the place of ministack's own saving. The state is loaded when the emulator starts."""
        from ministack import app

        app._load_persisted_state = self.load
        app.save_all = self.save_at_stop
        app.app = Watched(app.app, self.changed)
        self._note_what_no_request_changes()
        restart_what_was_in_flight()
        signal.signal(signal.SIGUSR1, lambda *_: self.asked.set())
        threading.Thread(target=self.watch, name="snapshots", daemon=True).start()

    def _note_what_no_request_changes(self) -> None:
        """Functions, executions and events change state inside this process."""
        from ministack.services import eventbridge, lambda_svc, stepfunctions

        for module, name in (
            (eventbridge, "_dispatch_event"),
            (lambda_svc, "_emit_lambda_logs"),
            (stepfunctions, "_add_event"),
        ):
            setattr(module, name, self.noted(getattr(module, name)))

    def noted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def then_noted(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            finally:
                self.changed.set()

        return then_noted

    # Load

    def load(self) -> None:
        """Restores the newest snapshot. What cannot be read ends the emulator: a fresh start would overwrite it."""
        from ministack import app
        from ministack.core import persistence

        found = self.snapshots.newest()
        try:
            for name, module in app._state_map.items():
                file = found.folder / f"{name}.json" if found else None
                if file is None or not file.exists():
                    continue
                content = json.loads(file.read_bytes(), object_hook=persistence._json_object_hook)
                if content["__ministack_format__"] > persistence._state_format_version(name):
                    raise ValueError("it was written by a newer version of the emulator")
                if name == "stepfunctions":
                    self.cut_off = end_what_ran(content["payload"])
                app._get_module(module).load_persisted_state(content["payload"])
            for changes in self.journal.since(found.journal) if found else ():
                replay(changes)
                self.changed.set()
        except Exception as error:
            logger.exception("the saved state")
            print(f"the saved state in {found and found.folder} cannot be read: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        self.newest, self._newest_bytes = found, found.size() if found else 0
        self.begin_journal()
        self.snapshots.mark_running()
        self.loaded.set()

    def begin_journal(self) -> None:
        try:
            self.journal.begin()
        except OSError as error:
            print(f"{self.journal.folder} cannot be written: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        journal_before_acknowledging(self.journal, self.asked.set)
        threading.Thread(target=self.journal.keep_on_disk, name="journal", daemon=True).start()

    def report_cut_off(self) -> None:
        """Puts the event of every execution that the stop cut off, or that ended so shortly before it that what its
        event starts may not have run. Once the emulator answers. Events may come twice, as on AWS."""
        from ministack.services import stepfunctions

        for arn in self.cut_off:
            for execution in stepfunctions._executions.all_values():
                if execution["executionArn"] == arn:
                    stepfunctions._emit_execution_status_event(execution)

    # Save

    def watch(self) -> None:
        """Takes a snapshot when something has changed since the last one, and when a signal asks for one."""
        self.loaded.wait()  # before, an empty state would replace the saved one
        last, waited = time.monotonic(), 0.0
        while True:
            asked = self.asked.wait(1)
            self.snapshots.show_life()
            if not asked and time.monotonic() - last < EVERY_SECONDS:
                continue
            if not asked and deploying() and waited < DEPLOYING_SECONDS:
                waited += 1  # a deployment takes seconds; a stack that hangs must not prevent snapshots for ever
                continue
            self.asked.clear()
            last, waited = time.monotonic(), 0.0
            try:
                self.save()
            except Exception:  # also in `problem` if it could not be stored; tried again
                logger.exception("no snapshot")

    def save(self) -> None:
        """Writes a snapshot unless nothing has changed. Raises OSError when it cannot be stored."""
        from ministack import app

        with self._turn:
            if self.newest and not self.changed.is_set():
                self.newest.renew(time.time())
                return
            forked = self._forked = Future()

            def fork() -> None:
                if not forked.set_running_or_notify_cancel():
                    return
                try:
                    forked.set_result(self.fork())
                except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
                    forked.set_exception(error)

            # The thread that answers requests forks: no request is half done in the child.
            app._MAIN_LOOP.call_soon_threadsafe(fork)
            try:
                child = forked.result(PATIENCE_SECONDS)
            except TimeoutError:
                forked.cancel()
                raise
            self.finish(*child)

    def save_at_stop(self, services: object) -> None:
        """In the place of ministack's save_all, on the thread that answers requests. It then ends the emulator: its
        threads may wait for an answer, and no more is given."""
        self._forked.cancel()  # a snapshot that waits for this thread would wait for ever
        with self._turn:
            try:
                if self.changed.is_set() or not self.newest:
                    self.finish(*self.fork())
                self.snapshots.mark_stopped()
            except OSError as error:
                logger.error("the state could not be saved: %s", error)
        self.end()

    def fork(self) -> tuple[int, int]:
        """Starts the child that writes. Returns its process id and a pipe from which to read its reason if it fails."""
        try:
            journal = self.journal.begin()
        except OSError as error:
            self.failed(error.strerror or str(error))
        moment, prepared = time.time(), {name: get() for name, get in self.prepared.items()}
        reader, writer = os.pipe()
        self.changed.clear()
        try:
            with self.at_rest:
                pid = os.fork()
        except OSError as error:  # too little memory for a second process
            os.close(reader)
            os.close(writer)
            self.failed(error.strerror or str(error))
        if pid:
            logger.info("snapshot: requests waited %.1f ms", (time.time() - moment) * 1000)
        else:
            self.write_as_child(writer, prepared, moment, journal)
        os.close(writer)
        return pid, reader

    def write_as_child(self, writer: int, prepared: Mapping[str, Any], moment: float, journal: int) -> None:
        """Runs in the child, and ends it. The emulator's other threads do not exist here; a lock that one of them held
        stays locked."""
        from ministack.services import lambda_svc

        code = 1
        try:
            # Connections that the emulator closes meanwhile would stay open here.
            os.closerange(3, writer)
            os.closerange(writer + 1, 1 << 20)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            gc.disable()  # it would touch, and so copy, every page
            copy.deepcopy = itself  # type: ignore[assignment] # the child is a copy already
            lambda_svc._prune_orphan_code_blobs = lambda referenced: None  # an older snapshot may name them
            named = (JOURNAL, str(journal).encode())
            self.snapshots.write(chain([named], states(prepared)), moment, self.newest)
            code = 0
        except BaseException as error:  # noqa: BLE001 - nothing of the emulator may continue in the child
            reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
            os.write(writer, reason.encode()[:1000])
        finally:
            os._exit(code)

    def finish(self, pid: int, reader: int) -> None:
        """Waits for the child. Raises OSError with its reason when it failed."""
        reason = ""
        with os.fdopen(reader, "rb") as pipe:
            if select.select([pipe], [], [], PATIENCE_SECONDS)[0]:
                reason = pipe.read().decode()
            else:
                os.kill(pid, signal.SIGKILL)
                reason = f"no snapshot in {PATIENCE_SECONDS} seconds"
        _, status = os.waitpid(pid, 0)
        if status == 0:
            self.snapshots.set_problem("")
            if self.newest:
                self.journal.remove_older(self.newest.journal)  # the one before the newest is kept
            self.newest = self.snapshots.last_written()
            self._newest_bytes = self.newest.size() if self.newest else 0
            return
        self.failed(reason or f"the process that writes it ended with status {status}")

    def failed(self, reason: str) -> NoReturn:
        self.changed.set()
        logger.error("the state could not be saved: %s", reason)
        with contextlib.suppress(OSError):
            self.snapshots.set_problem(reason)
        raise OSError(reason)


class Watched:
    """An ASGI layer that notes the requests that may change state."""

    def __init__(self, app: App, changed: threading.Event) -> None:
        self.app, self.changed = app, changed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        finally:
            if scope["type"] == "http" and may_change(scope):
                self.changed.set()


def may_change(scope: Scope) -> bool:
    target = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-amz-target"), "")
    if target:
        return not target.rpartition(".")[2].startswith(READS)
    return scope["method"] not in ("GET", "HEAD")


def itself(found: Any, memo: Any = None) -> Any:
    return found


def states(prepared: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Every service's state as JSON, in ministack's own form."""
    from ministack import app
    from ministack.core import persistence

    for name, get_state in app._build_persistence_save_dict().items():
        state = prepared[name] if name in prepared else get_state()
        if state is not None:
            content = {"__ministack_format__": persistence._state_format_version(name), "payload": state}
            yield name, encoded(content, persistence._json_default, large=name in LARGE)


def deploying() -> bool:
    """Whether CloudFormation is at work on a stack: no later deployment could continue from the middle of one."""
    from ministack.services import cloudformation

    under_way = ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS")
    with contextlib.suppress(RuntimeError):  # a stack was added meanwhile
        return any(str(stack.get("StackStatus")).endswith(under_way) for stack in cloudformation._stacks.all_values())
    return True


def end_what_ran(state: dict[str, Any]) -> list[str]:
    """Aborts the executions that the stop cut off, in a state that is to be loaded. ministack fails them, and a failed
    release is taken to have cleaned up after itself. Returns these, and those that ended abnormally just before."""
    from ministack.core.responses import now_iso

    ended, now = [], datetime.now(UTC)
    executions = state["executions"]
    last = max(
        (moment_of(found["stopDate"]) for found in executions.all_values() if found.get("stopDate")), default=now
    )
    for found in executions.all_values():
        if found["status"] == "RUNNING":
            found |= {"status": "ABORTED", "stopDate": now_iso(), "error": "Stopped", "cause": CUT_OFF}
            ended.append(found["executionArn"])
        elif found["status"] in ("FAILED", "TIMED_OUT", "ABORTED") and last - moment_of(found["stopDate"]) < RECENT:
            ended.append(found["executionArn"])
    return ended


def moment_of(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp)


def restart_what_was_in_flight() -> None:
    """A message that was in flight at the stop stays hidden for its visibility timeout, though its consumer is gone.
    Here it is visible at the start, and the interrupted attempt does not count towards the dead-letter queue."""
    from ministack.services import sqs

    load = sqs.load_persisted_state

    def load_visible(state: dict[str, Any]) -> None:
        load(state)
        now = time.time()
        for queue in sqs._queues.all_values():
            for message in queue["messages"]:
                if message["receive_count"] and message["visible_at"] > now:
                    message["visible_at"] = now
                    message["receive_count"] -= 1

    sqs.load_persisted_state = load_visible
