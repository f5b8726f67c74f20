import csv
import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools import synthetic
from training.dataset.layout import Line, Shard, digest, split_of


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


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a processing job leaves of 64 rendered photographs of 32 bins, 0 to 7 items: index, digests, shards."""
    folder = tmp_path_factory.mktemp("rendered")
    photographs: dict[str, list[tuple[Line, bytes]]] = {"train": [], "validation": [], "test": []}
    for number in range(64):
        bin_, quantity, file = f"R-{number // 2}", number // 8, io.BytesIO()
        synthetic.render(number, quantity, (96, 80)).save(file, "JPEG", quality=90)
        id_ = hashlib.sha256(file.getvalue()).hexdigest()[:16]
        line = Line(
            id=id_, site="DEMO", bin=bin_, quantity=quantity, source="record", as_of="2026-01-01T00:00:00Z",
            captured_at="2026-01-01T00:00:00Z", split=split_of("DEMO", bin_), object="", member=f"{id_}.jpg",
            pixels=id_ * 2, brightness=0.5, blur=1.0, width=96, height=80, count=None, confidence=None,
            p_record=None, model_version=None,
        )  # fmt: skip
        photographs[line.split].append((line, file.getvalue()))
    lines = []
    for split in ("train", "validation"):
        shard = Shard(file := io.BytesIO())
        for line, data in photographs[split]:
            shard.add(line.member, data)
        name = f"{shard.close()}.tar"
        (folder / split).mkdir()
        (folder / split / name).write_bytes(file.getvalue())
        lines += [replace(line, object=f"datasets/{split}/{name}") for line, _ in photographs[split]]
    lines.sort(key=lambda line: line.id)
    (folder / "dataset").mkdir()
    (folder / "dataset" / "index.jsonl").write_text("".join(line.json() + "\n" for line in lines))
    (folder / "dataset" / "dataset.json").write_text(json.dumps({"format": 1, "digest": digest(lines)}))
    return folder
