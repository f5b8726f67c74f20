"""`bintally bench retrain training`: measures whether the input slows training down."""

import os
import statistics
from pathlib import Path

from rich.console import Console

from bench.common import Numbers, bare_table, json_of, number
from cli.errors import PACKAGE_MISSING, CliError
from local.stack import REPOSITORY

SIZES = (64, 128)
"""Edges in pixels: the smallest and the largest that the shipped network was trained at. At the smallest, a step is
cheap and its photographs are nearly as much work to prepare."""
TRAINING_PYTHON = REPOSITORY / ".venv-train" / "bin" / "python"


def measure_training(console: Console, photographs: Path, rounds: int) -> Numbers:
    """{"summary", "rows"}: steps of training/train.py alternating with the same steps on batches in memory."""
    if not TRAINING_PYTHON.exists():
        raise CliError(f"{TRAINING_PYTHON} does not exist. Install it with: make train-venv", PACKAGE_MISSING)
    folder = photographs / "images224" if (photographs / "images224").is_dir() else photographs
    rows: list[Numbers] = []
    for size in SIZES:
        with console.status(f"Training at {size} px"):
            command = [TRAINING_PYTHON, "-m", "bench.training_loop", "--photographs", folder.absolute()]
            command += ["--size", size, "--rounds", rounds]
            seen = json_of([str(word) for word in command], os.environ)
        rows += [{"size": size, **row} for row in seen["rows"]]
    return {
        "summary": {str(size): summarise([row for row in rows if row["size"] == size]) for size in SIZES},
        "rows": rows,
    }


def summarise(rows: list[Numbers]) -> Numbers:
    """Medians over the rounds of one size; the ratio is taken within each round before its median."""
    training, in_memory = ([row for row in rows if row["subject"] == name] for name in ("training", "in_memory"))
    pairs = [
        (mine["images_per_second"], ready["images_per_second"]) for mine, ready in zip(training, in_memory, strict=True)
    ]
    return {
        "images_per_second": statistics.median(mine for mine, _ in pairs),
        "in_memory_images_per_second": statistics.median(ready for _, ready in pairs),
        "training_to_memory": statistics.median(mine / ready for mine, ready in pairs),
        "waiting_share": statistics.median(row["waiting_share"] for row in training),
    }


def show_training(console: Console, report: Numbers) -> None:
    table = bare_table("Training", "input", "images/s", "in memory", "share of it", "waiting for data")
    for size, row in report["summary"].items():
        table.add_row(
            f"{size} px",
            number(row["images_per_second"]),
            number(row["in_memory_images_per_second"]),
            f"{row['training_to_memory']:.1%}",
            f"{row['waiting_share']:.2%}",
        )
    console.print(table)
