"""What `bintally bench retrain training` runs; no time decides a test."""

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_both_subjects_train_in_each_round(labelled: Path) -> None:
    command = [sys.executable, "bench/training_loop.py", "--photographs", str(labelled / "images"), "--size", "32"]
    command += ["--rounds", "2", "--steps", "2", "--batch-size", "4"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert sorted((row["round"], row["subject"]) for row in rows) == [
        (turn, subject) for turn in range(2) for subject in ("in_memory", "training")
    ]
    assert all(row["images_per_second"] > 0 and 0 <= row["waiting_share"] < 1 for row in rows)
