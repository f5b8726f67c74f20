"""Turns the network's logits into the endpoint's answer: calibrated probabilities and the decision rule."""

from __future__ import annotations

from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

CLASSES = ("0", "1", "2", "3", "4", "5", "6+")
AT_LEAST = len(CLASSES) - 1
"""The last output means this many items or more."""


class Answer(TypedDict):
    """The endpoint's answer for one photograph."""

    count: int
    is_minimum: bool
    expected_capped: float
    confidence: float
    probabilities: list[float]
    model_version: str
    prior: NotRequired[list[float]]


def probabilities(
    logits: NDArray[np.floating], temperature: float = 1.0, bias: tuple[float, ...] | list[float] = (0.0,) * 7
) -> NDArray[np.float64]:
    """Logits [N, 7] to calibrated probabilities [N, 7] (temperature and bias: Guo et al. 2017, vector scaling)."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature + np.asarray(bias, dtype=np.float64)
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def posterior_median(probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """The smallest count at which the cumulative probability, of probabilities [N, 7], reaches one half.

    It minimises the expected absolute error, as the mean minimises the squared one.
    """
    reached = np.cumsum(probabilities, axis=1) >= 0.5 - 1e-9
    medians: NDArray[np.int64] = np.argmax(reached, axis=1).astype(np.int64)
    return medians


def answer(probabilities: NDArray[np.float64], model_version: str, prior: list[float] | None = None) -> Answer:
    """The endpoint's answer for one photograph's probabilities [7]. `prior` [7] are the shares of the classes that they
    assume, so that whoever joins several answers counts it once; None where the package does not say."""
    count = int(posterior_median(probabilities[None])[0])
    told = Answer(
        count=count,
        is_minimum=count == AT_LEAST,
        expected_capped=round(float(probabilities @ np.arange(len(CLASSES))), 4),
        confidence=round(float(probabilities[count]), 4),
        probabilities=[round(float(p), 6) for p in probabilities],
        model_version=model_version,
    )
    if prior is not None:
        told["prior"] = prior
    return told
