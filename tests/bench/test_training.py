"""The arithmetic of `bintally bench retrain training`; tests/bench/test_torch.py takes its steps."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench import training
from cli.bench import command
from cli.errors import PACKAGE_MISSING


def measured(arguments: list[str], _: object) -> dict[str, Any]:
    """Three rounds; in the second one the machine did something else for both."""
    assert arguments[-2:] == ["--rounds", "3"]
    speeds = {"training": (96.0, 40.0, 99.0), "in_memory": (100.0, 50.0, 100.0)}
    return {
        "rows": [
            {"subject": subject, "round": turn, "images_per_second": speed, "waiting_share": turn / 100}
            for subject, values in speeds.items()
            for turn, speed in enumerate(values)
        ]
    }


def test_each_round_compares_with_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(training, "TRAINING_PYTHON", tmp_path)
    monkeypatch.setattr(training, "json_of", measured)
    shown = CliRunner().invoke(command, ["retrain", "training", "--rounds", "3"])
    assert shown.exit_code == 0, shown.output
    assert [line.split()[-5:] for line in shown.output.splitlines() if " px " in line] == [
        ["px", "96.0", "100.0", "96.0%", "1.00%"]
    ] * len(training.SIZES)


def test_without_torch_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(training, "TRAINING_PYTHON", tmp_path / "absent")
    shown = CliRunner().invoke(command, ["retrain", "training"])
    assert (shown.exit_code, "make train-venv" in shown.output) == (PACKAGE_MISSING, True)
