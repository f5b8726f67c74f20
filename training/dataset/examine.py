"""Examines one photograph of a dataset: whether it is readable, what it looks like, and which bytes are stored.

A pool of processes runs this; each has a few threads that wait for S3 while it decodes.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from model.preprocess import BadImage, decode
from training.dataset.ahead import ahead
from training.dataset.store import Missing, TooLarge, photograph

READERS = 8
"""Threads that wait for S3 in each process."""
FETCHED = 4
"""Photographs that a thread gets together: handing them over singly costs a tenth of their decoding."""
MEASURED_AT = 224
"""Edge in pixels of the square grey picture from which brightness and blur are measured."""
LARGEST_UNTOUCHED = 64 * 1024
LONGEST_UNTOUCHED = 4096
SHORT_SIDE = 256
QUALITY = 90
"""A photograph is stored unchanged up to this many bytes and pixels of its longer side. A larger one is shrunk as the
count function shrinks it for the endpoint: by a power of two, to a shorter side of at least so many pixels."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A photograph to read: its id in the dataset, its shard, and its address."""

    id: str
    split: str
    shard: int
    bucket: str
    key: str
    version_id: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Measurements of a photograph; the fields are those of `layout.Line`."""

    pixels: str
    brightness: float
    blur: float
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Examined:
    """A photograph that was read, or else only the `fault` for which it was not."""

    wanted: Wanted
    data: bytes = b""
    suffix: str = ""
    facts: Facts | None = None
    fault: str = ""


def begin() -> None:
    """Called once in each process of the pool, so that it ends when the job is killed and does not wait for ever."""

    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def examine_all(wanted: list[Wanted]) -> list[Examined]:
    """The results in the same order. Raises `StoreError` for faults that are not the photograph's."""
    few = (wanted[start : start + FETCHED] for start in range(0, len(wanted), FETCHED))
    fetched = itertools.chain.from_iterable(ahead(_readers(), _fetched_all, few, READERS))
    return list(map(_examined, wanted, fetched))


@cache
def _readers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(READERS)


def _fetched_all(wanted: list[Wanted]) -> list[bytes | str]:
    return list(map(_fetched, wanted))


def _fetched(wanted: Wanted) -> bytes | str:
    """The bytes, or the reason why there are none."""
    try:
        return photograph(wanted.bucket, wanted.key, wanted.version_id)
    except Missing as error:
        return f"gone: {error}"
    except TooLarge as error:
        return f"too large: {error}"


def _examined(wanted: Wanted, fetched: bytes | str) -> Examined:
    if isinstance(fetched, str):
        return Examined(wanted, fault=fetched)
    try:
        return Examined(wanted, *examine(fetched))
    except BadImage as error:
        return Examined(wanted, fault=str(error))


def examine(data: bytes) -> tuple[bytes, str, Facts]:
    """The bytes to store, the suffix of their name, and their measurements. Raises `BadImage`."""
    picture = decode(data, size=LONGEST_UNTOUCHED * LONGEST_UNTOUCHED)  # a size so large that draft mode is never used
    pixels = hashlib.sha256(b"%dx%d " % picture.size)
    pixels.update(picture.tobytes())
    facts = Facts(pixels.hexdigest()[:32], *_light(picture), *picture.size)
    if (suffix := _suffix(data)) and len(data) <= LARGEST_UNTOUCHED and max(picture.size) <= LONGEST_UNTOUCHED:
        return data, suffix, facts
    return _shrunk(picture), "jpg", facts


def _light(picture: Image.Image) -> tuple[float, float]:
    """Of the grey picture: mean brightness, 0 to 1, and variance of the Laplacian (Pech-Pacheco et al. 2000)."""
    # Shrunk by whole pixels first: fast, and exact enough to distinguish photographs. Sums of integers are exact, so
    # that every machine gets the same result.
    grey = picture.convert("L").resize((MEASURED_AT, MEASURED_AT), Image.Resampling.BILINEAR, reducing_gap=1.0)
    pixels = np.asarray(grey, dtype=np.int16)
    laplacian = 4 * pixels[1:-1, 1:-1]
    for neighbours in (pixels[:-2, 1:-1], pixels[2:, 1:-1], pixels[1:-1, :-2], pixels[1:-1, 2:]):
        laplacian -= neighbours
    squares = np.square(laplacian, dtype=np.int32)
    total, of_squares, light = (int(a.sum(dtype=np.int64)) for a in (laplacian, squares, pixels))
    variance = of_squares / squares.size - (total / squares.size) ** 2
    return round(light / pixels.size / 255, 4), round(variance, 2)


def _suffix(data: bytes) -> str:
    """Of the formats that are stored as they are; empty for others."""
    known = {b"\xff\xd8": "jpg", b"\x89P": "png", b"RI": "webp"}
    return known.get(data[:2], "")


def _shrunk(picture: Image.Image) -> bytes:
    short, long = min(picture.size) // SHORT_SIDE, -(-max(picture.size) // LONGEST_UNTOUCHED)
    out = io.BytesIO()
    picture.reduce(2 ** max(0, short.bit_length() - 1, (long - 1).bit_length())).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
