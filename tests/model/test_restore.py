"""The network in service, made trainable again, answers as it did."""

import dataclasses
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch

from model import export, package
from model.package import Package, PackageError
from model.preprocess import normalise, to_array
from model.restore import restore
from tools import synthetic

SHIPPED = Path(__file__).parents[2] / "model" / "pretrained" / "model.tar.gz"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return package.unpack(SHIPPED, tmp_path_factory.mktemp("shipped"))


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """Of 64 bins with 0 to 7 items: float32 [64, 3, S, S]."""
    return normalise(np.stack([to_array(synthetic.render(seed, seed % 8, (240, 200))) for seed in range(64)]))


def test_the_shipped_network_is_restored(shipped: Package, photographs: np.ndarray) -> None:
    network = restore(shipped, photographs[:16])
    served, quantities = export.predict(shipped.network, [photographs]), np.arange(64) % 8
    with torch.inference_mode():
        change = export.compare(served, network.eval()(torch.from_numpy(photographs)).numpy(), quantities)
    # Looser than `faults`: with AVX2 alone int8 itself answers one in twenty otherwise (docs/decisions/serving.md).
    assert change.same_answer >= 0.9
    assert change.log_loss_increase <= 0.02
    assert change.mean_probability_change < 0.005

    # In training mode each batch is normalised by itself; that starts near the same answers. These bins are rendered,
    # and what the network was trained on was not.
    with torch.no_grad():
        training = export.compare(served, network.train()(torch.from_numpy(photographs)).numpy(), quantities)
    assert training.mean_probability_change < 0.05

    # Convolutions have the scale that they are initialised with, per channel, unless it is dead.
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            deviations = module.weight.detach().std((1, 2, 3))
            expected = (2 / (module.out_channels * module.kernel_size[0] * module.kernel_size[1])) ** 0.5
            assert deviations[deviations > 0].allclose(torch.tensor(expected), rtol=0.1), name


def test_another_network_cannot_be_restored(shipped: Package, photographs: np.ndarray, tmp_path: Path) -> None:
    other = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    other.append(torch.nn.Linear(8, 7))
    openvino.save_model(export.convert(other), tmp_path / "model.xml")
    with pytest.raises(PackageError, match="not the one that this code trains"):
        restore(dataclasses.replace(shipped, directory=tmp_path), photographs[:2])
