"""Photographs too dark, blurred or colourless, and answers that say nothing: flagged, counted, in the day's total."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bintally.counting import images
from bintally.counting.clarity import faults
from PIL import Image, ImageFilter

SAMPLES = sorted((Path(__file__).parents[2] / "samples").glob("*/*/*.jpg"))
KEY = "incoming/SEA1/B/a.jpg"


def spoiled(file: Path, *, light: float = 1.0, blur: float = 0.0, size: int = 224) -> Image.Image:
    """`blur` in pixels of 224."""
    image = Image.open(file).convert("RGB").resize((size, size))
    return image.filter(ImageFilter.GaussianBlur(blur * size / 224)).point(lambda value: int(value * light))


@pytest.mark.parametrize("size", [224, 900])
@pytest.mark.parametrize("file", SAMPLES[::3], ids=lambda file: str(file.parent.name))
def test_what_people_cannot_see_is_flagged_and_what_they_can_is_not(file: Path, size: int) -> None:
    assert faults(spoiled(file, size=size)) == ()
    assert faults(spoiled(file, size=size, light=0.5)) == ()
    assert faults(spoiled(file, size=size, light=0.08)) == ("dark",)
    assert faults(spoiled(file, size=size, blur=4)) == ("blurred",)
    assert faults(spoiled(file, size=size).convert("L")) == ("colourless",)
    assert faults(spoiled(file, size=size).convert("L").convert("RGB")) == ("colourless",)
    assert faults(spoiled(file, size=size, blur=4).convert("L")) == ("blurred", "colourless")
    assert faults(spoiled(file, size=size, light=0.08).convert("L")) == ("dark",)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_it_is_measured_whether_the_file_is_passed_on_or_not(kind: str) -> None:
    out = io.BytesIO()
    spoiled(SAMPLES[0], light=0.05).save(out, kind)
    assert images.prepare(out.getvalue(), images.read(out.getvalue())).flags == ("dark",)


def test_greyscale_files_are_passed_on_and_flagged() -> None:
    out = io.BytesIO()
    spoiled(SAMPLES[0]).convert("L").save(out, "JPEG", quality=75)
    prepared = images.prepare(out.getvalue(), images.read(out.getvalue()))
    assert prepared == images.Prepared(out.getvalue(), ("colourless",))


def test_a_flagged_photograph_is_counted_and_in_the_days_total(world: Any, photo: Callable[..., bytes]) -> None:
    dark = io.BytesIO()
    spoiled(SAMPLES[0], light=0.05).save(dark, "JPEG")
    event = world.put(KEY, dark.getvalue())
    world.deliver(event, event)
    world.deliver(world.put(KEY, photo()))
    assert sorted((item["count"], item.get("flags", [])) for item in world.items("COUNT#")) == [(3, []), (3, ["dark"])]
    assert sum(int(item.get("retake", 0)) for item in world.items("TOTALS#")) == 1
    assert world.totals() == {"counted": 2, "rejected": 0}


def test_an_answer_that_says_nothing_asks_for_a_new_photograph(world: Any, photo: Callable[..., bytes]) -> None:
    answer = json.loads(world.endpoint.answer) | {"probabilities": [0.1, 0.1, 0.2, 0.22, 0.2, 0.1, 0.08]}
    world.endpoint.answer = json.dumps(answer).encode()
    world.deliver(world.put(KEY, photo()))
    assert world.only()["flags"] == ["flat"]
    assert world.only("LATEST")["flags"] == ["flat"]
    assert world.only("TOTALS#")["retake"] == 1
