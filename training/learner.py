"""One step of training: network, running average of its weights, optimiser."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from model.preprocess import normalise
from training.processes import Processes

EVALUATED = 64
"""Pictures at once when nothing is learnt."""


class NotFinite(ArithmeticError):
    """The loss is not a number any more, so nothing that follows could be; the message says what it came from."""


class Learner:
    """Trains `net` with AdamW, together with other processes if there are; `average` is what is evaluated and kept.

    `peak` is the highest learning rate. `weights` [7] say how much each class counts in the loss.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        processes: Processes,
        *,
        peak: float,
        weight_decay: float,
        label_smoothing: float,
        weights: torch.Tensor | None = None,
    ) -> None:
        self.net = net.to(processes.device, memory_format=torch.channels_last)
        self.average = AveragedModel(self.net, multi_avg_fn=_averaged, use_buffers=True)
        # Biases and normalisation are not decayed.
        decayed = [p for p in self.net.parameters() if p.ndim > 1]
        plain = [p for p in self.net.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=peak, fused=True)
        self.processes, self.peak, self.label_smoothing, self.weights = processes, peak, label_smoothing, weights
        self.stepped = processes.wrapped(self.net)
        if processes.device.type == "cuda":
            self.stepped = torch.compile(self.stepped)

    def step(self, images: torch.Tensor, labels: torch.Tensor, rate: float) -> torch.Tensor:
        """Learns from this process's batch, float32 [B, 3, S, S] and labels [B] on its device, at a share `rate` of
        the peak.

        Returns the mean loss of all processes' batches, on the device, which may still be at it.
        """
        device = self.processes.device
        images = images.contiguous(memory_format=torch.channels_last)
        for group in self.optimiser.param_groups:
            group["lr"] = self.peak * rate
        self.stepped.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=self.processes.has_bf16):
            logits = self.stepped(images)
        loss = cross_entropy(logits.float(), labels, self.weights, label_smoothing=self.label_smoothing)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.average.update_parameters(self.net)
        mean = self.processes.mean(loss.detach())
        self.last = (mean, logits.detach(), images, labels)
        return mean

    def check(self) -> None:
        """Raises `NotFinite` of the last step, in all processes. It waits for a GPU, so not after every step; once a
        loss is not finite, those that follow are not either."""
        mean, logits, images, labels = self.last
        if not math.isfinite(mean):
            raise NotFinite(
                f"loss is {mean.item()}: logits up to {logits.abs().max().item()}, input up to"
                f" {images.abs().max().item()}, labels {labels.tolist()}"
            )

    @torch.inference_mode()
    def predict(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The average's logits [N, 7] for pictures as they are served, uint8 [N, S, S, 3], in float32; each process
        takes its share."""
        self.average.eval()
        own = pictures[self.processes.rank :: self.processes.world]
        logits = [torch.empty(0, 7)]
        for start in range(0, len(own), EVALUATED):
            images = torch.from_numpy(normalise(own[start : start + EVALUATED])).to(self.processes.device)
            logits.append(self.average(images.contiguous(memory_format=torch.channels_last)).cpu())
        return self.processes.joined(torch.cat(logits).numpy())

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "network": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])


def _averaged(averages: Any, current: Any, seen: Any) -> None:
    """An exponential average over 500 steps, over fewer at the beginning, lest a short run keep where it began."""
    steps = int(seen)
    get_ema_multi_avg_fn(min(0.998, (1 + steps) / (10 + steps)))(averages, current, seen)
