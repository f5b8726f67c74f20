"""What is heavy is made once for all workers of a run: the first one to need it makes it, and the run's end stops it.

A file lock holds the others up meanwhile, and a JSON file tells them where it is. Whoever started the workers stops it,
so that it also ends when one of them dies.
"""

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from local.stack import Local


def folder_of(factory: pytest.TempPathFactory) -> Path:
    """The run's own folder; with pytest-xdist a worker's is in it."""
    base = factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"


def shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Local]) -> Local:
    """The run's stack of this name. `make` starts one whose home is the folder that it is given."""
    folder = folder_of(factory)
    folder.mkdir(exist_ok=True)
    told = folder / f"{name}.json"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            stack = make(folder / name)
            told.write_text(json.dumps({"port": stack.port, "name": stack.name}))
    return Local(home=folder / name, **json.loads(told.read_text()))


def stop_all(factory: pytest.TempPathFactory) -> None:
    """Stops what the run started, also a stack that never came up."""
    for pid_file in folder_of(factory).glob("*/emulator.pid"):
        told = pid_file.parent.with_suffix(".json")
        port = json.loads(told.read_text())["port"] if told.exists() else 1  # nobody answers there
        Local(home=pid_file.parent, port=port).stop()
