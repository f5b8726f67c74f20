"""The processes that train one network together, one per GPU or host, started by torchrun; usually only one."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.nn.parallel import DistributedDataParallel

from training import container

GPU_INSTANCE = re.compile(r"ml\.(g|p)\d")
"""SageMaker's instance types with NVIDIA GPUs."""
_wrapped: list[DistributedDataParallel] = []
"""Networks that live as long as their process; `ended_at_once` gives the reason."""


@contextlib.contextmanager
def ended_at_once() -> Iterator[None]:
    """Ends a process that joined others with the block, as Python would, but without the interpreter's clean-up.

    If a `DistributedDataParallel` holds the last reference to its group, its end waits for gloo's thread while holding
    the interpreter's lock; if that thread needs the lock to release the last exchanged tensor, both wait for ever (seen
    with torch 2.13; pytorch issue 190489).
    """
    code = 0
    try:
        yield
    except BaseException as error:
        if not dist.is_initialized():
            raise
        code = 1
        if not isinstance(error, SystemExit):
            traceback.print_exception(error)
        elif isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        else:
            code = error.code or 0
    if dist.is_initialized():
        if code == 0:
            dist.destroy_process_group()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@dataclass(frozen=True)
class Processes:
    """The number of processes and the rank of this one; its share of photographs is `photographs[rank::world]`."""

    rank: int
    world: int
    device: torch.device

    @classmethod
    def join(cls) -> Processes:
        """Joins the others, if there are any; `ended_at_once` leaves them.

        Raises SystemExit on an instance with GPUs of which torch finds none: its driver is older than the image's CUDA,
        or the image has none. Training on its processors would take days at a GPU's price. BINTALLY_REQUIRE_GPU=false
        allows it, as on your own machine.
        """
        rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        device, instance = torch.device("cpu"), container.instance_type()
        if not torch.cuda.is_available():
            if GPU_INSTANCE.match(instance) and os.environ.get("BINTALLY_REQUIRE_GPU") != "false":
                raise SystemExit(
                    f"torch {torch.__version__} finds no GPU on {instance}: see BASE_IMAGE in docs/retraining.md"
                )
        else:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            torch.cuda.set_device(device)
            torch.backends.cuda.matmul.allow_tf32 = True
        if world > 1:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(rank, world, device)

    @property
    def has_bf16(self) -> bool:
        """Whether `device` computes in bfloat16 natively: a CPU that emulates it is ten times slower than float32."""
        if self.device.type == "cuda":
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))

    def wrapped(self, net: torch.nn.Module) -> torch.nn.Module:
        """The network for training steps: its gradients and normalisation are those of all processes' batches.

        So training does not depend on the number of processes that share a batch.
        """
        if self.world == 1:
            return net
        if self.device.type == "cuda":
            net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(net)
        else:
            for module in net.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.__class__ = GlobalBatchNorm
        _wrapped.append(DistributedDataParallel(net))
        return _wrapped[-1]

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of a number over the processes; if it is not finite in one, it is not in any."""
        if self.world == 1:
            return value
        total = value.to(self.device, torch.float32, copy=True)
        dist.all_reduce(total)
        return total / self.world

    def any(self, value: bool) -> bool:
        """Whether the value is true in any of the processes."""
        return value if self.world == 1 else float(self.mean(torch.tensor(float(value)))) > 0

    def joined(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The rows of all processes' shares, [N / world, K] each, in their original order: [N, K]."""
        if self.world == 1:
            return rows
        parts: list[NDArray[np.float32]] = [rows] * self.world
        dist.all_gather_object(parts, rows)
        result = np.empty((sum(map(len, parts)), rows.shape[1]), dtype=rows.dtype)
        for rank, part in enumerate(parts):
            result[rank :: self.world] = part
        return result


class Sum(torch.autograd.Function):
    """The sum of a tensor over the processes; each process's use of it contributes to the gradient in all of them."""

    @staticmethod
    def forward(_: Any, own: torch.Tensor) -> torch.Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class GlobalBatchNorm(torch.nn.BatchNorm2d):
    """Normalises by mean and variance of all processes' batches, like SyncBatchNorm, which supports only GPUs."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to the same shape and type."""
        if not self.training:
            return super().forward(images)
        wide, world = images.float(), dist.get_world_size()
        own = torch.stack([wide.mean((0, 2, 3)), wide.square().mean((0, 2, 3))])
        total: torch.Tensor = Sum.apply(own)  # type: ignore[no-untyped-call]
        mean, square = (total / world).unbind()
        variance = (square - mean.square()).clamp(min=0)
        with torch.no_grad():
            seen = world * images.numel() / images.shape[1]
            assert self.num_batches_tracked is not None and self.momentum is not None
            assert self.running_mean is not None and self.running_var is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * seen / (seen - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (wide * scale[:, None, None] + shift[:, None, None]).to(images.dtype)
