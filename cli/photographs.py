"""Finds photographs on disk, names their bins, and uploads them to the images bucket.

A folder may contain a `labels.csv` with the columns `id, quantity`: the recorded quantity of each photograph
(`cli/labels.py`).
"""

import mimetypes
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cli.labels import is_labels, recorded

ENDINGS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".mpo"),
    *(".png", ".apng", ".webp", ".gif", ".avif", ".avifs"),
}
"""Of the formats that the count function accepts."""
IPHONES = {".heic", ".heif", ".hif"}
SYSTEM_FILES = {
    *("@eadir", "#recycle", "@recycle", "#snapshot", "@recently-snapshot", "lost+found", "__macosx", "thumbs.db"),
    *("ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
}
"""In lower case: what a NAS, macOS and Windows keep among a person's files, besides names that begin with a dot."""
DEFAULT_SITE = "default"
AT_ONCE = 8


@dataclass(frozen=True)
class Photograph:
    """One file and the bin it shows. `recorded` is the quantity in the inventory record, if known."""

    path: Path
    site: str
    bin: str
    recorded: int | None

    @property
    def key(self) -> str:
        return f"incoming/{self.site}/{self.bin}/{self.path.name}"


@dataclass(frozen=True)
class Uploaded:
    """A photograph in the bucket, stored as `version_id`; `sent_at` is when its upload started, in epoch seconds."""

    photograph: Photograph
    version_id: str
    sent_at: float


def find(paths: Iterable[Path], site: str | None, bin_: str | None) -> list[Photograph]:
    """The photographs at `paths`, in the order of their names within each folder.

    Below a folder, the last folders of a photograph's path name its site and bin (`<site>/<bin>/<name>`); without
    them the site is `default` and the bin is the photograph's name. `site` and `bin_` override both.
    Raises ValueError for an invalid labels.csv.
    """
    found = []
    for path in paths:
        inside = [p for p in below(path) if p.suffix.lower() in ENDINGS] if path.is_dir() else [path]
        for file in inside:
            *_, folder_site, folder_bin = ("", "", *(file.relative_to(path).parts[:-1] if file != path else ()))
            found.append(
                Photograph(file, site or folder_site or DEFAULT_SITE, bin_ or folder_bin or file.stem, recorded(file))
            )
    return found


def below(folder: Path, *, of_systems: bool = False) -> list[Path]:
    """The files below a folder, by name; those of systems, which are no person's, only when asked for them."""
    files = (file for file in sorted(folder.rglob("*")) if not file.is_dir())
    return [file for file in files if is_of_system(file.relative_to(folder)) is of_systems]


def is_of_system(path: Path) -> bool:
    return any(part.startswith(".") or part.lower() in SYSTEM_FILES for part in path.parts)


def left_out(paths: Iterable[Path]) -> list[Path]:
    """The files below the folders among `paths` that `find` does not accept as photographs.

    Labels files and files of systems are not among them.
    """
    files = (file for path in paths if path.is_dir() for file in below(path))
    return [file for file in files if file.suffix.lower() not in ENDINGS and not is_labels(file)]


def of_systems(paths: Iterable[Path]) -> int:
    """How many files of systems are below the folders among `paths`."""
    return sum(len(below(path, of_systems=True)) for path in paths if path.is_dir())


def kinds(files: Iterable[Path]) -> str:
    """HEIC; or 2 HEIC, 1 TXT: the extensions of files, the most frequent first."""
    found = Counter(file.suffix.lstrip(".").upper() or "no ending" for file in files)
    if len(found) == 1:
        return next(iter(found))
    return ", ".join(f"{number} {kind}" for kind, number in found.most_common())


def put_request(photograph: Photograph, bucket: str) -> dict[str, Any]:
    """The parameters of S3's PutObject, except the body."""
    request: dict[str, Any] = {"Bucket": bucket, "Key": photograph.key}
    request["ContentType"] = mimetypes.guess_type(photograph.path.name)[0] or "application/octet-stream"
    request["Metadata"] = {"modified-at": modified_at(photograph.path)}
    if photograph.recorded is not None:
        request["Metadata"]["expected-quantity"] = str(photograph.recorded)
    return request


def modified_at(file: Path) -> str:
    """When a file was last changed, in UTC: the count function's last resort for when a photograph was taken."""
    return datetime.fromtimestamp(int(file.stat().st_mtime), UTC).isoformat().replace("+00:00", "Z")


def send(s3: Any, bucket: str, photographs: list[Photograph], tick: Callable[[], None]) -> list[Uploaded]:
    """Uploads all, AT_ONCE at a time, and calls `tick` after each. Stops at the first failure and raises it."""

    def put(photograph: Photograph) -> Uploaded:
        sent_at = time.time()
        with photograph.path.open("rb") as body:
            answer = s3.put_object(Body=body, **put_request(photograph, bucket))
        return Uploaded(photograph, answer["VersionId"], sent_at)

    return list(_in_parallel(put, photographs, tick))


def _in_parallel(
    put: Callable[[Photograph], Uploaded], photographs: list[Photograph], tick: Callable[[], None]
) -> Iterator[Uploaded]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = [pool.submit(put, photograph) for photograph in photographs]
        try:
            for future in as_completed(running):
                yield future.result()
                tick()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
