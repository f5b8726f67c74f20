"""The figures of a shipped package's model card, all from files beside it.

    predictions.csv        photographs of validation and test with their logits
    conditions.csv         some of the test split with other light and colours; the column `split` names the condition
    held_out_before.csv    the held-out photographs of packages before there were new ones

`report` computes them again from the folder.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.answer import posterior_median, probabilities
from model.preprocess import decode, normalise, to_array
from training.verdict import metrics, ranking
from training.verdict.bootstrap import Floats
from training.verdict.card import PLAIN
from training.verdict.metrics import Predictions

PREDICTIONS, CONDITIONS_FILE, BEFORE = "predictions.csv", "conditions.csv", "held_out_before.csv"
DISTORTED = 300
"""Photographs of the test split that are counted under each condition."""
STORED = 224
"""Pixels of the picture that is distorted: more than the network sees."""
BLUE = (0.8, 0.95, 1.2)
"""Gains of the red, green and blue values."""


def _scaled(image: Image.Image, gains: Sequence[float]) -> Image.Image:
    return Image.fromarray(np.rint(np.asarray(image) * np.array(gains)).clip(0, 255).astype(np.uint8))


CONDITIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    PLAIN: lambda image: image,
    "greyscale": lambda image: image.convert("L").convert("RGB"),
    "a blue cast: red x 0.8, green x 0.95, blue x 1.2": lambda image: _scaled(image, BLUE),
    "half the light: every value x 0.5": lambda image: _scaled(image, (0.5,) * 3),
}
"""Each from an RGB picture."""


def chosen(photographs: Sequence[Any]) -> list[Any]:
    """The photographs that are distorted, always the same ones of the same set."""
    order = np.random.default_rng(0).permutation(len(photographs))[:DISTORTED]
    return [photographs[i] for i in sorted(order)]


def distorted(files: Sequence[bytes], condition: str) -> Iterator[NDArray[np.float32]]:
    """The network's input [1, 3, S, S] for each photograph under this condition."""
    for file in files:
        yield normalise(to_array(CONDITIONS[condition](decode(file, size=STORED)))[None])


def report(folder: Path, ratio: ranking.Ratio, draws: int = ranking.DRAWS) -> dict[str, Any]:
    """`metrics.report` of the predictions and, for test, `by_age` (figures of photographs that packages before were
    measured on, and of new ones), `conditions`, `empty` and `ranking`."""
    predictions = metrics.read_predictions(folder / PREDICTIONS)
    found, seen = metrics.report(predictions), predictions["test"]
    p = probabilities(seen.logits, found["temperature"])
    with (folder / BEFORE).open(newline="") as file:
        before = np.isin(seen.ids, [row["id"] for row in csv.DictReader(file)])
    parts = {"measured before": before, "new": ~before}
    answered, recorded = posterior_median(p) == 0, seen.quantities == 0
    return {
        **found,
        "by_age": {name: _figures(p[part], _part(seen, part)) for name, part in parts.items() if part.any()},
        "conditions": conditions(metrics.read_predictions(folder / CONDITIONS_FILE), found["temperature"]),
        "ranking": ranking.measure(p, seen.quantities, seen.groups, ratio, draws),
        "empty": {
            "recall": share(int((answered & recorded).sum()), int(recorded.sum())),
            "precision": share(int((answered & recorded).sum()), int(answered.sum())),
        },
    }


def conditions(predictions: dict[str, Predictions], temperature: float) -> dict[str, Any]:
    """Figures by condition, with the share of the photographs whose count is as without it."""
    plain = predictions[PLAIN]
    counts = posterior_median(probabilities(plain.logits, temperature))
    told = {}
    for name in CONDITIONS:
        seen = predictions[name]
        if list(seen.ids) != list(plain.ids):
            raise ValueError(f"{name}: other photographs than those {PLAIN}")
        p = probabilities(seen.logits, temperature)
        told[name] = {**_figures(p, seen), "same_count": float((posterior_median(p) == counts).mean())}
    return told


def share(hits: int, of: int) -> dict[str, Any]:
    """A share with its 95 % interval (Wilson 1927), which assumes independent photographs."""
    if not of:
        return {"hits": 0, "of": 0, "interval": [0.0, 1.0]}
    z, at = 1.96, hits / of
    middle, reach = at + z * z / 2 / of, z * (at * (1 - at) / of + z * z / 4 / of**2) ** 0.5
    return {"hits": hits, "of": of, "interval": [(middle + side * reach) / (1 + z * z / of) for side in (-1, 1)]}


def _figures(p: Floats, seen: Predictions) -> dict[str, Any]:
    return {**metrics.summary(p, seen.quantities), "intervals": metrics.intervals(p, seen.quantities, seen.groups)}


def _part(seen: Predictions, chosen: NDArray[np.bool_]) -> Predictions:
    return Predictions(*(getattr(seen, name)[chosen] for name in Predictions.__dataclass_fields__))
