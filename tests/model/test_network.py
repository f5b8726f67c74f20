"""The network: its shape, and that new residual branches start at zero."""

import torch

from model import network


def test_seven_logits_for_each_photograph() -> None:
    assert network.build().eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_residual_branches_start_at_zero() -> None:
    scales = [p for name, p in network.build().named_parameters() if name.endswith("bn3.weight")]
    assert len(scales) == 16
    assert all(not scale.any() for scale in scales)
