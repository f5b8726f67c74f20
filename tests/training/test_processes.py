"""The processes that train: what they compute in, and how they end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training.learning.learner import Learner
from training.learning.processes import Processes

# Forks, since importing torch takes longer than all else; each pair then lives and ends as two of torchrun's do.
PAIRS = """
import os, socket, sys
os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np, torch
import torch._dynamo  # else each process would import it, for DistributedDataParallel: seven seconds
from training.learning.learner import Learner
from training.learning.processes import Processes, ended_at_once

def main(how):
    processes = Processes.join()
    flat = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 7))
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), flat)
    learner = Learner(net, processes, peak=0.001, weight_decay=0.05, label_smoothing=0.05)
    for _ in range(3):
        learner.step(torch.rand(8, 3, 16, 16), torch.randint(0, 7, (8,)), 1.0)
    processes.joined(np.zeros((3, 7), dtype=np.float32))
    if how != "well":
        raise {"stopped": SystemExit(143), "given up": SystemExit("gives up"), "broken": ValueError("odd")}[how]
    print(f"rank {processes.rank} ends well")

for how in sys.argv[1:]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    pair = []
    for rank in ("0", "1"):
        pair.append(os.fork())
        if not pair[-1]:
            os.environ.update(RANK=rank, WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
            with ended_at_once():
                main(how)
            os._exit(99)
    print(how, *[os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in pair], flush=True)
"""


def test_processes_end_with_their_own_code_and_never_wait_for_a_lock() -> None:
    ends = [*["well"] * 12, "stopped", "given up", "broken"]
    found = subprocess.run(
        [sys.executable, "-c", PAIRS, *ends],
        capture_output=True, text=True, check=False, timeout=240, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("\nwell 0 0") == 12
    assert found.stdout.count("rank 0 ends well") == found.stdout.count("rank 1 ends well") == 12
    assert all(end in found.stdout for end in ("stopped 143 143\n", "given up 1 1\n", "broken 1 1\n"))
    assert found.stderr.count("gives up") == 2
    assert "ValueError: odd" in found.stderr


@pytest.mark.parametrize(("capabilities", "computed"), [({"avx512_bf16": True}, torch.bfloat16), ({}, torch.float32)])
def test_a_processor_computes_in_bfloat16_only_if_it_can(
    capabilities: dict[str, bool], computed: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 7, 8), torch.nn.Flatten())
    found: list[torch.dtype] = []
    net[0].register_forward_hook(lambda module, given, made: found.append(made.dtype))
    processes = Processes(0, 1, torch.device("cpu"))
    learner = Learner(net, processes, peak=0.001, weight_decay=0.05, label_smoothing=0.05)
    learner.step(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3]), 1.0)
    assert found == [computed]


@pytest.mark.parametrize(
    ("instance", "allowed"), [("ml.g5.xlarge", False), ("ml.p4d.24xlarge", False), ("ml.c7i.xlarge", True), ("", True)]
)
def test_a_job_that_finds_no_gpu_on_an_instance_that_has_one_fails_at_once(
    instance: str, allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But where its environment says that processors will do, as the local service's does."""
    (tmp_path / "input" / "config").mkdir(parents=True)
    (tmp_path / "input/config/resourceconfig.json").write_text(json.dumps({"current_instance_type": instance}))
    monkeypatch.setenv("SM_OPT_ML", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if allowed:
        assert Processes.join().device.type == "cpu"
    else:
        with pytest.raises(SystemExit, match=rf"finds no GPU on {instance}: see BASE_IMAGE"):
            Processes.join()
        monkeypatch.setenv("BINTALLY_REQUIRE_GPU", "false")
        assert Processes.join().device.type == "cpu"
