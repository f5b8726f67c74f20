"""Writes the network of a package as a `network.pt` that `experiments.student --network` starts from.

    python -m experiments.start model/pretrained --data .data/abid --out .runs/start/network.pt

For a machine with a GPU that has no OpenVINO, which alone reads a package's network.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch

from experiments.epochs import read
from experiments.student import restored
from training.learning.checkpoints import digest_of

flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
flags.add_argument("package", type=Path, help="a folder with model.tar.gz and training.csv, as tools.ship leaves it")
flags.add_argument("--data", type=Path, required=True)
flags.add_argument("--out", type=Path, required=True)
flags.add_argument("--limit", type=int, help="use only so many photographs (for a trial)")


def main(a: argparse.Namespace) -> None:
    training, _ = read(a.data)
    with (a.package / "training.csv").open(newline="") as rows:
        if others := {row["id"] for row in csv.DictReader(rows)} - {p.id for p in training}:
            raise SystemExit(f"{a.package} learned from {len(others)} photographs outside the training split of --data")
    training = training[: a.limit]
    a.out.parent.mkdir(parents=True, exist_ok=True)
    network = restored(a.package / "model.tar.gz", training)
    torch.save({"network": network.state_dict(), "photographs": digest_of(training)}, a.out)


if __name__ == "__main__":
    main(flags.parse_args())
