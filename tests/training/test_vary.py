"""Pictures are varied as Pillow would: its resampling, its colours, libjpeg's losses. And by their numbers alone."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from model.preprocess import normalise, to_array
from training.learning.vary import (
    DRAWS,
    LOOKS,
    Look,
    appearance,
    coloured,
    compressed,
    draws,
    seen,
    seen_batch,
    taps,
    vary_batch,
    vary_one,
    view,
)

SAMPLES = Path(__file__).parents[2] / "samples"
SIZE = 224


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
    mirrored = (drawn[:, LOOKS + 4] < 0.5).tolist()
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
    drawn[0, LOOKS:] = torch.tensor([1.0, 0.9, 0.5, 0.1, 0.9, 0.8])  # the least area, wide, left, not mirrored, low
    ratio = 1.25**0.8
    width, height = SIZE * (0.6 * ratio) ** 0.5, SIZE * (0.6 / ratio) ** 0.5
    left, top = 0.1 * (SIZE - width), 0.8 * (SIZE - height)
    box = (left, top, left + width, top + height)
    expected = np.asarray(photographs[1].resize((96, 96), Image.Resampling.BILINEAR, box=box), dtype=np.float32)
    made = levels(vary_batch(stacked(photographs[1:2]), drawn, 96))[0].transpose(1, 2, 0)
    inner = (slice(2, -2), slice(2, -2))
    assert np.abs(made - expected)[inner].max() < 2


def look(**changes: float | tuple[float, ...]) -> Look:
    """The look that changes nothing, with these exceptions, of one photograph."""
    plain = Look.of(np.full(LOOKS, 0.5), 0.0)
    return plain._replace(**{name: np.array(value) for name, value in changes.items()})


LOOKS_SEEN = {
    "greyscale": look(colour=0.0),
    "a blue cast": look(factors=(0.8, 0.95, 1.2)),
    "an eighth of the light": look(factors=(0.39, 0.39, 0.39)),
    "clipped": look(factors=(1.6, 1.6, 1.6)),
    "gamma": look(gamma=1.5),
    "contrast": look(contrast=1.3, colour=0.7),
    "noise": look(noise=12.0, place=(0.3, 0.9)),
    "out of focus": look(blur=(1.8, 1.8)),
    "moved": look(blur=(2.0, 0.0)),
    "moved down": look(blur=(0.0, 2.0)),
    "all": look(colour=0.0, factors=(0.8, 0.95, 1.2), gamma=0.8, contrast=0.8, noise=6.0, blur=(1.0, 1.0)),
}


@pytest.mark.parametrize("kind", LOOKS_SEEN)
def test_a_batch_looks_as_pillow_makes_each(photographs: list[Image.Image], kind: str) -> None:
    one = LOOKS_SEEN[kind]
    before = np.stack([np.asarray(photograph, dtype=np.float32) for photograph in photographs])
    expected = np.stack([np.asarray(seen(photograph, one), dtype=np.float32) for photograph in photographs])
    batch = Look(*(np.stack([values] * 8) for values in one))
    made = seen_batch(stacked(photographs).float(), batch).permute(0, 2, 3, 1).numpy()
    assert np.abs(expected - before).mean() > 1
    # Pillow rounds after each step, and blurs by a box.
    assert np.abs(made - expected).mean() < 0.15 * np.abs(expected - before).mean() + 0.3


def test_contrast_and_colour_are_pillows(photographs: list[Image.Image]) -> None:
    factors = torch.tensor([[1.2, 0.7], [0.75, 1.3], [1.3, 1.0]])
    made = coloured(stacked(photographs[:3]).float(), *factors.T).permute(0, 2, 3, 1).numpy()
    for one, photograph, (contrast, colour) in zip(made, photographs, factors.tolist(), strict=False):
        expected = ImageEnhance.Color(ImageEnhance.Contrast(photograph).enhance(contrast)).enhance(colour)
        difference = np.abs(one - np.asarray(expected, dtype=np.float32))
        assert np.percentile(difference, 99) < 4  # Pillow rounds, and clips in between


def test_a_look_is_what_it_says(photographs: list[Image.Image]) -> None:
    plain = np.asarray(photographs[0], dtype=np.float32)

    def made(**changes: float | tuple[float, ...]) -> NDArray[np.float32]:
        return np.asarray(seen(photographs[0], look(**changes)), dtype=np.float32)

    assert np.array_equal(made(), plain)
    assert np.ptp(made(colour=0.0), axis=2).max() == 0
    assert np.abs(made(colour=0.0)[..., 0] - np.asarray(photographs[0].convert("L"))).max() <= 1
    assert np.abs(made(factors=(0.8, 0.95, 1.2)) - np.minimum(plain * (0.8, 0.95, 1.2), 255)).max() <= 1
    dark = made(factors=(0.25 ** (1 / 2.2),) * 3)  # a quarter of the light
    assert dark.mean() == pytest.approx(0.53 * plain.mean(), rel=0.02)
    assert np.std(made(noise=10.0, place=(0.1, 0.2)) - plain) == pytest.approx(10, rel=0.15)  # less where it clips


def test_looks_are_as_frequent_and_as_large_as_they_say() -> None:
    uniform = np.random.default_rng(0).random((20_000, LOOKS))
    one, strong = Look.of(uniform, 1.0), Look.of(uniform, 1.6)
    cast = one.factors[:, 0] / one.factors[:, 2]
    light = one.factors[:, 1]
    shares = {
        "greyscale": (one.colour == 0, 0.08),
        "white balance": (np.abs(np.log(cast)) > 1e-9, 0.10),
        "gamma": (one.gamma != 1, 0.06),
        "noise": (one.noise > 0, 0.08),
        "blur": (one.blur.any(axis=1), 0.08),
        "jpeg": (one.quality > 0, 0.40),
    }
    for kind, (found, share) in shares.items():
        assert found.mean() == pytest.approx(share, abs=0.008), kind
    assert cast.min() < 0.6  # the cast that the model card measures has 0.8 / 1.2, and others go further
    assert cast.max() > 1.7
    assert light.min() < 0.53 * 0.8  # a quarter of the light and less
    assert light.max() > 1.6
    assert one.blur.max() <= 2.2
    assert one.noise.max() <= 16
    plain = np.isclose(cast, 1) & (one.colour > 0) & (one.gamma == 1) & (light > 0.69) & (light < 1.31)
    assert 0.65 < plain.mean() < 0.75
    # A stronger variation is more frequent, and no larger.
    assert (strong.colour == 0).mean() == pytest.approx(0.128, abs=0.01)
    assert strong.noise.max() <= 16
    none = Look.of(uniform, 0.0)
    assert all(not array.any() for array in (none.noise, none.blur, none.quality))
    assert all((array == 1).all() for array in (none.factors, none.gamma, none.contrast, none.colour))


def test_one_view_of_two_appearances(photographs: list[Image.Image]) -> None:
    """So a student can be shown a distorted view of which its teacher saw the plain one."""
    random = np.random.default_rng
    other = np.asarray(view(appearance(photographs[0], random(5), 1.0), 96, random(7), 1.0))
    plain = np.asarray(view(photographs[0], 96, random(7), 1.0))
    both = random(5)
    whole = vary_one(photographs[0], 96, both, 1.0)
    again = random(5)
    assert np.array_equal(whole, np.asarray(view(appearance(photographs[0], again, 1.0), 96, again, 1.0)))
    assert other.shape == plain.shape == (96, 96, 3)
    assert np.corrcoef(plain.mean(2).ravel(), other.mean(2).ravel())[0, 1] > 0.9
    assert np.abs(plain.astype(float) - other).mean() > 1


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
