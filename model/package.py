"""The model package: all files to serve and check one version of the counter, as a folder or `model.tar.gz`.

    model.xml, model.bin   the OpenVINO network: `images` float32 [N, 3, S, S] to `logits` [N, 7]
    package.json           version, classes, preprocessing, decision rule, calibration, metrics, digests
    golden/*.png           pictures with the answers that this package must give

A package records the preprocessing it was made for, and does not load with any other.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import statistics
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model import preprocess
from model.answer import CLASSES, Answer

FORMAT_VERSION = 1
DECISION_RULE = "posterior_median"
NAME = "package.json"
TOLERANCE = 0.02
"""Mean difference of the probabilities between the processor that recorded a golden answer and one that repeats it.
With and without VNNI, int8 is rounded otherwise: single probabilities of one package were 0.025 apart."""
CLEAR = TOLERANCE * len(CLASSES) / 2
"""Minimum distance of a golden picture's cumulative probabilities from one half: what the tolerance admits cannot move
one further (the differences sum to 0), so that it never changes the count, the median."""


class PackageError(ValueError):
    """The package is damaged or was made for other code; the message says which."""


@dataclass(frozen=True)
class Golden:
    """A picture in the package and its answer, which every server of the package must repeat."""

    file: str
    data: bytes
    answer: Answer

    def difference(self, answer: Answer) -> str | None:
        """How `answer` differs from the recorded one; None if another processor explains the difference."""
        for name in ("count", "is_minimum", "model_version"):
            if answer[name] != self.answer[name]:
                return f"{name} is {answer[name]}, recorded is {self.answer[name]}"
        pairs = zip(answer["probabilities"], self.answer["probabilities"], strict=True)
        mean = statistics.fmean(abs(a - b) for a, b in pairs)
        return None if mean <= TOLERANCE else f"the probabilities are off by {mean:.3f} on average"  # NaN is off too


@dataclass(frozen=True)
class Package:
    """A package; every file has been checked against its digest."""

    directory: Path
    model_version: str
    temperature: float
    bias: list[float]
    golden: list[Golden]
    description: dict[str, Any]

    @property
    def prior(self) -> list[float] | None:
        """The shares of the classes [7] among the photographs that the network learned from; None in older packages."""
        found: list[float] | None = self.description.get("prior")
        return found

    @property
    def size(self) -> int:
        """Edge of the network's square input, in pixels."""
        return int(self.description["preprocessing"]["size"])

    @property
    def network(self) -> Path:
        return self.directory / "model.xml"


def load(folder: Path, digest: str | None = None) -> Package:
    """Reads a package's folder. Raises `PackageError` when a digest, the format or the preprocessing differs.

    `digest` is the SHA-256 of package.json that a release has pinned: another package at its address is refused. Since
    package.json contains the digests of all other files, it stands for the whole package.
    """
    try:
        content = (folder / NAME).read_bytes()
        description = json.loads(content)
    except FileNotFoundError:
        raise PackageError(f"there is no {NAME} in {folder}") from None
    except ValueError as error:
        raise PackageError(f"{NAME} is not JSON: {error}") from None
    if digest and (found := hashlib.sha256(content).hexdigest()) != digest:
        raise PackageError(f"the package was replaced after its release: {NAME} is {found[:12]}, not {digest[:12]}")
    try:
        expected: list[tuple[str, Any, Any]] = [
            ("format_version", description["format_version"], FORMAT_VERSION),
            ("classes", description["classes"], list(CLASSES)),
            ("preprocessing", description["preprocessing"], preprocess.DESCRIPTION),
            ("decision_rule", description["decision_rule"], DECISION_RULE),
        ]
        for name, has, wanted in expected:
            if has != wanted:
                raise PackageError(f"the package's {name} is {has}, this code's is {wanted}")
        for name, wanted in description["files"].items():
            if not (folder / name).is_file() or sha256(folder / name) != wanted:
                raise PackageError(f"{name} is missing or not the file that the package was made with")
        for name in ("model.xml", "model.bin", *(golden["file"] for golden in description["golden"])):
            if name not in description["files"]:
                raise PackageError(f"{name} has no digest")
        return Package(
            directory=folder,
            model_version=description["model_version"],
            temperature=description["calibration"]["temperature"],
            bias=description["calibration"]["bias"],
            golden=[
                Golden(golden["file"], (folder / golden["file"]).read_bytes(), golden["answer"])
                for golden in description["golden"]
            ],
            description=description,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise PackageError(f"{NAME} lacks {error}") from None


def build(
    folder: Path,
    *,
    model_version: str,
    golden: dict[str, Answer],
    temperature: float = 1.0,
    bias: list[float] | None = None,
    details: dict[str, Any] | None = None,
) -> Package:
    """Makes a package of a folder that contains the network and the `golden` pictures, and loads it.

    `details` are further entries of package.json: metrics, digests, code version, parent.
    """
    files = ["model.xml", "model.bin", *golden]
    description: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "model_version": model_version,
        "classes": list(CLASSES),
        "preprocessing": preprocess.DESCRIPTION,
        "decision_rule": DECISION_RULE,
        "calibration": {"temperature": temperature, "bias": bias or [0.0] * len(CLASSES)},
        "golden": [{"file": name, "answer": answer} for name, answer in golden.items()],
        "files": {name: sha256(folder / name) for name in files},
        **(details or {}),
    }
    (folder / NAME).write_text(json.dumps(description, indent=1) + "\n")
    return load(folder)


def pack(package: Package, archive: Path) -> None:
    """Writes a package as `model.tar.gz`, byte for byte the same for the same package."""

    def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return member

    names = sorted([NAME, *package.description["files"]])
    with (
        archive.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in names:
            tar.add(package.directory / name, name, filter=anonymous)


def unpack(archive: Path, folder: Path) -> Package:
    """Unpacks `model.tar.gz` into a folder and loads it. Raises `PackageError`."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            extract(tar, folder)
    except (tarfile.TarError, zlib.error, OSError, EOFError, OverflowError, ValueError) as error:
        raise PackageError(f"{archive.name} cannot be unpacked: {error}") from error
    return load(folder)


def extract(tar: tarfile.TarFile, folder: Path) -> None:
    """Writes an archive's files and folders below `folder`. Raises `tarfile.TarError` for a link, or a name that leads
    elsewhere. Python 3.11.2, which Debian 12 has, lacks `extractall(filter="data")`."""
    root = folder.resolve()
    for member in tar:
        path = (root / member.name).resolve()
        if not (member.isreg() or member.isdir()) or not path.is_relative_to(root):
            raise tarfile.TarError(f"{member.name} is not a file or folder inside the archive")
        (path if member.isdir() else path.parent).mkdir(parents=True, exist_ok=True)
        if source := tar.extractfile(member):
            with source, path.open("wb") as file:
                shutil.copyfileobj(source, file)


def sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
