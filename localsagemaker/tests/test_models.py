"""A model archive is unpacked without trusting what is in it."""

import io
import tarfile
from pathlib import Path

import pytest
from localsagemaker.wire import ServiceError

from localsagemaker import models


def archive(*members: tuple[str, bytes, str | bytes]) -> tarfile.TarFile:
    """A tar of (name, type, content or link target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if isinstance(content, bytes):
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            else:
                member.linkname = content
                tar.addfile(member)
    buffer.seek(0)
    return tarfile.open(fileobj=buffer, mode="r:gz")


def test_files_and_folders_are_unpacked(tmp_path: Path) -> None:
    with archive(("golden", tarfile.DIRTYPE, ""), ("golden/0.png", tarfile.REGTYPE, b"png")) as tar:
        models.unpack(tar, tmp_path / "model")
    assert (tmp_path / "model" / "golden" / "0.png").read_bytes() == b"png"


@pytest.mark.parametrize(
    "member",
    [
        ("../outside", tarfile.REGTYPE, b"x"),
        ("a/../../outside", tarfile.REGTYPE, b"x"),
        ("link", tarfile.SYMTYPE, "../outside"),
        ("link", tarfile.LNKTYPE, "outside"),
        ("device", tarfile.CHRTYPE, ""),
        ("pipe", tarfile.FIFOTYPE, ""),
    ],
)
def test_nothing_leaves_the_folder(tmp_path: Path, member: tuple[str, bytes, str | bytes]) -> None:
    with archive(member) as tar, pytest.raises(tarfile.TarError):
        models.unpack(tar, tmp_path / "model")
    assert [path for path in tmp_path.rglob("*") if path.name != "model"] == []


def test_an_absolute_name_lands_inside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    with archive((str(outside), tarfile.REGTYPE, b"x")) as tar:
        models.unpack(tar, tmp_path / "model")
    assert not outside.exists()


def test_an_archive_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "UNPACKED_LIMIT", 10)
    bomb = archive(("a", tarfile.REGTYPE, b"123456"), ("b", tarfile.REGTYPE, b"123456"))
    with bomb as tar, pytest.raises(tarfile.TarError, match="more than 10 bytes"):
        models.unpack(tar, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "url", ["https://bucket/key", "s3://bucket", "s3://bucket/", "s3:///key", "file:///etc/passwd"]
)
def test_only_addresses_of_objects_are_model_data(url: str) -> None:
    with pytest.raises(ServiceError, match="s3://bucket/key"):
        models.split(url)
