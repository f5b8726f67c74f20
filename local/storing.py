"""S3 here acknowledges what is stored, and nothing else.

ministack answers 200 to an upload that it could not write (a full disk, a quota, a read-only folder), and puts its
event before it writes. Here every write waits until it is on the disk; one that fails answers 500 InternalError, leaves
the key as it was, and puts no event. While a PUT writes its object to the disk, other requests are answered, except
those that change the same key. They may see an object that is not stored in the end; it was not acknowledged.

This module touches ministack's internals, as local/emulator.py does.
"""

import asyncio
import contextlib
import contextvars
import json
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from local.snapshots import sync


class NotStored(BaseException):
    """A write failed, for the reason that it names. Not an Exception: ministack logs those, and acknowledges."""


class Write:
    """What a request does besides writing: its events, for when it is stored, and how to undo it when it is not."""

    def __init__(self, *, may_wait: bool) -> None:
        self.may_wait = may_wait
        """Whether objects get onto the disk after the request is handled, and not at once."""
        self.objects: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {}
        """By path: how to get an object onto the disk, and what to do then."""
        self.events: list[Callable[[], object]] = []
        self.undo: list[Callable[[], object]] = []


class Turns:
    """Requests that change a key, or several of its bucket (no key), take turns in the order of their arrival. So do
    those of keys of which one is the folder of the other on the disk."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # state machines ask from threads and loops of their own
        self._taken: list[tuple[str, str, Future[None]]] = []

    @contextlib.asynccontextmanager
    async def turn(self, bucket: str, key: str) -> AsyncIterator[None]:
        mine = (bucket, key, Future[None]())
        with self._lock:
            earlier = [done for other, its, done in self._taken if other == bucket and meet(its, key)]
            self._taken.append(mine)
        try:
            for done in earlier:
                await asyncio.shield(asyncio.wrap_future(done))
            yield
        finally:
            with self._lock:
                self._taken.remove(mine)
            mine[2].set_result(None)


WRITE: contextvars.ContextVar[Write | None] = contextvars.ContextVar("write", default=None)


def meet(one: str, other: str) -> bool:
    return not one or not other or f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


async def in_thread(call: Callable[[], object]) -> None:
    """Waits for the thread even when it is cancelled: its files are those of the next request, too."""
    done = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        await asyncio.shield(done)
    except asyncio.CancelledError:
        await asyncio.wait([done])
        raise


def store_before_acknowledging(reserve: Callable[[], int]) -> None:
    """Replaces ministack's writes. `reserve` is the room, in bytes, that the next snapshot needs: an upload that
    would use it fails, so that the state can still be saved."""
    from ministack.services import s3

    handle, fire, delete, turns = s3.handle_request, s3._fire_s3_event_async, s3._delete_object_version, Turns()

    async def handle_in_turn(method: str, path: str, headers: dict[str, str], *args: Any, **kwargs: Any) -> Any:
        if method in ("GET", "HEAD"):
            return await handle(method, path, headers, *args, **kwargs)
        bucket, key = s3._parse_bucket_key(path, headers)
        async with turns.turn(bucket, key):
            return await handle_as_one(
                Write(may_wait=method == "PUT" and bool(key)), method, path, headers, *args, **kwargs
            )

    async def handle_as_one(write: Write, method: str, *args: Any, **kwargs: Any) -> Any:
        token = WRITE.set(write)
        uploads = dict(s3._multipart_uploads._data) if method == "POST" else {}
        try:
            answer = await handle(method, *args, **kwargs)
            if write.objects:
                await in_thread(lambda: [keep() for keep, _ in write.objects.values()])
            for _, kept in write.objects.values():
                kept()
        except BaseException as error:
            for undo in reversed(write.undo):
                undo()
            for upload in uploads.keys() - s3._multipart_uploads._data.keys():
                s3._multipart_uploads._data[upload] = uploads[upload]  # the client may complete it again
            if not isinstance(error, NotStored):
                raise
            return s3._error("InternalError", f"The request was not stored: {error}", 500)
        finally:
            WRITE.reset(token)
        for event in write.events:
            event()
        return answer

    def fire_when_stored(*args: Any, **kwargs: Any) -> None:
        write, context = WRITE.get(), contextvars.copy_context()
        context.run(WRITE.set, None)
        if write is None:
            fire(*args, **kwargs)
        else:
            write.events.append(lambda: context.run(fire, *args, **kwargs))

    def undoable(function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that changes the versions of a key, whose current object was `prior`."""

        def changed(bucket_name: str, key: str, prior: Any, *args: Any) -> Any:
            if write := WRITE.get():
                bucket = s3._ensure_bucket(bucket_name)
                versions = [dict(entry) for entry in s3._object_versions.get((bucket_name, key)) or []]

                def undo() -> None:
                    put_back(bucket["objects"], key, prior)
                    put_back(s3._object_versions, (bucket_name, key), versions or None)

                write.undo.append(undo)
            return function(bucket_name, key, prior, *args)

        return changed

    def delete_or_put_back(bucket: Any, bucket_name: str, key: str, version: str) -> Any:
        """Its retry would find no such version, and be acknowledged."""
        current = bucket["objects"].get(key)
        versions = [dict(entry) for entry in s3._object_versions.get((bucket_name, key)) or []]
        try:
            return delete(bucket, bucket_name, key, version)
        except NotStored:
            put_back(bucket["objects"], key, current)
            put_back(s3._object_versions, (bucket_name, key), versions or None)
            raise

    def persist(bucket: str, key: str, obj: Any) -> None:
        """Writes body and metadata beside the old ones, and exchanges them once both are on the disk."""
        path = s3._object_disk_path(bucket, key)
        with stored():
            Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            body = obj.get("body")
            metadata = s3._object_meta_from_record(obj) | s3._key_history_meta(bucket, key) | {"key": key}
            room = 0 if body is None else reserve()  # a deletion rewrites the metadata alone: it may make room
            # The metadata first: after a crash between the two, a version that was acknowledged has its own bytes.
            drafts = draft_all(room, {f"{path}.meta.json": json.dumps(metadata).encode(), path: body})
        folder, versions = str(Path(s3.DATA_DIR, s3.get_account_id(), bucket)), s3._object_versions.get((bucket, key))

        def keep() -> None:
            with stored():
                keep_all(drafts)
                s3._remove_key_files(s3._other_key_disk_path(folder, key, path))

        def kept() -> None:
            obj["body"] = None  # ministack reads it from the disk, here and in the newest version
            for version in versions or []:
                if version["version_id"] == obj.get("version_id"):
                    version["data"] = None

        if (write := WRITE.get()) and write.may_wait:
            write.objects[path] = keep, kept
            write.undo.append(lambda: discard(drafts))
        else:
            keep()
            kept()

    def write_atomically(path: str, data: bytes | str, *, text: bool = False) -> None:
        with stored():
            write_all(0 if text else reserve(), {path: data.encode() if isinstance(data, str) else data})

    s3.handle_request = handle_in_turn
    s3._fire_s3_event_async = fire_when_stored
    s3._record_object_version = undoable(s3._record_object_version)
    s3._record_delete_marker = undoable(s3._record_delete_marker)
    s3._delete_object_version = delete_or_put_back
    s3._persist_object = persist
    s3._atomic_write = write_atomically
    # Where ministack makes and removes files beside these, a failure must not be swallowed either.
    own = {"makedirs": not_swallowed(os.makedirs), "remove": not_swallowed(remove)}
    s3.os = SimpleNamespace(**vars(os) | own)


def put_back(store: Any, key: Any, value: Any) -> None:
    if value is None:
        store.pop(key, None)
    else:
        store[key] = value


@contextlib.contextmanager
def stored() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotStored(error.strerror or str(error)) from error


def not_swallowed(function: Callable[..., Any]) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        with stored():
            return function(*args, **kwargs)

    return called


def remove(path: str) -> None:
    """Removes a file, and waits until the disk knows. Raises OSError."""
    Path(path).unlink()
    sync(Path(path).parent)


def write_all(reserve: int, contents: dict[str, bytes | None]) -> None:
    """Writes files, all or none of them (None: as it is), and waits until they are on the disk. Raises OSError."""
    keep_all(draft_all(reserve, contents))


def draft_all(reserve: int, contents: dict[str, bytes | None]) -> dict[Path, Path]:
    """Writes files beside those that `keep_all` exchanges them for. Raises OSError."""
    drafts = {Path(path): Path(f"{path}.tmp") for path, content in contents.items() if content is not None}
    try:
        for path, draft in drafts.items():
            content = contents[str(path)] or b""
            if shutil.disk_usage(path.parent).free < len(content) + reserve:
                raise OSError(f"the disk has less than {reserve / 1e6:.0f} MB left, which saving the state needs")
            draft.write_bytes(content)
    except OSError:
        discard(drafts)
        raise
    return drafts


def keep_all(drafts: dict[Path, Path]) -> None:
    """Waits until drafts are on the disk, and exchanges the files for them, all or none. Raises OSError."""
    try:
        for draft in drafts.values():  # after all are written: what stores the first stores most of the next
            sync(draft)
        for path, draft in drafts.items():
            draft.replace(path)
        for folder in {path.parent for path in drafts}:
            sync(folder)
    finally:
        discard(drafts)


def discard(drafts: dict[Path, Path]) -> None:
    for draft in drafts.values():
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
