"""The one preprocessing: what it takes, what it refuses, and that nothing of it exists twice."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model import preprocess


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((450, 300), Image.Resampling.BICUBIC)


def test_rgb_is_kept_pixel_for_pixel(picture: Image.Image) -> None:
    assert np.array_equal(np.asarray(preprocess.decode(encoded(picture))), np.asarray(picture))


def test_jpegs_large_enough_are_decoded_smaller(picture: Image.Image) -> None:
    data = encoded(picture.resize((1800, 1200)), "JPEG", quality=90)
    small = preprocess.decode(data, size=160)
    assert small.size == (450, 300)
    whole = preprocess.to_array(preprocess.decode(data, size=1200), 160)
    assert np.abs(preprocess.to_array(small, 160).astype(int) - whole).mean() < 2


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "LA", "RGBA", "1"])
def test_every_mode_becomes_rgb(picture: Image.Image, mode: str) -> None:
    data = encoded(picture.convert(mode), "JPEG" if mode == "CMYK" else "PNG")
    assert preprocess.decode(data).mode == "RGB"


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    grey = np.tile(np.linspace(0, 65535, 256, dtype=np.uint16), (16, 1))
    found = np.asarray(preprocess.decode(encoded(Image.fromarray(grey))))
    assert np.array_equal(found[0, :, 0], grey[0] >> 8)


def test_transparency_lies_on_white() -> None:
    clear = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    assert np.asarray(preprocess.decode(encoded(clear))).min() == 255


def test_exif_rotation_is_applied() -> None:
    image = Image.new("RGB", (40, 20), "black")
    image.paste((255, 255, 255), (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    upright = preprocess.decode(encoded(image, "PNG", exif=exif))
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5)) == (255, 255, 255)


def test_broken_exif_spoils_nothing() -> None:
    """The camera was turned, and the width is a word: Pillow turns the picture, then cannot write EXIF again."""
    entries = struct.pack(">HHHI4sHHIHH", 2, 0x0100, 2, 4, b"abc\0", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0MM\0\x2a" + struct.pack(">I", 8) + entries + bytes(4)
    assert preprocess.decode(encoded(Image.new("RGB", (40, 20)), "JPEG", exif=exif)).size == (20, 40)


def test_first_frame_of_an_animation(picture: Image.Image) -> None:
    data = encoded(picture, "WEBP", save_all=True, append_images=[Image.new("RGB", picture.size)], lossless=True)
    assert np.array_equal(np.asarray(preprocess.decode(data)), np.asarray(picture))


def png_of_zeros(width: int, height: int) -> bytes:
    """A well-formed header and the beginning of the data: enough to be opened, small whatever its size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))


@pytest.mark.parametrize("edge", [8_000, 30_000])
def test_a_pixel_bomb_is_refused_from_its_header(edge: int) -> None:
    with pytest.raises(preprocess.ImageTooLarge):
        preprocess.decode(png_of_zeros(edge, edge))


@pytest.mark.parametrize("fault", ["empty", "text", "truncated", "corrupt", "tiff"])
def test_what_is_no_photograph_says_so(picture: Image.Image, fault: str) -> None:
    jpeg, png = encoded(picture, "JPEG"), bytearray(encoded(picture))
    png[len(png) // 2 : len(png) // 2 + 60] = b"\0" * 60
    data = {
        "empty": b"",
        "text": b"this is a shopping list",
        "truncated": jpeg[: len(jpeg) // 2],
        "corrupt": bytes(png),
        "tiff": encoded(picture, "TIFF"),
    }[fault]
    with pytest.raises(preprocess.BadImage) as caught:
        preprocess.decode(data)
    assert not isinstance(caught.value, preprocess.ImageTooLarge)


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((640, 640, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    small = preprocess.to_array(Image.fromarray(stripes), 160)
    assert small.shape == (160, 160, 3)
    assert np.abs(small[:, 2:-2].astype(int) - 127).max() <= 2


def test_normalise_is_the_formula() -> None:
    batch = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    expected = (batch / 255 - np.array(preprocess.MEAN)) / np.array(preprocess.STD)
    found = preprocess.normalise(batch)
    assert found.shape == (2, 3, 4, 4)
    assert found.dtype == np.float32
    assert np.allclose(found, expected.transpose(0, 3, 1, 2), atol=1e-5)


def test_the_walk_through_files_exists_twice_word_for_word() -> None:
    """Functions import nothing of the model, nor the model of them; both bound the same hostile files."""
    root = Path(__file__).parents[2]
    ours, theirs = root / "model" / "pixels.py", root / "functions" / "bintally" / "counting" / "pixels.py"
    assert ours.read_text() == theirs.read_text()


@pytest.mark.parametrize("kind", ["GIF", "AVIF"])
def test_other_formats_give_their_pixels(picture: Image.Image, kind: str) -> None:
    found = np.asarray(preprocess.decode(encoded(picture, kind)), dtype=int)
    assert np.abs(found - np.asarray(picture, dtype=int)).mean() < 12


def test_only_the_end_mark_may_be_missing(picture: Image.Image) -> None:
    jpeg = encoded(picture, "JPEG")
    whole = np.asarray(preprocess.decode(jpeg))
    assert np.array_equal(np.asarray(preprocess.decode(jpeg[:-2])), whole)
    with pytest.raises(preprocess.BadImage, match="a part of its pixels is missing"):
        preprocess.decode(jpeg[: len(jpeg) * 9 // 10])


def test_pixels_are_counted_by_the_header(picture: Image.Image) -> None:
    assert preprocess.pixels_of(encoded(picture)) == 450 * 300
    assert preprocess.pixels_of(png_of_zeros(30_000, 30_000)) == 900_000_000
    with pytest.raises(preprocess.BadImage):
        preprocess.pixels_of(b"text")
