"""Makes the served model package from a trained network: quantises, checks, calibrates, measures, describes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from PIL import Image

from model import export, package
from model.answer import Answer, answer, probabilities
from model.preprocess import SIZE, decode, normalise, to_array
from training.learning import data
from training.learning.data import Photograph
from training.verdict import metrics

CALIBRATION_PHOTOGRAPHS = 512
JUDGED_PHOTOGRAPHS = 256
"""Photographs to compare int8 on; with fewer, a few answers that flip by chance would decide whether it is faithful."""
SAMPLES = Path(__file__).parents[2] / "samples"
"""Number of generated pictures from which golden images are chosen."""


class Unfaithful(ValueError):
    """The int8 network's answers differ too much from the trained one's; the message says how."""


@dataclass(frozen=True)
class Packed:
    package: package.Package
    report: dict[str, Any]
    """`metrics.report` of the int8 network on the held-out photographs."""


def pack(
    trained: torch.nn.Module,
    training: list[Photograph],
    held_out: list[Photograph],
    folder: Path,
    *,
    predictions: Path,
    details: dict[str, Any],
    calibration: int = CALIBRATION_PHOTOGRAPHS,
    version: str | None = None,
    strict: bool = False,
) -> Packed:
    """Makes the package's folder, and `predictions` of the held-out photographs, from which its figures come.

    The served int8 network is calibrated on the validation split and measured on the test split, or also on validation
    if nothing else is held out. The activations' ranges come from `calibration` training photographs, if enough are
    then left to compare on. Raises `Unfaithful` when int8 breaks the network or, with `strict`, changes it by more than
    a published package may: a network from `retrain` is judged as int8 afterwards.
    """
    chosen = [training[i] for i in np.random.default_rng(0).permutation(len(training))]
    calibration = min(calibration, max(len(training) // 2, len(training) + len(held_out) - JUDGED_PHOTOGRAPHS))
    ranges, rest = chosen[:calibration], chosen[calibration:]
    quantised = export.quantise(export.convert(trained), [data.evaluation_batch([p], SIZE).numpy() for p in ranges])

    # The effect of int8 is measured on photographs that did not calibrate it.
    judged = held_out + rest[: max(0, JUDGED_PHOTOGRAPHS - len(held_out))]
    with torch.inference_mode():
        before = np.concatenate([trained.eval()(torch.from_numpy(batch)).numpy() for batch in batches(judged)])
    after = export.predict(quantised, batches(judged))
    change = export.compare(before, after, np.array([p.quantity for p in judged]))
    print(f"int8 against torch on {len(judged)} photographs: {change}", flush=True)
    if faults := change.faults() if strict else change.breaks():
        raise Unfaithful("int8 is not faithful: " + "; ".join(faults))

    metrics.write_predictions(predictions, held_out, after[: len(held_out)])
    report = metrics.report(metrics.read_predictions(predictions))
    measured_on = "test" if "test" in report else "validation"
    details = {
        "metrics": {view: report[measured_on][view] for view in ("as_shipped", "as_published")},
        "measured_on": measured_on,
        "quantisation": asdict(change),
        "code_version": code_version(),
        "prior": data.prior(training),
        **details,
    }
    return Packed(make(folder, quantised, report["temperature"], details, version), report)


def make(
    folder: Path, quantised: openvino.Model, temperature: float, details: dict[str, Any], version: str | None = None
) -> package.Package:
    """The package's folder, with the answers to generated pictures as its golden images."""
    openvino.save_model(quantised, folder / "model.xml", compress_to_fp16=False)
    # The version is named after contents that a new serialisation of the same network does not change.
    weights = package.sha256(folder / "model.bin")[:8]
    version = version or f"{datetime.now(UTC):%Y-%m-%d}-{weights}"
    (folder / "golden").mkdir(exist_ok=True)
    golden: dict[str, Answer] = {}
    for number, (picture, p) in enumerate(golden_pictures(folder / "model.xml", temperature)):
        # PNG, since decoders of JPEG may differ in the last bit.
        picture.save(folder / f"golden/{number}.png")
        golden[f"golden/{number}.png"] = answer(p, version)
    return package.build(folder, model_version=version, golden=golden, temperature=temperature, details=details)


def golden_pictures(model: Path, temperature: float) -> list[tuple[Image.Image, NDArray[np.float64]]]:
    """Generated pictures with the network's probabilities [7]: every third of those with a clear count, or else the
    clearest of all."""
    # Twice the input's size, so that resizing is tested.
    pictures = [
        decode(file.read_bytes()).resize((2 * SIZE, 2 * SIZE), Image.Resampling.LANCZOS)
        for file in sorted(SAMPLES.rglob("*.jpg"))
    ]
    p = probabilities(export.predict(model, [normalise(to_array(picture)[None]) for picture in pictures]), temperature)
    clear = np.abs(np.cumsum(p, axis=1)[:, :-1] - 0.5).min(axis=1)
    chosen = np.flatnonzero(clear >= package.CLEAR)[::3] if clear.max() >= package.CLEAR else [clear.argmax()]
    return [(pictures[k], p[k]) for k in chosen]


def batches(photographs: list[Photograph]) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(photographs), 64):
        yield data.evaluation_batch(photographs[start : start + 64], SIZE).numpy()


def code_version() -> str:
    """The commit, and whether the code has changed since; an image sets BINTALLY_CODE_VERSION."""
    if said := os.environ.get("BINTALLY_CODE_VERSION"):
        return said
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude", "*"], capture_output=True, text=True, check=False
        ).stdout
    except FileNotFoundError:
        described = ""
    return described.strip() or "unknown"
