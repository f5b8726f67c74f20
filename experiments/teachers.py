"""Trains one teacher: an EfficientNet-Lite with ImageNet weights, on two of three folds of the training split.

    python -m experiments.teachers --network lite0 --seed 0 --fold 1 --data .data/abid --out .runs/lite0-0-1

Folds are by block, as splits are, so a teacher can be asked about the third that it did not learn from
(`experiments.answers`). Without `--fold` it learns from all, for a learning curve (`--share`), and teaches nobody. It
resumes from the checkpoint of its last epoch. It leaves `network.pt`, `predictions.csv`, validation photographs with
the logits of the plain picture and the prior put back, and `metrics.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from experiments.epochs import Judge, read, train
from experiments.lite import JUDGED_AT, WEIGHTS, Lite
from experiments.views import FOLDS, learned_from
from training.learning import data
from training.learning.checkpoints import Checkpoint, digest_of
from training.learning.learner import Learner
from training.learning.processes import Processes
from training.learning.schedule import sizes_by_epoch
from training.verdict import metrics

flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
flags.add_argument("--network", choices=sorted(WEIGHTS), required=True)
flags.add_argument("--seed", type=int, required=True)
flags.add_argument("--fold", type=int, choices=range(FOLDS), help="the third to leave out")
flags.add_argument("--share", type=float, default=1.0, help="of the photographs that are left")
flags.add_argument("--data", type=Path, required=True)
flags.add_argument("--out", type=Path, required=True)
flags.add_argument("--epochs", type=int, default=13)
flags.add_argument("--sizes", default="96,96,128", help="input sizes over equal parts of the epochs")
flags.add_argument("--batch-size", type=int, default=64)
flags.add_argument("--learning-rate", type=float, default=0.0005)
flags.add_argument("--augmentation", type=float, default=1.6)
flags.add_argument("--limit", type=int, help="use only so many photographs (for a trial)")


def main(a: argparse.Namespace) -> None:
    everything, validation = read(a.data, a.limit)
    own = data.share_of(everything if a.fold is None else learned_from(everything, a.fold), a.share)
    print(f"{len(own)} of {len(everything)} training photographs, {len(validation)} for validation")
    of = {name: getattr(a, name) for name in ("network", "seed", "fold", "epochs", "sizes", "batch_size")}
    of |= {"photographs": digest_of(own), "learning_rate": a.learning_rate, "augmentation": a.augmentation}
    torch.manual_seed(a.seed)
    learner = Learner(
        Lite(a.network, pretrained=True),
        Processes.join(),
        peak=a.learning_rate * a.batch_size / 64,
        weight_decay=0.1,
        label_smoothing=0.05,
    )
    learner.has_bf16 &= learner.processes.device.type == "cuda"  # depthwise convolutions train slower in it on a CPU
    excess = data.excess(own)
    judge = Judge(validation, data.pictures(validation, JUDGED_AT), excess)
    training = data.training_on(learner.processes.device, own, a.seed, a.augmentation)
    sizes = sizes_by_epoch(a.sizes, a.epochs)
    checkpoint = Checkpoint(a.out / "checkpoint.pt", of)
    logits = train(learner, training, sizes, checkpoint, judge, batch=a.batch_size, seed=a.seed)
    metrics.write_predictions(a.out / "predictions.csv", judge.photographs, logits - excess)
    run = {"photographs": len(own), "epochs": a.epochs, "sizes": a.sizes, "judged_at": JUDGED_AT, "seed": a.seed}
    report = metrics.report(metrics.read_predictions(a.out / "predictions.csv"))
    (a.out / "metrics.json").write_text(json.dumps({"run": run, **report}, indent=1) + "\n")
    kept = {"network": learner.average.state_dict(), "shift": torch.from_numpy(-excess), "of": of}
    torch.save(kept, a.out / "network.pt")
    print(f"{a.out}: {judge.figures(logits)}")


if __name__ == "__main__":
    main(flags.parse_args())
