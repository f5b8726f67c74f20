"""The rendered photographs: the right number of items in sight, the same every time, and those shipped are these."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools import synthetic

SAMPLES = Path(__file__).parents[2] / "samples"


def test_one_seed_makes_one_picture() -> None:
    once, again, other = (synthetic.render(seed, 3, (240, 200)) for seed in (7, 7, 8))
    assert np.array_equal(np.asarray(once), np.asarray(again))
    assert not np.array_equal(np.asarray(once), np.asarray(other))
    assert once.size == (240, 200)
    assert once.mode == "RGB"


@pytest.mark.parametrize("count", range(8))
def test_every_item_is_in_sight(count: int) -> None:
    bin_ = synthetic.Bin(320, 260)
    items = synthetic.arrange(np.random.default_rng(count), bin_, count)
    assert len(items) == count
    assert all(share >= synthetic.LEAST_SEEN for share in synthetic.shares_seen(items, bin_))


def test_an_item_behind_another_counts_as_hidden() -> None:
    bin_ = synthetic.Bin(320, 260)
    back = synthetic.Item("goods", 160, 0, 150, 60, 80, 20, 0, (1, 2, 3))
    front = synthetic.Item("carton", 160, 0, 20, 160, 200, 20, 0, (1, 2, 3))
    assert synthetic.shares_seen([back, front], bin_) == [0.0, 1.0]


def test_pictures_to_train_on_are_of_other_bins_than_the_samples() -> None:
    pictures, counts = synthetic.training_pictures(10, edge=64)
    assert pictures.shape == (10, 64, 64, 3)
    assert pictures.dtype == np.uint8
    assert counts.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]
    again, other = (synthetic.training_pictures(2, seed, edge=64)[0] for seed in (0, 1))
    assert np.array_equal(again, pictures[:2])
    assert np.abs(other.astype(int) - again).mean(axis=(1, 2, 3)).min() > 5
    assert len(synthetic.SAMPLES) < synthetic.FIRST_SEED


def test_too_many_items_are_refused() -> None:
    with pytest.raises(ValueError, match="25 items do not fit into 60 x 40 pixels"):
        synthetic.arrange(np.random.default_rng(1), synthetic.Bin(60, 40), 25)


def test_the_shipped_samples_are_what_the_code_renders() -> None:
    with (SAMPLES / "labels.csv").open() as sheet:
        labels = {row["id"]: int(row["shown"]) for row in csv.DictReader(sheet)}
    assert {path.relative_to(SAMPLES).with_suffix("").as_posix() for path in SAMPLES.rglob("*.jpg")} == set(labels)
    assert set(labels.values()) == set(range(8))
    site, bin_, _, shown = synthetic.SAMPLES[2]
    path = next((SAMPLES / site / bin_).iterdir())
    shipped = np.asarray(Image.open(path), dtype=float)
    rendered = np.asarray(synthetic.render(2, shown[0], synthetic.SIZES[2]), dtype=float)
    assert np.abs(shipped - rendered).mean() < 4  # JPEG's own loss is about 2
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*.jpg")) < 1_500_000
