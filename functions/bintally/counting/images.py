"""Turns a file's bytes into a JPEG that the endpoint accepts, in bounded memory."""

import contextlib
import io
import struct

from PIL import Image, ImageOps, UnidentifiedImageError

from bintally.common.errors import Rejected

FORMATS = ("JPEG", "PNG", "WEBP")
MOST_PIXELS = 50_000_000
"""Read from the header. 50 million pixels with alpha are 200 MB, and a conversion holds a few copies."""
SHORT_SIDE = 512
"""Pixels that the shorter side keeps: more than twice the network's input size."""
LONG_SIDE = 4096
"""Pixels that the longer side keeps at most, so that even noise of this size stays below the endpoint's 4 MB."""
LARGEST_UNTOUCHED = 1024**2
"""Bytes; a JPEG up to this size and up to LONG_SIDE is passed on unchanged, without a second compression."""
QUALITY = 90

Image.MAX_IMAGE_PIXELS = None  # our own limit above applies, with a reason that names the size

BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, ArithmeticError, AttributeError, struct.error
)  # fmt: skip
"""Errors with which Pillow reports broken data."""


def prepare(data: bytes) -> bytes:
    """A JPEG of the photograph for the endpoint. Raises Rejected, whose message names the fault.

    Decodes the whole file even if it is passed on unchanged: only this detects a truncated one.
    """
    if not data:
        raise Rejected("the object is empty")
    image = _open(data)
    kind, size = image.format, image.size
    if size[0] * size[1] > MOST_PIXELS:
        raise Rejected(f"{size[0]} x {size[1]} pixels; at most {MOST_PIXELS:,} are decoded")
    untouched = (
        kind == "JPEG" and image.mode in ("RGB", "L") and len(data) <= LARGEST_UNTOUCHED and max(size) <= LONG_SIDE
    )
    target = (1, 1) if untouched else _target(size)
    try:
        image.draft(None, target)  # a JPEG is decoded at the smallest of its scales that is not below the target
        image.load()
    except BROKEN as error:
        raise Rejected(f"the {kind} image is truncated or corrupt: {error}") from error
    return data if untouched else _jpeg(_upright(_shrunk(_eight_bits(image), target)))


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise Rejected("not a JPEG, PNG or WebP image") from error
    except BROKEN as error:
        raise Rejected(f"not a readable image: {error}") from error


def _target(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height to shrink to; never larger than the original."""
    scale = min(1.0, SHORT_SIDE / min(size), LONG_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: a plain conversion clips at 255 where it should scale
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    return image


def _shrunk(image: Image.Image, target: tuple[int, int]) -> Image.Image:
    """RGB, transparent parts on white. Shrinks before it composes, to save memory."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB").resize(target, Image.Resampling.BICUBIC)
    clear = image.convert("RGBA").resize(target, Image.Resampling.BICUBIC)
    flat = Image.new("RGB", target, "white")
    flat.paste(clear, mask=clear)
    flat.info = clear.info  # contains EXIF
    return flat


def _upright(image: Image.Image) -> Image.Image:
    with contextlib.suppress(*BROKEN):  # a photograph with broken EXIF is still counted
        ImageOps.exif_transpose(image, in_place=True)  # in place: it is rotated before other EXIF fields can fail
    return image


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
