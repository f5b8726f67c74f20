"""Quantisation keeps the answers, and the check tells when it does not."""

from pathlib import Path

import numpy as np
import openvino
import torch

from model import export
from model.preprocess import SIZE


class Pooled(torch.nn.Module):
    """A small stand-in for the network: the conversion and the check do not depend on its depth."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = torch.nn.Conv2d(3, 16, 8, stride=8)
        self.second = torch.nn.Conv2d(16, 16, 3)  # the first and the last layer are not quantised
        self.fc = torch.nn.Linear(16, 7)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.second(self.convolution(images).relu()).relu().mean((2, 3)))
        return logits


RANDOM = np.random.default_rng(0)
PHOTOGRAPHS = [RANDOM.normal(RANDOM.normal(), 1, (1, 3, SIZE, SIZE)).astype(np.float32) for _ in range(200)]


def test_int8_answers_as_torch_does(tmp_path: Path) -> None:
    network = Pooled().eval()
    quantised = export.quantise(export.convert(network), PHOTOGRAPHS[:24])
    assert quantised.inputs[0].get_names() == {"images"}
    assert quantised.outputs[0].get_names() == {"logits"}
    kinds = {operation.get_type_name() for operation in quantised.get_ops()}
    assert "FakeQuantize" in kinds
    with torch.inference_mode():
        before = network(torch.from_numpy(np.concatenate(PHOTOGRAPHS))).numpy()
    openvino.save_model(quantised, tmp_path / "model.xml")
    after = export.predict(tmp_path / "model.xml", [np.concatenate(PHOTOGRAPHS)])
    change = export.compare(before, after, np.arange(200) % 7)
    # So shallow a network has few values to average, so its answers flip a little more easily than ResNet50's.
    assert change.same_answer > 0.8
    assert 0 < change.mean_probability_change <= 0.01
    assert change.log_loss_increase <= 0.01


def test_a_network_that_answers_otherwise_is_told() -> None:
    before = RANDOM.normal(0, 1, (200, 7))
    labels = RANDOM.integers(0, 7, 200)
    assert export.compare(before, before, labels).faults() == []
    changed = export.compare(before, before + RANDOM.normal(0, 1, (200, 7)), labels)
    assert len(changed.faults()) == 3
    assert len(changed.breaks()) == 1


def test_a_network_that_answers_no_number_is_broken() -> None:
    before, labels = RANDOM.normal(0, 1, (20, 7)), RANDOM.integers(0, 7, 20)
    change = export.compare(before, np.full((20, 7), np.nan), labels)
    assert change.breaks()
    assert change.faults()


def test_a_few_flipped_answers_break_nothing() -> None:
    before = RANDOM.normal(0, 1, (200, 7))
    change = export.compare(before, before + RANDOM.normal(0, 0.2, (200, 7)), RANDOM.integers(0, 7, 200))
    assert change.same_answer < 0.97
    assert change.breaks() == []
