"""The figures of the model card: other light, older and newer photographs, empty bins."""

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.preprocess import SIZE, normalise, to_array
from training.verdict import metrics, shipped
from training.verdict.card import PLAIN, _by_age

SAMPLES = Path(__file__).parents[2] / "samples"


@dataclass(frozen=True)
class Held:
    """A held-out photograph with what predictions store of it."""

    id: str
    split: str
    quantity: int
    group: str
    population: str = "copy"


def levels(images: np.ndarray) -> np.ndarray:
    """Values of 0 to 255 [3, S, S] from the network's input."""
    black, white = (normalise(np.full((1, 1, 1, 3), level, np.uint8)) for level in (0, 255))
    found: np.ndarray = (255 * (images - black) / (white - black))[0]
    return found


def test_conditions_change_the_light_and_nothing_else(tmp_path: Path) -> None:
    picture = Image.open(next(SAMPLES.rglob("*.jpg"))).convert("RGB").resize((224, 224))
    picture.save(tmp_path / "a.png")
    plain = to_array(picture, SIZE).astype(float).transpose(2, 0, 1)
    seen = {
        name: levels(next(shipped.distorted([(tmp_path / "a.png").read_bytes()], name))) for name in shipped.CONDITIONS
    }
    as_is, grey, blue, half = seen.values()
    assert np.abs(as_is - plain).max() < 0.01
    assert np.ptp(grey, axis=0).max() < 0.01
    assert np.abs(grey.mean(0) - np.tensordot([0.299, 0.587, 0.114], plain, 1)).max() < 2
    for channel, gain in enumerate((0.8, 0.95, 1.2)):
        assert np.abs(blue[channel] - (plain[channel] * gain).clip(0, 255)).max() < 3
    assert np.abs(half - plain / 2).max() < 2


def stored(folder: Path, photographs: int = 60) -> None:
    """A package's files: answers that are right, but for greyscale photographs, all of which are answered as 6."""
    random = np.random.default_rng(0)
    held = [
        Held(f"{n}", "test" if n % 2 else "validation", int(random.integers(0, 8)), f"g{n // 4}")
        for n in range(photographs)
    ]
    sure = 4 * np.eye(7)
    metrics.write_predictions(folder / "predictions.csv", held, sure[[min(p.quantity, 6) for p in held]])
    test = [p for p in held if p.split == "test"]
    rows = [replace(p, split=name) for name in shipped.CONDITIONS for p in test]
    answers = [6 if p.split == "greyscale" else min(p.quantity, 6) for p in rows]
    metrics.write_predictions(folder / "conditions.csv", rows, sure[answers])
    with (folder / "held_out_before.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "group", "split"), *((p.id, p.group, p.split) for p in test[:20])])


def test_figures_by_condition_age_and_of_empty_bins(tmp_path: Path) -> None:
    stored(tmp_path)
    report = shipped.report(tmp_path, lambda p, recorded: 1 / p[min(recorded, 6)], draws=2)
    assert report["ranking"]["rules"]["bayes"]["area"]["value"] > 0.5
    grey, plain = report["conditions"]["greyscale"], report["conditions"][PLAIN]
    assert plain["as_shipped"]["accuracy"] == plain["same_count"] == 1
    assert grey["same_count"] == grey["as_shipped"]["accuracy"] < 0.5
    assert grey["as_shipped"]["rps"] > 1 > plain["as_shipped"]["rps"]
    sizes = {name: found["as_shipped"]["photographs"] for name, found in report["by_age"].items()}
    assert sizes == {"measured before": 20, "new": 10}
    assert (
        report["empty"]["recall"]["hits"] == report["empty"]["recall"]["of"] == report["empty"]["precision"]["of"] > 0
    )
    table = _by_age(report["by_age"])
    assert "| measured before | 20 |" in table
    assert "| new | 10 |" in table
    assert _by_age({"measured before": report["by_age"]["measured before"]}) == ""


def test_conditions_are_of_the_same_photographs(tmp_path: Path) -> None:
    stored(tmp_path)
    predictions = metrics.read_predictions(tmp_path / "conditions.csv")
    predictions["greyscale"] = replace(predictions["greyscale"], ids=predictions["greyscale"].ids[::-1])
    with pytest.raises(ValueError, match="greyscale: other photographs"):
        shipped.conditions(predictions, 1.0)


def test_a_share_has_the_interval_of_wilson() -> None:
    found = shipped.share(25, 29)  # Newcombe 1998 gives such tables
    assert found["interval"] == pytest.approx([0.694, 0.945], abs=0.001)
    assert shipped.share(0, 0)["interval"] == [0, 1]
    assert shipped.share(10, 10)["interval"] == pytest.approx([0.722, 1.0], abs=0.001)


def test_the_photographs_that_are_distorted_are_always_the_same() -> None:
    many = [str(n) for n in range(1000)]
    assert len(shipped.chosen(many)) == 300
    assert shipped.chosen(many) == shipped.chosen(many)
    assert shipped.chosen(many[:5]) == many[:5]
