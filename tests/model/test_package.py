"""A package loads whole and for this code, or not at all."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model import package
from model.answer import Answer


@pytest.fixture
def built(tmp_path: Path) -> Path:
    folder = tmp_path / "built"
    (folder / "golden").mkdir(parents=True)
    for name in ("model.xml", "model.bin", "golden/0.png"):
        (folder / name).write_bytes(name.encode())
    recorded: Answer = {
        "count": 2,
        "is_minimum": False,
        "expected_capped": 2.0,
        "confidence": 1.0,
        "probabilities": [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
        "model_version": "v1",
    }
    package.build(folder, model_version="v1", golden={"golden/0.png": recorded}, details={"parent": None})
    return folder


def test_packing_and_unpacking_gives_the_same_package(built: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.tar.gz", tmp_path / "2.tar.gz"
    package.pack(package.load(built), first)
    package.pack(package.load(built), second)
    assert first.read_bytes() == second.read_bytes()
    found = package.unpack(first, tmp_path / "unpacked")
    assert found.model_version == "v1"
    assert found.description == package.load(built).description
    assert found.golden[0].data == b"golden/0.png"


@pytest.mark.parametrize("name", ["model.xml", "model.bin", "golden/0.png"])
def test_a_changed_or_missing_file_is_refused(built: Path, name: str) -> None:
    (built / name).write_bytes(b"other")
    with pytest.raises(package.PackageError, match=name):
        package.load(built)
    (built / name).unlink()
    with pytest.raises(package.PackageError, match=name):
        package.load(built)


def test_another_package_than_the_pinned_one_is_refused(built: Path) -> None:
    digest = package.sha256(built / "package.json")
    assert package.load(built, digest).model_version == "v1"
    with pytest.raises(package.PackageError, match="the package was replaced after its release"):
        package.load(built, "0" * 64)


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "format_version": lambda d: d.update(format_version=2),
    "preprocessing": lambda d: d["preprocessing"].update(size=99),
    "classes": lambda d: d["classes"].pop(),
    "decision_rule": lambda d: d.update(decision_rule="argmax"),
    "model.bin": lambda d: d["files"].pop("model.bin"),
    "golden": lambda d: d.pop("golden"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_package_for_other_code_is_refused(built: Path, name: str) -> None:
    description = json.loads((built / "package.json").read_text())
    CHANGES[name](description)
    (built / "package.json").write_text(json.dumps(description))
    with pytest.raises(package.PackageError, match=name):
        package.load(built)


@pytest.mark.parametrize("content", [b"no archive", b"\x1f\x8b", b"\x1f\x8b\x08", b"\x1f\x8b\x08\x0c\0\0"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.tar.gz").write_bytes(content)
    with pytest.raises(package.PackageError, match="unpacked"):
        package.unpack(tmp_path / "model.tar.gz", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("../outside", tarfile.REGTYPE), ("/outside", tarfile.REGTYPE), ("model.bin", tarfile.SYMTYPE)],
    ids=["above", "absolute", "link"],
)
def test_nothing_is_unpacked_outside_the_folder(tmp_path: Path, name: str, kind: bytes) -> None:
    member = tarfile.TarInfo(str(tmp_path) + name if name.startswith("/") else name)
    member.type, member.linkname = kind, str(tmp_path / "outside")
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.addfile(member)
    with pytest.raises(package.PackageError, match="inside the archive"):
        package.unpack(tmp_path / "model.tar.gz", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model.tar.gz"]


def test_a_golden_answer_differs_beyond_the_tolerance(built: Path) -> None:
    golden = package.load(built).golden[0]
    near: Answer = {**golden.answer, "probabilities": [0.03, 0.0, 0.97, 0.0, 0.0, 0.0, 0.0]}
    far: Answer = {**golden.answer, "probabilities": [0.08, 0.0, 0.92, 0.0, 0.0, 0.0, 0.0]}
    nothing: Answer = {**golden.answer, "probabilities": [float("nan")] * 7}
    assert golden.difference(near) is None
    assert golden.difference(nothing) is not None
    assert golden.difference(far) is not None
    assert golden.difference({**golden.answer, "count": 3}) is not None
    assert golden.difference({**golden.answer, "model_version": "v2"}) is not None
