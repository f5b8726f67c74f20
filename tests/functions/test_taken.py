"""When a photograph was taken: every source, their order, and what is not believed."""

import io
import struct
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from bintally.common.keys import utc
from bintally.counting import images
from bintally.counting.taken import Taken, taken_at
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

UPLOADED = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
ORIGINAL, DIGITIZED, CHANGED, EXIF, GPS = 0x9003, 0x9004, 0x0132, 0x8769, 0x8825
NINE = "2026-11-28T09:00:00.000000Z"


def exif_of(**tags: Any) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = "Maker"  # Pillow writes no EXIF that looks empty
    for name, (ifd, tag) in {
        "original": (EXIF, ORIGINAL),
        "offset": (EXIF, 0x9011),
        "part": (EXIF, 0x9291),
        "digitized": (EXIF, DIGITIZED),
        "changed": (None, CHANGED),
        "date": (GPS, 0x1D),
        "time": (GPS, 7),
    }.items():
        if name in tags:
            (exif if ifd is None else exif.get_ifd(ifd))[tag] = tags[name]
    return exif


def photo(kind: str = "JPEG", **save: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(out, kind, **save)
    return out.getvalue()


def taken(data: bytes = b"", name: str = "a.jpg", metadata: Mapping[str, str] | None = None, zone: Any = UTC) -> Taken:
    return taken_at(metadata or {}, name, images.read(data) if data else None, UPLOADED, zone)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_exif_of_every_format(kind: str) -> None:
    exif = exif_of(original="2026:11:28 10:00:00", offset="+01:00")
    assert taken(photo(kind, exif=exif)) == Taken(datetime(2026, 11, 28, 9, tzinfo=UTC), "exif")


@pytest.mark.parametrize(
    ("tags", "expected", "source"),
    [
        ({"original": "2026:11:28 10:00:00"}, NINE, "exif"),  # the site's zone
        ({"original": "2026:11:28 04:00:00", "offset": "-05:00"}, NINE, "exif"),
        ({"original": "2026:11:28 10:00:00", "part": "25"}, "2026-11-28T09:00:00.250000Z", "exif"),
        ({"original": b"2026:11:28 10:00:00\0"}, NINE, "exif"),
        ({"original": "2026-11-28T10:00:00"}, NINE, "exif"),
        ({"digitized": "2026:11:28 10:00:00"}, NINE, "exif"),
        ({"changed": "2026:11:28 10:00:00"}, NINE, "exif"),
        ({"date": "2026:11:28", "time": (9.0, 0.0, 0.0)}, NINE, "gps"),
        (
            {"original": "2026:11:27 10:00:00", "digitized": "2026:11:28 10:00:00"},
            *("2026-11-27T09:00:00.000000Z", "exif"),
        ),
        # GPS tells that the camera's clock is nine hours ahead
        (
            {"original": "2026:11:28 18:00:20", "date": "2026:11:28", "time": (9.0, 0.0, 0.0)},
            *("2026-11-28T09:00:20.000000Z", "exif"),
        ),
        # a fix of the day before tells nothing
        ({"original": "2026:11:28 10:00:00", "date": "2026:11:27", "time": (3.0, 7.0, 0.0)}, NINE, "exif"),
    ],
)  # fmt: skip
def test_exif_times(tags: dict[str, Any], expected: str, source: str) -> None:
    found = taken(photo(exif=exif_of(**tags)), zone=BERLIN)
    assert (utc(found.at), found.source, found.flags) == (expected, source, ())


def xmp(*pairs: str) -> bytes:
    body = " ".join(pairs)
    return f"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF><rdf:Description {body}/></rdf:RDF></x:xmpmeta>".encode()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "PNG"])
@pytest.mark.parametrize("name", ["exif:DateTimeOriginal", "photoshop:DateCreated", "xmp:CreateDate", "xmp:ModifyDate"])
def test_xmp(kind: str, name: str) -> None:
    packet = xmp(f'{name}="2026-11-28T10:00:00+01:00"')
    save: dict[str, Any] = {"xmp": packet}
    if kind == "PNG":
        save = {"pnginfo": PngImagePlugin.PngInfo()}
        save["pnginfo"].add_itxt("XML:com.adobe.xmp", packet.decode(), zip=True)
    found = taken(photo(kind, **save))
    assert (utc(found.at), found.source) == (NINE, "xmp")


def test_xmp_in_elements() -> None:
    packet = b"<rdf:Description><xmp:CreateDate>2026-11-28T09:00:00Z</xmp:CreateDate></rdf:Description>"
    assert utc(taken(photo(xmp=packet)).at) == NINE


@pytest.mark.parametrize(
    "text", ["Sat, 28 Nov 2026 10:00:00 +0100", "2026:11:28 10:00:00", "2026-11-28T10:00:00+01:00"]
)
def test_a_pngs_creation_time(text: str) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Creation Time", text)
    found = taken(photo("PNG", pnginfo=info), zone=BERLIN)
    assert (utc(found.at), found.source) == (NINE, "png")


def test_a_pngs_last_change_is_in_utc() -> None:
    body = struct.pack(">H5B", 2026, 11, 28, 9, 0, 0)
    chunk = struct.pack(">I", 7) + b"tIME" + body + struct.pack(">I", zlib.crc32(b"tIME" + body))
    png = photo("PNG")
    found = taken(png[:33] + chunk + png[33:], zone=BERLIN)
    assert (utc(found.at), found.source) == (NINE, "png")


@pytest.mark.parametrize(
    "name",
    [
        *("IMG_20261128_100000.jpg", "IMG_20261128_100000_1.jpg", "20261128_100000.jpg", "20261128_100000(0).jpg"),
        *("WP_20261128_10_00_00_Pro.jpg", "Screenshot_20261128-100000_Photos.png", "2026-11-28 10.00.00.jpg"),
        *("Screenshot 2026-11-28 at 10.00.00.png", "Screenshot 2026-11-28 at 10.00.00\u202fAM.png"),
        *("WhatsApp Image 2026-11-28 at 10.00.00 AM (1).jpeg", "photo_2026-11-28_10-00-00.jpg"),
        *("signal-2026-11-28-10-00-00-123.jpg", "Screenshot_2026-11-28-10-00-00-123_com.app.jpg"),
        *("PXL_20261128_090000000.jpg", "PXL_20261128_090000000.PORTRAIT.jpg", "PXL_20261128_090000000.MP.jpg"),
        *("2026-11-28T09:00:00Z.jpg", "2026-11-28T10:00:00+01:00.jpg", "20261128T090000Z.jpg", "20261128100000.jpg"),
        *("cam3-2026-11-28 10.00.00.jpg", "mmexport1795856400000.jpg", "２０２６1128_100000.jpg"),
    ],
)
def test_names(name: str) -> None:
    found = taken(name=name, zone=BERLIN)
    assert (utc(found.at), found.source, found.flags) == (NINE, "name", ())


@pytest.mark.parametrize("name", ["Screenshot 2026-11-27 at 10.00.00 PM.png", "IMG_20261127_220000.jpg"])
def test_names_of_an_afternoon(name: str) -> None:
    assert utc(taken(name=name).at) == "2026-11-27T22:00:00.000000Z"


@pytest.mark.parametrize(
    "name", ["0001.jpg", "99999999999999.jpg", "123456789012345678901234.jpg", "1234567890123.jpg", "4006381333931.jpg",
             "IMG-20261128-WA0001.jpg", "20261340_101500.jpg", "P-20261128-1015.jpg"]
)  # fmt: skip
def test_names_that_tell_no_time(name: str) -> None:
    assert taken(name=name) == Taken(UPLOADED, "upload")


@pytest.mark.parametrize(
    ("metadata", "source"),
    [
        ({"captured-at": "2026-11-28T09:00:00Z"}, "metadata"),
        ({"captured_at": "2026-11-28 10:00:00"}, "metadata"),
        ({"captured-at": "2026:11:28 10:00:00"}, "metadata"),
        ({"captured-at": "1795856400"}, "metadata"),
        ({"captured-at": "1795856400000"}, "metadata"),
        ({"captured-at": "20261128_100000"}, "metadata"),
        ({"modified-at": "2026-11-28T09:00:00Z"}, "file"),
        ({"mtime": "1795856400.25"}, "file"),
    ],
)
def test_the_objects_metadata(metadata: dict[str, str], source: str) -> None:
    found = taken(metadata=metadata, zone=BERLIN)
    assert (utc(found.at), found.source) == (NINE, source)


def test_the_order_of_trust() -> None:
    """Taking away the most trusted source each time leaves the next."""
    exif = exif_of(
        original="2026:11:03 00:00:00", digitized="2026:11:06 00:00:00", changed="2026:11:10 00:00:00",
        date="2026:11:05", time=(0.0, 7.0, 0.0),
    )  # fmt: skip
    packet = xmp(
        'exif:DateTimeOriginal="2026-11-04T00:00:00Z"',
        'xmp:CreateDate="2026-11-07T00:00:00Z"',
        'xmp:ModifyDate="2026-11-11T00:00:00Z"',
    )
    metadata = {"captured-at": "2026-11-01T00:00:00Z", "modified-at": "2026-11-12T00:00:00Z"}
    days: list[int] = []
    for _ in range(12):
        name = (
            "2026-11-02T00:00:00Z.jpg"
            if "captured-at" in metadata or not days or days[-1] == 1
            else "20261109_000000.jpg"
        )
        found = taken(photo(exif=exif, xmp=packet), name, metadata)
        days.append(found.at.day)
        match found.at.day:
            case 1:
                del metadata["captured-at"]
            case 3:
                del exif.get_ifd(EXIF)[ORIGINAL]
            case 4 | 7 | 11:
                packet = packet.replace(f"2026-11-{found.at.day:02}T00:00:00Z".encode(), b"")
            case 5:
                del exif.get_ifd(GPS)[7]
            case 6:
                del exif.get_ifd(EXIF)[DIGITIZED]
            case 9:
                break
    assert days == [1, 2, 3, 4, 5, 6, 7, 9]
    assert taken(photo(exif=exif, xmp=packet), "a.jpg", metadata).at.day == 10
    del exif[CHANGED]
    assert taken(photo(exif=exif, xmp=packet), "a.jpg", metadata).at.day == 11
    packet = packet.replace(b"2026-11-11T00:00:00Z", b"")
    assert taken(photo(exif=exif, xmp=packet), "a.jpg", metadata).at.day == 12


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("2099:01:01 00:00:00", "captured_at_after_upload"),
        ("2026:11:28 12:05:01", "captured_at_after_upload"),
        ("1970:01:01 00:00:00", "captured_at_clock_not_set"),
        ("1980:01:01 00:00:00", "captured_at_clock_not_set"),
        ("1999:12:31 23:59:59", "captured_at_clock_not_set"),
        ("2000:01:01 00:00:00", "captured_at_clock_not_set"),
        ("2026:13:45 99:99:99", "captured_at_unreadable"),
        ("yesterday at 1", "captured_at_unreadable"),
    ],
)
def test_a_time_that_is_not_believed_flags_and_the_next_is_used(text: str, flag: str) -> None:
    data = photo(exif=exif_of(original=text))
    assert taken(data) == Taken(UPLOADED, "upload", (flag,))
    found = taken(data, "IMG_20261128_090000.jpg")
    assert (utc(found.at), found.source, found.flags) == (NINE, "name", (flag,))
    moved = {"captured-at": text.replace(":", "-", 2)}
    assert taken(metadata=moved, name="2026-11-28T09:00:00Z.jpg").flags == (flag,)


@pytest.mark.parametrize("text", ["0000:00:00 00:00:00", "    :  :     :  :  ", "", "2026:11:28"])
def test_a_time_that_nobody_wrote_flags_nothing(text: str) -> None:
    assert taken(photo(exif=exif_of(original=text))) == Taken(UPLOADED, "upload")


def test_five_minutes_of_a_clock_are_forgiven() -> None:
    assert taken(photo(exif=exif_of(original="2026:11:28 12:05:00"))).flags == ()


@given(st.binary(max_size=200), st.text(max_size=40), st.text(max_size=40))
def test_whatever_is_written_the_answer_is_a_time_that_can_be(exif: bytes, text: str, name: str) -> None:
    file = images.read(photo(exif=b"Exif\0\0" + exif, xmp=f'xmp:CreateDate="{text}"'.encode()))
    found = taken_at({"captured-at": text, "mtime": text}, name, file, UPLOADED, BERLIN)
    assert datetime(2000, 1, 1, tzinfo=UTC) < found.at <= UPLOADED + timedelta(minutes=5)
