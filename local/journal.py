"""Keeps what tables stored since the newest snapshot, so that a crash loses none of it.

    <home>/state/journal/000000000012   what requests changed: a line of JSON for each request, in their order

Each snapshot begins a file, and names it; so does each start. Whoever starts from a snapshot replays that file and all
later ones, since later snapshots may be damaged or unfinished. A request is answered once its line is in the file:
`kill -9` leaves it to the system, which writes it. Each line has whole items, so it may be replayed on a state that
has it already.

This module touches ministack's internals, as local/emulator.py does.
"""

import contextlib
import contextvars
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

RESERVED = 4 << 20
"""Bytes that a file takes before it needs them: a disk that fills up leaves room for some thousand changes."""
SYNC_SECONDS = 1
WITH_THEIR_SERVICES = ("LOCK#", "RETRAIN")
"""Partition keys of items about executions and jobs, which are as of the snapshot: these items stay as of it too."""
BESIDE = ("Statement", "ExecuteTransaction", "Table", "PointInTime", "Backup")
"""Endings of operations that change tables and note no items: a snapshot follows them at once."""

Change = tuple[str, str, str, dict[str, Any], bool, tuple[str, int] | None]
"""Account, region, table, the item (of a removed one its key), whether it is removed, and the id and the time of its
record in the table's stream."""

logger = logging.getLogger("journal")


class Journal:
    """The files of one home."""

    def __init__(self, state: Path) -> None:
        self.folder = state / "journal"
        self._lock = threading.Lock()
        self._file = -1
        self._end = self._reserved = 0
        self._owed: list[bytes] = []

    def numbers(self) -> list[int]:
        return sorted(int(path.name) for path in self.folder.glob("*") if path.name.isdigit())

    def begin(self) -> int:
        """Begins the next file, and returns its number. Raises OSError, and goes on with the file before, when the disk
        has no room for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        number = 1 + max(self.numbers(), default=0)
        path = self.folder / f"{number:012d}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(file, 0, RESERVED)
        except OSError:
            os.close(file)
            path.unlink()
            raise
        with self._lock:
            if self._file >= 0:
                os.ftruncate(self._file, self._end)
                os.fdatasync(self._file)
                os.close(self._file)
            self._file, self._end, self._reserved = file, 0, RESERVED
        return number

    def write(self, changes: list[Change]) -> None:
        """Writes one request's changes. Raises OSError while they do not fit on the disk: they are owed then, and are
        written before all later ones."""
        if changes:
            self._owed.append(encoded(changes, str, large=True) + b"\n")
        while self._owed:
            self._append(self._owed[0])
            self._owed.pop(0)

    def _append(self, line: bytes) -> None:
        with self._lock:
            if self._end + len(line) > self._reserved:
                with contextlib.suppress(OSError):  # the writing tells whether there is room for this line
                    os.posix_fallocate(self._file, self._reserved, RESERVED)
                    self._reserved += RESERVED
            written = 0
            while written < len(line):
                written += os.pwrite(self._file, line[written:], self._end + written)
            self._end += len(line)

    def keep_on_disk(self) -> None:
        """Writes the file to the disk again and again, for when the machine loses power. Never returns."""
        while True:
            time.sleep(SYNC_SECONDS)
            with contextlib.suppress(OSError):  # a new file has just been begun, and this one is on the disk
                os.fdatasync(self._file)

    def since(self, number: int) -> Iterator[list[Change]]:
        """The changes of each request, from file `number` on."""
        for found in self.numbers():
            if found >= number:
                try:
                    yield from map(json.loads, whole_lines((self.folder / f"{found:012d}").read_bytes()))
                except ValueError:
                    logger.exception("journal %s is damaged: what follows in it is left out", found)

    def remove_older(self, number: int) -> None:
        """Removes the files before that one."""
        for found in self.numbers():
            if found < number:
                (self.folder / f"{found:012d}").unlink()


def encoded(content: Any, default: Callable[[Any], Any], *, large: bool) -> bytes:
    """As JSON. orjson, four times as fast as json, writes NaN as null: it is for what has numbers as texts or integers,
    and is `large`."""
    if large:
        with contextlib.suppress(TypeError):  # half a surrogate pair, or an integer of more than 64 bits
            return orjson.dumps(content, default=default)
    # json.dump, which ministack uses, encodes in Python; looking for cycles would double the time that is left.
    encode = json.JSONEncoder(default=default, check_circular=False, separators=(",", ":"))
    return encode.encode(content).encode()


def whole_lines(content: bytes) -> list[bytes]:
    """Without what follows them: a line that was cut off, and reserved room. After a loss of power room may stand
    before a line, too: what follows it was not on the disk either."""
    written = content.partition(b"\0")[0]
    return written[: written.rfind(b"\n") + 1].splitlines()


def journal_before_acknowledging(journal: Journal, save_soon: Callable[[], object]) -> None:
    """In ministack tables are in memory alone. Here a request that changes one is answered once its changes are in the
    journal. While they do not fit on the disk each request is answered with 500 InternalServerError, and DynamoDB's
    clients try again."""
    from ministack.core.responses import error_response_json, get_account_id, get_region
    from ministack.services import dynamodb

    emit, handle = dynamodb._emit_stream_event, dynamodb.handle_request
    request: contextvars.ContextVar[list[Change] | None] = contextvars.ContextVar("request", default=None)

    def emit_and_note(name: str, event: str, old: Any, new: Any, *args: Any, **kwargs: Any) -> None:
        last = last_record(name)
        emit(name, event, old, new, *args, **kwargs)
        table, record = dynamodb._tables[name], last_record(name)
        key = {member: (new or old)[member] for member in (table["pk_name"], table["sk_name"]) if member}
        if str(key[table["pk_name"]].get("S")).startswith(WITH_THEIR_SERVICES):
            return
        told = (record["eventID"], record["dynamodb"]["ApproximateCreationDateTime"]) if record is not last else None
        change = (get_account_id(), get_region(), name, new or key, new is None, told)
        if (noted := request.get()) is None:
            journal.write([change])  # of a state machine
        else:
            noted.append(change)

    async def handle_and_write(method: str, path: str, headers: dict[str, str], *args: Any) -> Any:
        noted: list[Change] = []
        try:
            journal.write([])
            token = request.set(noted)
            try:
                answer = await handle(method, path, headers, *args)
            finally:
                request.reset(token)
                journal.write(noted)
        except OSError as error:
            return error_response_json("InternalServerError", f"The request was not stored: {error.strerror}", 500)
        operation = headers.get("x-amz-target", "")
        if operation.endswith(BESIDE) and ".Describe" not in operation:
            save_soon()
        return answer

    dynamodb._emit_stream_event = emit_and_note
    dynamodb.handle_request = handle_and_write


def last_record(table: str) -> Any:
    from ministack.services import dynamodb

    return next(reversed(dynamodb._stream_records.get(table) or ()), None)


def replay(changes: list[Change]) -> None:
    """Makes a request's changes again, and their records in the tables' streams. A table that is missing, or has
    another key, is left out: the one with these items was made after the snapshot."""
    from ministack.core.responses import request_scope
    from ministack.services import dynamodb

    for account, region, name, item, removed, told in changes:
        with request_scope(account, region):
            table = dynamodb._tables.get(name)
            if not table or not {table["pk_name"], table["sk_name"] or table["pk_name"]} <= item.keys():
                continue
            key = dynamodb._extract_key_val(item[table["pk_name"]])
            sort = dynamodb._extract_key_val(item[table["sk_name"]]) if table["sk_name"] else "__no_sort__"
            if removed:
                old, new = dynamodb._remove_item(table, key, sort), None
            else:
                old, new = dynamodb._set_item(table, key, sort, item), item
            if told and (old or new):
                last = last_record(name)
                dynamodb._emit_stream_event(name, "REMOVE" if removed else "MODIFY" if old else "INSERT", old, new)
                if (record := last_record(name)) is not last:
                    record["eventID"], record["dynamodb"]["ApproximateCreationDateTime"] = told
