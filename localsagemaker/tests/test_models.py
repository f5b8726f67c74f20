"""A model archive is unpacked without trusting what is in it."""

import gzip
import io
import random
import tarfile
from pathlib import Path
from types import SimpleNamespace

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


def of_two_archives() -> bytes:
    """The beginning of one and the end of another, as parts that are read while the object is replaced."""
    contents = (random.Random(seed).randbytes(4000) for seed in range(2))
    one, other = (gzip.compress(content) for content in contents)
    return one[:2000] + other[2000:]


def test_a_spoiled_archive_is_bad_model_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = models.ModelData("http://127.0.0.1:1", "us-east-1", lambda role: {})
    deflated = bytearray(gzip.compress(b"abc" * 4000))
    deflated[20:40] = bytes(20)
    for body in (of_two_archives(), bytes(deflated), gzip.compress(b"x")[:-4], b"no archive"):
        stored = SimpleNamespace(get_object=lambda Bucket, Key, body=body: {"Body": io.BytesIO(body)})
        monkeypatch.setattr(data, "s3", lambda role, stored=stored: stored)
        with pytest.raises(models.BadModelData, match=r"valid tar\.gz archive"):
            data.fetch("s3://artifacts/models/1/model.tar.gz", "role", tmp_path / "model")
