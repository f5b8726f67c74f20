"""The network: its shape, that new residual branches start at zero, and the files of weights that it takes."""

import re
from pathlib import Path

import pytest
import torch
from torchvision.models import ResNet50_Weights, resnet50

from model import network


def test_seven_logits_for_each_photograph() -> None:
    assert network.build().eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_residual_branches_start_at_zero() -> None:
    scales = [p for name, p in network.build().named_parameters() if name.endswith("bn3.weight")]
    assert len(scales) == 16
    assert all(not scale.any() for scale in scales)


@pytest.mark.parametrize("named", [True, False])
def test_weights_of_another_task_are_taken_but_for_its_classes(
    tmp_path: Path, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    imagenet = resnet50().state_dict()
    file = tmp_path / "resnet50.pth"
    torch.save(imagenet, file)
    monkeypatch.setattr(ResNet50_Weights, "get_state_dict", lambda self: {"IMAGENET1K_V2": imagenet}[self.name])
    net, other_task = network.load(network.IMAGENET if named else str(file))
    assert other_task
    taken = net.state_dict()
    assert taken["fc.weight"].shape == (7, 2048)
    assert taken["fc.weight"].std() > 0
    assert all(torch.equal(taken[name], value) for name, value in imagenet.items() if not name.startswith("fc."))


@pytest.mark.parametrize("wrapped", [True, False])
def test_weights_of_a_counter_are_taken_whole(tmp_path: Path, wrapped: bool) -> None:
    counter = network.build().state_dict()
    torch.save({"network": counter, "photographs": "digest"} if wrapped else counter, tmp_path / "network.pt")
    net, other_task = network.load(str(tmp_path / "network.pt"))
    assert not other_task
    assert all(torch.equal(net.state_dict()[name], value) for name, value in counter.items())
    assert network.photographs_of(str(tmp_path / "network.pt")) == ("digest" if wrapped else None)


def emptied(classes: int) -> dict[str, torch.Tensor]:
    """A state dict with all names of a counter's, without their values."""
    names = network.build().state_dict()
    return {**{name: torch.zeros(0) for name in names}, "fc.bias": torch.zeros(classes)}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "there is no file {file} with weights; 'imagenet' downloads torchvision's"),
        (b"no weights", "{file} cannot be read as weights: torch.save of a state dict"),
        ([1, 2], "{file} contains a list, no state dict"),
        ({"fc.bias": torch.zeros(7)}, "{file} lacks bn1.bias: weights are a state dict of torchvision's resnet50"),
        ({}, "{file} lacks bn1.bias: weights are a state dict"),
        (emptied(5), "{file} has 5 classes: weights are a state dict of torchvision's resnet50 with 7 or 1000 classes"),
        (emptied(7), "{file} has conv1.weight of shape [0]: weights are a state dict of torchvision's resnet50"),
    ],
)
def test_a_file_of_other_weights_is_one_line(tmp_path: Path, content: object, why: str) -> None:
    file = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(network.BadWeights, match=re.escape(why.format(file=file))) as raised:
        network.load(str(file))
    assert "\n" not in str(raised.value)
