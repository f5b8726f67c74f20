"""What measures training; no time decides a test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.long
def test_both_subjects_train_in_each_round(labelled: Path) -> None:
    command = [sys.executable, "-m", "bench.training_loop", "--photographs", str(labelled / "images"), "--size", "32"]
    command += ["--rounds", "2", "--steps", "2", "--batch-size", "4"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert sorted((row["round"], row["subject"]) for row in rows) == [
        (turn, subject) for turn in range(2) for subject in ("in_memory", "training")
    ]
    assert all(row["images_per_second"] > 0 and 0 <= row["waiting_share"] < 1 for row in rows)


@pytest.mark.long
def test_all_loops_are_measured_beside_the_ceilings(labelled: Path) -> None:
    command = [sys.executable, "-m", "bench.training_speed", "--photographs", str(labelled / "images"), "--size", "32"]
    command += ["--rounds", "2", "--steps", "1", "--batch-size", "4", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert set(seen["photographs_per_second"]) == {"step", "loop", "eager", "usual"}
    assert len(seen["rows"]) == 8
    assert 0 < seen["share_of_arithmetic"] < 1
    assert 0 < seen["share_of_bandwidth"] < 1
    assert seen["loop_to_step"] > 0


def test_a_machine_that_only_trains_needs_neither_boto3_nor_openvino() -> None:
    missing = "import sys; sys.modules |= dict.fromkeys(('boto3', 'botocore', 'openvino', 'nncf', 'sklearn', 'scipy'))"
    command = [sys.executable, "-c", f"{missing}; import training.train"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
