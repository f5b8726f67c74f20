"""Out-of-fold predictions: honest calibration, empty bins with exact intervals, and the records believed least."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import crossfit
from model.answer import probabilities
from training.learning import data
from training.verdict import metrics

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def runs(labelled: Path, tmp_path: Path) -> list[Path]:
    """Five runs' predictions of the photographs that each held out, not calibrated.

    The first photograph's record is wrong.
    """
    random = np.random.default_rng(0)
    photographs = data.read(labelled)
    found: list[Path] = []
    for fold in range(5):
        run = tmp_path / f"fold-{fold}"
        run.mkdir()
        own = [p for p in data.hold_out(photographs, fold) if p.split == "validation"]
        logits = random.normal(size=(len(own), 7))
        for row, photograph in zip(logits, own, strict=True):
            row[(photograph.label + 3) % 7 if photograph is own[0] and not found else photograph.label] += 3
        metrics.write_predictions(run / "predictions.csv", own, 2 * logits)
        found.append(run)
    return found


def test_each_photograph_is_held_out_once(labelled: Path) -> None:
    photographs = data.read(labelled)
    folds = [{p.id for p in data.hold_out(photographs, fold) if p.split == "validation"} for fold in range(5)]
    assert sum(map(len, folds)) == len(photographs) == len(set().union(*folds))


def test_a_bin_and_its_neighbours_are_in_one_fold(tmp_path: Path) -> None:
    rows = [f"{number:05},{number % 9},g{number // 2}" for number in range(3000)]
    (tmp_path / "labels.csv").write_text("\n".join(["id,quantity,group", *rows]) + "\n")
    photographs = data.read(tmp_path)
    held_out = [p.split == "validation" for p in data.hold_out(photographs, 3)]
    assert {data.fold_of(p) for p in photographs} == {0, 1, 2, 3, 4}
    for of in (lambda p: p.group, lambda p: int(p.id) // data.BLOCK):
        sides: dict[object, set[bool]] = {}
        for photograph, side in zip(photographs, held_out, strict=True):
            sides.setdefault(of(photograph), set()).add(side)
        assert all(len(seen) == 1 for seen in sides.values())


def test_a_fold_is_calibrated_by_the_others(runs: list[Path], labelled: Path) -> None:
    found = crossfit.gather(runs, data.read(labelled))
    own = found.fold == 2
    temperature = metrics.fit_temperature(found.seen.logits[~own], found.seen.quantities[~own])
    assert np.allclose(found.calibrated()[own], probabilities(found.seen.logits[own], temperature))
    report = crossfit.report(found)
    uncalibrated = metrics.summary(probabilities(found.seen.logits), found.seen.quantities)
    assert report["as_shipped"]["log_loss"] < uncalibrated["as_shipped"]["log_loss"]


def test_empty_bins_are_told_with_exact_intervals(runs: list[Path], labelled: Path) -> None:
    found = crossfit.gather(runs, data.read(labelled))
    empty = crossfit.report(found)["empty_bins"]
    truly = found.seen.quantities == 0
    assert empty["recall"]["of"] == truly.sum() > 0
    assert empty["recall"]["right"] + len(empty["missed"]) == truly.sum()
    assert empty["precision"]["of"] - empty["precision"]["right"] == len(empty["seen_where_there_is_something"])
    # Clopper and Pearson's textbook bound: where all n are found, the lower one is 0.025 ** (1 / n).
    assert crossfit.share(np.ones(20, bool))["interval"] == pytest.approx([0.025 ** (1 / 20), 1.0])
    assert crossfit.share(np.ones(0, bool))["share"] is None


def test_each_rule_answers_what_it_is_named_for(runs: list[Path], labelled: Path) -> None:
    found = crossfit.gather(runs, data.read(labelled))
    p, labels = found.calibrated(), np.minimum(found.seen.quantities, 6)
    report = crossfit.report(found)
    median, mode, mean = report["rules"].values()
    assert median["accuracy"]["value"] == report["as_shipped"]["accuracy"]
    assert mode["accuracy"]["value"] == (p.argmax(axis=1) == labels).mean()
    assert mean["mean_absolute_error"]["value"] == np.abs(np.round(p @ np.arange(7)) - labels).mean()
    assert median["within_one"]["interval"] == [0.0, 0.0]
    low, high = mode["accuracy"]["interval"]
    assert low <= mode["accuracy"]["difference"] <= high


def test_the_record_believed_least_comes_first(runs: list[Path], labelled: Path) -> None:
    found = crossfit.gather(runs, data.read(labelled))
    wrong = metrics.read_predictions(runs[0] / "predictions.csv")["validation"].ids[0]
    assert found.seen.ids[crossfit.suspects(found)[0]] == wrong


@pytest.mark.parametrize("which", [[0, 0, 1, 2, 3], [0, 1, 2, 3], [0]], ids=str)
def test_every_fold_must_be_there_once(runs: list[Path], labelled: Path, which: list[int]) -> None:
    with pytest.raises(ValueError, match="each once and whole"):
        crossfit.gather([runs[number] for number in which], data.read(labelled))


def test_the_command_leaves_figures_predictions_and_a_page(runs: list[Path], labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "experiments.crossfit",
        *map(str, runs),
        "--data",
        str(labelled),
        "--out",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    assert "empty bins, recall" in done.stdout
    report = json.loads((out / "crossfit.json").read_text())
    photographs = data.read(labelled)
    assert report["photographs"] == len(photographs) == len((out / "predictions.csv").read_text().splitlines()) - 1
    page = (out / "suspects.html").read_text()
    assert page.count("<img") >= min(crossfit.SUSPECTS, len(photographs))
    assert "data:image/jpeg;base64," in page
