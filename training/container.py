"""The container of a SageMaker job, as documented: the one place that knows `/opt/ml`.

    input/config/, input/data/<channel>/, checkpoints/   of a training job
    config/, processing/…                                of a processing job
    model/, output/data/, output/failure                 become model.tar.gz, output.tar.gz, FailureReason

`SM_OPT_ML` names another root, as a job on one's own machine needs it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

RENDEZVOUS_PORT = 29500


def root() -> Path:
    return Path(os.environ.get("SM_OPT_ML", "/opt/ml"))


def is_training_job() -> bool:
    return (root() / "input" / "config").is_dir()


def channel(name: str) -> Path | None:
    """The folder of an input channel; None if the job has no such channel."""
    folder = root() / "input" / "data" / name
    return folder if folder.is_dir() else None


def model() -> Path:
    """What a training job leaves here becomes its model.tar.gz."""
    return _made("model")


def output() -> Path:
    """What a training job leaves here becomes its output.tar.gz."""
    return _made("output/data")


def checkpoints() -> Path:
    """Kept in S3 while a training job runs, and given back to it when it starts anew after a spot interruption."""
    return _made("checkpoints")


def processing(path: str) -> Path:
    """Where a processing job has what it calls /opt/ml/processing/<path>."""
    return root() / "processing" / path


def _made(path: str) -> Path:
    folder = root() / path
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def hyperparameters() -> list[str]:
    """A training job's hyperparameters as a script's arguments: {"batch-size": "32"} is --batch-size 32.

    Names that begin with an underscore or `sagemaker_` are the service's and the SDK's own; the SDK writes its
    values as JSON, so a text may come in quotation marks.
    """
    file = root() / "input" / "config" / "hyperparameters.json"
    given: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    arguments = []
    for name, value in given.items():
        if not name.startswith(("_", "sagemaker_")):
            text = json.loads(value) if value.startswith('"') else value
            arguments.append(f"--{name}={text}")  # one word: a value may begin with a dash
    return arguments


@dataclass(frozen=True)
class Hosts:
    """The instances of this job by name, and which of them this one is."""

    names: list[str]
    current: str

    @property
    def index(self) -> int:
        return self.names.index(self.current)


def hosts() -> Hosts:
    """From the resource config; outside of a job there is one, localhost."""
    for file in (root() / "input/config/resourceconfig.json", root() / "config/resourceconfig.json"):
        if file.exists():
            found = json.loads(file.read_text())
            return Hosts(sorted(found["hosts"]), found["current_host"])
    return Hosts(["localhost"], "localhost")


class Arguments(argparse.ArgumentParser):
    """A parser whose complaint is the reason that a job failed, like any other."""

    def error(self, message: str) -> NoReturn:
        raise SystemExit(f"{self.prog}: {message}")


@contextlib.contextmanager
def failure_told() -> Iterator[None]:
    """Writes what ends the block early to output/failure, as one line: the job's FailureReason.

    `raise SystemExit("why")` is how an entry point gives up: that line also ends on standard error, and the exit
    code is 1. `raise SystemExit(number)` is no failure, as when the job was asked to stop. Of several processes the
    first to fail is heard; the others only lost it. A processing job's reason is also its exit message.
    """
    try:
        yield
    except BaseException as error:
        reason = error.code if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
        if isinstance(reason, str) and root().is_dir():
            for name in ("failure", "message"):
                with contextlib.suppress(FileExistsError), (_made("output") / name).open("x") as file:
                    file.write(" ".join(reason.split())[:1024])
        raise


def under_torchrun(module: str, arguments: Sequence[str]) -> None:
    """Where a job has several hosts or GPUs: starts this module again, one process each, under torchrun.

    Does not return then. All hosts meet at SM_MASTER_ADDR and SM_MASTER_PORT, else at the first one's name.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ or not is_training_job():
        return
    import torch  # jobs that do not train have no need of it

    found, processes = hosts(), max(1, torch.cuda.device_count())
    if len(found.names) * processes == 1:
        return
    interface = json.loads((root() / "input/config/resourceconfig.json").read_text()).get("network_interface_name")
    if interface in (name for _, name in socket.if_nameindex()):
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", interface)
    launcher = [
        f"--nnodes={len(found.names)}",
        f"--node-rank={found.index}",
        f"--nproc-per-node={processes}",
        f"--master-addr={os.environ.get('SM_MASTER_ADDR', found.names[0])}",
        f"--master-port={os.environ.get('SM_MASTER_PORT', RENDEZVOUS_PORT)}",
    ]
    command = [sys.executable, "-m", "torch.distributed.run", *launcher, "--module", module, *arguments]
    os.execv(sys.executable, command)
