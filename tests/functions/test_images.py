"""The preparation of a file's bytes for the endpoint."""

import functools
import io
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bintally import count
from bintally.common.errors import Rejected
from bintally.counting import images, pixels
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from training.dataset import examine

ENDPOINT_LIMIT = 4 * 1024**2
Photo = Callable[..., bytes]


def prepare(data: bytes) -> bytes:
    return images.prepare(data, images.read(data)).jpeg


def opened(jpeg: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(jpeg), formats=["JPEG"])
    image.load()
    return image


def saved(image: Image.Image, kind: str, **save: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **save)
    return out.getvalue()


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG that says it is this large; its data are `rows`."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def test_passes_a_small_jpeg_on_as_it_is(photo: Photo) -> None:
    data = photo()
    assert prepare(data) is data


def test_shrinks_a_large_one(photo: Photo) -> None:
    image = opened(prepare(photo(size=(6000, 4000))))
    assert image.size == (750, 500)


SIZES = [
    *[(1, 5000), (5000, 1), (12_000, 2), (255, 300), (511, 700), (512, 700), (1024, 768), (1025, 513), (2047, 2730)],
    *[(4096, 256), (4097, 256), (4095, 3000), (3000, 2049)],
]


@pytest.mark.parametrize("size", SIZES)
def test_shrinks_by_a_power_of_two_and_as_a_dataset_does(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (images.LARGEST_UNTOUCHED, images.LONG_SIDE) == (examine.LARGEST_UNTOUCHED, examine.LONGEST_UNTOUCHED)
    assert (images.SHORT_SIDE, images.QUALITY) == (examine.SHORT_SIDE, examine.QUALITY)
    for module in (images, examine):
        monkeypatch.setattr(module, "LARGEST_UNTOUCHED", 0)
    picture = Image.linear_gradient("L").resize(size).convert("RGB")
    for kind in ("JPEG", "PNG"):
        data = saved(picture, kind)
        found = opened(prepare(data)).size
        assert found == opened(examine.examine(data)[0]).size
        factor = round(max(size) / max(found))
        assert found == (-(-size[0] // factor), -(-size[1] // factor)) and factor & (factor - 1) == 0
        assert max(found) <= 4096 and (factor == 1 or min(found) >= 256 or max(size) > 4096)
        assert min(found) <= 512


@pytest.mark.slow
@pytest.mark.parametrize("size", [(9000, 300), (300, 9000), (20000, 3), (1, 5000), (8000, 6000)])
def test_stays_below_the_endpoints_limit(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    jpeg = prepare(saved(Image.fromarray(noise), "PNG", compress_level=0))
    assert len(jpeg) < ENDPOINT_LIMIT * 0.8
    assert max(opened(jpeg).size) <= 4096


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the object is empty"),
        (b"this is no photograph", "not a JPEG, PNG or WebP image"),
        (b"GIF89a" + bytes(40), "not a readable GIF image: its header is broken$"),
        (b"\xff\xd8\xff", "not a readable JPEG image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "not a"),
    ],
)
def test_names_the_fault(data: bytes, reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        prepare(data)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [(460, 350), (2000, 1600)])
def test_names_what_is_truncated(kind: str, share: float, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise), kind)
    with pytest.raises(Rejected, match=r"truncated or corrupt|not a"):
        prepare(data[: int(len(data) * share)])


def test_names_a_corrupt_png(photo: Photo) -> None:
    data = bytearray(photo("PNG", size=(300, 300)))
    middle = len(data) // 2
    data[middle : middle + 20] = b"\xff" * 20
    with pytest.raises(Rejected, match="the PNG image is truncated or corrupt"):
        prepare(bytes(data))


def test_names_the_size_of_a_bomb() -> None:
    bomb = png(30_000, 30_000)
    assert len(bomb) < 100
    with pytest.raises(Rejected, match=r"30000 x 30000 pixels; at most 50,000,000"):
        prepare(bomb)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("size", [(460, 350), (1600, 1200)])
def test_takes_every_jpeg(photo: Photo, mode: str, size: tuple[int, int]) -> None:
    image = opened(prepare(photo("JPEG", mode, size)))
    assert image.mode in ("RGB", "L")
    top, bottom = (np.asarray(image.convert("L"))[row].mean() for row in (2, -3))
    assert top < 30 and bottom > 225


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_takes_every_png(photo: Photo, mode: str) -> None:
    image = opened(prepare(photo("PNG", mode)))
    top, bottom = (np.asarray(image.convert("L"))[row].mean() for row in (2, -3))
    assert top < 30 and bottom > 225


def test_scales_sixteen_bits() -> None:
    ramp = np.linspace(0, 65535, 300).astype(np.uint16)
    data = saved(Image.fromarray(np.tile(ramp, (200, 1))), "PNG")
    row = np.asarray(opened(prepare(data)).convert("L"))[100].astype(int)
    assert abs(row - np.linspace(0, 255, 300)).max() < 6


def test_lays_a_transparent_palette_on_white() -> None:
    image = Image.new("P", (300, 200), 0)
    image.putpalette([0, 0, 0, 200, 0, 0])
    image.paste(1, (150, 0, 300, 200))
    found = opened(prepare(saved(image, "PNG", transparency=0)))
    red, green, _ = found.getpixel((250, 100))  # type: ignore[misc]
    assert min(found.getpixel((50, 100))) > 245 and red > 180 and green < 20  # type: ignore[arg-type]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_turns_upright(kind: str, orientation: int) -> None:
    times = 4 if kind == "JPEG" else 1  # a small JPEG would be passed on, for the endpoint to turn
    upright = Image.linear_gradient("L").resize((900 * times, 600 * times)).convert("RGB")
    upright.paste((255, 0, 0), (0, 0, 300 * times, 200 * times))
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(turns[orientation]) if orientation in turns else upright
    found = opened(prepare(saved(stored, kind, exif=exif)))
    assert found.size == (450, 300)
    red, green, _ = found.getpixel((60, 60))  # type: ignore[misc]
    assert red > 200 and green < 60


def test_broken_exif_spoils_nothing(photo: Photo) -> None:
    data = photo(size=(3600, 2400), exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff" + bytes(8))
    assert opened(prepare(data)).size == (450, 300)


def test_broken_exif_is_no_reason_not_to_turn(photo: Photo) -> None:
    """As the endpoint and training do it, which read an untouched photograph themselves."""
    entries = struct.pack(">HHHI4sHHIHH", 2, 0x0100, 2, 4, b"abc\0", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0MM\0\x2a" + struct.pack(">I", 8) + entries + bytes(4)
    assert opened(prepare(photo(size=(3600, 2400), exif=exif))).size == (300, 450)


def test_takes_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (400, 300), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    data = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=100)
    red, green, blue = opened(prepare(data)).getpixel((200, 150))  # type: ignore[misc]
    assert red > 200 and green < 50 and blue < 50


# What surrounds the pixels


def segment(code: int, body: bytes) -> bytes:
    return bytes((0xFF, code)) + struct.pack(">H", len(body) + 2) + body


def chunk(name: bytes, body: bytes, checksum: int | None = None) -> bytes:
    crc = zlib.crc32(name + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)


def riff(webp: bytes, name: bytes, body: bytes) -> bytes:
    """A WebP in the extended form, with one chunk more."""
    extended = (
        b"VP8X" + struct.pack("<I", 10) + b"\x2c\0\0\0" + (459).to_bytes(3, "little") + (349).to_bytes(3, "little")
    )
    content = b"WEBP" + extended + webp[12:] + name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    return b"RIFF" + struct.pack("<I", len(content)) + content


MPF = (
    b"MPF\0II*\0\x08\0\0\0" + struct.pack("<HHHII", 2, 0xB000, 7, 4, 0x30303130) + struct.pack("<HHII", 0xB001, 4, 1, 9)
)
SURROUNDINGS: dict[str, Callable[[bytes], bytes]] = {
    "EXIF of noise": lambda data: data[:2] + segment(0xE1, b"Exif\0\0" + bytes(range(256)) * 9) + data[2:],
    "EXIF cut short": lambda data: data[:2] + segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\x40") + data[2:],
    "broken ICC": lambda data: data[:2] + segment(0xE2, b"ICC_PROFILE\0\x09\x02xx") + data[2:],
    "MPO of one picture": lambda data: data[:2] + segment(0xE2, MPF) + data[2:],
    "MPO of noise": lambda data: data[:2] + segment(0xE2, b"MPF\0" + bytes(range(200))) + data[2:],
    "Photoshop of noise": lambda data: data[:2] + segment(0xED, b"Photoshop 3.0\0" + bytes(range(256))) + data[2:],
    "a comment of any bytes": lambda data: data[:2] + segment(0xFE, bytes(range(256))) + data[2:],
    "motion photo": lambda data: data + b"\0\0\0\x18ftypmp42" + bytes(50_000),
    "gain map": lambda data: data + data,
    "zeros behind": lambda data: data + bytes(4096),
    "its start twice": lambda data: data[:20] + data,
    "a marker of zero": lambda data: data[:3] + b"\0FIF\0" + data[11:],
    "fill bytes": lambda data: data[:2] + b"\xff\xff\xff" + data[2:],
    "PNG: checksum of a text": lambda data: data[:33] + chunk(b"tEXt", b"a\0b", 1) + data[33:],
    "PNG: text bomb": lambda data: data[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(9 << 20))) + data[33:],
    "PNG: broken profile": lambda data: data[:33] + chunk(b"iCCP", b"noise") + data[33:],
    "PNG: broken EXIF": lambda data: data[:33] + chunk(b"eXIf", b"MM\0*noise") + data[33:],
    "PNG: empty animation": lambda data: data[:33] + chunk(b"acTL", b"") + data[33:],
    "PNG: bytes behind": lambda data: data + b"noise" * 99,
    "PNG: no end": lambda data: data[:-12],
    "WebP: broken EXIF": lambda data: riff(data, b"EXIF", b"noise"),
    "WebP: EXIF cut off": lambda data: riff(data, b"EXIF", bytes(500))[:-300],
    "WebP: unknown chunk": lambda data: riff(data, b"WHAT", b"noise"),
    "WebP: bytes behind": lambda data: data + b"noise" * 99,
}


@pytest.mark.parametrize("name", SURROUNDINGS)
@pytest.mark.parametrize("width", [460, 4200], ids=["passed on", "shrunk"])
def test_what_surrounds_the_pixels_rejects_no_photograph(photo: Photo, name: str, width: int) -> None:
    """The JPEG for the endpoint has the pixels of the plain file, to the last one that a second compression keeps."""
    which, _, _ = name.rpartition(":")
    kind = which.upper() or "JPEG"
    plain = photo(kind, size=(460 if kind == "WEBP" else width, 350), **({"lossless": True} if kind == "WEBP" else {}))
    found, wanted = (opened(prepare(data)).convert("RGB") for data in (SURROUNDINGS[name](plain), plain))
    assert found.size == wanted.size
    assert np.abs(np.asarray(found, dtype=int) - np.asarray(wanted, dtype=int)).mean() < 2


def test_avif_with_broken_exif_is_read() -> None:
    """The decoder refuses a file whose EXIF it cannot read."""
    data = saved(Image.new("RGB", (400, 300), "red"), "AVIF", exif=b"MM\0*" + bytes(7))
    for broken in (data, data.replace(b"MM\0*", b"none")):
        assert opened(prepare(broken)).size == (400, 300)
    with pytest.raises(ValueError, match="Invalid Exif payload"):
        Image.open(io.BytesIO(data.replace(b"MM\0*", b"none")))


@pytest.mark.parametrize("kind", ["GIF", "AVIF", "PNG", "WEBP"])
def test_takes_the_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (400, 300), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    red, green, blue = opened(prepare(data)).getpixel((200, 150))  # type: ignore[misc]
    assert red > 200 and green < 50 and blue < 50


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_an_odd_orientation_is_none(photo: Photo, orientation: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert opened(prepare(photo("PNG", size=(460, 350), exif=exif.tobytes()))).size == (460, 350)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(2000)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (HEIC, ["HEIC", "send it as JPEG", "Settings > Camera > Formats > Most Compatible"]),
        (HEIC.replace(b"heic", b"mif1"), ["HEIC"]),
        (HEIC.replace(b"ftypheic", b"ftypmsf1"), ["HEIC"]),
        (b"II*\0\x08\0\0\0" + bytes(99), ["TIFF", "DNG", "RAW off"]),
        (b"MM\0*\0\0\0\x08" + bytes(99), ["TIFF", "DNG", "send it as JPEG"]),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(99), ["CR2 raw"]),
        (b"\0\0\0\x18ftypcrx " + bytes(99), ["CR3 raw"]),
        (b"FUJIFILMCCD-RAW " + bytes(99), ["RAF raw"]),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(99), ["MOV", "Live Photo send the still photograph"]),
        (b"\0\0\0\x08wide\0\0\0\0mdat" + bytes(99), ["MOV", "Live Photo"]),
        (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + bytes(99), ["MP4", "send a photograph"]),
        (b"%PDF-1.7\n" + bytes(99), ["PDF", "as JPEG"]),
        (b"PK\x03\x04" + bytes(99), ["ZIP", "Live Photos"]),
        (b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(99), ["macOS", "AppleDouble"]),
        (b"BM" + bytes(99), ["BMP"]),
        (b"\xff\x0a" + bytes(99), ["JPEG XL"]),
        (b"\n <!DOCTYPE html><html>", ["web page"]),
        (b"id,quantity\r\nshot1,5\r\n", ["text", "records/"]),
        (b"id;Menge;Gr\xf6\xdfe\n1;2;3\n", ["text"]),
    ],
)
def test_other_formats_are_named_with_what_to_do(data: bytes, words: list[str]) -> None:
    with pytest.raises(Rejected, match=r"^not a JPEG, PNG or WebP image, but ") as caught:
        prepare(data)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_build_without_avif_says_so(photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pixels.OPTIONAL, "AVIF", lambda: False)
    with pytest.raises(Rejected, match="but AVIF, which this build of Pillow does not decode: send it as JPEG"):
        prepare(photo("AVIF"))


# JPEG: the end mark, and scans


@pytest.mark.parametrize("size", [(460, 350), (4200, 350)])
@pytest.mark.parametrize("save", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}])
@pytest.mark.parametrize("missing", [1, 2])
def test_only_the_end_mark_is_missing(photo: Photo, size: tuple[int, int], save: dict[str, Any], missing: int) -> None:
    data = photo(size=size, quality=92, **save)
    cut = data[:-missing]
    found = images.prepare(cut, images.read(cut))
    assert found.flags == ("end_mark_missing",) and found.jpeg.endswith(b"\xff\xd9")
    assert images.prepare(data, images.read(data)).flags == ()
    difference = np.asarray(opened(found.jpeg), dtype=int) - np.asarray(opened(prepare(data)), dtype=int)
    assert np.abs(difference).mean() < 2


@pytest.mark.parametrize("save", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.995])
def test_a_part_of_the_pixels_is_missing(save: dict[str, Any], share: float) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (350, 460, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise), "JPEG", **save)
    with pytest.raises(Rejected, match="truncated or corrupt: a part of its pixels is missing"):
        prepare(data[: int(len(data) * share)])


def test_a_missing_last_scan_is_a_missing_part(photo: Photo) -> None:
    data = photo(progressive=True)
    with pytest.raises(Rejected, match="a part of its pixels is missing"):
        prepare(data[: data.rindex(b"\xff\xda")])


def with_scans(jpeg: bytes, number: int) -> bytes:
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + last * number + jpeg[-2:]


@pytest.mark.slow
def test_scans_are_counted_before_decoding(photo: Photo) -> None:
    """7,000 pixels square and 5,000 scans took a function five minutes, eight times."""
    data = with_scans(photo(size=(7000, 7000), progressive=True), 5000)
    started = time.process_time()
    with pytest.raises(Rejected, match="the JPEG has more than 40 scans; save it again as an ordinary JPEG"):
        prepare(data)
    assert time.process_time() - started < 0.5


def test_what_encoders_write_is_read(photo: Photo) -> None:
    assert opened(prepare(with_scans(photo(progressive=True), 10))).size == (460, 350)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xd8" + b"\xff\xfe\0\2" * 7_000_000, "the JPEG has more than 50,000 segments"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b"") * 2_000_000, "the PNG has more than 50,000 chunks"),
        (
            b"RIFF\0\0\0\0WEBPVP8X\x0a" + bytes(13) + (b"JUNK" + bytes(4)) * 3_000_000,
            "the WebP has more than 50,000 chunks",
        ),
        (b"GIF89a" + bytes(7) + b"\x21\xfe" + b"\1a" * 14_000_000, "the GIF has more than 1,000,000 blocks"),
    ],
    ids=["JPEG", "PNG", "WebP", "GIF"],
)
def test_millions_of_parts_are_not_walked_through(data: bytes, reason: str) -> None:
    started = time.process_time()
    with pytest.raises(Rejected, match=reason):
        prepare(data)
    assert time.process_time() - started < 2


def hostile() -> dict[str, bytes]:
    """The slowest files found of 50 million pixels, each within the bounds."""
    flat = Image.new("RGB", (8000, 6200), (120, 60, 30))
    progressive = saved(flat, "JPEG", progressive=True, subsampling=0)
    rows = zlib.compress((b"\4" + bytes(8000 * 8)) * 6200, 6)  # 16 bits, alpha, the slowest filter
    header = struct.pack(">IIBBBBB", 8000, 6200, 16, 6, 0, 0, 0)
    return {
        "scans": with_scans(progressive, 30)[
            :-2
        ],  # decoded three times, to find out whether more than its end is missing
        "PNG": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""),
    }


@pytest.mark.long
def test_the_slowest_files_keep_to_counts_arithmetic() -> None:
    """In processor seconds: the function has one whole processor."""
    for name, data in hostile().items():
        started = time.process_time()
        prepare(data)
        assert time.process_time() - started < count.IMAGE_SECONDS / 1.5, name


SEEDS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF")


@functools.cache
def seed(kind: str) -> bytes:
    noise = np.random.default_rng(4).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    options: dict[str, dict[str, Any]] = {"JPEG": {"progressive": True}, "AVIF": {"speed": 10}}
    exif: dict[str, Any] = {} if kind == "GIF" else {"exif": b"Exif\0\0MM\0*" + bytes(range(40)), "xmp": b"<x/>"}
    return saved(Image.fromarray(noise), kind, **options.get(kind, {}), **exif)


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=6), st.integers(0, 6)), max_size=4),
    st.floats(0.1, 1),
)
def test_whatever_the_bytes_the_answer_is_a_jpeg_or_a_reason(
    kind: str, changes: list[tuple[float, bytes, int]], share: float
) -> None:
    """A photograph is never at fault for an exception of ours: that would bring it back eight times."""
    data = seed(kind)
    for place, new, old in changes:
        at = int(place * len(data))
        data = data[:at] + new + data[at + old :]
    data = data[: int(len(data) * share)]
    try:
        assert opened(prepare(data)).size
    except Rejected as error:
        assert "\n" not in str(error)


def test_a_corrupt_avif_says_so() -> None:
    """Its decoder reports that with an error of another type than others do."""
    noise = np.random.default_rng(4).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise), "AVIF", speed=10)
    with pytest.raises(Rejected, match="the AVIF image is truncated or corrupt"):
        prepare(data[: data.index(b"mdat") + 4] + bytes(40) + data[data.index(b"mdat") + 44 :])


MEASURE = """
import sys
from pathlib import Path
from bintally.common.errors import Rejected
from bintally.counting import images
data = Path(sys.argv[1]).read_bytes()
try:
    images.prepare(data, images.read(data))
except Rejected as error:
    print(error, file=sys.stderr)
# VmHWM, since ru_maxrss keeps what the parent had before exec
print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])
"""


def peak_mib(data: bytes, folder: Path) -> int:
    """Peak memory in MiB of a process that prepares `data`."""
    path = folder / "photograph"
    path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)],
        cwd=Path(__file__).parents[2] / "functions",
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout) // 1024


def animated_bomb() -> bytes:
    """A WebP whose canvas has 268 million pixels, of which one is there."""
    small = saved(Image.new("RGB", (2, 2)), "WEBP", lossless=True)
    image = small[12:]
    frame = bytes(12) + (100).to_bytes(3, "little") + b"\x00" + image
    frame = bytes(6) + (1).to_bytes(3, "little") * 2 + frame[12:]
    canvas = (16382).to_bytes(3, "little") * 2
    chunks = b"VP8X" + struct.pack("<I", 10) + b"\x02\x00\x00\x00" + canvas
    chunks += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    chunks += b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


@pytest.mark.parametrize(
    "bomb",
    [png(30_000, 30_000), png(40_000, 40_000, bytes(50_000_000)), animated_bomb()],
    ids=["empty", "zeros", "animated"],
)
def test_a_bomb_takes_no_memory(bomb: bytes, tmp_path: Path) -> None:
    assert peak_mib(bomb, tmp_path) < 150


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG", "AVIF"])
def test_the_largest_photograph_fits_the_function(kind: str, tmp_path: Path) -> None:
    image = Image.new("RGBA", (8000, 6200), (200, 100, 50, 128))
    save = {"WEBP": {"lossless": True, "quality": 0, "method": 0}, "JPEG": {"progressive": True, "subsampling": 0}}
    save["AVIF"] = {"speed": 10}
    data = saved(image.convert("RGB") if kind == "JPEG" else image, kind, **save.get(kind, {}))
    assert peak_mib(data, tmp_path) < 1400  # of the function's 1,769
