"""Teachers answer only for photographs that they did not learn from, and for the views that their student sees."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from pytest import approx
from torch import nn

from experiments import answers, student, teachers
from experiments.answers import Champion, Teacher
from experiments.epochs import read
from experiments.lite import WEIGHTS, Lite
from experiments.views import FOLDS, Answers, Views, fold_of, learned_from
from model import network
from model.answer import probabilities
from model.preprocess import normalise
from training.learning import data
from training.learning.checkpoints import Checkpoint, Done, digest_of
from training.learning.learner import Learner
from training.learning.processes import Processes

PRETRAINED = Path(__file__).parents[2] / "model" / "pretrained"
VIEWS = Views(number=3, strength=1.6, seed=5)
SHIFT = np.linspace(-0.5, 0.5, 7)


class Colours(nn.Module):
    """Answers by a picture's mean colours, which its mirror image shares."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.fc = nn.Linear(3, 7)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(images.mean((2, 3)))
        return logits


def saved_and_stopped(checkpoint: Checkpoint, learner: Learner, done: Done, save: Any = Checkpoint.save) -> NoReturn:
    save(checkpoint, learner, done)
    raise KeyboardInterrupt


@pytest.fixture
def training(labelled: Path) -> list[data.Photograph]:
    return read(labelled)[0]


@pytest.fixture(scope="module")
def networks() -> dict[tuple[str, int], Colours]:
    """By the teacher's name and the fold that it left out."""
    places = [(name, fold) for name in ("one", "other") for fold in range(FOLDS)]
    return {place: Colours(seed) for seed, place in enumerate(places)}


@pytest.fixture(scope="module")
def folds(networks: dict[tuple[str, int], Colours]) -> list[list[Teacher]]:
    return answers.by_fold(
        [Teacher.of(name, fold, SHIFT, net, f"{name}{fold}") for (name, fold), net in networks.items()]
    )


def test_a_bin_and_its_neighbours_are_in_one_fold(tmp_path: Path) -> None:
    rows = [f"{number:05},{number % 9},g{number // 2}" for number in range(3000)]
    (tmp_path / "labels.csv").write_text("\n".join(["id,quantity,group", *rows]) + "\n")
    training, _ = read(tmp_path)
    held_out = {p.block for p in data.read(tmp_path) if p.split != "train"}
    for fold in range(FOLDS):
        asked = [p for p in training if fold_of(p) == fold]
        learned = learned_from(training, fold)
        assert len(asked) + len(learned) == len(training)
        assert asked
        assert not {p.block for p in learned} & ({p.block for p in asked} | held_out)


def test_a_photograph_is_asked_of_the_teachers_that_left_it_out(
    training: list[data.Photograph],
    folds: list[list[Teacher]],
    networks: dict[tuple[str, int], Colours],
    tmp_path: Path,
) -> None:
    """The student's undistorted pictures, shown to the networks of a photograph's own fold, give the stored answers."""
    told = answers.all_answers(folds, training, VIEWS, tmp_path)
    Answers([p.id for p in training], VIEWS, told).save(tmp_path / "answers.npz")
    kept = Answers.read(tmp_path / "answers.npz", training)
    taught = student.Taught(training, kept, share=1.0, seed=0, strength=0.0)
    assert {fold_of(p) for p in training} == set(range(FOLDS))
    for epoch in range(VIEWS.number):
        images, targets = taught.batch([(epoch, place, place, 128) for place in range(len(training))])
        for image, target, photograph in zip(images, targets, training, strict=True):
            own = [net for (_, fold), net in networks.items() if fold == fold_of(photograph)]
            with torch.no_grad():
                p = np.mean([probabilities(net(image[None]).numpy() + SHIFT)[0] for net in own], axis=0)
            assert target.numpy() == approx(p, abs=2e-3)
            others = [net for (_, fold), net in networks.items() if fold != fold_of(photograph)]
            with torch.no_grad():
                p = np.mean([probabilities(net(image[None]).numpy() + SHIFT)[0] for net in others], axis=0)
            assert np.abs(target.numpy() - p).max() > 0.01


def test_the_champion_joins_where_it_learned_nothing_near(
    training: list[data.Photograph], folds: list[list[Teacher]], tmp_path: Path
) -> None:
    shipped = Champion.read(PRETRAINED)
    assert len(shipped.learned) > 7000 and shipped.teacher.ask(np.zeros((1, 160, 160, 3), np.uint8)).sum() == approx(1)
    teacher = Teacher.of("champion", -1, SHIFT, Colours(9), "champion")
    learned = training[0]
    champion = Champion(teacher, frozenset([learned.id]))
    places = champion.may_tell(training)
    assert {p.block for p in training} - {training[i].block for i in places} == {learned.block}
    without = answers.all_answers(folds, training, VIEWS, tmp_path)
    told = answers.all_answers(folds, training, VIEWS, tmp_path, champion)
    alone = answers.answers([teacher], data.pictures(training, data.STORED_SIZE), places, VIEWS)
    assert told[places] == approx((2 * without[places] + alone) / 3, abs=2e-3)  # of two teachers in each fold
    others = [i for i in range(len(training)) if i not in places]
    assert others and np.array_equal(told[others], without[others])


def test_answers_of_a_fold_are_kept(
    training: list[data.Photograph], folds: list[list[Teacher]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = answers.all_answers(folds, training, VIEWS, tmp_path)
    monkeypatch.delattr(answers, "answers")
    assert np.array_equal(answers.all_answers(folds, training, VIEWS, tmp_path), told)
    for others in (replace(VIEWS, seed=6), replace(VIEWS, strength=1.0)):
        with pytest.raises(NameError):
            answers.all_answers(folds, training, others, tmp_path)
    with pytest.raises(NameError):
        answers.all_answers([*folds[1:], folds[0]], training, VIEWS, tmp_path)


def test_torch_and_openvino_answer_alike() -> None:
    torch.manual_seed(0)  # the last layer has no weights in the package
    pictures = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), np.uint8)
    network = Lite("lite0", pretrained=True)
    by_torch, by_openvino = (
        Teacher("lite0", 0, SHIFT, by(network), "").ask(pictures) for by in (answers.by_torch, answers.by_openvino)
    )
    assert by_torch == approx(by_openvino, abs=1e-4)
    assert np.ptp(by_torch, axis=0).max() > 20e-4, "answers differ by more than they may between the two"


def test_every_network_needs_its_teachers_of_all_folds(folds: list[list[Teacher]]) -> None:
    teachers = [teacher for fold in folds for teacher in fold]
    assert answers.by_fold(teachers[::-1])[1][0].fold == 1
    for wrong in (teachers[1:], [*teachers, teachers[0]], []):
        with pytest.raises(ValueError, match="each once"):
            answers.by_fold(wrong)


def test_answers_of_other_photographs_are_refused(training: list[data.Photograph], tmp_path: Path) -> None:
    Answers([p.id for p in training[1:]], VIEWS, np.zeros((0, 3, 7), np.float16)).save(tmp_path / "answers.npz")
    with pytest.raises(ValueError, match="other photographs"):
        Answers.read(tmp_path / "answers.npz", training)


def test_a_lite_network_answers_as_its_package_does() -> None:
    """With the weights' own preprocessing, and with padding that the convolutions do themselves."""
    own, pixels = (
        Lite("lite1", pretrained=True).eval(),
        np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8),
    )
    net = EfficientNet.from_pretrained(
        "efficientnet-lite1", weights_path=WEIGHTS["lite1"].get_model_file_path(), num_classes=7, image_size=96
    ).eval()
    net._fc.load_state_dict(own.net._fc.state_dict())
    with torch.no_grad():
        expected = net((torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 127) / 128)
        assert torch.allclose(own(torch.from_numpy(normalise(pixels))), expected, atol=1e-4)


def left_whole_or_resumed(run: Callable[[Path], None], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a run into `folder`/whole leaves. One that was stopped after a checkpoint and goes on leaves the same."""
    run(folder / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "save", saved_and_stopped)
        with pytest.raises(KeyboardInterrupt):
            run(folder / "stopped")
    run(folder / "stopped")
    whole, stopped = (torch.load(folder / name / "network.pt", weights_only=True) for name in ("whole", "stopped"))
    assert all(torch.equal(value, stopped["network"][name]) for name, value in whole["network"].items())
    return whole


def test_a_teacher_resumes_and_keeps_its_first_blocks(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(out: Path) -> None:
        arguments = ["--network", "lite0", "--seed", "0", "--fold", "1", "--data", str(labelled), "--out", str(out)]
        teachers.main(teachers.flags.parse_args([*arguments, "--epochs", "2", "--sizes", "32", "--batch-size", "16"]))

    whole = left_whole_or_resumed(run, tmp_path, monkeypatch)
    changed = {
        name.split(".")[1] if "_blocks" not in name else int(name.split(".")[2])
        for (name, value), before in zip(
            whole["network"].items(), Lite("lite0", pretrained=True).state_dict().values(), strict=True
        )
        if not torch.equal(value, before)
    }
    assert changed == {*range(3, 16), "_conv_head", "_bn1", "_fc"}
    # Its answers are for the photographs of the fold that it left out, of these photographs alone.
    training = read(labelled)[0]
    assert whole["of"]["photographs"] == digest_of([p for p in training if fold_of(p) != 1])
    assert Teacher.read(tmp_path / "whole", training).fold == 1
    with pytest.raises(ValueError, match="learned from other photographs"):
        Teacher.read(tmp_path / "whole", training[1:])
    with monkeypatch.context() as gpu:  # a network that a GPU saved is read where there is none
        gpu.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
        torch.save(whole, tmp_path / "whole" / "network.pt")
    assert Teacher.read(tmp_path / "whole", training).fold == 1
    # It tells a learning curve what it learned from, and one that learned from all teaches nobody.
    told = json.loads((tmp_path / "whole" / "metrics.json").read_text())["run"]
    assert told["photographs"] == len(learned_from(training, 1))
    whole["of"] |= {"fold": None, "photographs": digest_of(training)}
    torch.save(whole, tmp_path / "whole" / "network.pt")
    with pytest.raises(ValueError, match="learned from other photographs"):
        Teacher.read(tmp_path / "whole", training)


def test_a_teacher_tells_what_came_as_bins_are(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most photographs of one item were chosen by their count: it learned more of them than there are."""

    def drawn(folder: Path, limit: int | None = None) -> tuple[list[data.Photograph], list[data.Photograph]]:
        training, validation = read(folder, limit)
        return [replace(p, by_class=p.label == 1 and number > 20) for number, p in enumerate(training)], validation

    monkeypatch.setattr(teachers, "read", drawn)
    arguments = ["--network", "lite0", "--seed", "0", "--data", str(labelled), "--out", str(tmp_path)]
    teachers.main(teachers.flags.parse_args([*arguments, "--epochs", "1", "--sizes", "32", "--batch-size", "32"]))
    shift = torch.load(tmp_path / "network.pt", weights_only=True)["shift"].numpy()
    assert shift == approx(-data.excess(drawn(labelled)[0]))
    assert shift[1] < -0.5 and (np.delete(shift, 1) > 0).all()


def test_a_student_resumes_and_leaves_the_average(
    training: list[data.Photograph], labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "build", lambda: Colours(0))
    start = Colours(1).state_dict()
    torch.save({"network": start, "photographs": digest_of(training)}, tmp_path / "start.pt")
    p = np.random.default_rng(0).dirichlet(np.ones(7), (len(training), 3)).astype(np.float16)
    Answers([p.id for p in training], VIEWS, p).save(tmp_path / "answers.npz")

    def run(out: Path, *more: str) -> None:
        arguments = ["--network", tmp_path / "start.pt", "--answers", tmp_path / "answers.npz", "--data", labelled]
        wanted = [
            *map(str, arguments),
            "--out",
            str(out),
            "--sizes",
            "32x1,64x1",
            "--batch-size",
            "16",
            "--rendered",
            "8",
            *more,
        ]
        student.main(student.flags.parse_args(wanted))

    whole = left_whole_or_resumed(run, tmp_path, monkeypatch)
    assert whole["photographs"] == digest_of(training)
    average = torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)["average"]
    assert all(torch.equal(value, whole["network"][name]) for name, value in average.items())
    assert not torch.equal(average["fc.weight"], start["fc.weight"])
    with pytest.raises(SystemExit, match="choose another folder"):
        run(tmp_path / "whole", "--share", "0.5")
    torch.save({"network": Colours(2).state_dict(), "photographs": digest_of(training)}, tmp_path / "start.pt")
    with pytest.raises(SystemExit, match="is of a run with other start"):
        run(tmp_path / "whole")
    torch.save({"network": start, "photographs": "others"}, tmp_path / "start.pt")
    with pytest.raises(SystemExit, match="may have seen the others"):
        run(tmp_path / "other")


def test_a_students_targets_are_mixed_with_the_labels(training: list[data.Photograph]) -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(7), (len(training), 3)).astype(np.float16)
    told = Answers([p.id for p in training], VIEWS, p)
    images, targets = student.Taught(training, told, share=0.75, seed=0, strength=1.0).batch([(4, 0, 9, 64)])
    assert images.shape == (1, 3, 64, 64)
    expected = 0.75 * p[9, (4 + 9) % 3] + 0.25 * np.eye(7)[training[9].label]
    assert targets[0].numpy() == approx(expected, abs=1e-3)
    # Cross entropy to a mix is the mix of cross entropies.
    learner = Learner(Colours(0), Processes.join(), peak=0.0, weight_decay=0.0, label_smoothing=0.0)
    loss = float(learner.step(images, targets, 1.0))
    with torch.no_grad():
        logs = torch.log_softmax(learner.net(images)[0], 0).numpy()
    assert loss == approx(-(expected * logs).sum(), rel=0.01)


def test_rendered_bins_are_among_a_students_pictures(training: list[data.Photograph]) -> None:
    told = Answers([p.id for p in training], VIEWS, np.zeros((len(training), 3, 7), np.float16))
    taught = student.Taught(training, told, share=1.0, seed=0, strength=0.0, rendered=8)
    assert len(taught) == len(training) + 8
    images, targets = taught.batch([(epoch, 0, len(training) + place, 64) for epoch in range(3) for place in range(8)])
    assert images.shape == (24, 3, 64, 64)
    assert np.array_equal(targets.numpy(), np.tile(np.eye(7)[[0, 1, 2, 3, 4, 5, 6, 6]], (3, 1)))


def test_threads_prepare_the_same_batches_in_order(training: list[data.Photograph]) -> None:
    told = Answers([p.id for p in training], VIEWS, np.zeros((len(training), 3, 7), np.float16))
    taught = student.Taught(training, told, share=1.0, seed=0, strength=1.0)
    keys = [[(epoch, place, (7 * place) % 40, 64) for place in range(8)] for epoch in range(6)]
    one = list(taught.batches(keys))
    taught.threads = 4
    for (images, targets), (others, others_targets) in zip(one, taught.batches(keys), strict=True):
        assert torch.equal(images, others) and torch.equal(targets, others_targets)


def test_only_the_labels_have_the_prior_of_photographs_chosen_by_their_count(training: list[data.Photograph]) -> None:
    ones = [replace(p, by_class=True) for p in training if p.label == 1]
    photographs = [*training, *ones, *ones]
    came = np.bincount([p.label for p in training], minlength=7) / len(training)
    trained = np.bincount([p.label for p in photographs], minlength=7) / len(photographs)
    assert student.excess(photographs, 1.0) == approx(np.zeros(7))
    assert came * np.exp(student.excess(photographs, 0.25)) == approx(0.25 * came + 0.75 * trained)


def test_the_students_epochs_are_of_these_sizes() -> None:
    assert student.sizes_of("96x4,128x14,160x3") == [96] * 4 + [128] * 14 + [160] * 3
