"""The benchmarks' arguments and arithmetic. That they measure is shown by running them; no time decides a test."""

import json
import os
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bench import serving, stack
from bench.common import cpu_seconds, rank, rotated, write
from cli.bench import command
from cli.errors import PACKAGE_MISSING, USAGE


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_each_measurement_has_help() -> None:
    for name in ("serving", "way", "function"):
        shown = run(name, "--help")
        assert shown.exit_code == 0
        assert "--photographs" in shown.output
        assert "--json" in shown.output


def test_serving_needs_a_python_with_torch(tmp_path: Path) -> None:
    shown = run("serving", "--eager-python", tmp_path / "none")
    assert shown.exit_code == PACKAGE_MISSING
    assert "make train-venv" in shown.output


def test_serving_needs_photographs_and_a_package(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.touch()
    empty, package = tmp_path / "empty", tmp_path / "model.tar.gz"
    empty.mkdir()
    package.write_bytes(b"no package")
    shown = run("serving", "--eager-python", python, "--package", package, "--photographs", empty)
    assert shown.exit_code == USAGE
    assert "no JPEGs" in shown.output
    (empty / "bin.jpg").touch()
    shown = run("serving", "--eager-python", python, "--package", package, "--photographs", empty)
    assert shown.exit_code == PACKAGE_MISSING
    assert "not a model package" in shown.output


def test_server_that_does_not_come_up_is_told_in_one_line(tmp_path: Path) -> None:
    package = tmp_path / "model.tar.gz"
    with tarfile.open(package, "w:gz"):
        pass
    (tmp_path / "bin.jpg").touch()
    shown = run("serving", "--eager-python", package, "--package", package, "--photographs", tmp_path)
    assert shown.exit_code == 1
    assert "there is no package.json" in shown.output


@pytest.mark.parametrize("wrong", [("--rounds", 0), ("--seconds", 0), ("--photographs", "/nowhere")])
def test_wrong_numbers_are_usage_errors(wrong: tuple[str, object]) -> None:
    assert run("serving", *wrong).exit_code == USAGE


def test_who_goes_first_changes() -> None:
    assert [rotated(["a", "b", "c"], turn)[0] for turn in range(4)] == ["a", "b", "c", "a"]
    assert sorted(rotated(["a", "b", "c"], 2)) == ["a", "b", "c"]


def test_rank_is_the_value_that_a_share_does_not_exceed() -> None:
    assert rank([1.0, 2.0, 3.0, 4.0], 0.5) == 3.0
    assert rank([1.0], 0.99) == 1.0
    assert rank([float(n) for n in range(100)], 0.99) == 99.0


def test_ratios_are_taken_within_a_round() -> None:
    speeds = {"ours": [100, 200, 50], "eager": [10, 40, 5], "loop": [100, 400, 100]}
    rows = [
        {"subject": subject, "concurrency": concurrency, "round": turn, "per_second": speed, "cpu_ms": 1.0}
        for subject, all_ in speeds.items()
        for concurrency in (1, 8)
        for turn, speed in enumerate(all_)
    ]
    summary = serving.summarise(rows, {"ours": 1.0})
    assert summary["ratios"]["ours_to_eager_at_1"] == 10  # of 10, 5, 10
    assert summary["ratios"]["ours_to_loop_at_8"] == 0.5  # of 1, 0.5, 0.5
    ours = [row for row in summary["medians"] if row["subject"] == "ours"]
    assert [row["per_second"] for row in ours] == [100, 100]


def test_cpu_time_is_told_by_part_of_the_stack() -> None:
    assert stack.part_of("python -m model.serve") == "endpoint"
    assert stack.part_of("python /tmp/x-CountFunction-1FEB/_worker.py") == "count function"
    assert stack.part_of("python -m local.emulator") == "emulator"


def test_cpu_time_of_a_process_grows_as_it_works() -> None:
    before = cpu_seconds(os.getpid())
    while cpu_seconds(os.getpid()) < before + 0.05:
        sum(range(10_000))


def test_reports_stand_beside_each_other(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    write(file, "serving", {"rows": []})
    write(file, "way", {"burst": {"seconds": 1.5}})
    found = json.loads(file.read_text())
    assert set(found) == {"serving", "way"}
    assert found["way"]["burst"]["seconds"] == 1.5
    assert found["way"]["machine"]["cores"] >= 1


def test_burst_is_bins_of_their_own_at_a_new_site(tmp_path: Path) -> None:
    files = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    photographs = stack.bench_photographs(files, "burst", 5)
    assert len({photograph.key for photograph in photographs}) == 5
    assert [photograph.path for photograph in photographs] == [files[0], files[1], files[0], files[1], files[0]]
