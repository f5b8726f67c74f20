"""The arguments and arithmetic of `bintally bench retrain`, and that its parts run; no time decides a test."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image
from rich.console import Console

from bench import labels, redeploy, retrain, whole
from bench.redeploy import Request
from cli.bench import command
from cli.errors import PACKAGE_MISSING, USAGE, CliError
from local.stack import Local


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, ["retrain", *map(str, arguments)])


def test_help_names_the_parts() -> None:
    shown = run("--help")
    assert shown.exit_code == 0
    assert all(part in shown.output for part in retrain.MEASUREMENTS)


@pytest.mark.parametrize("wrong", [["everything"], ["--rounds", 0], ["--number", 0], ["--photographs", "/nowhere"]])
def test_wrong_arguments_are_usage_errors(wrong: list[object]) -> None:
    assert run(*wrong).exit_code == USAGE


@pytest.mark.slow
def test_processing_measures_the_real_job_beside_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrain, "SPEED_PHOTOGRAPHS", 150)
    monkeypatch.setattr(retrain, "MEMORY_PHOTOGRAPHS", (70, 90))
    for grey in range(90):
        Image.new("L", (40, 30), grey).save(tmp_path / f"{grey}.jpg")
    shown = run("processing", "--rounds", 1, "--photographs", tmp_path, "--json", tmp_path / "bench.json")
    assert shown.exit_code == 0, shown.output
    assert "of the bare loop" in shown.output
    found = json.loads((tmp_path / "bench.json").read_text())["retrain"]["processing"]
    assert {row["subject"] for row in found["rows"]} == {"job", "loop"}
    assert all(row["photographs"] == 180 and row["per_second_per_core"] > 0 for row in found["rows"])
    assert list(found["summary"]["peak_memory_mb"]) == ["70", "90"]
    assert all(megabytes > 30 for megabytes in found["summary"]["peak_memory_mb"].values())


@pytest.mark.slow
def test_memory_takes_many_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrain, "SPEED_PHOTOGRAPHS", 150)
    shown = run("processing", "--rounds", 1)
    assert shown.exit_code == 0, shown.output
    assert "Peak memory was not measured: that takes 9000 different photographs" in shown.output


@pytest.mark.slow
def test_labels_are_read_in_slices_from_an_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "LINES", 7_000)
    shown = run("labels", "--rounds", 1, "--json", tmp_path / "bench.json")
    assert shown.exit_code == 0, shown.output
    assert "7,000 labels in 1 slices" in shown.output
    (row,) = json.loads((tmp_path / "bench.json").read_text())["retrain"]["labels"]["rows"]
    assert (row["ended"], row["labels"]) == ("log", 7_000)
    assert row["read"]["cpu_s"] > 0 and row["peak_memory_mb"] > 30


def test_a_job_that_fails_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text("no label\n")
    with pytest.raises(CliError, match=r"training\.process failed: line 1 of the manifest is no label"):
        retrain.run_job(tmp_path / "manifest.jsonl", tmp_path)


def test_photographs_are_needed(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="no JPEGs"):
        retrain.measure_processing(None, tmp_path, 1)  # type: ignore[arg-type]


def test_ratios_are_taken_within_a_round() -> None:
    rates = {"job": [80, 60, 20], "loop": [100, 200, 20]}
    rows = [
        {"subject": subject, "round": turn, "per_second_per_core": rate, "cpu_ms": 100 / rate}
        for subject, all_ in rates.items()
        for turn, rate in enumerate(all_)
    ]
    summary = retrain.summarise(rows)
    assert summary["job_to_loop"] == summary["job_to_loop_by_cpu"] == 0.8  # of 0.8, 0.3, 1
    assert (summary["job"]["per_second_per_core"], summary["loop"]["cpu_ms"]) == (60, 1)


def an_answer(**other: object) -> bytes:
    """One that keeps the contract, but for what is given."""
    shares = [0.1, 0.6, 0.1, 0.05, 0.05, 0.05, 0.05]
    right = {"count": 1, "is_minimum": False, "expected_capped": 1.8, "confidence": 0.6, "probabilities": shares}
    return json.dumps(right | {"model_version": "old"} | other).encode()


def test_an_answer_that_keeps_the_contract_has_no_fault() -> None:
    assert redeploy.read_answer(an_answer()) == ("old", "")


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b'"text"', b"{}", b"<html>", b"null"),
        an_answer(count=9),
        an_answer(count=2),
        an_answer(count="1"),
        an_answer(is_minimum=True),
        an_answer(confidence=0.1),
        an_answer(probabilities=[1.0]),
        an_answer(probabilities=[0.5, 0.6, 0, 0, 0, 0, 0]),
        an_answer(probabilities=[0.5, 0.6, -0.1, 0, 0, 0, 0]),
        an_answer(probabilities=None),
        an_answer(error="none"),
    ],
)
def test_any_other_answer_is_a_failure(body: bytes) -> None:
    assert redeploy.read_answer(body)[1]


def test_a_request_belongs_to_the_window_in_which_it_was_due() -> None:
    requests = [
        Request(9.9, 1, "old", ""),
        Request(10, 20, "old", ""),
        Request(11, 30, "new", ""),
        Request(12, 99, "", "broken"),
        Request(13, 99, "older", ""),  # neither the model before nor the new one
        Request(20, 1, "new", ""),
    ]
    row = redeploy.row_of(requests, "promoted", 0, 10, 20, 9.5, "old", "new")
    assert (row["requests"], row["failed"], row["by_new"], row["seconds"]) == (4, 2, 1, 9.5)
    assert row["latencies_ms"] == [20, 30]


def test_rounds_of_an_update_are_taken_together() -> None:
    rows = [
        {"update": update, "seconds": 10 * turn, "requests": 5, "failed": turn, "by_new": 1, "latencies_ms": [turn]}
        for update in redeploy.UPDATES
        for turn in range(3)
    ]
    summary = redeploy.summarise(rows)
    assert [row["update"] for row in summary] == list(redeploy.UPDATES)
    assert all((row["seconds"], row["requests"], row["failed"], row["by_new"]) == (10, 15, 3, 3) for row in summary)
    assert (summary[0]["p50_ms"], summary[0]["p99_ms"]) == (1, 2)


def test_failed_requests_are_a_failure_of_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = {"update": "promoted", "seconds": 9, "requests": 5, "failed": 2, "by_new": 1, "p50_ms": 1, "p99_ms": 2}
    more = {"requests": 5, "failed": 2, "faults": ["[broken]"], "uploaded": 3, "counted": 3}
    found = {"summary": [row], **more}
    measurements = {"redeploy": (lambda *_: found, redeploy.show_redeploy)}
    monkeypatch.setattr(retrain, "MEASUREMENTS", measurements)
    shown = run("redeploy", "--json", tmp_path / "bench.json")
    assert shown.exit_code == 1
    assert "2 of 5 requests failed" in shown.output
    assert "[broken]" in shown.output
    assert json.loads((tmp_path / "bench.json").read_text())["retrain"]["redeploy"] == found


@pytest.mark.parametrize("unsure", [False, True])
def test_a_changed_package_is_another_version_that_passes_its_own_golden_images(unsure: bool) -> None:
    with tarfile.open(fileobj=io.BytesIO(redeploy.changed(Local.package, "mine", unsure=unsure))) as tar:
        file = tar.extractfile("package.json")
        assert file is not None
        description = json.load(file)
        names = set(tar.getnames())
    assert names >= {"package.json", "model.xml", "model.bin", "golden/0.png"}
    assert description["model_version"] == "mine"
    answers = [golden["answer"] for golden in description["golden"]]
    assert {redeploy.read_answer(json.dumps(answer).encode()) for answer in answers} == {("mine", "")}
    assert all((answer["confidence"] < 0.15) == unsure for answer in answers)


@pytest.mark.parametrize(
    ("execution", "ended"),
    [
        ({"status": "SUCCEEDED", "output": '{"outcome": "released"}'}, "promoted"),
        ({"status": "SUCCEEDED", "output": '{"outcome": "already live"}'}, "already live"),
        ({"status": "FAILED", "error": "RolledBack"}, "rolled back"),
        ({"status": "FAILED", "error": "SmokeTestFailed"}, "failed"),
        ({"status": "ABORTED"}, "failed"),
    ],
)
def test_how_a_release_ended(execution: dict[str, str], ended: str) -> None:
    assert redeploy.ended_as(execution) == ended


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder, and splits of its photographs as training/learning/data.py tells them."""
    (tmp_path / "images224").mkdir()
    (tmp_path / "labels.csv").write_text("id,quantity,group\n")
    rows = [[f"{n:02}", ("train", "validation", "test")[n // 2 % 3], n, f"g{n // 2}"] for n in range(24)]
    monkeypatch.setattr(whole, "json_of", lambda *_: rows)
    monkeypatch.setattr(whole, "TRAINING_PYTHON", tmp_path)
    return tmp_path


def test_only_photographs_that_the_champion_was_not_trained_on_are_sent(labelled: Path) -> None:
    found = whole.unseen(labelled, None)
    assert len(found) == 16
    recorded = [photograph.recorded for photograph in found if photograph.recorded is not None]
    assert len(recorded) == 16 and {each // 2 % 3 for each in recorded} == {1, 2}
    assert all(photograph.key == f"incoming/ABID/{photograph.bin}/{photograph.path.name}" for photograph in found)
    assert [photograph.bin for photograph in found[::2]] == [photograph.bin for photograph in found[1::2]]
    assert whole.unseen(labelled, 6) == found[:6]


def test_whole_needs_labels_and_the_training_environment(labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (labelled / "labels.csv").unlink()
    shown = run("whole", "--photographs", labelled)
    assert (shown.exit_code, "labels.csv" in shown.output) == (USAGE, True)
    monkeypatch.setattr(whole, "TRAINING_PYTHON", labelled / "none")
    shown = run("whole", "--photographs", labelled)
    assert (shown.exit_code, "make train-venv" in shown.output) == (PACKAGE_MISSING, True)


def test_a_whole_retrain_is_told_step_by_step_with_its_verdict() -> None:
    def model(rps: float, low: float) -> dict[str, object]:
        return {"as_shipped": {"rps": rps}, "intervals": {"as_shipped": {"rps": [low, rps + 0.1]}}}

    evaluation = {
        "champion": model(0.7, 0.6),
        "challenger": model(0.65, 0.55),
        "test_set": {"bins": 9},
        "paired": {"rps": {"difference": 0.05, "interval": [-0.01, 0.11], "lower_bound": 0.0}},
    }
    ended = {"run": "r", "outcome": "not better", "reason": "[rps] within the margin", "other": 1}
    dataset = {"photographs": {"train": 80, "validation": 8, "test": 12}, "digest": "d"}
    report = whole.report_of([("Counting", 61.5), ("Training", 30.0)], ended, dataset, evaluation)
    assert [row["at_s"] for row in report["steps"]] == [0, 61.5]
    assert report["seconds"] == 91.5
    console = Console(record=True, width=120, file=io.StringIO())
    whole.show_whole(console, report)
    shown = console.export_text()
    for told in ("1:01", "1:31", "train 80, validation 8, test 12 (of 9 bins)", "0.700 (0.600 to 0.800)"):
        assert told in shown
    assert "Challenger's advantage: 0.050 (-0.010 to 0.110)" in shown
    assert "not better: [rps] within the margin" in shown
