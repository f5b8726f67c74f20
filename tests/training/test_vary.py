"""Pictures are varied as Pillow would: its resampling, its colours, libjpeg's losses. And by their numbers alone."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from model.preprocess import normalise, to_array
from training.learning.vary import DRAWS, compressed, draws, normalised, taps, vary_batch

SAMPLES = Path(__file__).parents[2] / "samples"
SIZE = 224
ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    """Eight sample photographs, squashed."""
    found = sorted(SAMPLES.rglob("*.jpg"))[:8]
    assert len(found) == 8
    return [Image.fromarray(to_array(Image.open(path).convert("RGB"), SIZE)) for path in found]


def stacked(photographs: list[Image.Image]) -> torch.Tensor:
    """uint8 [N, 3, SIZE, SIZE]."""
    return torch.from_numpy(np.stack([np.asarray(one) for one in photographs])).permute(0, 3, 1, 2)


def levels(images: torch.Tensor) -> NDArray[np.float32]:
    """The 0 to 255 that `normalise` made its input from."""
    black, white = (torch.from_numpy(normalise(np.full((1, 1, 1, 3), level, np.uint8))) for level in (0, 255))
    found: NDArray[np.float32] = (255 * (images - black) / (white - black)).numpy()
    return found


@pytest.mark.parametrize("size", [64, 128, 160, 224])
def test_unvaried_pictures_are_what_serving_sees_or_its_mirror_image(photographs: list[Image.Image], size: int) -> None:
    drawn = draws(0, 0, 8)
    made = levels(vary_batch(stacked(photographs), drawn, size, strength=0.0))
    mirrored = (drawn[:, 6] < 0.5).tolist()
    assert True in mirrored
    assert False in mirrored
    for one, photograph, turned in zip(made, photographs, mirrored, strict=True):
        seen = to_array(photograph, size)[:, ::-1] if turned else to_array(photograph, size)
        assert np.abs(one.transpose(1, 2, 0) - seen).max() < 2  # Pillow rounds after each of its two passes


@pytest.mark.parametrize(("left", "right", "size"), [(0, 224, 96), (20, 180, 160), (101.5, 183.25, 128)])
def test_a_part_is_resampled_as_pillow_does_it(
    photographs: list[Image.Image], left: float, right: float, size: int
) -> None:
    box = (left, 0, right, SIZE)
    expected = np.asarray(photographs[0].resize((size, SIZE), Image.Resampling.BILINEAR, box=box), dtype=np.float32)
    start, length = torch.tensor([left / SIZE]), torch.tensor([(right - left) / SIZE])
    weights = taps(SIZE, size, start, length, torch.ones(1))
    made = (stacked(photographs[:1]).float() @ weights[:, None].mT)[0].permute(1, 2, 0).numpy()
    inner = slice(2, -2)  # at the edges of a part Pillow looks no further, and this does
    assert np.abs(made - expected)[:, inner].max() < 1


def test_a_crop_is_where_its_numbers_say(photographs: list[Image.Image]) -> None:
    drawn = torch.full((1, DRAWS), 0.5)
    drawn[0, :7] = torch.tensor([1.0, 0.5, 1.0, 0.9, 0.5, 0.1, 0.9])  # the least area, wide, left, not mirrored
    drawn[0, 7] = 0.8  # low
    ratio = 1.25**0.8
    width, height = SIZE * (0.6 * ratio) ** 0.5, SIZE * (0.6 / ratio) ** 0.5
    left, top = 0.1 * (SIZE - width), 0.8 * (SIZE - height)
    box = (left, top, left + width, top + height)
    expected = np.asarray(photographs[1].resize((96, 96), Image.Resampling.BILINEAR, box=box), dtype=np.float32)
    made = levels(vary_batch(stacked(photographs[1:2]), drawn, 96))[0].transpose(1, 2, 0)
    inner = (slice(2, -2), slice(2, -2))
    assert np.abs(made - expected)[inner].max() < 2


def test_light_contrast_and_colour_are_pillows(photographs: list[Image.Image]) -> None:
    factors = torch.tensor([[0.8, 1.2, 0.7], [1.1, 0.75, 1.3], [0.7, 1.3, 1.0]])
    made = levels(normalised(stacked(photographs[:3]).float(), *factors.T))
    for one, photograph, row in zip(made, photographs, factors.tolist(), strict=False):
        expected = photograph
        for enhance, factor in zip(ENHANCERS, row, strict=True):
            expected = enhance(expected).enhance(factor)
        difference = np.abs(one.transpose(1, 2, 0) - np.asarray(expected, dtype=np.float32))
        assert np.percentile(difference, 99) < 4  # Pillow rounds, and clips in between


@pytest.mark.parametrize("quality", [40, 60, 75, 95])
def test_compression_loses_what_libjpeg_loses(photographs: list[Image.Image], quality: int) -> None:
    before = np.stack([np.asarray(one, dtype=np.float32) for one in photographs])
    expected = np.stack([np.asarray(as_jpeg(one, quality), dtype=np.float32) for one in photographs])
    qualities = torch.full((8,), float(quality))
    made = compressed(stacked(photographs).float(), qualities).permute(0, 2, 3, 1).numpy()
    # libjpeg rounds colours before and after, which is all that differs at the highest quality.
    assert np.abs(made - expected).mean() < 0.2 * np.abs(expected - before).mean() + 0.5


def as_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def test_what_a_picture_becomes_does_not_depend_on_its_batch(photographs: list[Image.Image]) -> None:
    pictures, drawn = stacked(photographs), draws(1, 2, 8)
    together = vary_batch(pictures, drawn, 96)
    for number in range(8):
        alone = vary_batch(pictures[number : number + 1], drawn[number : number + 1], 96)
        # A last bit that differs turns a coefficient now and then.
        assert float((alone[0] - together[number]).abs().mean()) < 1e-3


def test_numbers_follow_from_seed_and_epoch() -> None:
    assert draws(3, 4, 100).shape == (100, DRAWS)
    assert draws(3, 4, 100).equal(draws(3, 4, 100))
    assert not draws(3, 4, 100).equal(draws(3, 5, 100))
    assert not draws(3, 4, 100).equal(draws(4, 4, 100))


def test_strength_scales_everything_but_the_mirroring(photographs: list[Image.Image]) -> None:
    pictures = stacked(photographs)
    plain = pictures.permute(0, 2, 3, 1).numpy().astype(np.float32)

    def varied(strength: float) -> float:
        """How unlike the picture, or its mirror image, if that is nearer."""
        made = levels(vary_batch(pictures, draws(0, 0, 8), SIZE, strength)).transpose(0, 2, 3, 1)
        distances = [np.abs(made - other).mean((1, 2, 3)) for other in (plain, plain[:, :, ::-1])]
        return float(np.minimum(*distances).mean())

    assert varied(0.0) < 0.01
    assert 0.01 < varied(0.3) < varied(1.0) < varied(1.5)
