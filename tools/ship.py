"""Makes the shipped model package from a finished training run: packs it, measures it, writes its card.

    python -m tools.ship .runs/first --data ../shared/abid --out model/pretrained

Writes `model.tar.gz`, the predictions its metrics come from (`predictions.csv`), the ids of its training photographs
(`training.csv`) and the model card (`README.md` and `calibration.svg`, with every figure from those predictions).
Exits with 1 when int8 differs too much.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import tempfile
from pathlib import Path

import matplotlib
import torch

from model import network, package
from training.learning import data
from training.learning.checkpoints import digest_of
from training.learning.pack import Unfaithful, pack
from training.verdict import metrics
from training.verdict.card import card
from training.verdict.report import COLOURS, STYLE, reliability


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("run", type=Path, help="the folder that training.train wrote")
    flags.add_argument("--data", type=Path, required=True)
    flags.add_argument("--out", type=Path, default=Path("model/pretrained"))
    flags.add_argument("--parent", help="version of the package whose weights this one started from")
    a = flags.parse_args()

    photographs = data.read(a.data)
    training = [p for p in photographs if p.split == "train"]
    held_out = [p for p in photographs if p.split != "train"]
    trained = network.build()
    learned = torch.load(a.run / "network.pt", weights_only=True)
    if learned["photographs"] != digest_of(training):
        raise SystemExit("not shipped: this run was not trained on the training split, so it may have seen the others")
    trained.load_state_dict(learned["network"])
    details = {
        "test_set_digest": data.digest([p for p in held_out if p.split == "test"]),
        "training_data_digest": data.digest(training),
        "parent": a.parent,
    }
    a.out.mkdir(parents=True, exist_ok=True)
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
        write_ids(a.out / "training.csv", training)
        package.pack(packed.package, a.out / "model.tar.gz")
        with matplotlib.rc_context(STYLE):
            (a.out / "calibration.svg").write_text(
                reliability(packed.report["test"]["calibration"], "Reliability diagram", COLOURS["challenger"])
            )
        test = metrics.read_predictions(predictions)["test"]
        (a.out / "figures.json").write_text(json.dumps(metrics.figures(packed.report, test), indent=1) + "\n")
        (a.out / "README.md").write_text(card(packed.package.description, packed.report, len(training)))
    print(f"{a.out / 'model.tar.gz'}: version {packed.package.model_version}")


def write_ids(file: Path, photographs: list[data.Photograph]) -> None:
    """Writes a CSV of the photographs' ids and groups; photographs of one bin have one group."""
    with file.open("w", newline="") as sheet:
        csv.writer(sheet, lineterminator="\n").writerows([("id", "group"), *((p.id, p.group) for p in photographs)])


if __name__ == "__main__":
    main()
