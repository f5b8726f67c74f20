"""Keeps what tables stored since the newest snapshot, so that a crash loses none of it.

    <home>/state/journal/000000000012   what requests changed after snapshot 12: a line of JSON for each request

A request is answered once its line is in the file: `kill -9` leaves it to the system, which writes it. Whoever starts
from snapshot 12 replays the lines of 12 and of all later files, since a later snapshot may be damaged or unfinished.
Each line has whole items, so it may be replayed on a state that has it already.

This module touches ministack's internals, as local/emulator.py does.
"""

import contextlib
import contextvars
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

RESERVED = 4 << 20
"""Bytes that a file takes before it needs them: a disk that fills up leaves room for some thousand changes."""
WITH_THEIR_SERVICES = ("LOCK#", "RETRAIN")
"""Partition keys of items about executions and jobs, which are as of the snapshot: these items stay as of it too."""

Change = tuple[str, str, str, dict[str, Any], bool, tuple[str, int] | None]
"""Account, region, table, the item (of a removed one its key), whether it is removed, and the id and the time of its
record in the table's stream."""


class Journal:
    """The files of one home. Used by the thread that answers requests, but for `sync`."""

    def __init__(self, state: Path) -> None:
        self.folder = state / "journal"
        self._file = -1
        self._end = self._reserved = 0

    def begin(self, number: int) -> None:
        """What is written from now on follows snapshot `number`. Raises OSError, and changes nothing, when the disk
        has no room for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{number:012d}"
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        end = len(whole_lines(path.read_bytes()))
        try:
            os.posix_fallocate(file, end, RESERVED)
        except OSError:
            os.close(file)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self._end, self._reserved = file, end, end + RESERVED

    def write(self, changes: list[Change]) -> None:
        """Writes one request's changes. Raises OSError when they do not fit on the disk."""
        line = orjson.dumps(changes) + b"\n"
        if self._end + len(line) > self._reserved:
            with contextlib.suppress(OSError):  # the writing tells whether there is room for this line
                os.posix_fallocate(self._file, self._reserved, RESERVED)
                self._reserved += RESERVED
        written = 0
        while written < len(line):
            written += os.pwrite(self._file, line[written:], self._end + written)
        self._end += len(line)

    def sync(self) -> None:
        """Waits until what is written is on the disk, for when the machine loses power."""
        with contextlib.suppress(OSError):
            os.fdatasync(self._file)

    def since(self, number: int) -> Iterator[list[Change]]:
        """The changes of each request after a snapshot."""
        for path in sorted(self.folder.glob("*")):
            if int(path.name) >= number:
                yield from map(json.loads, whole_lines(path.read_bytes()).splitlines())


def remove_older(state: Path, number: int) -> None:
    """Removes what no start from snapshot `number` or a later one replays."""
    for path in (state / "journal").glob("*"):
        if int(path.name) < number:
            path.unlink()


def whole_lines(content: bytes) -> bytes:
    """Without what follows them: a line that a crash cut off, and reserved room."""
    return content[: content.rfind(b"\n") + 1]


def journal_before_acknowledging(journal: Journal) -> None:
    """In ministack tables are in memory alone. Here a request that changes one is answered once its changes are in the
    journal; if they do not fit on the disk the answer is 500 InternalServerError, and DynamoDB's clients try again."""
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

    async def handle_and_write(*args: Any) -> Any:
        noted: list[Change] = []
        token = request.set(noted)
        try:
            answer = await handle(*args)
        finally:
            request.reset(token)
        try:
            if noted:
                journal.write(noted)
        except OSError as error:
            return error_response_json("InternalServerError", f"The request was not stored: {error.strerror}", 500)
        return answer

    dynamodb._emit_stream_event = emit_and_note
    dynamodb.handle_request = handle_and_write


def last_record(table: str) -> Any:
    from ministack.services import dynamodb

    return next(reversed(dynamodb._stream_records.get(table) or ()), None)


def replay(changes: list[Change]) -> None:
    """Makes a request's changes again, and their records in the tables' streams. A table that is missing has no items:
    it was made after the snapshot."""
    from ministack.core.responses import request_scope
    from ministack.services import dynamodb

    for account, region, name, item, removed, told in changes:
        with request_scope(account, region):
            table = dynamodb._tables.get(name)
            if not table:
                continue
            key = dynamodb._extract_key_val(item[table["pk_name"]])
            sort = dynamodb._extract_key_val(item[table["sk_name"]]) if table["sk_name"] else "__no_sort__"
            if removed:
                old, new = dynamodb._remove_item(table, key, sort), None
            else:
                old, new = dynamodb._set_item(table, key, sort, item), item
            if told and (old or new):
                dynamodb._emit_stream_event(name, "REMOVE" if removed else "MODIFY" if old else "INSERT", old, new)
                if record := last_record(name):
                    record["eventID"], record["dynamodb"]["ApproximateCreationDateTime"] = told
