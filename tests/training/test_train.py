"""The training script as it is called: it resumes, repeats itself by seed, scales out, and stops when it must."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models import resnet50

import training.train
from model import network
from training.learning import checkpoints, data
from training.learning.learner import Learner
from training.learning.processes import Processes
from training.learning.schedule import epoch_keys, inverse_frequencies, one_cycle, pays_to_compile
from training.verdict import metrics

pytestmark = pytest.mark.timeout(900)  # three trainings in a test: 40 s on an idle machine, minutes on a busy one

REPOSITORY = Path(__file__).parents[2]
SMALL = ["--sizes", "32", "--batch-size", "16"]


def train(labelled: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "training.train", "--data", str(labelled), "--out", str(out)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SM_")}
    return subprocess.run(
        [*command, *SMALL, *arguments],
        capture_output=True, text=True, check=False, timeout=280, cwd=REPOSITORY, env=environment,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        (["images"], "there are no photographs in"),
        (["images/b0.jpg"], "a photograph cannot be read: "),
        (["labels.csv"], "needs a labels.csv"),
    ],
)
def test_a_folder_that_lacks_something_is_one_line(
    labelled: Path, tmp_path: Path, missing: list[str], why: str
) -> None:
    folder = shutil.copytree(labelled, tmp_path / "folder")
    for name in missing:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    if missing == ["images"]:
        (folder / "labels.csv").unlink()
    with pytest.raises(SystemExit) as ended:
        training.train.main(
            training.train.flags.parse_args(["--data", str(folder), "--out", str(tmp_path / "out"), *SMALL])
        )
    assert why in str(ended.value.code)
    assert "\n" not in str(ended.value.code)


def weights(out: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(out / "network.pt", weights_only=True)["network"]
    return loaded


def test_a_run_stopped_in_the_middle_ends_as_one_that_was_not(labelled: Path, tmp_path: Path) -> None:
    whole = train(labelled, tmp_path / "whole", "--epochs", "2")
    assert whole.returncode == 0, whole.stderr
    assert "constant" in whole.stdout
    # The same run, killed as soon as its first checkpoint is there.
    command = [sys.executable, "-m", "training.train", "--data", str(labelled), "--out", str(tmp_path / "stopped")]
    process = subprocess.Popen([*command, *SMALL, "--epochs", "2"], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 0"):
            break
    checkpoint = tmp_path / "stopped" / "checkpoint.pt"
    while not checkpoint.exists() and process.poll() is None:
        pass
    process.kill()
    process.wait()
    assert not (tmp_path / "stopped" / "network.pt").exists()
    resumed = train(labelled, tmp_path / "stopped", "--epochs", "2")
    assert "resumes with epoch 1, step 0" in resumed.stdout
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    # The figures are those of the stored predictions.
    report = metrics.report(metrics.read_predictions(tmp_path / "whole" / "predictions.csv"))
    assert metrics.table(report) in whole.stdout
    # Tuning reads the last of these: of the calibrated network, as the verdict is.
    logged = [float(rps) for rps in re.findall(r"validation_rps ([0-9.]+)", whole.stdout)]
    assert logged[-1] == pytest.approx(report["validation"]["as_shipped"]["rps"], abs=2e-4)
    assert set(report) == {"temperature", "validation"}  # choosing a recipe takes no look at test
    # A checkpoint goes on with its own recipe.
    other = ["--data", str(labelled), "--out", str(tmp_path / "whole"), "--epochs", "2", *SMALL]
    other += ["--learning-rate", "0.002", "--balance", "loss"]
    with pytest.raises(SystemExit, match="is of a run with other balance, learning_rate: choose another folder"):
        training.train.main(training.train.flags.parse_args(other))


@pytest.mark.parametrize(("seconds", "saved"), [(0.0, [1, 2, 3]), (1e9, [1, 3])])
def test_quick_epochs_do_not_leave_a_checkpoint_each(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, saved: list[int]
) -> None:
    found: list[int] = []
    monkeypatch.setattr(training.train, "CHECKPOINT_SECONDS", seconds)
    monkeypatch.setattr(checkpoints.Checkpoint, "save", lambda _, __, done: found.append(done.epoch))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    arguments = ["--data", str(labelled), "--out", str(tmp_path), "--epochs", "3", "--limit", "16"]
    training.train.main(training.train.flags.parse_args([*arguments, *SMALL]))
    assert found == saved


def test_a_share_of_the_photographs_is_trained_on(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    arguments = ["--data", str(labelled), "--out", str(tmp_path), "--epochs", "1", "--share", "0.5"]
    training.train.main(training.train.flags.parse_args([*arguments, "--judged-at", "64", *SMALL]))
    assert (tmp_path / "network.pt").exists()
    photographs = [p for p in data.read(labelled) if p.split == "train"]
    assert json.loads((tmp_path / "metrics.json").read_text())["run"]["photographs"] == round(len(photographs) / 2)


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    arguments = ["--data", str(labelled), "--out", str(tmp_path), "--epochs", "2", "--learning-rate", "1e30", *SMALL]
    with pytest.raises(SystemExit, match="epoch 0, step"):
        training.train.main(training.train.flags.parse_args(arguments))
    assert not (tmp_path / "network.pt").exists()


def test_imbalance_is_corrected_one_way_only() -> None:
    with pytest.raises(SystemExit, match="invalid choice: 'sampler'"):
        training.train.flags.parse_args(["--balance", "loss", "sampler"])


def test_balanced_sampling_draws_rare_counts_as_often() -> None:
    labels = [0] * 10 + [6] * 990
    drawn = [labels[index] for _, _, index, _ in epoch_keys(labels, 0, 96, seed=0, balanced=True)]
    assert 0.4 < drawn.count(0) / len(drawn) < 0.6
    plain = [index for _, _, index, _ in epoch_keys(labels, 0, 96, seed=0, balanced=False)]
    assert sorted(plain) == list(range(1000))


def test_a_class_without_photographs_has_no_weight() -> None:
    weights = inverse_frequencies(np.array([0, 10, 30, 0, 0, 0, 20]))
    assert weights.tolist() == pytest.approx([0, 2, 2 / 3, 0, 0, 0, 1])


def test_weighted_losses_of_two_processes_are_those_of_one() -> None:
    class Half(Processes):
        """One of two processes; the other has the other half."""

        def mean(self, value: torch.Tensor) -> torch.Tensor:
            return weights[labels].sum() / 2

    net, alone = torch.nn.Conv2d(3, 7, 1), Processes(0, 1, torch.device("cpu"))
    weights = inverse_frequencies(np.array([1, 2, 4, 8, 16, 32, 64]))
    logits, labels = torch.randn(64, 7), torch.randint(0, 7, (64,))
    options: dict[str, Any] = {"peak": 0.1, "weight_decay": 0.0, "label_smoothing": 0.05, "weights": weights}
    one, half = Learner(net, alone, **options), Learner(net, Half(0, 1, torch.device("cpu")), **options)
    halves = [half.loss(logits[part], labels[part]) for part in (slice(0, 32), slice(32, 64))]
    assert float(sum(halves) / 2) == pytest.approx(float(one.loss(logits, labels)), rel=1e-5)


def test_a_network_answers_with_the_prior_of_bins_as_they_come() -> None:
    """Trained where nine of ten have the last class, told that five of ten do elsewhere; pictures say nothing."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))
    excess = torch.log(torch.tensor([0.1 / 0.5, 0.9 / 0.5]))
    learner = Learner(
        net, Processes(0, 1, torch.device("cpu")), peak=0.3, weight_decay=0.0, label_smoothing=0.0, excess=excess
    )
    labels = torch.tensor([0] + [1] * 9)
    for _ in range(200):
        learner.step(torch.zeros(10, 3, 4, 4), labels, 1.0)
    answered = learner.net(torch.zeros(1, 3, 4, 4)).softmax(1)[0]
    assert answered.tolist() == pytest.approx([0.5, 0.5], abs=0.02)


@pytest.mark.parametrize(("balance", "expected"), [("none", True), ("sampler", False), ("loss", False)])
def test_the_prior_is_put_back_unless_balance_was_asked_for(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, balance: str, expected: bool
) -> None:
    photographs = data.read(labelled)
    photographs += [replace(p, id=f"{p.id}-again") for p in photographs if p.label == 5 and p.split == "train"]
    chosen = [replace(p, by_class=p.id.endswith("-again")) for p in photographs]
    found: dict[str, Any] = {}
    monkeypatch.setattr(training.train, "Learner", lambda *_, **options: found.update(options) or sys.exit(3))
    monkeypatch.setattr(training.train, "read", lambda *_, **__: chosen)
    arguments = ["--data", str(labelled), "--out", str(tmp_path), "--balance", balance, *SMALL]
    with pytest.raises(SystemExit, match="3"):
        training.train.main(training.train.flags.parse_args(arguments))
    assert (found["excess"] is not None) == expected
    if expected:
        assert found["excess"][5] > 0.3


class Counter(torch.nn.Module):
    """A small network with a normalisation and a last layer by torchvision's name."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
        self.fc = torch.nn.Linear(8, 7)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.body(images).mean((2, 3)))
        return logits


def test_weights_of_another_task_learn_slower_than_the_new_last_layer() -> None:
    torch.manual_seed(0)
    learner = Learner(
        Counter(), Processes(0, 1, torch.device("cpu")), peak=0.01, weight_decay=0.0, label_smoothing=0.0, body=0.1
    )
    before = {name: value.clone() for name, value in learner.net.state_dict().items()}
    learner.freeze_statistics(True)
    learner.step(torch.rand(8, 3, 8, 8), torch.arange(8) % 7, 0.5)
    moved = {name: float((value - before[name]).abs().max()) for name, value in learner.net.state_dict().items()}
    # The first step of Adam is the learning rate, whatever the gradient.
    assert moved["fc.weight"] == pytest.approx(0.005, rel=0.01)
    assert moved["body.0.weight"] == pytest.approx(0.0005, rel=0.01)
    assert moved["body.1.weight"] == pytest.approx(0.0005, rel=0.01)
    assert moved["body.1.running_mean"] == moved["body.1.running_var"] == 0
    learner.freeze_statistics(False)
    learner.step(torch.rand(8, 3, 8, 8), torch.arange(8) % 7, 0.5)
    assert not torch.equal(learner.net.state_dict()["body.1.running_mean"], before["body.1.running_mean"])


def test_a_run_from_weights_of_another_task(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    given = resnet50().state_dict()
    torch.save(given, tmp_path / "resnet50.pth")
    frozen: list[bool] = []
    freeze = Learner.freeze_statistics

    def noted(learner: Learner, now: bool) -> None:
        frozen.append(now)
        freeze(learner, now)

    monkeypatch.setattr(Learner, "freeze_statistics", noted)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(checkpoints.Checkpoint, "save", lambda *_: None)
    arguments = ["--data", str(labelled), "--out", str(tmp_path / "out"), "--epochs", "1", *SMALL]
    arguments += ["--weights", str(tmp_path / "resnet50.pth"), "--learning-rate", "1e-6"]
    training.train.main(training.train.flags.parse_args(arguments))
    # Six steps: in the first one of them statistics are those of the file.
    steps = len([p for p in data.read(labelled) if p.split == "train"]) // 16
    assert frozen == [number / steps < 0.15 for number in range(steps)]
    assert frozen[0]
    assert not frozen[-1]
    learned = weights(tmp_path / "out")
    assert float((learned["layer3.0.conv2.weight"] - given["layer3.0.conv2.weight"]).abs().max()) < 1e-5
    assert learned["fc.weight"].shape == (7, 2048)
    with pytest.raises(SystemExit, match="starts from a champion or from --weights: choose one"):
        training.train.initial(tmp_path / "model.tar.gz", [], str(tmp_path / "resnet50.pth"))
    with pytest.raises(SystemExit, match=r"there is no file .*absent"):
        training.train.initial(None, [], str(tmp_path / "absent"))


def run_here(labelled: Path, out: Path, *arguments: str) -> None:
    """In this process, on so few photographs that it takes seconds."""
    given = ["--data", str(labelled), "--out", str(out), *SMALL, "--limit", "16", *arguments]
    training.train.main(training.train.flags.parse_args(given))


def test_weights_of_a_run_that_may_have_seen_what_is_held_out_are_refused(labelled: Path, tmp_path: Path) -> None:
    """`network.pt` names the photographs that it was trained on; without those of the weights, nothing is known."""
    own = [p for p in data.read(labelled) if p.split == "train"]
    for name, photographs in (("own", own), ("others", own[1:])):
        content = {"network": {}, "photographs": checkpoints.digest_of(photographs)}
        torch.save(content, tmp_path / f"{name}.pt")
    torch.save({}, tmp_path / "plain.pt")
    for name in ("own", "plain"):
        training.train.check_weights(str(tmp_path / f"{name}.pt"), own, None)
    training.train.check_weights("imagenet", own, 0)
    training.train.check_weights(str(tmp_path / "plain.pt"), own, 0)
    for name, more, why in (
        ("others", [], r"others.pt was trained on other photographs than this run's, so it may have seen what is held"),
        ("own", ["--fold", "0"], r"--fold is not for .*own.pt, the network of a run, which may have seen what is held"),
        ("absent", [], r"there is no file .*absent.pt with weights"),
    ):
        with pytest.raises(SystemExit, match=why) as refused:
            run_here(labelled, tmp_path / "out", "--weights", str(tmp_path / f"{name}.pt"), *more)
        assert "\n" not in str(refused.value.code)


def test_a_checkpoint_continues_only_what_it_is_of(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive, the weights and the photographs' prior, whose names or labels do not change, are part of that."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(training.train, "initial", lambda *_: (network.build(), False))
    folder, champion, weights = shutil.copytree(labelled, tmp_path / "data"), tmp_path / "a.tar.gz", tmp_path / "b.pt"
    champion.write_bytes(b"an archive")
    torch.save(network.build().state_dict(), weights)
    run_here(folder, tmp_path / "random", "--epochs", "1")
    run_here(folder, tmp_path / "given", "--epochs", "1", "--weights", str(weights))
    with pytest.raises(SystemExit, match="is of a run with other start: choose another folder"):
        run_here(folder, tmp_path / "random", "--epochs", "2", "--champion", str(champion))
    with pytest.raises(SystemExit, match="is of a run with other start, weights: choose another folder"):
        run_here(folder, tmp_path / "random", "--epochs", "2", "--weights", str(weights))
    torch.save({**network.build().state_dict()}, weights)
    with pytest.raises(SystemExit, match="is of a run with other start: choose another folder"):
        run_here(folder, tmp_path / "given", "--epochs", "2", "--weights", str(weights))
    rows = (folder / "labels.csv").read_text().splitlines()
    first = next(p.id for p in data.read(folder) if p.split == "train")
    drawn = [f"{row},{'by class' if row.startswith(f'{first},') else 'as it came'}" for row in rows[1:]]
    (folder / "labels.csv").write_text("\n".join([f"{rows[0]},drawn", *drawn]) + "\n")
    with pytest.raises(SystemExit, match="is of a run with other drawn: choose another folder"):
        run_here(folder, tmp_path / "random", "--epochs", "2")


def test_a_checkpoint_of_an_older_version_continues(tmp_path: Path) -> None:
    """It says neither what it started from nor which photographs were chosen by their count."""
    learner = Learner(Counter(), Processes(0, 1, torch.device("cpu")), peak=0.01, weight_decay=0.0, label_smoothing=0.0)
    file, asked = tmp_path / "checkpoint.pt", {"photographs": "p", "drawn": "d", "start": "s", "seed": 0}
    checkpoints.Checkpoint(file, {"photographs": "p", "seed": 0}).save(learner, checkpoints.Done(3))
    resumed = checkpoints.Checkpoint(file, asked).resume(learner, torch.device("cpu"))
    assert resumed == checkpoints.Done(3)
    with pytest.raises(checkpoints.OtherRun, match="other seed"):
        checkpoints.Checkpoint(file, asked | {"seed": 1}).resume(learner, torch.device("cpu"))
    checkpoints.Checkpoint(file, asked | {"answers": "a"}).save(learner, checkpoints.Done(3))
    with pytest.raises(checkpoints.OtherRun, match="other answers"):  # a student's
        checkpoints.Checkpoint(file, asked).resume(learner, torch.device("cpu"))


def test_a_job_takes_the_only_file_of_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SM_OPT_ML", str(tmp_path))
    assert training.train.weights_of_job() is None
    channel = tmp_path / "input" / "data" / "weights"
    channel.mkdir(parents=True)
    with pytest.raises(SystemExit, match="the channel weights needs one file, and contains 0"):
        training.train.weights_of_job()
    (channel / "resnet50.pth").touch()
    assert training.train.weights_of_job() == str(channel / "resnet50.pth")


@pytest.mark.parametrize(("progress", "share"), [(0.075, 0.5), (0.15, 1.0), (1.0, 0.0)])
def test_the_learning_rate_rises_and_falls(progress: float, share: float) -> None:
    assert one_cycle(progress) == pytest.approx(share)


def test_only_a_long_run_compiles() -> None:
    assert pays_to_compile([128] * 84, 7_199)
    assert not pays_to_compile([64] * 42 + [128] * 42, 7_199)  # each size has to be compiled for
    assert not pays_to_compile([64, 96, 128] * 10, 7_199)
