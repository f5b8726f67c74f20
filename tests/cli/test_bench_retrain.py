"""The arguments and arithmetic of `bintally bench retrain`, and that its parts run; no time decides a test."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from cli import bench_retrain
from cli.bench import command
from cli.errors import USAGE, CliError


def run(*arguments: object):
    return CliRunner().invoke(command, ["retrain", *map(str, arguments)])


def test_help_names_the_parts():
    shown = run("--help")
    assert shown.exit_code == 0
    assert all(part in shown.output for part in bench_retrain.MEASUREMENTS)


@pytest.mark.parametrize("wrong", [["everything"], ["--rounds", 0], ["--photographs", "/nowhere"]])
def test_wrong_arguments_are_usage_errors(wrong: list[object]):
    assert run(*wrong).exit_code == USAGE


def test_processing_measures_the_real_job_beside_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench_retrain, "SPEED_PHOTOGRAPHS", 150)
    monkeypatch.setattr(bench_retrain, "MEMORY_PHOTOGRAPHS", (70, 90))
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


def test_memory_takes_many_photographs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench_retrain, "SPEED_PHOTOGRAPHS", 150)
    shown = run("processing", "--rounds", 1)
    assert shown.exit_code == 0, shown.output
    assert "Peak memory was not measured: that takes 9000 different photographs" in shown.output


def test_a_job_that_fails_is_told_in_one_line(tmp_path: Path):
    (tmp_path / "manifest.jsonl").write_text("no label\n")
    with pytest.raises(CliError, match=r"training\.process failed: line 1 of the manifest is no label"):
        bench_retrain.run_job(tmp_path / "manifest.jsonl", tmp_path)


def test_photographs_are_needed(tmp_path: Path):
    with pytest.raises(CliError, match="no JPEGs"):
        bench_retrain.measure_processing(None, tmp_path, 1)  # type: ignore[arg-type]


def test_ratios_are_taken_within_a_round():
    rates = {"job": [80, 60, 20], "loop": [100, 200, 20]}
    rows = [
        {"subject": subject, "round": turn, "per_second_per_core": rate, "cpu_ms": 100 / rate}
        for subject, all_ in rates.items()
        for turn, rate in enumerate(all_)
    ]
    summary = bench_retrain.summarise(rows)
    assert summary["job_to_loop"] == summary["job_to_loop_by_cpu"] == 0.8  # of 0.8, 0.3, 1
    assert (summary["job"]["per_second_per_core"], summary["loop"]["cpu_ms"]) == (60, 1)
