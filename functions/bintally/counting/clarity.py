"""Whether a photograph is too dark or too blurred to be counted: then a new one helps, and a guess does not.

The thresholds are those at which hardly any of 13,685 real bins is flagged and most that were darkened to a tenth or
blurred by 3 of 224 pixels are (docs/experiments.md).
"""

from PIL import Image, ImageFilter, ImageStat

SIDE = 224
"""Pixels to which both sides shrink first: what the network sees has fewer."""
DARK = 25.0
"""Mean brightness, of 255."""
BLURRED = 5.0
"""Variance of the Laplacian of brightness (Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, 2000).
"""
LAPLACIAN = ImageFilter.Kernel((3, 3), (0, 1, 0, 1, -4, 1, 0, 1, 0), scale=1, offset=128)


def faults(image: Image.Image) -> tuple[str, ...]:
    """`dark` or `blurred`, or neither. A dark picture's blur cannot be measured."""
    grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    if ImageStat.Stat(grey).mean[0] < DARK:
        return ("dark",)
    edges = grey.filter(LAPLACIAN).crop((1, 1, SIDE - 1, SIDE - 1))
    return ("blurred",) if ImageStat.Stat(edges).var[0] < BLURRED else ()
