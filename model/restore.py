"""Restores a torch network from a served package, so that training can continue from the model in service.

A package contains no checkpoint, and none of the shipped one was published. Its dequantised int8 weights are as good
a start: a few steps of training move them off the grid of eight bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import openvino
import torch
from numpy.typing import NDArray

from model import network
from model.package import Package, PackageError


def restore(package: Package, photographs: NDArray[np.float32]) -> torch.nn.Module:
    """The package's network in float32, in evaluation mode. Raises `PackageError` when it is not our ResNet50.

    Export folded every normalisation into its convolution. This unfolds it again, so that evaluation mode gives the
    package's answers (except for the rounding of activations), and training mode starts from there: mean and variance
    are measured on `photographs` [N, 3, S, S], gamma is the deviation and beta compensates the mean. Convolutions get
    the scale of their initialisation: normalisation removes any scale, and the learning rate suits that one.
    """
    folded = _constants(package)
    restored = network.build()
    hooks = []
    try:
        layers = [(name, module) for name, module in restored.named_modules() if not list(module.children())]
        for (_, before), (name, layer) in itertools.pairwise(layers):
            if isinstance(before, torch.nn.Conv2d) and isinstance(layer, torch.nn.BatchNorm2d):
                weight, bias = folded[name]
                deviation = weight.std((1, 2, 3))
                scale = torch.where(deviation > 0, before.weight.detach().std() / deviation, 1.0)
                before.weight.data.copy_(weight * scale[:, None, None, None])
                hooks.append(layer.register_forward_pre_hook(_unfold(bias.flatten(), scale)))
            elif isinstance(layer, torch.nn.Linear):
                weight, bias = folded[name]
                layer.load_state_dict({"weight": weight, "bias": bias.flatten()})
    except (KeyError, RuntimeError) as error:
        raise PackageError(f"the package's network is not the one that this code trains: {error}") from error
    with torch.inference_mode():
        restored.eval()(torch.from_numpy(photographs))
    for hook in hooks:
        hook.remove()
    return restored


def _unfold(bias: torch.Tensor, scale: torch.Tensor) -> Callable[[torch.nn.BatchNorm2d, tuple[torch.Tensor]], None]:
    """Sets a normalisation by its coming input, so that it maps conv * scale to conv + bias."""

    def unfold(layer: torch.nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3))
        layer.load_state_dict(
            {
                "running_mean": mean,
                "running_var": variance,
                "weight": (variance + layer.eps).sqrt() / scale,
                "bias": bias + mean / scale,
                "num_batches_tracked": torch.tensor(0),
            }
        )

    return unfold


def _constants(package: Package) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Weight and bias of each layer, as float32, by the torch name of the module of its bias.

    The weights are int8 with a scale per channel; OpenVINO computes their values.
    """
    served = openvino.Core().read_model(package.network)
    layers = [layer for layer in served.get_ops() if layer.get_type_name() in ("Convolution", "MatMul")]
    additions = [next(iter(layer.output(0).get_target_inputs())).get_node() for layer in layers]
    constants = [node.input_value(1) for pair in zip(layers, additions, strict=True) for node in pair]
    computed = openvino.Core().compile_model(
        openvino.Model(constants, [], "constants"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )([])
    values = [torch.tensor(computed[place]) for place in range(len(constants))]
    # "__module.layer1.0.bn1/aten::batch_norm/BatchNormInference" is layer1.0.bn1 after conversion.
    names = [node.get_friendly_name().removeprefix("__module.").partition("/")[0] for node in additions]
    return dict(zip(names, zip(values[::2], values[1::2], strict=True), strict=True))
