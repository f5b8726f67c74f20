"""Asks teachers about views of each training photograph, and stores their mean answers for a student.

    python -m experiments.answers .runs/lite?-?-? --data .data/abid --out .runs/answers

A photograph is asked of the teachers that left out its fold, so none answers for a bin that it learned from. An answer
is the mean of a view and its mirror image over these teachers, with the prior put back. With `--champion` the network
that was shipped is one more teacher, of the photographs whose block it did not learn from. Writes `answers.npz`, and
`predictions.csv`: the logarithms of all teachers' mean probabilities for validation photographs. Each fold's answers
are kept as soon as they are complete; the same command goes on with the others. On a GPU torch answers;
otherwise OpenVINO if it is installed, in a third of torch's time. The champion's package needs OpenVINO everywhere.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from experiments.epochs import figures, read
from experiments.lite import JUDGED_AT, Lite
from experiments.views import FOLDS, Answers, Views, fold_of, learned_from
from model import package
from model.answer import CLASSES, probabilities
from model.preprocess import normalise
from training.learning import data
from training.learning.checkpoints import digest_of
from training.learning.vary import normalised
from training.verdict import metrics
from training.verdict.bootstrap import Floats

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BATCH = 256 if DEVICE.type == "cuda" else 32
"""Pictures that a teacher is asked about at once."""
TOGETHER = 32
"""Photographs whose views are made at once, by all cores."""

Network = Callable[[data.Pixels], NDArray[np.float32]]
"""From pictures, uint8 [N, S, S, 3], to logits [N, 7]."""

flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
flags.add_argument("runs", type=Path, nargs="+", help="folders that experiments.teachers wrote")
flags.add_argument("--champion", type=Path, help="a folder with model.tar.gz and training.csv, as tools.ship leaves it")
flags.add_argument("--data", type=Path, required=True)
flags.add_argument("--out", type=Path, required=True)
flags.add_argument("--views", type=int, default=12, help="of each training photograph")
flags.add_argument("--strength", type=float, default=1.6, help="how much views differ, 0 to 2")
flags.add_argument("--seed", type=int, default=0, help="of the views")
flags.add_argument("--limit", type=int, help="use only so many photographs (for a trial)")


@dataclass(frozen=True)
class Teacher:
    name: str
    """Network and seed: the same for the teachers of all folds."""
    fold: int
    """The fold of the training split that it did not learn from."""
    shift: Floats
    """Of its logits [7], to put the prior back."""
    network: Network
    digest: str
    size: int = JUDGED_AT
    """Of its pictures, in pixels."""

    @classmethod
    def read(cls, run: Path, training: list[data.Photograph]) -> Teacher:
        """Raises `ValueError` if it did not learn from exactly the photographs of the other folds."""
        kept = torch.load(run / "network.pt", map_location="cpu", weights_only=True)
        of = kept["of"]
        if of["fold"] is None or of["photographs"] != digest_of(learned_from(training, of["fold"])):
            raise ValueError(f"{run} learned from other photographs than those outside fold {of['fold']}")
        network = Lite(of["network"])
        network.load_state_dict(kept["network"])
        digest = hashlib.sha256((run / "network.pt").read_bytes()).hexdigest()
        return cls.of(f"{of['network']} seed {of['seed']}", of["fold"], kept["shift"].numpy(), network, digest)

    @classmethod
    def of(cls, name: str, fold: int, shift: Floats, network: torch.nn.Module, digest: str) -> Teacher:
        by = by_torch if DEVICE.type == "cuda" or find_spec("openvino") is None else by_openvino
        return cls(name, fold, shift, by(network), digest)

    def ask(self, pictures: data.Pixels) -> Floats:
        """Probabilities [N, 7] for uint8 [N, S, S, 3], each the mean of the picture's and its mirror image's."""
        return np.concatenate(
            [self.ask_batch(pictures[start : start + BATCH]) for start in range(0, len(pictures), BATCH)]
        )

    def ask_batch(self, pictures: data.Pixels) -> Floats:
        both = np.concatenate([pictures, pictures[:, :, ::-1]])
        p = probabilities(self.network(both) + self.shift)
        mean: Floats = (p[: len(pictures)] + p[len(pictures) :]) / 2
        return mean


def by_torch(network: torch.nn.Module) -> Network:
    """A GPU normalises too: one core would take longer for that than the GPU for the network."""
    there = network.eval().to(DEVICE)

    @torch.inference_mode()
    def ask(pictures: data.Pixels) -> NDArray[np.float32]:
        images = torch.from_numpy(pictures).to(DEVICE).permute(0, 3, 1, 2).float()
        logits: NDArray[np.float32] = there(normalised(images)).cpu().numpy()
        return logits

    return ask


def by_openvino(network: torch.nn.Module | Path) -> Network:
    """A torch network, or the file of a package's."""
    import openvino  # which a machine that only trains need not have

    if isinstance(network, torch.nn.Module):
        example = torch.zeros(1, 3, JUDGED_AT, JUDGED_AT)
        shape = openvino.PartialShape([-1, *example.shape[1:]])
        network = openvino.convert_model(network.eval(), example_input=example, input=[shape])
    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda pictures: np.asarray(compiled(normalise(pictures))[0])


@dataclass(frozen=True)
class Champion:
    """The network that was shipped."""

    teacher: Teacher
    learned: frozenset[str]
    """The ids of the photographs that it learned from."""

    @classmethod
    def read(cls, folder: Path) -> Champion:
        """Raises `PackageError` or `OSError`."""
        with tempfile.TemporaryDirectory() as unpacked:
            made = package.unpack(folder / "model.tar.gz", Path(unpacked))
            network = by_openvino(made.network)
            digest = package.sha256(made.directory / package.NAME)
        with (folder / "training.csv").open(newline="") as rows:
            learned = frozenset(row["id"] for row in csv.DictReader(rows))
        return cls(Teacher(made.model_version, -1, np.zeros(len(CLASSES)), network, digest, made.size), learned)

    def may_tell(self, training: list[data.Photograph]) -> list[int]:
        """The places of the photographs whose bin and neighbours it has not seen."""
        seen = {p.block for p in training if p.id in self.learned}
        return [index for index, p in enumerate(training) if p.block not in seen]


def mean_of(teachers: Sequence[Teacher], pictures: data.Pixels) -> Floats:
    """The mean of the teachers' probabilities [N, 7]."""
    mean: Floats = np.mean([teacher.ask(pictures) for teacher in teachers], axis=0)
    return mean


def by_fold(teachers: list[Teacher]) -> list[list[Teacher]]:
    """The teachers that left out each fold. Raises `ValueError` unless each network has one teacher for each fold."""
    names = sorted({teacher.name for teacher in teachers})
    if not teachers or sorted((t.name, t.fold) for t in teachers) != [
        (name, fold) for name in names for fold in range(FOLDS)
    ]:
        raise ValueError(f"each network needs its teachers of folds 0 to {FOLDS - 1}, each once")
    return [[teacher for teacher in teachers if teacher.fold == fold] for fold in range(FOLDS)]


def answers(teachers: Sequence[Teacher], pictures: data.Pixels, own: list[int], views: Views) -> NDArray[np.float16]:
    """The teachers' mean answers [n, K, 7] for the training photographs at these places, of pictures [N, S, S, 3]."""
    told = np.empty((len(own), views.number, len(CLASSES)), dtype=np.float16)
    size = teachers[0].size

    def seen(index: int) -> data.Pixels:
        picture = Image.fromarray(pictures[index])
        return np.stack([views.of(picture, index, number, size) for number in range(views.number)])

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(own), TOGETHER):
            several = np.concatenate(list(pool.map(seen, own[start : start + TOGETHER])))
            told[start : start + TOGETHER] = mean_of(teachers, several).reshape(-1, *told.shape[1:])
    return told


def all_answers(
    folds: list[list[Teacher]],
    training: list[data.Photograph],
    views: Views,
    out: Path,
    champion: Champion | None = None,
) -> NDArray[np.float16]:
    """Answers [N, K, 7]; each fold's are kept in `out`, named by its teachers, the photographs and the views."""
    told = np.empty((len(training), views.number, len(CLASSES)), dtype=np.float16)
    pictures = data.pictures(training, data.STORED_SIZE)

    def ask(name: str, teachers: Sequence[Teacher], own: list[int]) -> NDArray[np.float16]:
        made_from = repr((views, digest_of(training), [teacher.digest for teacher in teachers]))
        kept = out / f"{name}-{hashlib.sha256(made_from.encode()).hexdigest()[:12]}.npy"
        if not kept.exists():
            np.save(kept.with_suffix(".new.npy"), answers(teachers, pictures, own, views))
            kept.with_suffix(".new.npy").replace(kept)
        print(f"{name}: {len(own)} photographs", flush=True)
        found: NDArray[np.float16] = np.load(kept)
        return found

    for fold, teachers in enumerate(folds):
        own = [index for index, photograph in enumerate(training) if fold_of(photograph) == fold]
        told[own] = ask(f"fold-{fold}", teachers, own)
    if champion:
        own = champion.may_tell(training)
        told[own] += (ask("champion", [champion.teacher], own) - told[own]) / (len(folds[0]) + 1)
    return told


def main(a: argparse.Namespace) -> None:
    training, validation = read(a.data, a.limit)
    try:
        folds = by_fold([Teacher.read(run, training) for run in a.runs])
        champion = Champion.read(a.champion) if a.champion else None
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error
    a.out.mkdir(parents=True, exist_ok=True)
    held_out = data.pictures(validation, JUDGED_AT)
    quantities = np.array([p.quantity for p in validation])
    seen = {name: [t for fold in folds for t in fold if t.name == name] for name in sorted({t.name for t in folds[0]})}
    p = {name: mean_of(teachers, held_out) for name, teachers in seen.items()}
    if champion:
        p[champion.teacher.name] = champion.teacher.ask(data.pictures(validation, champion.teacher.size))
    for name, own in p.items():
        print(f"validation, {name}, mean of its folds: {figures(own, quantities)}", flush=True)
    mean = np.mean(list(p.values()), axis=0)
    print(f"validation, mean of all: {figures(mean, quantities)}", flush=True)
    metrics.write_predictions(a.out / "predictions.csv", validation, np.log(mean))
    views = Views(a.views, a.strength, a.seed)
    told = Answers([p.id for p in training], views, all_answers(folds, training, views, a.out, champion))
    told.save(a.out / "answers.npz")
    print(f"training, mean of the views: {figures(told.mean(), np.array([p.quantity for p in training]))}")


if __name__ == "__main__":
    main(flags.parse_args())
