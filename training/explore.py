"""Compares recipes: trains a network by each line of a file and says how good it is on validation.

    python -m training.explore --data ../shared/abid --runs runs.jsonl --out results.jsonl

A line of `runs.jsonl` is a JSON object of `Recipe`'s fields that differ from their defaults. What wins becomes the
default of `training/train.py`; what loses stays in docs/experiments.md. Lines that `results.jsonl` already has are left
out, so that a broken-off comparison goes on.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import re
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from model import network
from model.answer import AT_LEAST, CLASSES
from model.preprocess import SIZE, normalise
from training import data, metrics
from training.learner import adamw, numbers
from training.processes import Processes
from training.train import epoch_keys, one_cycle
from training.vary import sent

WORDS = 400
TAIL = 16
"""Outputs of a head that counts on beyond five."""


@dataclass(frozen=True)
class Recipe:
    network: str = "resnet50"
    champion: str = ""
    """A model.tar.gz or network.pt to start from; else from random weights."""
    fold: int | None = None
    """Hold out this fifth of what is not in the test split, rather than the validation split."""
    epochs: int = 30
    sizes: str = "128"
    batch: int = 128
    learning_rate: float = 0.002
    weight_decay: float = 0.05
    smoothing: float = 0.05
    augmentation: float = 1.0
    average: float = 0.998
    objective: str = "classes"
    """`classes`; `ordered` (plus ranked probability score); `soft` (labels spread over neighbours); `tail`."""
    objective_weight: float = 1.0
    balance: str = "none"
    """`sampler`; `loss` (weights); `logits` (plus logarithms of the frequencies in the loss; Menon et al. 2021). The
    prior that each takes away is put back before the network is judged."""
    mixed: float = 0.0
    """Mixup's alpha (Zhang et al. 2018)."""
    words: float = 0.0
    kinds: float = 0.0
    volume: float = 0.0
    """Weights of what else is told in training: words of the products' names, how many kinds, volumes."""
    exact: float = 0.0
    """Weight of a second head, that counts on beyond five and that only training has."""
    pairs: float = 0.0
    """Weight of the difference between two photographs of a bin, told from both."""
    evaluate_at: str = "128,160"
    seed: int = 0


class Counting(nn.Module):
    """A network with its counting head, and the heads that only training has."""

    def __init__(self, recipe: Recipe, champion: nn.Module | None = None) -> None:
        super().__init__()
        body = champion or getattr(models, recipe.network)(zero_init_residual=True)
        width = body.fc.in_features
        self.head = body.fc if champion else nn.Linear(width, TAIL if recipe.objective == "tail" else len(CLASSES))
        body.fc = nn.Identity()
        self.body = body
        self.words, self.kinds = nn.Linear(width, WORDS), nn.Linear(width, 8)
        self.exact = nn.Linear(width, TAIL)
        self.volume, self.difference = nn.Linear(width, 3), nn.Linear(width, 1, bias=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images)
        return features, self.head(features)


def seven(logits: Tensor) -> Tensor:
    """All outputs from "6" on become one."""
    return torch.cat([logits[:, :AT_LEAST], logits[:, AT_LEAST:].logsumexp(1, keepdim=True)], 1)


class Photographs:
    """All of them, with what is known of what is in the bins on the device."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.all = data.read(folder)
        self.device = device
        self.quantities = np.array([p.quantity for p in self.all])
        self.splits = np.array([p.split for p in self.all])
        self.groups = np.array([p.group for p in self.all])
        self.exact = torch.from_numpy(self.quantities).to(device)
        self.bins = torch.from_numpy(np.unique(self.groups, return_inverse=True)[1]).to(device)
        labels = self.exact[torch.from_numpy(self.splits == "train").to(device)].clamp(max=AT_LEAST)
        self.frequencies = torch.bincount(labels, minlength=len(CLASSES)) / len(labels)
        self.contents = contents(folder, self.all, self.splits == "train")
        for name, values in self.contents.items():
            self.contents[name] = values.to(device)

    def used_and_held_out(self, fold: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Which photographs are learned from and which are judged on; those of the test split are neither."""
        if fold is None:
            return np.flatnonzero(self.splits == "train"), np.flatnonzero(self.splits == "validation")
        held_out = np.array([data.fold_of(p) == fold for p in self.all])
        return np.flatnonzero(~held_out & (self.splits != "test")), np.flatnonzero(held_out & (self.splits != "test"))


def restored(archive: Path, photographs: Photographs, used: np.ndarray) -> nn.Module:
    if archive.suffix == ".pt":
        net = network.build()
        net.load_state_dict(torch.load(archive, weights_only=True)["network"])
        return net
    from model import package  # needs OpenVINO
    from model.restore import restore

    some = data.evaluation_batch([photographs.all[k] for k in used[:64]], SIZE).numpy()
    with tempfile.TemporaryDirectory() as folder:
        return restore(package.unpack(archive, Path(folder)), some)


def contents(folder: Path, photographs: list[data.Photograph], train: np.ndarray) -> dict[str, Tensor]:
    """By photograph: known [N], words [N, WORDS], kinds [N], volumes [N, 3]."""
    found: dict[str, dict[str, Any]] = {}
    for row in read(folder / "metadata.jsonl") if (folder / "metadata.jsonl").exists() else ():
        found[row["id"]] = row["BIN_FCSKU_DATA"]
    names = [set().union(*map(tokens, found.get(p.id, {}).values())) for p in photographs]
    often = Counter(word for name, used in zip(names, train, strict=True) if used for word in name)
    place = {word: k for k, (word, _) in enumerate(often.most_common(WORDS))}
    known, kinds = torch.zeros(len(photographs)), torch.zeros(len(photographs), dtype=torch.long)
    words, volumes = torch.zeros(len(photographs), WORDS), torch.zeros(len(photographs), 3)
    for number, photograph in enumerate(photographs):
        items = list(found.get(photograph.id, {}).values())
        words[number, [place[word] for word in names[number] if word in place]] = 1
        sized = [one for one in items if all(one.get(side) for side in ("height", "length", "width"))]
        if photograph.id not in found or (items and not sized):
            continue
        known[number] = 1
        kinds[number] = min(len(items), 7)
        sides = np.array([[one[side]["value"] for side in ("height", "length", "width")] for one in sized])
        many = np.array([one["quantity"] for one in sized], dtype=float)
        total = float((sides.prod(1) * many).sum()) if sized else 0.0
        count = max(many.sum(), 1)
        longest = float((sides.max(1) * many).sum()) if sized else 0.0
        volumes[number] = torch.tensor([np.log1p(total), np.log1p(total / count), np.log1p(longest / count)])
    if (chosen := torch.from_numpy(train) & (known > 0)).any():
        volumes = (volumes - volumes[chosen].mean(0)) / volumes[chosen].std(0)
    return {"known": known, "words": words, "kinds": kinds, "volumes": volumes}


def tokens(item: dict[str, Any]) -> set[str]:
    common = {"the", "and", "for", "with"}
    return set(re.findall("[a-z]{3,}", (item.get("name") or "").lower())) - common


def train(recipe: Recipe, photographs: Photographs) -> dict[str, Any]:
    device, cuda = photographs.device, photographs.device.type == "cuda"
    torch.manual_seed(recipe.seed)
    used, held_out = photographs.used_and_held_out(recipe.fold)
    champion = restored(Path(recipe.champion), photographs, used) if recipe.champion else None
    net = Counting(recipe, champion).to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(net).requires_grad_(False)
    averages, current = numbers(average), numbers(net)
    optimiser = adamw(net, recipe.learning_rate, recipe.weight_decay)
    stepped = torch.compile(net, dynamic=False) if cuda else net
    bf16 = Processes(0, 1, device).has_bf16

    training = data.training_on(device, [photographs.all[k] for k in used], recipe.seed, recipe.augmentation)
    sizes = [int(size) for size in recipe.sizes.split(",")]
    steps = len(used) // recipe.batch

    def epoch_steps(epoch: int) -> list[list[data.Key]]:
        size = sizes[epoch * len(sizes) // recipe.epochs]
        keys = epoch_keys(training.labels, epoch, size, seed=recipe.seed, balanced=recipe.balance == "sampler")
        if recipe.pairs:
            keys = paired(keys, photographs.groups[used])
        return [keys[step * recipe.batch : (step + 1) * recipe.batch] for step in range(steps)]

    batches = training.batches(itertools.chain.from_iterable(map(epoch_steps, range(recipe.epochs))))
    done = 0
    started, total = time.monotonic(), torch.zeros((), device=device)
    for epoch in range(recipe.epochs):
        total.zero_()
        net.train()
        for step, keys in enumerate(epoch_steps(epoch)):
            rate = one_cycle((epoch + step / steps) / recipe.epochs)
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * rate
            images, labels = (tensor.to(device, non_blocking=True) for tensor in next(batches))
            there = sent(torch.from_numpy(used[[index for _, _, index, _ in keys]]), device)
            share = 1.0
            if recipe.mixed:
                share = float(np.random.default_rng((recipe.seed, epoch, step)).beta(recipe.mixed, recipe.mixed))
                share = max(share, 1 - share)  # so that what else is told is of the first
                images = share * images + (1 - share) * images.flip(0)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                features, logits = stepped(images.contiguous(memory_format=torch.channels_last))
            logits = logits.float()
            loss = objective(recipe, logits, labels, photographs, there)
            if recipe.mixed:
                loss = share * loss + (1 - share) * objective(
                    recipe, logits, labels.flip(0), photographs, there.flip(0)
                )
            total += loss.detach()
            loss = loss + others(recipe, net, features.float(), photographs, there)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                torch._foreach_lerp_(averages, current, 1 - min(recipe.average, done / (9 + done)))
            done += 1
        if epoch % 5 == 4 or device.type == "cpu":
            print(f"  epoch {epoch} loss {float(total) / steps:.4f} {time.monotonic() - started:.0f} s", flush=True)
    seconds = time.monotonic() - started
    result: dict[str, Any] = {"seconds": round(seconds, 1), "loss": round(float(total) / steps, 4), "logits": {}}
    for size in recipe.evaluate_at.split(","):
        logits = predict(average, photographs, held_out, int(size))
        if recipe.balance != "none":
            logits = logits + photographs.frequencies.log().cpu().numpy()
        result[size] = judged(logits, photographs.quantities[held_out])
        result["logits"][size] = logits.round(3).tolist()  # so that two recipes can be compared pair by pair
    return result


def paired(keys: list[data.Key], groups: np.ndarray) -> list[data.Key]:
    """The same keys, those of a bin next to each other."""
    place: dict[str, list[data.Key]] = {}
    for key in keys:
        place.setdefault(groups[key[2]], []).append(key)
    return [key for members in place.values() for key in members]


def objective(recipe: Recipe, logits: Tensor, labels: Tensor, photographs: Photographs, chosen: Tensor) -> Tensor:
    if recipe.objective == "tail":
        exact = photographs.exact[chosen].clamp(max=TAIL - 1)
        return 0.5 * (
            F.cross_entropy(logits, exact, label_smoothing=recipe.smoothing)
            + F.cross_entropy(seven(logits), labels, label_smoothing=recipe.smoothing)
        )
    classes = torch.arange(len(CLASSES), device=logits.device)
    if recipe.objective == "soft":
        target = torch.softmax(-(classes - labels[:, None]).abs() / recipe.objective_weight, 1)
        return F.cross_entropy(logits, target)
    weights = 1 / photographs.frequencies if recipe.balance == "loss" else None
    adjusted = logits + photographs.frequencies.log() if recipe.balance == "logits" else logits
    loss = F.cross_entropy(adjusted, labels, weights, label_smoothing=recipe.smoothing)
    if recipe.objective == "ordered":
        below = torch.softmax(logits, 1).cumsum(1) - (classes >= labels[:, None]).float()
        loss = loss + recipe.objective_weight * below.square()[:, :-1].sum(1).mean()
    return loss


def others(recipe: Recipe, net: Counting, features: Tensor, photographs: Photographs, chosen: Tensor) -> Tensor:
    """The losses of the heads that only training has."""
    known = photographs.contents["known"][chosen]
    loss = features.new_zeros(())
    if recipe.words:
        words = photographs.contents["words"][chosen]
        told = F.binary_cross_entropy_with_logits(net.words(features), words, reduction="none").mean(1)
        loss = loss + recipe.words * (known * told).mean()
    if recipe.kinds:
        kinds = F.cross_entropy(net.kinds(features), photographs.contents["kinds"][chosen], reduction="none")
        loss = loss + recipe.kinds * (known * kinds).mean()
    if recipe.volume:
        told = (net.volume(features) - photographs.contents["volumes"][chosen]).square().mean(1)
        loss = loss + recipe.volume * (known * told).mean()
    if recipe.exact:
        exact = photographs.exact[chosen].clamp(max=TAIL - 1)
        loss = loss + recipe.exact * F.cross_entropy(net.exact(features), exact, label_smoothing=recipe.smoothing)
    if recipe.pairs:
        bins, exact = photographs.bins[chosen], photographs.exact[chosen]
        same = (bins[1:] == bins[:-1]).float()
        told = net.difference(features[1:] - features[:-1])[:, 0]
        apart = F.smooth_l1_loss(told, (exact[1:] - exact[:-1]).clamp(-3, 3).float(), reduction="none")
        loss = loss + recipe.pairs * (same * apart).sum() / same.sum().clamp(min=1)
    return loss


@torch.inference_mode()
def predict(net: nn.Module, photographs: Photographs, chosen: np.ndarray, size: int) -> np.ndarray:
    net.eval()
    pictures = data.pictures([photographs.all[k] for k in chosen], size)
    rows = []
    for start in range(0, len(pictures), 64):
        images = torch.from_numpy(normalise(pictures[start : start + 64])).to(photographs.device)
        images = images.contiguous(memory_format=torch.channels_last)
        rows.append(seven(net(images)[1]).double().cpu())
    return torch.cat(rows).numpy()


def judged(logits: np.ndarray, quantities: np.ndarray) -> dict[str, float]:
    temperature = metrics.fit_temperature(logits, quantities)
    seen = metrics.summary(metrics.probabilities(logits, temperature), quantities)
    named = {
        "log_loss": seen["as_shipped"]["log_loss"],
        "rps": seen["as_shipped"]["rps"],
        "six_way": seen["as_published"]["accuracy"],
        "rmse": seen["as_published"]["rmse_of_posterior_mean"],
        "within_one": seen["as_published"]["within_one"],
        "temperature": temperature,
    }
    return {name: round(value, 4) for name, value in named.items()}


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--data", type=Path, required=True)
    flags.add_argument("--runs", type=Path, required=True)
    flags.add_argument("--out", type=Path, required=True)
    a = flags.parse_args()
    device = Processes.join().device
    torch._dynamo.config.recompile_limit = 64  # each head, size and batch is compiled once
    photographs = Photographs(a.data, device)
    print(f"{len(photographs.all)} photographs on {device}", flush=True)
    done = [one["run"] for one in read(a.out) if "error" not in one] if a.out.exists() else []
    runs = read(a.runs)
    told = any(Recipe(**line).words or Recipe(**line).kinds or Recipe(**line).volume for line in runs)
    if told and not photographs.contents["known"].any():
        raise SystemExit(f"{a.data} has no metadata.jsonl, which says what else is told in training")
    for line in runs:
        if line in done:
            continue
        recipe = Recipe(**line)
        print(json.dumps(line), flush=True)
        try:
            found = train(recipe, photographs)
        except (RuntimeError, ValueError, AttributeError) as error:  # the others are worth their time
            found = {"error": f"{type(error).__name__}: {error}"}
        print("  ", json.dumps({name: value for name, value in found.items() if name != "logits"}), flush=True)
        with a.out.open("a") as out:
            out.write(json.dumps({"run": line, "recipe": asdict(recipe), **found}) + "\n")


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines() if line.strip()]


if __name__ == "__main__":
    main()
