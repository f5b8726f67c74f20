"""The preparation of a file's bytes for the endpoint."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bintally.common.errors import Rejected
from bintally.counting.images import prepare
from PIL import Image

ENDPOINT_LIMIT = 4 * 1024**2
Photo = Callable[..., bytes]


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
    assert image.size == (768, 512)


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
        (b"GIF89a" + bytes(40), "not a JPEG, PNG or WebP image"),
        (b"\xff\xd8\xff", "not a JPEG, PNG or WebP image"),
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
    data[middle : middle + 20] = bytes(20)
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
    times = 5 if kind == "JPEG" else 1  # a small JPEG would be passed on, for the endpoint to turn
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
    assert found.size == (768, 512)
    red, green, _ = found.getpixel((60, 60))  # type: ignore[misc]
    assert red > 200 and green < 60


def test_broken_exif_spoils_nothing(photo: Photo) -> None:
    data = photo(size=(4500, 3000), exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff" + bytes(8))
    assert opened(prepare(data)).size == (768, 512)


def test_broken_exif_is_no_reason_not_to_turn(photo: Photo) -> None:
    """As the endpoint and training do it, which read an untouched photograph themselves."""
    entries = struct.pack(">HHHI4sHHIHH", 2, 0x0100, 2, 4, b"abc\0", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0MM\0\x2a" + struct.pack(">I", 8) + entries + bytes(4)
    assert opened(prepare(photo(size=(4500, 3000), exif=exif))).size == (512, 768)


def test_takes_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (400, 300), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    data = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=100)
    red, green, blue = opened(prepare(data)).getpixel((200, 150))  # type: ignore[misc]
    assert red > 200 and green < 50 and blue < 50


MEASURE = """
import sys
from pathlib import Path
from bintally.common.errors import Rejected
from bintally.counting.images import prepare
data = Path(sys.argv[1]).read_bytes()
try:
    prepare(data)
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


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_the_largest_photograph_fits_the_function(kind: str, tmp_path: Path) -> None:
    image = Image.new("RGBA", (8000, 6200), (200, 100, 50, 128))
    save = {"WEBP": {"lossless": True, "quality": 0, "method": 0}, "JPEG": {"progressive": True, "subsampling": 0}}
    data = saved(image.convert("RGB") if kind == "JPEG" else image, kind, **save.get(kind, {}))
    assert peak_mib(data, tmp_path) < 1400  # of the function's 1,769
