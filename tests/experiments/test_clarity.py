"""How many photographs are flagged, as they are and spoiled."""

from pathlib import Path

from bintally.counting import clarity
from PIL import Image

from experiments.clarity import table

SAMPLES = sorted((Path(__file__).parents[2] / "samples").glob("*/*/*.jpg"))


def test_the_table_says_what_is_flagged() -> None:
    pictures = [Image.open(file).convert("RGB").resize((clarity.SIDE, clarity.SIDE)) for file in SAMPLES[:3]]
    lines = table(pictures).splitlines()
    assert "| as they are (3) | 0 | 0 | 0 |" in lines
    assert "| every value x 0.1 (3) | 3 | 0 | 0 |" in lines
    assert "| blurred by 3 (3) | 0 | 3 | 0 |" in lines
    assert "| greyscale (3) | 0 | 0 | 3 |" in lines
    darkest = min(clarity.measure(picture).brightness for picture in pictures)
    assert f"| brightness | {darkest:.1f} | " in lines[2]
