"""S3 here acknowledges what is stored, and nothing else.

ministack answers 200 to an upload that it could not write (a full disk, a quota, a read-only folder), and puts its
event before it writes. Here every write waits until it is on the disk; one that fails answers 500 InternalError, leaves
the key as it was, and puts no event.

This module touches ministack's internals, as local/emulator.py does.
"""

import contextlib
import contextvars
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from local.snapshots import sync


class NotStored(BaseException):
    """A write failed, for the reason that it names. Not an Exception: ministack logs those, and acknowledges."""


class Write:
    """What a request does besides writing: its events, for when it is stored, and how to undo it when it is not."""

    def __init__(self) -> None:
        self.events: list[Callable[[], object]] = []
        self.undo: list[Callable[[], object]] = []


WRITE: contextvars.ContextVar[Write | None] = contextvars.ContextVar("write", default=None)


def store_before_acknowledging(reserve: Callable[[], int]) -> None:
    """Replaces ministack's writes. `reserve` is the room, in bytes, that the next snapshot needs: an upload that
    would use it fails, so that the state can still be saved."""
    from ministack.services import s3

    handle, fire = s3.handle_request, s3._fire_s3_event_async

    async def handle_as_one(method: str, *args: Any, **kwargs: Any) -> Any:
        write = Write()
        token = WRITE.set(write)
        uploads = dict(s3._multipart_uploads._data) if method == "POST" else {}
        try:
            answer = await handle(method, *args, **kwargs)
        except NotStored as error:
            for undo in reversed(write.undo):
                undo()
            for upload in uploads.keys() - s3._multipart_uploads._data.keys():
                s3._multipart_uploads._data[upload] = uploads[upload]  # the client may complete it again
            return s3._error("InternalError", f"The request was not stored: {error}", 500)
        finally:
            WRITE.reset(token)
        for event in write.events:
            event()
        return answer

    def fire_when_stored(*args: Any, **kwargs: Any) -> None:
        write, context = WRITE.get(), contextvars.copy_context()
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

    def persist(bucket: str, key: str, obj: Any) -> None:
        """Writes body and metadata beside the old ones, and exchanges them once both are on the disk."""
        path = s3._object_disk_path(bucket, key)
        with stored():
            Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            body = obj.get("body")
            metadata = s3._object_meta_from_record(obj) | s3._key_history_meta(bucket, key) | {"key": key}
            room = 0 if body is None else reserve()  # a deletion rewrites the metadata alone: it may make room
            write_all(room, {path: body, f"{path}.meta.json": json.dumps(metadata).encode()})
            folder = str(Path(s3.DATA_DIR, s3.get_account_id(), bucket))
            s3._remove_key_files(s3._other_key_disk_path(folder, key, path))
        obj["body"] = None  # ministack reads it from the disk, here and in the newest version
        for version in s3._object_versions.get((bucket, key)) or []:
            if version["version_id"] == obj.get("version_id"):
                version["data"] = None

    def write_atomically(path: str, data: bytes | str, *, text: bool = False) -> None:
        with stored():
            write_all(0 if text else reserve(), {path: data.encode() if isinstance(data, str) else data})

    s3.handle_request = handle_as_one
    s3._fire_s3_event_async = fire_when_stored
    s3._record_object_version = undoable(s3._record_object_version)
    s3._record_delete_marker = undoable(s3._record_delete_marker)
    s3._persist_object = persist
    s3._atomic_write = write_atomically
    # Where ministack makes and removes files beside these, a failure must not be swallowed either.
    s3.os = SimpleNamespace(**vars(os) | {name: not_swallowed(getattr(os, name)) for name in ("makedirs", "remove")})


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


def write_all(reserve: int, contents: dict[str, bytes | None]) -> None:
    """Writes files, all or none of them (None: as it is), and waits until they are on the disk. Raises OSError."""
    drafts = {Path(path): Path(f"{path}.tmp") for path, content in contents.items() if content is not None}
    try:
        for path, draft in drafts.items():
            content = contents[str(path)] or b""
            if shutil.disk_usage(path.parent).free < len(content) + reserve:
                raise OSError(f"the disk has less than {reserve / 1e6:.0f} MB left, which saving the state needs")
            draft.write_bytes(content)
        for draft in drafts.values():  # after all are written: what stores the first stores most of the next
            sync(draft)
        for path, draft in drafts.items():
            draft.replace(path)
        for folder in {path.parent for path in drafts}:
            sync(folder)
    finally:
        for draft in drafts.values():
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
