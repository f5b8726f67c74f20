"""Trains one ResNet50 on the stored answers of teachers and the labels.

    python -m experiments.student --champion model/pretrained/model.tar.gz --answers .runs/answers/answers.npz \\
      --data .data/abid --out .runs/student

The student sees the views that the teachers were asked about, but in other light, colour and sharpness; the teachers
saw them plain (Beyer et al. 2022, "Knowledge distillation: a good teacher is patient and consistent"). Some rendered
bins, which no teacher is asked about, are among them. It resumes from the checkpoint of its last epoch. It leaves
`network.pt`, which `tools.ship` packs, and `predictions.csv` of validation.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from experiments.epochs import Judge, read, train
from experiments.views import Answers
from model import network, package
from model.answer import AT_LEAST, CLASSES
from model.preprocess import SIZE, normalise
from tools.synthetic import training_pictures
from training.learning import data
from training.learning.checkpoints import Checkpoint, digest_of
from training.learning.learner import Learner
from training.learning.processes import Processes, ended_at_once
from training.learning.vary import appearance
from training.verdict import metrics
from training.verdict.bootstrap import Floats

RESTORED_WITH = 64
"""Training photographs that the restored champion's statistics are measured on."""

flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
start = flags.add_mutually_exclusive_group(required=True)
start.add_argument("--champion", type=Path, help="a model.tar.gz to start from")
start.add_argument("--network", type=Path, help="a run's network.pt to start from, or that of experiments.start")
flags.add_argument("--answers", type=Path, required=True, help="the answers.npz that experiments.answers wrote")
flags.add_argument("--data", type=Path, required=True)
flags.add_argument("--out", type=Path, required=True)
flags.add_argument("--share", type=float, default=0.7, help="of the teachers in the target; the rest is the label's")
flags.add_argument("--rendered", type=int, default=400, help="rendered bins among the training photographs")
flags.add_argument("--appearance", type=float, default=1.0, help="how much light, colour and sharpness vary, 0 to 2")
flags.add_argument("--sizes", default="96x4,128x14,160x3", help="input sizes, each with its number of epochs")
flags.add_argument("--batch-size", type=int, default=64, help="of one process")
flags.add_argument("--learning-rate", type=float, default=0.0005, help="at the peak, for 64 photographs a step")
flags.add_argument("--weight-decay", type=float, default=0.05)
flags.add_argument("--seed", type=int, default=0)
flags.add_argument("--limit", type=int, help="use only so many photographs (for a trial)")


class Taught(data.Training):
    """Training photographs in the teachers' views, each with its target: a mix of the answer and the label. After them
    `rendered` bins, whose target is the label alone."""

    def __init__(
        self,
        photographs: list[data.Photograph],
        answers: Answers,
        *,
        share: float,
        seed: int,
        strength: float,
        rendered: int = 0,
    ) -> None:
        super().__init__(photographs, seed, strength)
        known = np.eye(len(CLASSES), dtype=np.float32)
        self.views = answers.views
        self.targets = share * answers.probabilities.astype(np.float32) + (1 - share) * known[self.labels][:, None]
        if rendered:
            pictures, quantities = training_pictures(rendered)
            labels = quantities.clip(max=AT_LEAST)
            self.pictures = np.concatenate([self.pictures, pictures])
            self.targets = np.concatenate([self.targets, known[labels][:, None].repeat(self.views.number, 1)])
            self.labels += labels.tolist()

    def batch(self, keys: list[data.Key]) -> tuple[torch.Tensor, torch.Tensor]:
        """Float32 [B, 3, size, size] and targets [B, 7], for keys of one size."""
        numbers = [(epoch + index) % self.views.number for epoch, _, index, _ in keys]
        seen = []
        for (epoch, place, index, size), number in zip(keys, numbers, strict=True):
            random = np.random.default_rng((self.seed, epoch, place))
            distorted = appearance(Image.fromarray(self.pictures[index]), random, self.strength)
            seen.append(self.views.of(distorted, index, number, size))
        targets = self.targets[[index for _, _, index, _ in keys], numbers]
        return torch.from_numpy(normalise(np.stack(seen))), torch.from_numpy(targets)


def excess(photographs: list[data.Photograph], share: float) -> Floats:
    """`data.excess` of the targets [7]: only the labels' part has the prior of photographs chosen by their count."""
    found: Floats = np.log(share + (1 - share) * np.exp(data.excess(photographs)))
    return found


def sizes_of(text: str) -> list[int]:
    """By epoch: "96x4,128x14" is four epochs at 96 px, then fourteen at 128."""
    parts = [part.split("x") for part in text.split(",")]
    return [int(size) for size, epochs in parts for _ in range(int(epochs))]


def restored(champion: Path, training: list[data.Photograph]) -> torch.nn.Module:
    from model.restore import restore  # needs OpenVINO, which a machine that only trains has not

    with tempfile.TemporaryDirectory() as folder:
        photographs = data.evaluation_batch(training[:RESTORED_WITH], SIZE).numpy()
        return restore(package.unpack(champion, Path(folder)), photographs)


def initial(a: argparse.Namespace, training: list[data.Photograph]) -> torch.nn.Module:
    if a.champion:
        return restored(a.champion, training)
    kept = torch.load(a.network, map_location="cpu", weights_only=True)
    if kept["photographs"] != digest_of(training):
        raise SystemExit(f"{a.network} was not trained on the training split, so it may have seen the others")
    found = network.build()
    found.load_state_dict(kept["network"])
    return found


def main(a: argparse.Namespace) -> None:
    torch.manual_seed(a.seed)
    training, validation = read(a.data, a.limit)
    try:
        answers = Answers.read(a.answers, training)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    processes = Processes.join()
    names = ("share", "rendered", "appearance", "sizes", "batch_size", "learning_rate", "weight_decay", "seed")
    of = {name: getattr(a, name) for name in names}
    of |= {"photographs": digest_of(training), "answers": answers.digest, "world": processes.world}
    of |= {"drawn": digest_of([p for p in training if p.by_class]), "start": package.sha256(a.champion or a.network)}
    learner = Learner(
        initial(a, training),
        processes,
        peak=a.learning_rate * a.batch_size * processes.world / 64,
        weight_decay=a.weight_decay,
        label_smoothing=0.0,
        excess=torch.from_numpy(excess(training, a.share)),
    )
    judge = Judge(validation, data.pictures(validation, SIZE))
    taught = Taught(training, answers, share=a.share, seed=a.seed, strength=a.appearance, rendered=a.rendered)
    if processes.device.type == "cuda":
        taught.threads = len(os.sched_getaffinity(0))  # one would be slower than the GPU
    checkpoint = Checkpoint(a.out / "checkpoint.pt", of)
    logits = train(learner, taught, sizes_of(a.sizes), checkpoint, judge, batch=a.batch_size, seed=a.seed)
    if processes.rank:
        return
    kept = {"network": learner.average.state_dict(), "photographs": of["photographs"]}
    torch.save(kept, a.out / "network.pt")
    metrics.write_predictions(a.out / "predictions.csv", validation, logits)
    print(f"{a.out}: {judge.figures(logits)}")


if __name__ == "__main__":
    with ended_at_once():
        main(flags.parse_args())
