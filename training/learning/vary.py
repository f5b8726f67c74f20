"""Varies photographs for training: one with Pillow, or a whole batch on the GPU that holds it.

Both do the same, but their results are not identical; on a CPU the first needs a quarter of the time. The two
populations of photographs differ in JPEG quality and resampling, and in how full their bins are; varying quality and
resampling keeps the network from deriving the count from the compression.
"""

from __future__ import annotations

import io
import math
from functools import cache, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from model.preprocess import MEAN, STD

DRAWS = 11
"""Random numbers per photograph."""
COMPRESSED = 0.4
"""Share of the photographs that are compressed again, at JPEG quality 40 to 95."""
LUMA = (0.299, 0.587, 0.114)
SHARES = torch.tensor([LUMA, (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312)])
"""RGB to Y, Cb and Cr (ITU-T T.871)."""


def vary_one(image: Image.Image, size: int, random: np.random.Generator, strength: float = 1.0) -> NDArray[np.uint8]:
    """A random crop, mirrored or not, with other light, sharpness and JPEG quality: uint8 [size, size, 3].

    `strength`, up to 2, scales the size and frequency of everything except the mirroring.
    """
    if random.random() < COMPRESSED * strength:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(random.integers(40, 95)))
        image = Image.open(buffer)
    area = image.width * image.height * random.uniform(1 - 0.4 * strength, 1.0)
    ratio = np.exp(random.uniform(np.log(0.8) * strength, np.log(1.25) * strength))
    width = min(np.sqrt(area * ratio), image.width)
    height = min(np.sqrt(area / ratio), image.height)
    left, top = random.uniform(0, image.width - width), random.uniform(0, image.height - height)
    resampling = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.BOX)[random.integers(3)]
    image = image.resize((size, size), resampling, box=(left, top, left + width, top + height))
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(random.uniform(1 - 0.3 * strength, 1 + 0.3 * strength))
    return np.asarray(image, dtype=np.uint8)


@lru_cache(2)
def draws(seed: int, epoch: int, photographs: int) -> Tensor:
    """Uniform numbers [photographs, DRAWS] of an epoch, the same on every machine and in every process."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.rand(photographs, DRAWS, generator=generator)


def vary_batch(pictures: Tensor, drawn: Tensor, size: int, strength: float = 1.0) -> Tensor:
    """Like `vary_one`, but float32 [B, 3, size, size], the network's input.

    `pictures` are uint8 [B, 3, H, W] on any device, H and W multiples of 16; `drawn` [B, DRAWS] is on the CPU.
    """
    device = pictures.device
    images = pictures.float()
    recompressed = (drawn[:, 0] < COMPRESSED * strength).nonzero()[:, 0]  # on the CPU, to avoid waiting for a GPU
    drawn = sent(drawn, device)
    if len(recompressed):
        recompressed = sent(recompressed, device)
        images[recompressed] = compressed(images[recompressed], 40 + 55 * drawn[recompressed, 1])
    u = drawn[:, 2:].unbind(1)
    area = 1 - 0.4 * strength * u[0]
    ratio = torch.exp(strength * math.log(1.25) * (2 * u[1] - 1))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    soft = torch.exp(strength * math.log(1.4) * (2 * u[2] - 1)).clamp(min=0.51)  # narrower, a line may meet no pixel
    across = taps(pictures.shape[3], size, (1 - width) * u[3], width, soft, u[4] < 0.5)
    down = taps(pictures.shape[2], size, (1 - height) * u[5], height, soft)
    images = down[:, None] @ images @ across[:, None].mT
    return normalised(images, *(1 + 0.3 * strength * (2 * x - 1) for x in u[6:9]))


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Sends to the device without waiting for its current work."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def taps(pixels: int, size: int, start: Tensor, length: Tensor, soft: Tensor, mirrored: Tensor | None = None) -> Tensor:
    """Weights [B, size, pixels] that resample a part of each line, `start` and `length` as shares of it.

    The triangle of Pillow's antialiased bilinear filter; `soft` widens it.
    """
    place = (torch.arange(size, device=start.device) + 0.5) / size
    at = place.expand(len(start), -1) if mirrored is None else torch.where(mirrored[:, None], 1 - place, place)
    centre = pixels * (start[:, None] + length[:, None] * at)
    radius = soft * (pixels * length / size).clamp(min=1)
    distance = (torch.arange(pixels, device=start.device) + 0.5 - centre[:, :, None]).abs()
    weights = (1 - distance / radius[:, None, None]).clamp(min=0)
    return weights / weights.sum(2, keepdim=True)


def normalised(images: Tensor, brightness: Tensor, contrast: Tensor, colour: Tensor) -> Tensor:
    """[B, 3, S, S] of 0 to 255 as `model.preprocess.normalise` makes it, with factors [B] of what Pillow calls so."""
    luma, mean, std = (constants(images.device)[name] for name in ("luma", "mean", "std"))
    grey = (images * luma[:, None, None]).sum(1).mean((1, 2))  # [B]
    # Brightness, then contrast about the mean grey, then colour about each pixel's own grey: a matrix and a shift.
    mix = colour[:, None, None] * torch.eye(3, device=images.device) + (1 - colour)[:, None, None] * luma
    matrix = (brightness * contrast)[:, None, None] * mix
    shift = (brightness * (1 - contrast) * grey)[:, None, None]
    flat = torch.baddbmm(shift, matrix, images.flatten(2)).clamp(0, 255)
    normalised: Tensor = ((flat - mean) / std).unflatten(2, images.shape[2:])
    return normalised


def compressed(images: Tensor, quality: Tensor) -> Tensor:
    """The result of JPEG compression at `quality` [B] of images [B, 3, H, W] of 0 to 255, colour at half resolution
    (ITU-T T.81).

    Only the lossy steps are computed: colour conversion, subsampling, cosine transform, rounding to the tables' steps.
    """
    fixed = constants(images.device)
    luma, cb, cr = torch.einsum("kc,bchw->kbhw", fixed["shares"], images)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None]
    luma_steps, colour_steps = (
        ((fixed[name] * scale + 50) / 100).floor().clamp(1, 255) for name in ("luma_steps", "colour_steps")
    )
    luma = rounded(luma - 128, luma_steps) + 128
    colours = avg_pool2d(torch.stack([cb, cr], 1), 2)
    colours = rounded(colours.flatten(0, 1), colour_steps.repeat_interleave(2, 0)).view_as(colours)
    colours = interpolate(colours, scale_factor=2.0, mode="bilinear")
    back = torch.einsum("ck,bkhw->bchw", fixed["back"], torch.cat([luma[:, None], colours], 1))
    return back.round().clamp(0, 255)


def rounded(planes: Tensor, steps: Tensor) -> Tensor:
    """Planes [B, H, W] with their blocks' coefficients rounded to multiples of `steps` [B, 8, 8]."""
    height, width = planes.shape[1:]
    down, across = cosines(planes.device, height), cosines(planes.device, width)
    steps = steps.repeat(1, height // 8, width // 8)
    kept = ((down @ planes @ across.T) / steps).round() * steps
    return down.T @ kept @ across


@cache
def cosines(device: torch.device, pixels: int) -> Tensor:
    """The transform of a line's blocks of 8 [pixels, pixels]: one large product is faster on a GPU than many small."""
    k = torch.arange(8.0)
    block = 0.5 * torch.cos((2 * k + 1) * k[:, None] * math.pi / 16)  # orthonormal DCT-II [8, 8]
    block[0] /= math.sqrt(2)
    blocks: Tensor = torch.block_diag(*[block] * (pixels // 8))
    return blocks.to(device)


@cache
def constants(device: torch.device) -> dict[str, Tensor]:
    """Constants on the device: sending them again for each batch would wait for the device."""
    # libjpeg's steps at quality 50, from which those of other qualities are scaled.
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", quality=50)
    steps = Image.open(buffer).quantization  # type: ignore[attr-defined]
    made = {
        "luma": torch.tensor(LUMA),
        "mean": 255 * torch.tensor(MEAN)[:, None],
        "std": 255 * torch.tensor(STD)[:, None],
        "shares": SHARES,
        "back": torch.linalg.inv(SHARES),
        "luma_steps": torch.tensor(steps[0], dtype=torch.float32).view(8, 8),
        "colour_steps": torch.tensor(steps[1], dtype=torch.float32).view(8, 8),
    }
    return {name: tensor.to(device) for name, tensor in made.items()}
