"""The counting network: torchvision's ResNet50 with seven outputs, for 0 to 5 and "6 or more"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torchvision.models import ResNet50_Weights, resnet50

from model.answer import CLASSES

IMAGENET = "imagenet"
"""In place of a file of weights: torchvision's own, which it downloads."""


class BadWeights(ValueError):
    """A file does not contain the weights of torchvision's ResNet50; the message says in one line what it contains."""


def build() -> torch.nn.Module:
    """Maps float32 [N, 3, S, S], the result of `model.preprocess.normalise`, to logits [N, 7].

    Each residual branch starts at zero (Goyal et al. 2017, "Accurate, Large Minibatch SGD"), which trains deep networks
    faster from random weights.
    """
    network: torch.nn.Module = resnet50(num_classes=len(CLASSES), zero_init_residual=True)
    return network


def load(weights: str) -> tuple[torch.nn.Module, bool]:
    """The network with these weights, and whether they lack the seven outputs, which then start from random weights.

    `weights` is `IMAGENET` or a file that `torch.save` wrote: the state dict of torchvision's ResNet50, with seven
    classes or ImageNet's thousand, or `network.pt` of a training run. Raises `BadWeights`.
    """
    found = ResNet50_Weights.IMAGENET1K_V2.get_state_dict() if weights == IMAGENET else _read(Path(weights))
    network = build()
    own, classes = network.state_dict(), found.get("fc.bias", torch.empty(0)).numel()
    if new_head := classes == 1000:
        found = {**found, "fc.weight": own["fc.weight"], "fc.bias": own["fc.bias"]}
    if missing := sorted(own.keys() - found.keys()):
        wrong = f"lacks {missing[0]}"
    elif unknown := sorted(found.keys() - own.keys()):
        wrong = f"has {unknown[0]} too"
    elif not new_head and classes != len(CLASSES):
        wrong = f"has {classes} classes"
    elif other := [name for name in own if found[name].shape != own[name].shape]:
        wrong = f"has {other[0]} of shape {[*found[other[0]].shape]}"
    else:
        network.load_state_dict(found)
        return network, new_head
    raise BadWeights(
        f"{weights} {wrong}: weights are a state dict of torchvision's resnet50 with {len(CLASSES)} or 1000 classes"
    )


def photographs_of(weights: str) -> str | None:
    """The digest of the photographs that a run's `network.pt` was trained on; None for weights that name none.

    Raises `BadWeights`.
    """
    found = {} if weights == IMAGENET else _contents(Path(weights))
    named = found.get("photographs") if isinstance(found, dict) else None
    return named if isinstance(named, str) else None


def _contents(file: Path) -> Any:
    if not file.is_file():
        raise BadWeights(f"there is no file {file} with weights; '{IMAGENET}' downloads torchvision's")
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        raise BadWeights(f"{file} cannot be read as weights: torch.save of a state dict writes such a file") from error


def _read(file: Path) -> dict[str, torch.Tensor]:
    found = _contents(file)
    found = found.get("network", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise BadWeights(f"{file} contains a {type(found).__name__}, no state dict: torch.save(net.state_dict(), …)")
    return found
