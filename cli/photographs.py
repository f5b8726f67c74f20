"""Finds photographs on disk, names their bins, and uploads them to the images bucket.

A folder may contain a `labels.csv` with the columns `id, quantity`: the recorded quantity of each photograph.
An id is the photograph's path from that folder without its extension, or only its name without its extension.
"""

import csv
import mimetypes
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}  # the formats that the count function accepts
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
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS) if path.is_dir() else [path]
        for file in inside:
            *_, folder_site, folder_bin = ("", "", *(file.relative_to(path).parts[:-1] if file != path else ()))
            found.append(
                Photograph(file, site or folder_site or DEFAULT_SITE, bin_ or folder_bin or file.stem, recorded(file))
            )
    return found


def left_out(paths: Iterable[Path]) -> list[Path]:
    """The files below the folders among `paths` that `find` does not accept as photographs.

    Labels files and hidden files are not among them.
    """
    below = (file for path in paths if path.is_dir() for file in sorted(path.rglob("*")))
    return [
        file
        for file in below
        if file.is_file()
        and file.suffix.lower() not in ENDINGS
        and file.name != "labels.csv"
        and not file.name.startswith(".")
    ]


def kinds(files: Iterable[Path]) -> str:
    """HEIC; or 2 HEIC, 1 TXT: the extensions of files, the most frequent first."""
    found = Counter(file.suffix.lstrip(".").upper() or "no ending" for file in files)
    if len(found) == 1:
        return next(iter(found))
    return ", ".join(f"{number} {kind}" for kind, number in found.most_common())


def recorded(file: Path) -> int | None:
    """A photograph's quantity in the nearest labels.csv: in its folder, or up to two folders higher."""
    for folder in file.absolute().parents[:3]:
        if quantities := labels(folder):
            return quantities.get(
                file.absolute().relative_to(folder).with_suffix("").as_posix(), quantities.get(file.stem)
            )
    return None


@cache
def labels(folder: Path) -> dict[str, int]:
    path = folder / "labels.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as sheet:
        try:
            return {row["id"]: int(row["quantity"]) for row in csv.DictReader(sheet)}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} needs the columns id and quantity, with whole numbers as quantity") from error


def put_request(photograph: Photograph, bucket: str) -> dict[str, Any]:
    """The parameters of S3's PutObject, except the body."""
    request: dict[str, Any] = {"Bucket": bucket, "Key": photograph.key}
    request["ContentType"] = mimetypes.guess_type(photograph.path.name)[0] or "application/octet-stream"
    if photograph.recorded is not None:
        request["Metadata"] = {"expected-quantity": str(photograph.recorded)}
    return request


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
