"""Turns a file's bytes into a JPEG that the endpoint accepts, in bounded memory and time."""

import io
from contextlib import suppress
from dataclasses import dataclass, replace

from PIL import Image, UnidentifiedImageError

from bintally.common.errors import Rejected
from bintally.counting import clarity
from bintally.counting.pixels import BROKEN, File, Unreadable, is_whole, take_apart, upright

MOST_PIXELS = 50_000_000
"""Read from the header. 50 million pixels with alpha are 200 MB, and a conversion holds a few copies."""
SHORT_SIDE = 256
"""Pixels that the shorter side keeps at least, and twice as many at most: a picture is shrunk by a power of two, as
a JPEG's decoder does for nothing. The network sees fewer."""
LONG_SIDE = 4096
"""Pixels that the longer side keeps at most, so that even noise of this size stays below the endpoint's 4 MB."""
LARGEST_UNTOUCHED = 64 * 1024
"""Bytes; a JPEG up to this size and up to LONG_SIDE is passed on unchanged, without a second compression. The endpoint
charges by the byte: a larger one would cost more than shrinking it does (docs/decisions/photographs.md)."""
QUALITY = 90

Image.MAX_IMAGE_PIXELS = None  # our own limit above applies, with a reason that names the size


@dataclass(frozen=True)
class Prepared:
    """A JPEG for the endpoint, and flags: what was wrong with the file and did not matter, and whether the picture is
    of a kind that the network has hardly seen (clarity.faults)."""

    jpeg: bytes
    flags: tuple[str, ...] = ()


def read(data: bytes) -> File:
    """Takes a photograph's file apart. Raises Rejected, whose message names the fault."""
    if not data:
        raise Rejected("the object is empty")
    try:
        file = take_apart(data)
    except Unreadable as error:
        raise Rejected(str(error)) from error
    if file.kind in ("AVIF", "HEIF"):  # the decoder itself reads what surrounds these
        with suppress(*BROKEN):
            found = Image.open(io.BytesIO(data), formats=[file.kind]).info
            return replace(file, exif=found.get("exif", b""), xmp=found.get("xmp", b""))
    return file


def prepare(data: bytes, file: File) -> Prepared:
    """A JPEG of the photograph `data`, which `read` took apart. Raises Rejected, whose message names the fault.

    Decodes the whole file even if it is passed on unchanged: only this detects a truncated one.
    """
    image = _open(file.data, file.kind)
    fits = file.kind == "JPEG" and len(data) <= LARGEST_UNTOUCHED and max(image.size) <= LONG_SIDE
    if fits and image.mode in ("RGB", "L") and not file.unended and (passed := _decoded(data, image.size)):
        return Prepared(data, clarity.faults(passed))
    picture = decode(file)
    return Prepared(_jpeg(picture), (*(("end_mark_missing",) if file.unended else ()), *clarity.faults(picture)))


def decode(file: File, short_side: int = SHORT_SIDE) -> Image.Image:
    """The upright RGB picture of a file that `read` took apart, shrunk by a power of two to a shorter side of at least
    so many pixels. Raises Rejected, whose message names the fault."""
    image = _open(file.data, file.kind)
    size = image.size
    if size[0] * size[1] > MOST_PIXELS:
        raise Rejected(f"{size[0]} x {size[1]} pixels; at most {MOST_PIXELS:,} are decoded")
    factor = _factor(size, short_side)
    target = (max(1, size[0] // factor), max(1, size[1] // factor))
    try:
        _load(image, target)
        whole = not file.unended or is_whole(
            file.data, image.tobytes(), lambda jpeg: _load(_open(jpeg, file.kind), target).tobytes()
        )
    except BROKEN as error:
        raise Rejected(f"the {file.kind} image is truncated or corrupt: {error}") from error
    if not whole:
        raise Rejected(f"the {file.kind} image is truncated or corrupt: a part of its pixels is missing")
    left = factor // round(max(size) / max(image.size))
    return upright(_shrunk(_eight_bits(image), left), file, image.info)


def _decoded(data: bytes, size: tuple[int, int]) -> Image.Image | None:
    """The picture of the whole file, unless something that surrounds the pixels stops Pillow: an endpoint of an older
    image decodes the whole file. It is no smaller than `clarity` needs."""
    with suppress(*BROKEN):
        image = Image.open(io.BytesIO(data), formats=["JPEG"])
        return _load(image, (clarity.SIDE, clarity.SIDE), "YCbCr") if image.size == size else None
    return None


def _open(data: bytes, kind: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=[kind])
    except UnidentifiedImageError as error:  # its own message has an address in memory
        raise Rejected(f"not a readable {kind} image: its header is broken") from error
    except BROKEN as error:
        raise Rejected(f"not a readable {kind} image: {error}") from error


def _load(image: Image.Image, target: tuple[int, int], mode: str | None = None) -> Image.Image:
    """Of a JPEG alone: in this mode, and at the smallest of its scales that is not below the target."""
    image.draft(mode, target)
    image.load()
    return image


def _factor(size: tuple[int, int], short_side: int) -> int:
    """By which a picture is shrunk: a power of two, as by a JPEG's decoder."""
    short, long = min(size) // short_side, -(-max(size) // LONG_SIDE)
    return int(2 ** max(0, short.bit_length() - 1, (long - 1).bit_length()))


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: a plain conversion clips at 255 where it should scale
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    return image


def _shrunk(image: Image.Image, factor: int) -> Image.Image:
    """RGB, transparent parts on white. Shrinks before it composes, to save memory."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return (image if image.mode == "RGB" else image.convert("RGB")).reduce(factor)
    clear = image.convert("RGBA").reduce(factor)
    flat = Image.new("RGB", clear.size, "white")
    flat.paste(clear, mask=clear)
    return flat


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
