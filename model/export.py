"""From the trained torch network to the int8 OpenVINO network that is served, and the check between them."""

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
    """What quantisation changed, on photographs it was not calibrated with."""

    same_answer: float
    mean_probability_change: float
    log_loss_increase: float
    accuracy_increase: float

    def faults(self) -> list[str]:
        """The limits that a published package keeps; accuracy has none, since it moves by chance."""
        limits = [
            (self.same_answer >= 0.97, f"the same answer for only {self.same_answer:.1%}, at least 97 % asked"),
            (self.mean_probability_change <= 0.01, f"probabilities change by {self.mean_probability_change:.4f}"),
            (self.log_loss_increase <= 0.01, f"log loss is worse by {self.log_loss_increase:.4f}"),
        ]
        return [message for kept, message in limits if not kept]

    def breaks(self) -> list[str]:
        """What no rounding does to a sound network. Where the int8 network itself is judged afterwards, less than
        that is no reason to stop: answers that are nearly tied flip, and on a few photographs a few flips are many."""
        kept = self.mean_probability_change <= 0.05  # not so of NaN
        return [] if kept else [f"probabilities change by {self.mean_probability_change:.4f}"]


def convert(network: torch.nn.Module) -> openvino.Model:
    """The torch network in OpenVINO's form, float32, for any batch size."""
    example = torch.zeros(1, 3, SIZE, SIZE)
    converted: openvino.Model = openvino.convert_model(
        network.eval(), example_input=example, input=[openvino.PartialShape([-1, 3, SIZE, SIZE])]
    )
    converted.inputs[0].get_tensor().set_names({"images"})
    converted.outputs[0].get_tensor().set_names({"logits"})
    return converted


def quantise(network: openvino.Model, photographs: list[NDArray[np.float32]]) -> openvino.Model:
    """int8 by NNCF's post-training quantisation, with activation ranges from training photographs.

    `photographs` are [1, 3, S, S] each, as the network reads them. What kept 98 % of the answers, where NNCF's
    defaults kept 96 % (docs/experiments.md): ranges from histograms, first and last layer left in float32, and
    all eight bits of the weights. The last is exact on a processor that adds int8 products in 32 bits (VNNI, or Arm's
    dot product); one that saturates answers one photograph in twenty otherwise, none the worse on the whole
    (docs/decisions/serving.md).
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
