"""The counting network: torchvision's ResNet50 with seven outputs, for 0 to 5 and "6 or more"."""

from __future__ import annotations

import torch
from torchvision.models import ResNet50_Weights, resnet50

from model.answer import CLASSES


def build(*, imagenet: bool = False) -> torch.nn.Module:
    """Maps float32 [N, 3, S, S], the result of `model.preprocess.normalise`, to logits [N, 7].

    From scratch, each residual branch starts at zero (Goyal et al. 2017, "Accurate, Large Minibatch SGD"),
    which trains deep networks faster; `imagenet` starts from torchvision's weights, which it downloads.
    """
    if imagenet:
        pretrained = resnet50(weights=ResNet50_Weights.IMAGENET1K_V2)
        pretrained.fc = torch.nn.Linear(pretrained.fc.in_features, len(CLASSES))
        network: torch.nn.Module = pretrained
    else:
        network = resnet50(num_classes=len(CLASSES), zero_init_residual=True)
    return network
