"""The saved states of a local stack. Each is a folder with one file per service, all of one moment.

    <home>/state/
      000000000012/   a snapshot: a file per service, and manifest.json with their sizes and checksums
      journal/        what tables stored since (local/journal.py)
      part/           the one that is being written; never read
      lambda-blobs/   the functions' packages, named by their SHA-256, which the snapshots share
      running         exists from the start to an orderly stop; its mtime is the emulator's last sign of life
      unreconciled    a time: photographs that were uploaded since then may have lost their messages in a crash
      problem         the reason for which the last snapshot could not be written; otherwise blank

A snapshot gets its number by a rename once everything in it is on the disk, so a half-written one has none. The one
before the newest is kept in case the disk damages the newest.
"""

import contextlib
import json
import os
import shutil
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

MANIFEST = "manifest.json"
JOURNAL = "journal"
"""The name under which a snapshot has the number of its journal."""
PROBLEM_BYTES = 4096


@dataclass(frozen=True)
class Snapshot:
    """A complete saved state. `folder` contains `<service>.json`."""

    folder: Path

    @property
    def moment(self) -> datetime:
        """The moment of this state; later than its first writing if nothing has changed since."""
        return datetime.fromtimestamp(self.folder.stat().st_mtime, UTC)

    @property
    def journal(self) -> int:
        """The first file of the journal whose changes it may not have; 0 of one from before there was a journal."""
        file = self.folder / f"{JOURNAL}.json"
        return int(file.read_bytes()) if file.exists() else 0

    def renew(self, moment: float) -> None:
        """Nothing has changed: this is also the state of that moment (seconds since 1970)."""
        os.utime(self.folder, (moment, moment))

    def size(self) -> int:
        """In bytes."""
        return sum(file.stat().st_size for file in self.folder.glob("*.json"))


class Snapshots:
    def __init__(self, home: Path) -> None:
        self.root = home / "state"
        self.blobs = self.root / "lambda-blobs"
        self.running, self.problem_file = self.root / "running", self.root / "problem"
        self.loss_file = self.root / "unreconciled"

    def newest(self) -> Snapshot | None:
        """The newest complete snapshot; None before the first. A damaged one counts as none."""
        for number in reversed(self.numbers()):
            folder = self.root / f"{number:012d}"
            if is_complete(folder):
                return Snapshot(folder)
        # Before there were snapshots, an orderly stop wrote the files into the folder itself.
        return Snapshot(self.root) if any(self.root.glob("*.json")) else None

    def last_written(self) -> Snapshot | None:
        """As newest(), for one that this machine has just written: its content is not checked."""
        numbers = self.numbers()
        return Snapshot(self.root / f"{numbers[-1]:012d}") if numbers else self.newest()

    def numbers(self) -> list[int]:
        found = self.root.iterdir() if self.root.is_dir() else ()
        return sorted(int(entry.name) for entry in found if entry.name.isdigit())

    def write(self, states: Iterable[tuple[str, bytes]], moment: float, newest: Snapshot | None) -> Snapshot:
        """Writes the states of the services (name, JSON), all of one moment, as the newest snapshot. First it removes
        all but `newest`, the one that is complete.

        Raises OSError when they cannot be stored; the newest one then stays what it was.
        """
        numbers, part = self.numbers(), self.root / "part"
        for number in numbers:
            folder = self.root / f"{number:012d}"
            if newest is None or folder != newest.folder:
                shutil.rmtree(folder, ignore_errors=True)
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            written = {}
            for name, content in states:
                write_durably(part / f"{name}.json", content)
                written[f"{name}.json"] = [len(content), zlib.crc32(content)]
            write_durably(part / MANIFEST, json.dumps(written).encode())
            for blob in self.blobs.glob("*.zip"):
                sync(blob)
            sync(part)
            os.utime(part, (moment, moment))
            folder = self.root / f"{1 + max(numbers, default=0):012d}"
            part.rename(folder)
            sync(self.root)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        for old in self.root.glob("*.json"):
            old.unlink()
        self.remove_unused_blobs()
        return Snapshot(folder)

    def remove_unused_blobs(self) -> None:
        """Removes the functions' packages that no snapshot names."""
        named = [file.read_text() for file in self.root.glob("*/lambda.json")]
        for blob in self.blobs.glob("*.zip"):
            if not any(blob.stem in state for state in named):
                blob.unlink()

    # A start, a stop and a crash

    def note_loss(self, since: datetime) -> None:
        """Photographs that were uploaded since then may have no count, until they are reconciled."""
        self.root.mkdir(parents=True, exist_ok=True)
        earlier = self.unreconciled()
        write_durably(self.loss_file, min(since, earlier or since).isoformat().encode())

    def unreconciled(self) -> datetime | None:
        try:
            return datetime.fromisoformat(self.loss_file.read_text())
        except (FileNotFoundError, ValueError):
            return None

    def note_reconciled(self) -> None:
        self.loss_file.unlink(missing_ok=True)

    def stopped_in_order(self) -> bool:
        return not self.running.exists()

    def mark_running(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.running.touch()
        self.set_problem("")

    def show_life(self) -> None:
        with contextlib.suppress(OSError):  # it has just stopped
            os.utime(self.running)

    def mark_stopped(self) -> None:
        self.running.unlink(missing_ok=True)

    def seconds_lost(self, snapshot: Snapshot) -> float:
        """How long the emulator lived on after the snapshot's moment, before it stopped without saving."""
        return max(0.0, self.running.stat().st_mtime - snapshot.moment.timestamp())

    def problem(self) -> str:
        """The reason for which the last snapshot could not be written; otherwise empty."""
        try:
            return self.problem_file.read_text().strip()
        except FileNotFoundError:
            return ""

    def set_problem(self, reason: str) -> None:
        """Overwrites the file in place: a full disk has no room for a new one."""
        content = reason.encode()[:PROBLEM_BYTES].ljust(PROBLEM_BYTES)
        descriptor = os.open(self.problem_file, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)


def is_complete(folder: Path) -> bool:
    """Whether a snapshot's files are those that were written."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        return all(
            len(content := (folder / name).read_bytes()) == size and zlib.crc32(content) == checksum
            for name, (size, checksum) in manifest.items()
        )
    except (OSError, ValueError):
        return False


def write_durably(path: Path, content: bytes) -> None:
    """Writes a file and waits until it is on the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Waits until a file, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
