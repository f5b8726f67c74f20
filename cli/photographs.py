"""Uploads photographs to the images bucket; `training/dataset/folder.py` finds them and names their bins."""

import mimetypes
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training.dataset.folder import DEFAULT_SITE as DEFAULT_SITE
from training.dataset.folder import ENDINGS, below
from training.dataset.folder import Photograph as Photograph
from training.dataset.folder import find as find
from training.dataset.labels import is_labels

IPHONES = {".heic", ".heif", ".hif"}
AT_ONCE = 8


@dataclass(frozen=True)
class Uploaded:
    """A photograph in the bucket, stored as `version_id`; `sent_at` is when its upload started, in epoch seconds."""

    photograph: Photograph
    version_id: str
    sent_at: float


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
