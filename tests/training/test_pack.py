"""A package is made of the network that was trained, or of none."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model import export, package
from model.preprocess import SIZE
from tests.outgoing import opened_by
from training.learning import data, pack


class Pooled(torch.nn.Module):
    """A small stand-in for the network."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.convolution = torch.nn.Conv2d(3, 16, 8, stride=8)
        self.fc = torch.nn.Linear(16, 7)
        self.fc.weight.data *= 50  # unlike an untrained one, it has clear counts

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.convolution(images).relu().mean((2, 3)))
        return logits


def test_packing_reports_to_nobody(tmp_path: Path) -> None:
    """Bare `import nncf` and `import openvino` do."""
    assert opened_by("import training.learning.pack, training.evaluate", tmp_path / "home") == []


def test_golden_images_answer_as_the_package_does(tmp_path: Path) -> None:
    photographs = [np.random.default_rng(0).normal(0, 1, (1, 3, SIZE, SIZE)).astype(np.float32)] * 2
    quantised = export.quantise(export.convert(Pooled(0)), photographs)
    made = pack.make(tmp_path, quantised, 1.3, {"parent": None})
    assert made.temperature == pytest.approx(1.3)
    assert len(made.golden) >= 3
    for golden in made.golden:  # no rounding turns its count
        assert np.abs(np.cumsum(golden.answer["probabilities"])[:-1] - 0.5).min() >= package.CLEAR
    assert {golden.answer["model_version"] for golden in made.golden} == {made.model_version}
    assert pack.make(tmp_path, quantised, 1.3, {}, "2026-01-02-abc123").model_version == "2026-01-02-abc123"


def test_an_unfaithful_network_is_not_packed(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photographs = data.read(labelled)
    training, held_out = ([p for p in photographs if (p.split == "train") == train] for train in (True, False))
    quantise = export.quantise
    # What comes out is another network than what went in.
    monkeypatch.setattr(export, "quantise", lambda _, ranges: quantise(export.convert(Pooled(1)), ranges))
    with pytest.raises(pack.Unfaithful, match=r"int8 is not faithful: .*probabilities change by"):
        pack.pack(
            Pooled(0),
            training,
            held_out,
            tmp_path,
            predictions=tmp_path / "predictions.csv",
            details={},
            calibration=4,
            strict=True,
        )
    assert list(tmp_path.iterdir()) == []
