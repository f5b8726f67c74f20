"""The plan for a GPU runs from teachers to student on small pictures, without OpenVINO, and continues."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments import start
from experiments.epochs import read
from training.learning import data
from training.learning.checkpoints import digest_of

REPOSITORY = Path(__file__).parents[2]
TRIAL = {
    "TEACHERS": "lite0:0",
    "EPOCHS": "1",
    "TEACHER_SIZES": "32",
    "STUDENT_SIZES": "32x1",
    "VIEWS": "2",
    "RENDERED": "8",
}


def package(folder: Path, photographs: list[data.Photograph]) -> Path:
    """The shipped network, as if it had learned from these photographs."""
    folder.mkdir()
    (folder / "model.tar.gz").symlink_to(REPOSITORY / "model" / "pretrained" / "model.tar.gz")
    with (folder / "training.csv").open("w", newline="") as sheet:
        csv.writer(sheet).writerows([("id",), *((p.id,) for p in photographs)])
    return folder


def test_a_start_that_may_have_seen_the_held_out_photographs_is_refused(labelled: Path, tmp_path: Path) -> None:
    learned = package(tmp_path / "package", data.read(labelled))
    with pytest.raises(SystemExit, match="photographs outside the training split"):
        start.main(
            start.flags.parse_args([str(learned), "--data", str(labelled), "--out", str(tmp_path / "network.pt")])
        )


@pytest.mark.long
def test_the_plan_runs_without_openvino_and_continues(labelled: Path, tmp_path: Path) -> None:
    training, _ = read(labelled)
    learned, begin = package(tmp_path / "package", training), tmp_path / "start" / "network.pt"
    start.main(start.flags.parse_args([str(learned), "--data", str(labelled), "--out", str(begin)]))
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "sitecustomize.py").write_text("import sys\nsys.modules['openvino'] = None\n")
    own = {"PYTHON": sys.executable, "DATA": labelled, "OUT": tmp_path / "out", "START": begin, "JOBS": "2"}
    environment = os.environ | TRIAL | {name: str(value) for name, value in own.items()}
    environment["PYTHONPATH"] = str(tmp_path / "blocked")

    def run() -> str:
        command = [str(REPOSITORY / "experiments" / "plan.sh")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run().count("prior put back") == 3
    kept = torch.load(tmp_path / "out" / "student" / "network.pt", weights_only=True)
    assert kept["photographs"] == digest_of(training)
    assert run() == ""
