"""The learning curve: runs that held out the same photographs, a line through them, a picture."""

import json
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

import numpy as np
import pytest

from experiments import curve
from training.learning import data
from training.verdict import metrics

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def runs(labelled: Path, tmp_path: Path) -> list[Path]:
    """Three runs that are better the more photographs they learned from."""
    photographs = [p for p in data.hold_out(data.read(labelled), 0) if p.split == "validation"]
    found = []
    for trained_on, sure in ((1000, 0.5), (4000, 2.0), (2000, 1.0)):
        run = tmp_path / f"of-{trained_on}"
        run.mkdir()
        logits = np.random.default_rng(0).normal(size=(len(photographs), 7))
        logits[np.arange(len(logits)), [p.label for p in photographs]] += sure
        metrics.write_predictions(run / "predictions.csv", photographs, logits)
        report = metrics.report(metrics.read_predictions(run / "predictions.csv"))
        told = {"photographs": trained_on, "epochs": 8000 // trained_on, "sizes": "64", "judged_at": 96}
        (run / "metrics.json").write_text(json.dumps({"run": told, **report}))
        found.append(run)
    return found


def test_the_curve_is_drawn(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "curve.svg"
    told = subprocess.run(
        [sys.executable, "-m", "experiments.curve", *map(str, runs), "--out", out],
        cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    assert [row.split()[0] for row in told.splitlines()[1:]] == ["1,000", "2,000", "4,000", "a"]
    shown = " ".join(xml.parse(out).getroot().itertext())
    for words in ("photographs learned from", "log loss", "accuracy of six", "ABID challenge"):
        assert words in shown


def test_a_doubling_gains_what_lies_between_two_points(runs: list[Path]) -> None:
    found = curve.read([runs[1], runs[0]])
    assert (list(found.photographs), list(found.epochs)) == ([1000, 4000], [8, 2])
    gain, start = found.lines(found.values)
    first, last = found.values
    assert gain == pytest.approx((last - first) / 2)
    assert start + gain * np.log2(1000) == pytest.approx(first)
    assert last[0] < first[0]
    assert last[1] > first[1]
    # Drawn with the same resamples, so that a difference of two runs is paired.
    assert found.lines(found.drawn)[0] == pytest.approx((found.drawn[:, 1] - found.drawn[:, 0]) / 2)


def test_a_point_is_what_its_run_says_of_itself(runs: list[Path]) -> None:
    found = curve.read(runs)
    report = json.loads((runs[2] / "metrics.json").read_text())["validation"]
    assert found.values[1] == pytest.approx([report["as_shipped"]["log_loss"], report["as_published"]["accuracy"]])


def test_runs_that_cannot_be_compared_are_no_curve(runs: list[Path], labelled: Path) -> None:
    report = json.loads((runs[0] / "metrics.json").read_text())
    for run, reason in ((None, "older version"), (report["run"] | {"judged_at": 128}, "other input sizes")):
        (runs[0] / "metrics.json").write_text(json.dumps({**report, "run": run}))
        with pytest.raises(ValueError, match=reason):
            curve.read(runs)
    (runs[0] / "metrics.json").write_text(json.dumps(report))
    others = [p for p in data.hold_out(data.read(labelled), 1) if p.split == "validation"]
    metrics.write_predictions(runs[2] / "predictions.csv", others, np.zeros((len(others), 7)))
    with pytest.raises(ValueError, match="did not hold out the same"):
        curve.read(runs)
