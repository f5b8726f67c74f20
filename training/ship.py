"""Makes a model package from a finished training run: quantise, check, calibrate, measure, describe.

    python -m training.ship .runs/first --data ../shared/abid --out model/pretrained

Writes `model.tar.gz`, the predictions its metrics come from (`predictions.csv`) and the model card
(`README.md`, every figure filled in from those predictions). Exits with 1 when int8 differs too much.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from PIL import Image

from model import export, network, package
from model.answer import Answer, answer, probabilities
from model.preprocess import SIZE, decode, normalise, to_array
from training import data, metrics
from training.card import card

CALIBRATION_PHOTOGRAPHS = 512


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("run", type=Path, help="the folder that training.train wrote")
    flags.add_argument("--data", type=Path, required=True)
    flags.add_argument("--samples", type=Path, default=Path("samples"), help="generated pictures, for golden images")
    flags.add_argument("--out", type=Path, default=Path("model/pretrained"))
    flags.add_argument("--parent", help="version of the package whose weights this one started from")
    a = flags.parse_args()

    photographs = data.read(a.data)
    training = [p for p in photographs if p.split == "train"]
    held_out = [p for p in photographs if p.split != "train"]
    trained = network.build()
    trained.load_state_dict(torch.load(a.run / "network.pt", weights_only=True))
    converted = export.convert(trained)
    chosen = np.random.default_rng(0).choice(len(training), min(CALIBRATION_PHOTOGRAPHS, len(training)), replace=False)
    quantised = export.quantise(converted, [data.evaluation_batch([training[i]], SIZE).numpy() for i in chosen])

    # Both networks answer the held-out photographs; what int8 changed is judged on all of them.
    quantities = np.array([p.quantity for p in held_out])
    with torch.inference_mode():
        before = np.concatenate([trained.eval()(torch.from_numpy(b)).numpy() for b in batches(held_out)])
    after = export.predict(quantised, batches(held_out))
    change = export.compare(before, after, quantities)
    print(f"int8 against torch on {len(held_out)} held-out photographs: {change}")
    if faults := change.faults():
        print("not shipped: " + "; ".join(faults), file=sys.stderr)
        return 1

    # Calibration on validation and figures on test, both of the int8 network, as it is served.
    a.out.mkdir(parents=True, exist_ok=True)
    metrics.write_predictions(a.out / "predictions.csv", held_out, after)
    report = metrics.report(metrics.read_predictions(a.out / "predictions.csv"))
    print(metrics.table(report))

    with tempfile.TemporaryDirectory() as folder:
        details = {
            "metrics": {view: report["test"][view] for view in ("as_shipped", "as_published")},
            "test_set_digest": data.digest([p for p in held_out if p.split == "test"]),
            "training_data_digest": data.digest(training),
            "quantisation": asdict(change),
            "code_version": code_version(),
            "parent": a.parent,
        }
        made = make(Path(folder), quantised, report["temperature"], sorted(a.samples.rglob("*.jpg")), details)
        package.pack(made, a.out / "model.tar.gz")
        (a.out / "README.md").write_text(card(made.description, report, len(training)))
    print(f"{a.out / 'model.tar.gz'}: version {made.model_version}")
    return 0


def make(
    folder: Path, quantised: openvino.Model, temperature: float, pictures: list[Path], details: dict[str, Any]
) -> package.Package:
    """The package's folder, with the answers to generated pictures as its golden images."""
    openvino.save_model(quantised, folder / "model.xml", compress_to_fp16=False)
    # What a new serialisation of the same network does not change names the version.
    weights = package.sha256(folder / "model.bin")[:8]
    version = f"{datetime.now(UTC):%Y-%m-%d}-{weights}"
    (folder / "golden").mkdir()
    golden: dict[str, Answer] = {}
    for number, picture in enumerate(pictures[::3]):
        name = f"golden/{number}.png"
        # PNG, since decoders of JPEG may differ in the last bit; twice the input's size, so that resizing is tested.
        decode(picture.read_bytes()).resize((2 * SIZE, 2 * SIZE), Image.Resampling.LANCZOS).save(folder / name)
        batch = normalise(to_array(decode((folder / name).read_bytes()))[None])
        p = probabilities(export.predict(folder / "model.xml", [batch]), temperature)
        golden[name] = answer(p[0], version)
    return package.build(folder, model_version=version, golden=golden, temperature=temperature, details=details)


def batches(photographs: list[data.Photograph]) -> Iterator[np.ndarray]:
    for start in range(0, len(photographs), 64):
        yield data.evaluation_batch(photographs[start : start + 64], SIZE).numpy()


def code_version() -> str:
    """The commit, and whether the code was changed since."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"], capture_output=True, text=True, check=False
    )
    return described.stdout.strip() or "unknown"


if __name__ == "__main__":
    raise SystemExit(main())
