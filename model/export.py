"""Converts the trained torch network into the served int8 OpenVINO network, and compares the two."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nncf
import numpy as np
import openvino
import torch
from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
from nncf.quantization.range_estimator import RangeEstimatorParametersSet
from numpy.typing import NDArray

from model.answer import AT_LEAST, posterior_median, probabilities
from model.preprocess import SIZE

Logits = NDArray[np.floating]


@dataclass(frozen=True)
class Change:
    """The effect of quantisation, on photographs that were not used to calibrate it."""

    same_answer: float
    mean_probability_change: float
    log_loss_increase: float
    accuracy_increase: float

    def faults(self) -> list[str]:
        """The violated limits of a published package; accuracy has no limit, since it varies by chance."""
        limits = [
            (self.same_answer >= 0.97, f"the same answer for only {self.same_answer:.1%}, at least 97 % asked"),
            (self.mean_probability_change <= 0.01, f"probabilities change by {self.mean_probability_change:.4f}"),
            (self.log_loss_increase <= 0.01, f"log loss is worse by {self.log_loss_increase:.4f}"),
        ]
        return [message for kept, message in limits if not kept]

    def breaks(self) -> list[str]:
        """Changes that rounding never causes in a sound network. If the int8 network itself is judged afterwards,
        smaller changes are no reason to stop: nearly tied answers flip, and a few flips are many on few photographs."""
        kept = self.mean_probability_change <= 0.05  # False for NaN
        return [] if kept else [f"probabilities change by {self.mean_probability_change:.4f}"]


def convert(network: torch.nn.Module) -> openvino.Model:
    """The torch network as a float32 OpenVINO network, for any batch size."""
    example = torch.zeros(1, 3, SIZE, SIZE)
    converted: openvino.Model = openvino.convert_model(
        network.eval(), example_input=example, input=[openvino.PartialShape([-1, 3, SIZE, SIZE])]
    )
    converted.inputs[0].get_tensor().set_names({"images"})
    converted.outputs[0].get_tensor().set_names({"logits"})
    return converted


def quantise(network: openvino.Model, photographs: list[NDArray[np.float32]]) -> openvino.Model:
    """int8 by NNCF's post-training quantisation, with activation ranges from training photographs.

    `photographs` are [1, 3, S, S] each, the network's input. These settings keep 98 % of the answers, NNCF's defaults
    96 % (docs/experiments.md): ranges from histograms, first and last layer in float32, and all eight bits of the
    weights. The last is exact on a processor that adds int8 products in 32 bits (VNNI, or Arm's dot product); one that
    saturates answers one photograph in ten differently, and is a little less accurate (docs/decisions/serving.md).
    """
    layers = [op.get_friendly_name() for op in network.get_ops() if op.get_type_name() in ("Convolution", "MatMul")]
    quantised: openvino.Model = nncf.quantize(
        network,
        nncf.Dataset(photographs),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(photographs),
        ignored_scope=nncf.IgnoredScope(names=[layers[0], layers[-1]]),
        advanced_parameters=AdvancedQuantizationParameters(
            overflow_fix=OverflowFix.DISABLE,
            activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM,
        ),
    )
    return quantised


def predict(network: openvino.Model | Path, batches: Iterable[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Logits [N, 7] for batches [B, 3, S, S], computed as `model.serve` does."""
    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.concatenate([compiled(batch)[0] for batch in batches]).astype(np.float64)


def compare(before: Logits, after: Logits, quantities: NDArray[np.int64]) -> Change:
    """The change from one network's logits [N, 7] to another's, for photographs recorded as [N]."""
    labels = np.minimum(quantities, AT_LEAST)
    rows = np.arange(len(labels))
    p, q = probabilities(before), probabilities(after)
    answers, answers_after = posterior_median(p), posterior_median(q)
    return Change(
        same_answer=float((answers == answers_after).mean()),
        mean_probability_change=float(np.abs(p - q).mean()),
        log_loss_increase=float((np.log(p[rows, labels]) - np.log(q[rows, labels])).mean()),
        accuracy_increase=float((answers_after == labels).mean() - (answers == labels).mean()),
    )
