"""`bintally bench retrain whole`: measures one small retraining on real photographs, step by step, with its outcome."""

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.common import Numbers, bare_table, json_of, own_stack
from cli import retraining
from cli.demo_retrain import count, wait_labels
from cli.errors import PACKAGE_MISSING, USAGE, CliError
from cli.photographs import Photograph
from local.stack import REPOSITORY

SITE = "ABID"
SETTINGS = {"epochs": 4, "sizes": "96,128", "trials": 2, "parallel": 1, "calibration_photographs": 64}
"""Small enough for two cores."""
TRAINING_PYTHON = REPOSITORY / ".venv-train" / "bin" / "python"
SPLITS = """
import json, pathlib, sys
from training.learning import data
print(json.dumps([[p.id, p.split, p.quantity, p.group] for p in data.read(pathlib.Path(sys.argv[1]))]))
"""
"""The code that trained the shipped model lists the photographs and their splits; it needs torch."""


def measure_whole(console: Console, photographs: Path, _rounds: int, number: int | None = None) -> Numbers:
    """{"steps", "outcome", "reason", "photographs", "test_bins", "rps", …}: on a separate stack, once."""
    sent = unseen(photographs, number)
    with own_stack(console) as stack:
        steps: list[tuple[str, float]] = []
        began = time.monotonic()
        wait_labels(stack, count(stack, sent, console), console)
        steps.append((f"Counting {len(sent)} photographs", time.monotonic() - began))
        request = {"reason": "by hand", "force": True, "approve": True, "settings": dict(SETTINGS)}
        execution = retraining.start(stack, request)
        ended = retraining.follow(stack, execution, console)
        steps += [(retraining.STEPS[step], seconds) for step, seconds in retraining.Watch(stack, execution).look()]
        if ended["outcome"] == "registered":
            began = time.monotonic()
            retraining.wait_live(stack, ended["model_version"], console)
            steps.append(("Releasing the model", time.monotonic() - began))
        s3, bucket = stack.client("s3"), stack.outputs()["ArtifactsBucket"]

        def made(path: str) -> Any:
            return json.load(s3.get_object(Bucket=bucket, Key=f"retrain/{ended['run']}/{path}")["Body"])

        return report_of(steps, ended, made("dataset/dataset.json"), made("evaluation/evaluation.json"))


def unseen(folder: Path, number: int | None) -> list[Photograph]:
    """The validation and test photographs of the shipped model, at most `number`, with the bins in a neutral order.
    Raises CliError."""
    if not TRAINING_PYTHON.exists():
        raise CliError("retraining needs the training environment. Install it with: make train-venv", PACKAGE_MISSING)
    images = next((f for f in (folder.absolute() / "images224", folder.absolute() / "images") if f.is_dir()), None)
    if images is None or not (folder / "labels.csv").is_file():
        raise CliError(f"{folder} needs images/ and a labels.csv with the columns id, quantity and group", USAGE)
    rows: Any = json_of([str(TRAINING_PYTHON), "-c", SPLITS, str(folder.absolute())], os.environ)
    kept = [
        Photograph(images / f"{id_}.jpg", SITE, group, quantity)
        for id_, split, quantity, group in rows
        if split in ("validation", "test")
    ]
    kept.sort(key=lambda photograph: (hashlib.sha256(photograph.bin.encode()).digest(), photograph.path.name))
    return kept[:number]


def report_of(steps: list[tuple[str, float]], ended: Numbers, dataset: Numbers, evaluation: Numbers) -> Numbers:
    rows, at = [], 0.0
    for step, seconds in steps:
        rows.append({"step": step, "at_s": at, "seconds": seconds})
        at += seconds
    models = {
        who: {
            "rps": evaluation[who]["as_shipped"]["rps"],
            "interval": evaluation[who]["intervals"]["as_shipped"]["rps"],
        }
        for who in ("champion", "challenger")
    }
    return {
        "steps": rows,
        "seconds": at,
        "settings": SETTINGS,
        "photographs": dataset["photographs"],
        "test_bins": evaluation["test_set"]["bins"],
        "rps": models,
        "advantage": evaluation["paired"]["rps"],
        **{name: ended[name] for name in ("run", "outcome", "reason")},
    }


def show_whole(console: Console, report: Numbers) -> None:
    table = bare_table("A whole retrain", "", "begins at", "seconds")
    for row in report["steps"]:
        table.add_row(row["step"], clock(row["at_s"]), f"{row['seconds']:.1f}")
    table.add_row("", clock(report["seconds"]), "")
    console.print(table)
    many = ", ".join(f"{split} {number}" for split, number in report["photographs"].items())
    console.print(f"Photographs: {many} (of {report['test_bins']} bins). The shipped model was not trained on any.")
    console.print("Those of its validation split have chosen its epoch and its calibration.")
    for who, model in report["rps"].items():
        console.print(f"Ranked probability score, {who}: {model['rps']:.3f} {interval(model['interval'])}")
    advantage = report["advantage"]
    console.print(f"Challenger's advantage: {advantage['difference']:.3f} {interval(advantage['interval'])}")
    console.print(f"{report['outcome']}: {report['reason']}", markup=False, soft_wrap=True)


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def interval(ends: list[float]) -> str:
    return f"({ends[0]:.3f} to {ends[1]:.3f})"
