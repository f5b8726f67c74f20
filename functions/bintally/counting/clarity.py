"""Whether a photograph is of a kind that the network has hardly seen: then another one helps, and a guess does not.

Too dark, too blurred, or without colour. These thresholds flag 39 of 10,885 photographs that the network may learn
from, all of them as blurred, and all that were darkened to a tenth, blurred by 3 of 224 pixels or made greyscale
(`experiments/clarity.py`, docs/experiments.md).
"""

from operator import mul
from typing import NamedTuple

from PIL import Image, ImageFilter

SIDE = 224
"""Pixels to which both sides shrink first: what the network sees has fewer."""
PATCHES = 56
"""The same for colours, which are of larger parts."""
DARK = 25.0
"""Mean brightness, of 255."""
BLURRED = 5.0
"""Variance of the Laplacian of brightness (Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, 2000).
"""
COLOURLESS = 2.0
"""Standard deviation of the colour, of 255."""
VALUES, SQUARES = tuple(range(256)), tuple(value**2 for value in range(256))
LAPLACIAN = ImageFilter.Kernel((3, 3), (0, 1, 0, 1, -4, 1, 0, 1, 0), scale=1, offset=128)


class Measures(NamedTuple):
    """What the thresholds are compared with."""

    brightness: float
    sharpness: float
    colour: float
    """Of Cb and Cr about their means, to which an even tint adds nothing."""


def measure(image: Image.Image) -> Measures:
    """Of a picture in any mode of Pillow's. A JPEG's own, YCbCr, takes the least time."""
    light = image.getchannel("Y") if image.mode == "YCbCr" else image.convert("L")
    grey = light.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    edges = grey.filter(LAPLACIAN).crop((1, 1, SIDE - 1, SIDE - 1))
    brightness, _ = _mean_and_variance(grey.histogram())
    _, sharpness = _mean_and_variance(edges.histogram())
    return Measures(brightness, sharpness, _colour(image))


def _colour(image: Image.Image) -> float:
    if image.mode == "L":
        return 0.0
    whole = image if image.mode in ("RGB", "YCbCr") else image.convert("RGB")
    small = whole.resize((PATCHES, PATCHES), Image.Resampling.BOX, reducing_gap=2.0)
    histogram = (small if small.mode == "YCbCr" else small.convert("YCbCr")).histogram()
    _, blue = _mean_and_variance(histogram[256:512])
    _, red = _mean_and_variance(histogram[512:])
    return float((blue + red) ** 0.5)


def _mean_and_variance(histogram: list[int]) -> tuple[float, float]:
    """Of one band, by its histogram of 256 values. ImageStat, which does the same, takes four times as long."""
    number = sum(histogram)
    mean = sum(map(mul, histogram, VALUES)) / number
    return mean, sum(map(mul, histogram, SQUARES)) / number - mean**2


def faults(image: Image.Image) -> tuple[str, ...]:
    """Which of `dark`, `blurred` and `colourless` it is. Neither can be measured of a dark picture."""
    found = measure(image)
    if found.brightness < DARK:
        return ("dark",)
    flags = {"blurred": found.sharpness < BLURRED, "colourless": found.colour < COLOURLESS}
    return tuple(name for name, is_so in flags.items() if is_so)
