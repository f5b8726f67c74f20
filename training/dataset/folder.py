"""Finds photographs on disk, names their bins and reads their labels, for `bintally upload` and for training by hand.

A folder may contain a `labels.csv` with the columns `id, quantity`: the recorded quantity of each photograph
(`training/dataset/labels.py`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from training.dataset.labels import recorded

ENDINGS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".mpo"),
    *(".png", ".apng", ".webp", ".gif", ".avif", ".avifs"),
}
"""Of the formats that the count function accepts."""
SYSTEM_FILES = {
    *("@eadir", "#recycle", "@recycle", "#snapshot", "@recently-snapshot", "lost+found", "__macosx", "thumbs.db"),
    *("ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
}
"""In lower case: what a NAS, macOS and Windows keep among a person's files, besides names that begin with a dot."""
DEFAULT_SITE = "default"


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
