"""One step of training: network, running average of its weights, optimiser."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from model.preprocess import normalise
from training.learning.processes import Processes

EVALUATED = 64
"""Pictures per batch of a prediction."""


class NotFinite(ArithmeticError):
    """The loss is no longer finite, so training cannot continue; the message gives the values behind it."""


def channels_last(net: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """The same network, on `device` and with its weights as convolutions read them fastest."""
    move: Callable[..., torch.nn.Module] = net.to  # whose types lack memory_format
    return move(device, memory_format=torch.channels_last)


class Learner:
    """Trains `net` with AdamW, together with other processes if there are any; `average` is evaluated and saved.

    `peak` is the highest learning rate. `weights` [7] are the classes' weights in the loss. `excess` [7] is added to
    the logits in the loss alone, for classes more frequent than where the network will count. All layers but the last
    learn at the share `body` of the rate. `compiled` takes
    half a minute for each input size before the first step, and makes steps faster on a GPU.
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
        excess: torch.Tensor | None = None,
        body: float = 1.0,
        compiled: bool = False,
    ) -> None:
        self.net = channels_last(net, processes.device)
        self.average = copy.deepcopy(self.net).requires_grad_(False).eval()
        self.steps = 0
        self.optimiser, self.shares = adamw(self.net, peak, weight_decay, body)
        self.processes, self.peak, self.label_smoothing, self.weights = processes, peak, label_smoothing, weights
        self.excess = (torch.zeros(()) if excess is None else excess.float()).to(processes.device)
        stepped = processes.wrapped(self.net).train()
        self.stepped: Callable[..., Any] = stepped
        if compiled:
            self.stepped = torch.compile(stepped, dynamic=False)  # each size has kernels of its own
        self.has_bf16 = processes.has_bf16
        pairs = zip(numbers(self.average), numbers(self.net), strict=True)
        self.averages, self.current = map(list, zip(*pairs, strict=True))

    def step(self, images: torch.Tensor, labels: torch.Tensor, rate: float) -> torch.Tensor:
        """Learns from this process's batch, float32 [B, 3, S, S] and labels [B], at a share `rate` of the peak.

        Returns the mean loss of all processes' batches, on the device, which may still be computing it.
        """
        device = self.processes.device
        images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        for group, share in zip(self.optimiser.param_groups, self.shares, strict=True):
            group["lr"] = self.peak * rate * share
        with torch.autocast(device.type, torch.bfloat16, enabled=self.has_bf16):
            logits = self.stepped(images)
        loss = self.loss(logits.float(), labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.average_in()
        mean = self.processes.mean(loss.detach())
        self.last = (mean, logits.detach(), images, labels)
        return mean

    def freeze_statistics(self, frozen: bool) -> None:
        """Whether normalisation uses its stored statistics, and keeps them, instead of each batch's."""
        for module in self.net.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.train(not frozen)

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """This process's part of the mean over all processes' photographs; averaging gradients gives the whole."""
        logits = logits + self.excess
        if self.weights is None:
            return cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        total = cross_entropy(logits, labels, self.weights, reduction="sum", label_smoothing=self.label_smoothing)
        return total / self.processes.mean(self.weights[labels].sum())

    @torch.no_grad()
    def average_in(self) -> None:
        """An exponential average over 500 steps, and over fewer at the start, so that a short run forgets its start."""
        # torch's AveragedModel stores its count in a tensor and waits for the GPU several times per step.
        torch._foreach_lerp_(self.averages, self.current, 1 - min(0.998, self.steps / (9 + self.steps)))
        self.steps += 1

    def check(self) -> None:
        """Raises `NotFinite` for the last step, in all processes. It waits for a GPU, so do not call it after every
        step; once a loss is not finite, the following ones are not either."""
        mean, logits, images, labels = self.last
        if not math.isfinite(mean):
            raise NotFinite(
                f"loss is {mean.item()}: logits up to {logits.abs().max().item()}, input up to"
                f" {images.abs().max().item()}, labels {labels.tolist()}"
            )

    @torch.inference_mode()
    def predict(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The average's logits [N, 7], in float32, for pictures from `data.pictures`, uint8 [N, S, S, 3]; each process
        computes its share."""
        own = pictures[self.processes.rank :: self.processes.world]
        logits = [torch.empty(0, 7)]
        for start in range(0, len(own), EVALUATED):
            images = torch.from_numpy(normalise(own[start : start + EVALUATED])).to(self.processes.device)
            logits.append(self.average(images.contiguous(memory_format=torch.channels_last)).cpu())
        return self.processes.joined(torch.cat(logits).numpy())

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "network": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "steps": self.steps,
        }

    def resume(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.steps = state["steps"]


def adamw(
    net: torch.nn.Module, peak: float, weight_decay: float, body: float = 1.0
) -> tuple[torch.optim.AdamW, list[float]]:
    """AdamW without weight decay for biases and normalisation, and each of its groups' share of the learning rate."""
    last = {id(p) for p in net.get_submodule("fc").parameters()} if body != 1.0 else set()
    groups, shares = [], []
    for of_last, share in ((False, body), (True, 1.0)) if last else ((False, 1.0),):
        chosen = [p for p in net.parameters() if (id(p) in last) == of_last]
        groups.append({"params": [p for p in chosen if p.ndim > 1], "weight_decay": weight_decay})
        groups.append({"params": [p for p in chosen if p.ndim <= 1], "weight_decay": 0.0})
        shares += [share, share]
    return torch.optim.AdamW(groups, lr=peak, fused=True), shares


def numbers(net: torch.nn.Module) -> list[torch.Tensor]:
    """The network's parameters, and its normalisations' statistics without the counts of batches."""
    return [*net.parameters(), *(buffer for buffer in net.buffers() if buffer.is_floating_point())]
