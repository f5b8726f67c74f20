import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of 96 small pictures on which the count can be seen: so many bright squares on grey."""
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "images").mkdir()
    random = np.random.default_rng(0)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "quantity", "group"])
        for number in range(96):
            quantity = number % 7
            pixels = random.integers(60, 90, (224, 224, 3), dtype=np.uint8)
            for cell in random.choice(16, quantity, replace=False):
                row, column = 56 * (cell // 4), 56 * (cell % 4)
                pixels[row + 8 : row + 48, column + 8 : column + 48] = 240
            Image.fromarray(pixels).save(folder / "images" / f"b{number}.jpg", quality=90)
            writer.writerow([f"b{number}", quantity, f"bin-{number // 2}"])
    return folder
