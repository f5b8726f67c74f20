"""Varies photographs for training: one with Pillow, or a whole batch on the GPU that holds it.

`appearance` is what cameras and their light differ in, `view` what is framed and how it is resampled. Both
implementations do the same, from the same numbers (`Look`), but their results are not identical; on a CPU the first
needs a quarter of the time. The two populations of photographs differ in JPEG quality and resampling, and in how full
their bins are; varying quality and resampling keeps the network from deriving the count from the compression. Colour
and light are varied because a network that never saw a greyscale photograph answers differently to seven of ten.
"""

from __future__ import annotations

import io
import math
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from model.preprocess import MEAN, STD

LOOKS, VIEWS = 15, 6
"""Random numbers per photograph for its appearance, and for its view."""
DRAWS = LOOKS + VIEWS
COMPRESSED = 0.4
"""Share of the photographs that are compressed again, at JPEG quality 40 to 95."""
GREY, BALANCED, EXPOSED, BENT, NOISY, BLURRED = 0.08, 0.10, 0.12, 0.06, 0.08, 0.08
"""Shares that lose their colour, or have another white balance, exposure, gamma, noise or sharpness. At strength 1,
58 of 100 photographs are in none of them, and at 1.6, 41."""
GAIN = math.log(1.5)
"""Of a channel against the others, up or down."""
EXPOSURE = (math.log(0.2), math.log(3.0))
"""In linear light, from which the encoded values follow by a power of 1 / 2.2."""
GAMMA = math.log(1.5)
NOISE = (2.0, 16.0)
"""Standard deviation, of 255."""
BLUR = (0.6, 2.2)
"""Standard deviation in pixels of a stored photograph: in both directions out of focus, in one by motion."""
LUMA = (0.299, 0.587, 0.114)
SHARES = torch.tensor([LUMA, (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312)])
"""RGB to Y, Cb and Cr (ITU-T T.871)."""
FIELD = 512
"""Edge of the noise field, and of the largest photograph. Each takes a part, since drawing its own would cost a
millisecond."""

Floats = NDArray[np.float64]


class Look(NamedTuple):
    """How photographs appear, for any shape [...] of them."""

    quality: Floats
    """Of the JPEG; 0 is not compressed."""
    factors: Floats
    """Of the encoded red, green and blue: [..., 3]."""
    gamma: Floats
    contrast: Floats
    """About the mean grey."""
    colour: Floats
    """0 is greyscale, 1 as it is."""
    noise: Floats
    place: Floats
    """Where its part of the noise field is, 0 (top, left) to 1: [..., 2]."""
    blur: Floats
    """Standard deviation across and down, in pixels: [..., 2]."""

    @classmethod
    def of(cls, drawn: Floats, strength: float) -> Look:
        """From uniform numbers [..., LOOKS]."""
        u = np.moveaxis(np.asarray(drawn, dtype=np.float64), -1, 0)

        def among(number: int, share: float, low: float, high: float, otherwise: float) -> Floats:
            """`low` to `high` in this share of the photographs, decided by one number."""
            place = u[number] / max(share * strength, 1e-9)
            return np.where(place < 1, low + (high - low) * place, otherwise)

        def near_one(number: int) -> Floats:
            found: Floats = 1 + 0.3 * strength * (2 * u[number] - 1)
            return found

        balance = np.stack([among(5, BALANCED, -GAIN, GAIN, 0.0), *GAIN * (2 * u[6:8] - 1)], axis=-1)
        balance *= (u[5] < BALANCED * strength)[..., None]
        light = near_one(1) * np.exp(among(8, EXPOSED, *EXPOSURE, 0.0) / 2.2)
        blur = among(13, BLURRED, *BLUR, 0.0)
        direction = u[14]  # half of them in both, a quarter in each
        return cls(
            quality=among(0, COMPRESSED, 40, 95, 0.0),
            factors=light[..., None] * np.exp(balance),
            gamma=np.exp(among(9, BENT, -GAMMA, GAMMA, 0.0)),
            contrast=near_one(2),
            colour=np.where(u[4] < GREY * strength, 0.0, near_one(3)),
            noise=among(10, NOISY, *NOISE, 0.0),
            place=np.stack([u[11], u[12]], axis=-1),
            blur=np.stack([blur * (direction < 0.75), blur * ((direction < 0.5) | (direction >= 0.75))], axis=-1),
        )


def vary_one(image: Image.Image, size: int, random: np.random.Generator, strength: float = 1.0) -> NDArray[np.uint8]:
    """A random crop, mirrored or not, with other light, sharpness and JPEG quality: uint8 [size, size, 3].

    `strength`, up to 2, scales how often everything except the mirroring happens, and how large crops and mild changes
    are.
    """
    return np.asarray(view(appearance(image, random, strength), size, random, strength), dtype=np.uint8)


def appearance(image: Image.Image, random: np.random.Generator, strength: float = 1.0) -> Image.Image:
    """The RGB picture as another camera, or other light, would give it; of the same size."""
    return seen(image, Look.of(random.random(LOOKS), strength))


def seen(image: Image.Image, look: Look) -> Image.Image:
    """The RGB picture with this look: the lens, then the light, the sensor, its colours, and the file."""
    if look.blur.any():
        # A box of this standard deviation: a Gaussian of Pillow is three.
        radius = (np.sqrt(12) * look.blur - 1).clip(min=0) / 2
        image = image.filter(ImageFilter.BoxBlur((float(radius[0]), float(radius[1]))))
    steps = np.clip(look.factors[:, None] * np.arange(256) / 255, 0, 1) ** look.gamma  # [3, 256]
    image = image.point(np.rint(255 * steps).astype(int).ravel().tolist())
    if look.noise:
        top, left = (look.place * (FIELD - image.height, FIELD - image.width)).astype(int)
        noise = np.float32(look.noise) * field()[top : top + image.height, left : left + image.width]
        image = Image.fromarray(np.rint(np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
    mean = float(np.asarray(image.convert("L")).mean())
    matrix = look.contrast * (look.colour * np.eye(3) + (1 - look.colour) * np.array(LUMA))
    shift = np.full(3, mean * (1 - look.contrast))
    image = image.convert("RGB", tuple(np.column_stack([matrix, shift]).ravel().tolist()))
    if look.quality:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(look.quality))
        image = Image.open(buffer)
    return image


def view(image: Image.Image, size: int, random: np.random.Generator, strength: float = 1.0) -> Image.Image:
    """A random crop of the RGB picture, resampled to `size` pixels in both directions, mirrored or not."""
    area = image.width * image.height * random.uniform(1 - 0.4 * strength, 1.0)
    ratio = np.exp(random.uniform(np.log(0.8) * strength, np.log(1.25) * strength))
    width = min(np.sqrt(area * ratio), image.width)
    height = min(np.sqrt(area / ratio), image.height)
    left, top = random.uniform(0, image.width - width), random.uniform(0, image.height - height)
    resampling = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.BOX)[random.integers(3)]
    image = image.resize((size, size), resampling, box=(left, top, left + width, top + height))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else image


@lru_cache(2)
def draws(seed: int, epoch: int, photographs: int) -> Tensor:
    """Uniform numbers [photographs, DRAWS] of an epoch, the same on every machine and in every process."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.rand(photographs, DRAWS, generator=generator)


def vary_batch(pictures: Tensor, drawn: Tensor, size: int, strength: float = 1.0) -> Tensor:
    """Like `vary_one`, but float32 [B, 3, size, size], the network's input.

    `pictures` are uint8 [B, 3, H, W] on any device, H and W multiples of 16; `drawn` [B, DRAWS] is on the CPU.
    """
    look = Look.of(drawn[:, :LOOKS].numpy(), strength)
    return normalised(view_batch(seen_batch(pictures.float(), look), drawn[:, LOOKS:], size, strength))


def seen_batch(images: Tensor, look: Look) -> Tensor:
    """Like `seen`, for float32 [B, 3, H, W] of 0 to 255 on any device and looks of shape [B]; `images` may change.

    Which photographs are blurred, noisy or compressed is known on the CPU, to avoid waiting for a GPU.
    """
    device, (height, width) = images.device, images.shape[2:]
    if len(blurred := np.flatnonzero(look.blur.any(-1))):
        # A triangle of this standard deviation; one that reaches no other pixel changes nothing.
        across, down = (placed(deviation * math.sqrt(6), device).clamp(min=1) for deviation in look.blur[blurred].T)
        start, whole, here = torch.zeros_like(across), torch.ones_like(across), placed(blurred, device)
        rows, columns = taps(height, height, start, whole, down), taps(width, width, start, whole, across)
        images[here] = rows[:, None] @ images[here] @ columns[:, None].mT
    factors, gamma = (
        placed(look.factors / 255, device)[:, :, None, None],
        placed(look.gamma, device)[:, None, None, None],
    )
    images = 255 * (images * factors).clamp(0, 1) ** gamma
    if len(noisy := np.flatnonzero(look.noise)):
        top, left = (look.place[noisy] * (FIELD - height, FIELD - width)).astype(int).T[:, :, None]
        rows, columns = placed(np.arange(height) + top, device), placed(np.arange(width) + left, device)
        noise = constants(device)["noise"][rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
        here, level = placed(noisy, device), placed(look.noise[noisy], device)[:, None, None, None]
        images[here] = (images[here] + level * noise).clamp(0, 255)
    images = coloured(images, placed(look.contrast, device), placed(look.colour, device))
    if len(recompressed := np.flatnonzero(look.quality)):
        here = placed(recompressed, device)
        images[here] = compressed(images[here], placed(look.quality[recompressed], device))
    return images


def view_batch(images: Tensor, drawn: Tensor, size: int, strength: float) -> Tensor:
    """Like `view`, for [B, 3, H, W] on any device and uniform numbers [B, VIEWS] on the CPU: [B, 3, size, size]."""
    u = sent(drawn, images.device).unbind(1)
    area = 1 - 0.4 * strength * u[0]
    ratio = torch.exp(strength * math.log(1.25) * (2 * u[1] - 1))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    soft = torch.exp(strength * math.log(1.4) * (2 * u[2] - 1)).clamp(min=0.51)  # narrower, a line may meet no pixel
    across = taps(images.shape[3], size, (1 - width) * u[3], width, soft, u[4] < 0.5)
    down = taps(images.shape[2], size, (1 - height) * u[5], height, soft)
    return down[:, None] @ images @ across[:, None].mT


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Sends to the device without waiting for its current work."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def placed(array: NDArray[Any], device: torch.device) -> Tensor:
    """The same for numbers: floating-point ones become float32."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return sent(tensor.float() if tensor.is_floating_point() else tensor, device)


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


def coloured(images: Tensor, contrast: Tensor, colour: Tensor) -> Tensor:
    """[B, 3, H, W] of 0 to 255 with factors [B] of what Pillow calls so."""
    luma = constants(images.device)["luma"]
    grey = (images * luma[:, None, None]).sum(1).mean((1, 2))  # [B]
    # Contrast about the mean grey, then colour about each pixel's own grey: a matrix and a shift.
    mix = colour[:, None, None] * torch.eye(3, device=images.device) + (1 - colour)[:, None, None] * luma
    shift = ((1 - contrast) * grey)[:, None, None]
    flat = torch.baddbmm(shift, contrast[:, None, None] * mix, images.flatten(2))
    result: Tensor = flat.clamp(0, 255).unflatten(2, images.shape[2:])
    return result


def normalised(images: Tensor) -> Tensor:
    """[B, 3, S, S] of 0 to 255 as `model.preprocess.normalise` makes it."""
    mean, std = (constants(images.device)[name] for name in ("mean", "std"))
    return (images - mean) / std


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
def field() -> NDArray[np.float32]:
    """Noise [FIELD, FIELD, 3] of standard deviation 1, the same on every machine and in every process."""
    return np.random.default_rng(0).standard_normal((FIELD, FIELD, 3), dtype=np.float32)


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
        "mean": 255 * torch.tensor(MEAN)[:, None, None],
        "std": 255 * torch.tensor(STD)[:, None, None],
        "noise": torch.from_numpy(field()),
        "shares": SHARES,
        "back": torch.linalg.inv(SHARES),
        "luma_steps": torch.tensor(steps[0], dtype=torch.float32).view(8, 8),
        "colour_steps": torch.tensor(steps[1], dtype=torch.float32).view(8, 8),
    }
    return {name: tensor.to(device) for name, tensor in made.items()}
