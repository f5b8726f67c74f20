"""The profile of however many steps there were, and of a process that ends before it is told to end the profile."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path
import torch
from training.learning.profile import Profile

profile = Profile(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    torch.ones(100, 100) @ torch.ones(100, 100)
    profile.step(0.5, 2.0, 8)
if sys.argv[3] == "ends":
    profile.end()
"""


@pytest.mark.parametrize(
    ("steps", "end", "counted"), [(1, "ends", 1), (2, "ends", 1), (3, "", 1), (4, "ends", 1), (30, "", 17)]
)
def test_the_first_steps_are_told(tmp_path: Path, steps: int, end: str, counted: int) -> None:
    # In a process of its own: what crashes there is the process.
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(steps), end]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == {
        "steps": counted,
        "waiting_share": 0.25,
        "median_step_seconds": 2.0,
        "images_per_second": 4.0,
    }
    assert (tmp_path / "trace.json.gz").exists() == (steps > 1)
