"""Makes the shipped model package from a finished training run: packs it, measures it, writes its card.

    PYTHONPATH=functions python -m tools.ship .runs/first --data .data/abid --out model/pretrained

Writes `model.tar.gz`, the predictions its metrics come from (`predictions.csv`), its training photographs
(`training.csv`), predictions of photographs in other light (`conditions.csv`) and the model card (`README.md` and
`calibration.svg`), with every figure from those predictions. `held_out_before.csv` names the photographs that earlier
packages were measured on. Exits with 1 when int8 differs too much.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from bintally.common.evidence import weigh

from model import export, network, package
from training.learning import data
from training.learning.checkpoints import digest_of
from training.learning.pack import Unfaithful, pack
from training.verdict import metrics, shipped
from training.verdict.card import card
from training.verdict.report import COLOURS, STYLE, reliability

PRETRAINED = Path(__file__).parents[1] / "model" / "pretrained"


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("run", type=Path, help="the folder that training.train wrote")
    flags.add_argument("--data", type=Path, required=True)
    flags.add_argument("--out", type=Path, default=PRETRAINED)
    flags.add_argument("--parent", help="version of the package whose weights this one started from")
    flags.add_argument("--how", help="how it was trained, in words that end the card's sentence about it")
    a = flags.parse_args()

    photographs = data.read(a.data)
    training = [p for p in photographs if p.split == "train"]
    held_out = [p for p in photographs if p.split != "train"]
    test = [p for p in held_out if p.split == "test"]
    trained = network.build()
    learned = torch.load(a.run / "network.pt", map_location="cpu", weights_only=True)
    if learned["photographs"] != digest_of(training):
        raise SystemExit("not shipped: this run was not trained on the training split, so it may have seen the others")
    trained.load_state_dict(learned["network"])
    details = {
        "test_set_digest": data.digest(test),
        "training_data_digest": data.digest(training),
        "parent": a.parent,
        **({"how": a.how} if a.how else {}),
    }
    a.out.mkdir(parents=True, exist_ok=True)
    if not (a.out / shipped.BEFORE).exists():
        shutil.copy(PRETRAINED / shipped.BEFORE, a.out)
    with tempfile.TemporaryDirectory() as folder:
        # Nothing in `out` changes before the package has noted the code's version: its working tree must be clean.
        made, predictions = Path(folder) / "package", Path(folder) / "predictions.csv"
        made.mkdir()
        try:
            packed = pack(
                trained,
                training,
                held_out,
                made,
                predictions=predictions,
                details=details,
                strict=True,
            )
        except Unfaithful as error:
            raise SystemExit(f"not shipped: {error}") from error
        print(metrics.table(packed.report))
        shutil.copy(predictions, a.out)
        count_conditions(packed.package, test, a.out / shipped.CONDITIONS_FILE)
        write_ids(a.out / "training.csv", training)
        package.pack(packed.package, a.out / "model.tar.gz")
        with matplotlib.rc_context(STYLE):
            (a.out / "calibration.svg").write_text(
                reliability(packed.report["test"]["calibration"], "Reliability diagram", COLOURS["challenger"])
            )
        seen = metrics.read_predictions(predictions)["test"]
        (a.out / "figures.json").write_text(json.dumps(metrics.figures(packed.report, seen), indent=1) + "\n")
        (a.out / "README.md").write_text(card(packed.package.description, report(a.out), len(training)))
    print(f"{a.out / 'model.tar.gz'}: version {packed.package.model_version}")


def report(folder: Path) -> dict[str, Any]:
    """`shipped.report` with the rule by which Bintally orders recounts."""
    return shipped.report(folder, lambda p, recorded: weigh(p, recorded).ratio)


def count_conditions(made: package.Package, test: list[data.Photograph], file: Path) -> None:
    """Writes the logits of the served network under each condition, the condition in place of the split."""
    photographs = shipped.chosen(test)
    files = [p.read() for p in photographs]
    rows = [replace(p, split=condition) for condition in shipped.CONDITIONS for p in photographs]
    logits = [export.predict(made.network, shipped.distorted(files, condition)) for condition in shipped.CONDITIONS]
    metrics.write_predictions(file, rows, np.concatenate(logits))


def write_ids(file: Path, photographs: list[data.Photograph]) -> None:
    """Writes a CSV of photographs: id, group (one for those of one bin), and whether it was drawn by its count."""
    rows = [(p.id, p.group, "by class" if p.by_class else "as it came") for p in photographs]
    with file.open("w", newline="") as sheet:
        csv.writer(sheet, lineterminator="\n").writerows([("id", "group", "drawn"), *rows])


if __name__ == "__main__":
    main()
