"""Photographs, keys, records and packages that nobody meant to send: each is read or refused with a reason.

`make test` tries a few of each; `make fuzz` searches for MINUTES.
"""

import io
import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bintally.common.errors import BintallyError, Rejected
from bintally.common.keys import encode_id, parse_key, parse_records_key, utc
from bintally.counting import images
from bintally.counting.images import prepare
from bintally.counting.taken import taken_at
from bintally.records.files import Setting
from bintally.records.record_file import Report, records_of
from bintally.releasing.goldens import fetch_goldens
from botocore.response import StreamingBody
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.fuzz import search

pytestmark = pytest.mark.fuzz
ROOT = Path(__file__).parents[2]
UPLOADED = datetime(2026, 11, 22, 10, 20, tzinfo=UTC)
SIZES = st.sampled_from([(1, 1), (1, 3000), (64, 48), (700, 520)])


@st.composite
def damaged(draw: Any, sound: bytes) -> bytes:
    """Bytes of a sound file: some changed, a part removed, repeated or put in."""
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 6))):
        at, length = draw(st.integers(0, max(0, len(data) - 1))), draw(st.integers(1, 64))
        match draw(st.sampled_from(["change", "cut", "repeat", "insert", "end"])):
            case "change":
                data[at : at + length] = draw(st.binary(min_size=1, max_size=8))
            case "cut":
                del data[at : at + length]
            case "repeat":
                data[at:at] = data[at : at + length]
            case "insert":
                data[at:at] = draw(st.binary(max_size=64))
            case _:
                del data[at:]
    return bytes(data)


def picture(form: str, mode: str, size: tuple[int, int], **options: Any) -> bytes:
    buffer = io.BytesIO()
    noise = Image.effect_noise(size, 60).convert("RGB").convert(mode)
    noise.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [
        ("JPEG", "RGB", {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"}),
        ("JPEG", "L", {"progressive": True}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("PNG", "I;16", {}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
    ],
)
def test_a_damaged_photograph_is_counted_or_rejected(form: str, mode: str, options: dict[str, Any]) -> None:
    sounds = {
        size: picture(form, "L" if mode == "I;16" else mode, size, **options) for size in [(1, 1), (64, 48), (700, 520)]
    }

    @given(st.sampled_from(list(sounds)).flatmap(lambda size: damaged(sounds[size])))
    def prepared(data: bytes) -> None:
        try:
            Image.open(io.BytesIO(prepare(data, images.read(data)).jpeg)).load()
        except Rejected as error:
            assert str(error)

    search(prepared, tests=8)


def test_any_key_is_a_place_or_rejected() -> None:
    words = st.sampled_from(
        ["incoming", "records", "..", ".", "", "SEA1", "a.jpg", "20261122T101500Z.jpg", "x.csv", "#%"]
    )
    keys = st.lists(words | st.text(max_size=20), max_size=6).map("/".join)

    @given(keys, st.dictionaries(st.just("captured-at"), st.text(max_size=40)))
    def placed(key: str, metadata: dict[str, str]) -> None:
        for parse in (parse_key, parse_records_key):
            try:
                place = parse(key)
            except Rejected as error:
                assert str(error)
                continue
            if place:
                assert place.site and place.bin
                assert "#" not in encode_id(place.bin)
                taken = taken_at(metadata, place.name, None, UPLOADED)
                assert len(utc(taken.at)) == len("2026-11-22T10:15:00.000000Z")

    search(placed, examples=200)


CELLS = st.sampled_from(
    ["SEA1", "P-1", "3", "4.0", "1,000", "-1", "", "2026-11-22T10:00:00Z", '"', "\0", "\r", "9" * 400]
)


def test_any_file_of_records_is_read_row_by_row_or_rejected() -> None:
    lines = st.lists(st.lists(CELLS | st.text(max_size=9), max_size=6), max_size=8)
    header = st.sampled_from(
        ["site,bin,expected_quantity,as_of", "bin;expected_quantity", "", "sep=,", "\ufeffbin,site"]
    )

    @given(header, st.sampled_from(",;\t"), lines, st.sampled_from(["utf-8", "utf-16", "cp1252", "utf-8-sig"]))
    def read(first: str, delimiter: str, rows: list[list[str]], encoding: str) -> None:
        text = "\n".join([first, *(delimiter.join(row) for row in rows)])
        report, setting = Report(UPLOADED), Setting(UPLOADED, UTC, lambda: "SEA1")
        try:
            kept = list(records_of(io.BytesIO(text.encode(encoding, "replace")), None, setting, report))
        except Rejected as error:
            assert str(error)
            return
        assert report.kept >= len(kept)
        assert all(fault.reason for fault in report.faults)

    search(read, examples=100)


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
ANSWER = json.loads((ROOT / "events" / "endpoint_answer.json").read_text())


class Bucket:
    """An S3 that has one object."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def get_object(self, **_: str) -> dict[str, Any]:
        body = StreamingBody(io.BytesIO(self.content), len(self.content))
        return {"Body": body, "ContentLength": len(self.content)}


def package(content: object) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, data in {"golden/0.png": b"png", "package.json": json.dumps(content).encode()}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def test_any_package_is_read_or_named() -> None:
    sound = {"model_version": "v1", "golden": [{"file": "golden/0.png", "answer": ANSWER}]}
    odd = st.builds(lambda name, value: sound | {name: value}, st.sampled_from(list(sound)), JSONS)
    answers = st.builds(lambda name, value: ANSWER | {name: value}, st.sampled_from(list(ANSWER)), JSONS)
    golden = answers.map(lambda answer: sound | {"golden": [{"file": "golden/0.png", "answer": answer}]})

    @given((JSONS | odd | golden).map(package) | damaged(package(sound)))
    def fetched(content: bytes) -> None:
        try:
            fetch_goldens(Bucket(content), "s3://bucket/model.tar.gz", "v1")  # type: ignore[arg-type]
        except BintallyError as error:
            assert str(error)

    search(fetched, examples=100)
