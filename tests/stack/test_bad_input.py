"""Bad input gets a clear answer and loses nothing: every line of that table, at once, on the deployed stack."""

import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

MEGABYTE = 1024 * 1024
EMOJI = "\N{PACKAGE}"


@dataclass(frozen=True)
class Case:
    key: str
    body: bytes
    reason: str = ""  # what a REJECTED item's reason says; a counted one has none


def broken(png: bytes) -> bytes:
    """A PNG whose pixels are not what its checksums say."""
    middle = len(png) // 2
    return png[:middle] + bytes(byte ^ 0xFF for byte in png[middle : middle + 64]) + png[middle + 64 :]


def scans(jpeg: bytes, number: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    return jpeg[:-2] + jpeg[jpeg.rindex(b"\xff\xda") : -2] * number + jpeg[-2:]


def sixteen_bit(image: Image.Image) -> Image.Image:
    return image.convert("I").point(lambda value: value * 257).convert("I;16")


def sideways(image: Image.Image) -> dict[str, object]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return {"exif": exif}


@pytest.fixture(scope="module")
def cases(draw: Callable[..., Image.Image], encode: Callable[..., bytes]) -> dict[str, Case]:
    jpeg, picture = encode(draw()), draw()
    frames = {"save_all": True, "append_images": [draw(seed=40), draw(seed=50)], "duration": 100}
    alpha = draw().convert("P")
    alpha.info["transparency"] = 0
    bomb = encode(Image.new("1", (30_000, 30_000)), "PNG")
    long_key = f"incoming/BAD1/K-LONG/{'x' * 875}.jpg"
    assert len(long_key) == 900
    files = {
        "empty": (b"", "empty"),
        "text": (b"this is no photograph\n" * 50, "not a JPEG, PNG or WebP"),
        "truncated": (jpeg[: len(jpeg) // 2], "truncated|incomplete"),
        "corrupt": (broken(encode(picture, "PNG")), "corrupt|broken|truncated|checksum|damaged"),
        "bomb": (bomb, "pixels|large"),
        "200MB": (jpeg + bytes(200 * MEGABYTE), "bytes|large|MB"),
        "cmyk": (encode(draw("CMYK")), ""),
        "16bit": (encode(sixteen_bit(draw("L")), "PNG"), ""),
        "grey": (encode(draw("L")), ""),
        "palette": (encode(alpha, "PNG"), ""),
        "exif": (encode(picture, **sideways(picture)), ""),
        "webp": (encode(picture, "WEBP", **frames), ""),
        "progressive": (encode(picture, progressive=True), ""),
        "5000px": (encode(draw(size=(5000, 4000)), quality=95), ""),
        "avif": (encode(picture, "AVIF", speed=10), ""),
        "unended": (jpeg[:-2], ""),
        "scans": (scans(encode(picture, progressive=True), 5000), "more than 40 scans"),
        "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(2000), "HEIC.*send it as JPEG"),
    }
    by_file = {name: Case(f"incoming/BAD1/{name}/photo.jpg", *file) for name, file in files.items()}
    pattern = r"incoming/<site>/<bin>/<name>"
    return by_file | {
        "spaces": Case("incoming/BAD1/K 1/a b  c.jpg", jpeg),
        "plus": Case("incoming/BAD1/K+2/a+b.jpg", jpeg),
        "percent": Case("incoming/BAD1/K%3/100%25 a%2Bb.jpg", jpeg),
        "emoji": Case(f"incoming/BAD1/K{EMOJI}/{EMOJI}é.jpg", jpeg),
        "long": Case(long_key, jpeg),
        "short": Case("incoming/K-SHORT.jpg", jpeg),
        "pattern": Case("incoming/BAD1/a.jpg", jpeg, pattern),
        "capitals": Case("Incoming/BAD1/K/a.jpg", jpeg, f"capitals matter; expected {pattern}"),
        "slash": Case("/incoming/BAD1/K/a.jpg", jpeg, f"begins with a slash; expected {pattern}"),
        "backslash": Case("incoming\\BAD1\\K\\a.jpg", jpeg, f"backslash.*expected {pattern}"),
    }


COUNTED = [
    *("cmyk", "16bit", "grey", "palette", "exif", "webp", "progressive", "5000px"),
    *("spaces", "plus", "percent", "emoji", "long", "short", "avif", "unended"),
]
REJECTED = [
    "empty",
    "text",
    "truncated",
    "corrupt",
    "bomb",
    "200MB",
    "pattern",
    "scans",
    "heic",
    "capitals",
    "slash",
    "backslash",
]


@pytest.fixture(scope="module")
def counted(user: Any, cases: dict[str, Case]) -> dict[str, list[dict[str, Any]]]:
    """The COUNT# items of every case, by its name."""
    dead = user.depth(user.dead)
    for case in cases.values():
        user.upload(case.key, case.body)
    keys = [case.key for case in cases.values()]
    user.wait_for("every case answered", lambda: {i["image"]["key"] for i in user.counts(*keys)} == set(keys))
    user.wait_drained()
    assert user.depth(user.dead) == dead
    items = user.counts(*keys)
    return {name: [item for item in items if item["image"]["key"] == case.key] for name, case in cases.items()}


def test_every_case_is_looked_at(cases: dict[str, Case]) -> None:
    assert sorted(cases) == sorted(COUNTED + REJECTED)


@pytest.mark.parametrize("name", REJECTED)
def test_rejected_with_a_reason(name: str, counted: dict[str, Any], cases: dict[str, Case]) -> None:
    (item,) = counted[name]
    assert item["status"] == "REJECTED"
    assert "count" not in item
    assert re.search(cases[name].reason, item["reason"], re.IGNORECASE), item["reason"]


@pytest.mark.parametrize("name", COUNTED)
def test_counted(name: str, counted: dict[str, Any], cases: dict[str, Case]) -> None:
    (item,) = counted[name]
    assert item["status"] == "COUNTED", item.get("reason")
    assert len(item["probabilities"]) == 7
    assert item["image"]["digest"] == hashlib.sha256(cases[name].body).hexdigest()


def test_ids_are_those_of_the_key(counted: dict[str, Any]) -> None:
    found = {name: (counted[name][0]["site"], counted[name][0]["bin"]) for name in COUNTED}
    assert found["spaces"] == ("BAD1", "K 1")
    assert found["plus"] == ("BAD1", "K+2")
    assert found["percent"] == ("BAD1", "K%3")
    assert found["emoji"] == ("BAD1", f"K{EMOJI}")
    assert found["short"] == ("default", "K-SHORT")


def test_normalised_photographs_count_like_the_plain_one(counted: dict[str, Any]) -> None:
    """Greyscale and progressive files show the same bin; how they are stored must hardly matter."""
    plain = [float(p) for p in counted["plus"][0]["probabilities"]]
    again = [float(p) for p in counted["progressive"][0]["probabilities"]]
    assert max(abs(a - b) for a, b in zip(plain, again, strict=True)) < 0.1


def test_function_memory_stays_bounded(user: Any, counted: dict[str, Any]) -> None:
    peaks = []
    for worker in user.workers():
        status = Path(f"/proc/{worker}/status").read_text()
        peaks.append(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024)  # type: ignore[index]
    assert peaks
    assert max(peaks) < 400, peaks  # MB; the object has 200, the bomb would have 900


# Events: repeated, late, out of order, or about what is gone


@pytest.fixture(scope="module")
def events(user: Any, photograph: Callable[..., bytes]) -> dict[str, dict[str, Any]]:
    """What came of events that waited in the queue while their photographs changed; by case."""
    came: dict[str, dict[str, Any]] = {}
    with user.held():
        key = "incoming/EVT1/repeated/2026-11-01T10:00:00Z.jpg"
        came["repeated"] = {"key": key, "versions": [user.upload(key, photograph(1))]}
        (event,) = user.take_events(1)
        for _ in range(5):
            user.send_event(event)

        key = "incoming/EVT1/reversed/photo.jpg"
        versions = [user.upload(key, photograph(2)), user.upload(key, photograph(3))]
        came["reversed"] = {"key": key, "versions": versions}
        waiting = user.take_events(6 + 1)
        reverse = sorted(waiting, key=lambda body: versions[0] in body)  # the older version last
        assert versions[0] in reverse[-1]
        for body in reverse:
            user.send_event(body)

        key = "incoming/EVT1/marked/photo.jpg"
        came["marked"] = {"key": key, "versions": [user.upload(key, photograph(4))]}
        user.s3.delete_object(Bucket=user.bucket, Key=key)

        key = "incoming/EVT1/gone/photo.jpg"
        came["gone"] = {"key": key, "versions": [user.upload(key, photograph(5))]}
        user.s3.delete_object(Bucket=user.bucket, Key=key, VersionId=came["gone"]["versions"][0])
    keys = [case["key"] for case in came.values()]
    user.wait_counts(*keys, number=5)
    user.wait_drained()
    for case in came.values():
        case["items"] = user.counts(case["key"])
    return came


def test_the_same_event_five_times_counts_once(user: Any, events: dict[str, Any]) -> None:
    (item,) = events["repeated"]["items"]
    assert item["status"] == "COUNTED"


def test_events_in_reverse_order(user: Any, events: dict[str, Any]) -> None:
    case = events["reversed"]
    assert {item["image"]["version_id"] for item in case["items"]} == set(case["versions"])
    assert len(case["items"]) == 2
    assert user.latest("EVT1", "reversed")["image"]["version_id"] == case["versions"][1]


def test_object_deleted_before_the_function_reads_it(events: dict[str, Any]) -> None:
    """A delete marker hides the object, not its version."""
    (item,) = events["marked"]["items"]
    assert item["status"] == "COUNTED"


def test_version_deleted_before_the_function_reads_it(user: Any, events: dict[str, Any]) -> None:
    (item,) = events["gone"]["items"]
    assert item["status"] == "REJECTED"
    assert "gone" in item["reason"]
    assert not user.latest("EVT1", "gone")


def test_day_totals_know_each_photograph_once(user: Any, events: dict[str, Any]) -> None:
    assert user.totals("EVT1") == {"counted": 4, "rejected": 1}


# Times and ids


def test_captured_at_that_cannot_be(user: Any, photograph: Callable[..., bytes]) -> None:
    future, nonsense = "incoming/TIM1/future/photo.jpg", "incoming/TIM1/nonsense/photo.jpg"
    user.upload(future, photograph(1), captured_at="2099-01-01T00:00:00Z")
    user.upload(nonsense, photograph(2), captured_at="last tuesday")
    items = {item["image"]["key"]: item for item in user.wait_counts(future, nonsense)}
    for key in (future, nonsense):
        item = items[key]
        uploaded = user.s3.head_object(Bucket=user.bucket, Key=key)["LastModified"]
        assert item["status"] == "COUNTED"
        assert item["captured_at"][:19] == uploaded.strftime("%Y-%m-%dT%H:%M:%S")
        assert item["flags"], item


def test_the_same_bytes_twice_are_two_counts(user: Any, photograph: Callable[..., bytes]) -> None:
    key = "incoming/DUP1/twice/photo.jpg"
    versions = {user.upload(key, photograph(1)), user.upload(key, photograph(1))}
    items = user.wait_counts(key, number=2)
    assert {item["image"]["version_id"] for item in items} == versions
    assert len({item["image"]["digest"] for item in items}) == 1


def test_ids_with_the_separators_of_the_table(user: Any, photograph: Callable[..., bytes]) -> None:
    """Each of these would be the same bin if ids were pasted together as they are."""
    keys = [f"incoming/{path}/photo.jpg" for path in ("S#A/B", "S/A#B", "S%23A/B", "S/A%23B")]
    for number, key in enumerate(keys):
        user.upload(key, photograph(number))
    items = user.wait_counts(*keys)
    assert len({item["PK"] for item in items}) == 4
    assert {(item["site"], item["bin"]) for item in items} == {
        ("S#A", "B"), ("S", "A#B"), ("S%23A", "B"), ("S", "A%23B"),
    }  # fmt: skip


def test_a_photograph_too_large_for_the_endpoint_is_shrunk(
    user: Any, draw: Callable[..., Image.Image], encode: Callable[..., bytes]
) -> None:
    noise = Image.effect_noise((3000, 2500), 90).convert("RGB")
    body = encode(noise, "PNG")
    assert len(body) > 6 * MEGABYTE
    assert Image.open(io.BytesIO(body)).size == (3000, 2500)
    key = "incoming/BIG1/noise/photo.png"
    user.upload(key, body)
    (item,) = user.wait_counts(key)
    assert item["status"] == "COUNTED"
