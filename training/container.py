"""The container of a SageMaker job, as documented: the only module that knows `/opt/ml`.

    input/config/, input/data/<channel>/, checkpoints/   of a training job
    config/, processing/…                                of a processing job
    model/, output/data/, output/failure                 become model.tar.gz, output.tar.gz, FailureReason

`SM_OPT_ML` names another root, which a job on your own machine needs.
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
    """The folder whose files become a training job's model.tar.gz."""
    return _made("model")


def output() -> Path:
    """The folder whose files become a training job's output.tar.gz."""
    return _made("output/data")


def checkpoints() -> Path:
    """The folder that is synchronised to S3 while a training job runs, and restored after a spot interruption."""
    return _made("checkpoints")


def processing(path: str) -> Path:
    """A processing job's folder /opt/ml/processing/<path>."""
    return root() / "processing" / path


def _made(path: str) -> Path:
    folder = root() / path
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def hyperparameters() -> list[str]:
    """A training job's hyperparameters as a script's arguments: {"batch-size": "32"} is --batch-size 32.

    Names that begin with an underscore or `sagemaker_` belong to the service and the SDK. The SDK writes values as
    JSON, so a text may be in quotation marks.
    """
    file = root() / "input" / "config" / "hyperparameters.json"
    given: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    arguments = []
    for name, value in given.items():
        if not name.startswith(("_", "sagemaker_")):
            text = json.loads(value) if value.startswith('"') else value
            arguments.append(f"--{name}={text}")  # one argument: a value may begin with a dash
    return arguments


@dataclass(frozen=True)
class Hosts:
    """The instances of this job by name, and the index of this one."""

    names: list[str]
    current: str

    @property
    def index(self) -> int:
        return self.names.index(self.current)


def hosts() -> Hosts:
    """Reads the resource config; outside a job there is one host, localhost."""
    for file in (root() / "input/config/resourceconfig.json", root() / "config/resourceconfig.json"):
        if file.exists():
            found = json.loads(file.read_text())
            return Hosts(sorted(found["hosts"]), found["current_host"])
    return Hosts(["localhost"], "localhost")


def instance_type() -> str:
    """Of this host of a training job; empty outside of one."""
    file = root() / "input/config/resourceconfig.json"
    return str(json.loads(file.read_text()).get("current_instance_type", "")) if file.exists() else ""


class Arguments(argparse.ArgumentParser):
    """A parser whose error becomes the job's failure reason, like any other error."""

    def error(self, message: str) -> NoReturn:
        raise SystemExit(f"{self.prog}: {message}")


@contextlib.contextmanager
def failure_told() -> Iterator[None]:
    """Writes the error that ends the block to output/failure, as one line: the job's FailureReason.

    An entry point fails with `raise SystemExit("why")`: the line is also printed on standard error, and the exit code
    is 1. `raise SystemExit(number)` is not a failure, as when the job was stopped. Of several processes only the first
    to fail is reported; the others merely lost their connection to it. A processing job's reason is also its exit
    message.
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
    """If a job has several hosts or GPUs, starts this module again under torchrun, one process each.

    Does not return then. All hosts connect to SM_MASTER_ADDR and SM_MASTER_PORT, else to the first one's name.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ or not is_training_job():
        return
    import torch  # jobs that do not train do not need it

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
