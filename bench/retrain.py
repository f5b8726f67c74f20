"""`bintally bench retrain`: measures the parts of a retraining run, each against its minimum cost."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bench.common import CORES, TICKS, Numbers, bare_table, json_of, number, progress_bar, rotated
from bench.labels import measure_labels, show_labels
from bench.redeploy import measure_redeploy, show_redeploy
from bench.training import measure_training, show_training
from bench.whole import measure_whole, show_whole
from cli.errors import USAGE, CliError
from local import processes
from local.stack import REPOSITORY

SPEED_PHOTOGRAPHS = 18_000
"""Minimum photographs per round, by repeating them: at 6,000 the start of the processes is still a tenth."""
MEMORY_PHOTOGRAPHS = (1000, 9000)


def measure_processing(console: Console, photographs: Path, rounds: int) -> Numbers:
    """{"summary", "rows"}: training/process.py alternating with a bare decode-and-resize loop, and the job's memory."""
    rows: list[Numbers] = []
    with tempfile.TemporaryDirectory() as folder, progress_bar(console) as progress:
        work = Path(folder)
        originals = jpegs(photographs / "originals" if (photographs / "originals").is_dir() else photographs)
        copies = -(-SPEED_PHOTOGRAPHS // len(originals))
        manifest = write_manifest(work / "speed.jsonl", originals * copies)
        task = progress.add_task("Processing", total=2 * rounds)
        for turn in range(rounds):
            for subject in rotated(["job", "loop"], turn):
                measured = run_job(manifest, work) if subject == "job" else run_loop(manifest)
                rows.append({"subject": subject, "round": turn, **measured})
                progress.advance(task)
        small = jpegs(photographs / "images224" if (photographs / "images224").is_dir() else photographs)
        memory = {}
        if len(small) >= max(MEMORY_PHOTOGRAPHS):
            for many in MEMORY_PHOTOGRAPHS:
                memory[str(many)] = run_job(write_manifest(work / "memory.jsonl", small[:many]), work)["peak_memory_mb"]
    return {"summary": summarise(rows) | {"peak_memory_mb": memory}, "rows": rows}


def jpegs(folder: Path) -> list[Path]:
    found = sorted(path.absolute() for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        raise CliError(f"there are no JPEGs in {folder}", USAGE)
    return found


def write_manifest(file: Path, photographs: list[Path]) -> Path:
    """Each photograph is a separate bin, and a different version from other copies of the same file."""
    with file.open("w") as out:
        for place, path in enumerate(photographs):
            image = {"bucket": str(path.parent), "key": path.name, "version_id": str(place)}
            label = {"site": "bench", "bin": f"{place:05}", "quantity": place % 7, "source": "record"}
            moment = "2026-01-01T00:00:00.000Z"
            out.write(json.dumps({"image": image, **label, "as_of": moment, "captured_at": moment}) + "\n")
    return file


def run_job(manifest: Path, work: Path) -> Numbers:
    """The whole job, from the interpreter's start to the written dataset, and the memory of all its processes."""
    with tempfile.TemporaryDirectory(dir=work) as out:
        places = [f"--{name}={out}/{name}" for name in ("dataset", "parts", "shards")]
        command = [sys.executable, "-m", "training.process", "--manifest", str(manifest), *places]
        started = time.perf_counter()
        with (Path(out) / "log").open("w+") as log:
            job = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True)
            peak = 0.0
            cpu: dict[int, float] = {}
            while job.poll() is None:
                members = processes.session_members(job.pid)
                peak = max(peak, sum(map(resident_mb, members)))
                cpu |= {pid: own_cpu_seconds(pid) or cpu.get(pid, 0.0) for pid in members}
                time.sleep(0.25)  # each reading costs milliseconds of the job's time
            seconds = time.perf_counter() - started
            log.seek(0)
            said = log.read().strip().splitlines()
        # The last file that it writes. Few photographs may leave a split empty, which it then still reports.
        if not (Path(out) / "dataset" / "dataset.json").exists():
            raise CliError(f"training.process failed: {said[-1] if said else 'no output'}")
    with manifest.open() as lines:
        photographs = sum(1 for _ in lines)
    return speed(photographs, seconds, sum(cpu.values())) | {"peak_memory_mb": peak}


def speed(photographs: int, seconds: float, cpu_seconds: float) -> Numbers:
    return {
        "photographs": photographs,
        "per_second_per_core": photographs / seconds / CORES,
        "cpu_ms": 1000 * cpu_seconds / photographs,
    }


def resident_mb(pid: int) -> float:
    """Resident memory of a process; shared memory is counted for each process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS")), 0.0)


def own_cpu_seconds(pid: int) -> float:
    """User and system time of a process without its children, which are counted separately."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def run_loop(manifest: Path) -> Numbers:
    command = [sys.executable, "-m", "bench.decode_loop", "--manifest", str(manifest)]
    seen = json_of(command, os.environ)
    return speed(seen["photographs"], seen["seconds"], seen["cpu_s"])


def summarise(rows: list[Numbers]) -> Numbers:
    """Medians over the rounds; the ratios are taken within each round before their median."""

    def column(subject: str, name: str) -> list[float]:
        return [row[name] for row in rows if row["subject"] == subject]

    def ratio(name: str) -> float:
        return statistics.median(
            job / loop for job, loop in zip(column("job", name), column("loop", name), strict=True)
        )

    return {
        "job": {name: statistics.median(column("job", name)) for name in ("per_second_per_core", "cpu_ms")},
        "loop": {name: statistics.median(column("loop", name)) for name in ("per_second_per_core", "cpu_ms")},
        "job_to_loop": ratio("per_second_per_core"),
        "job_to_loop_by_cpu": 1 / ratio("cpu_ms"),
    }


def show_processing(console: Console, report: Numbers) -> None:
    summary = report["summary"]
    table = bare_table("Processing", "", "photographs/s per core", "CPU ms")
    for subject, name in (("job", "training.process"), ("loop", "decode and resize")):
        row = summary[subject]
        table.add_row(name, number(row["per_second_per_core"]), f"{row['cpu_ms']:.2f}")
    console.print(table)
    by_time, by_cpu = summary["job_to_loop"], summary["job_to_loop_by_cpu"]
    console.print(
        f"The job reaches {by_time:.0%} of the bare loop; by CPU time, which other work disturbs less, {by_cpu:.0%}"
    )
    if memory := summary["peak_memory_mb"]:
        console.print(
            "Peak memory: " + ", ".join(f"{mb:.0f} MB with {many} photographs" for many, mb in memory.items())
        )
    else:
        console.print(f"Peak memory was not measured: that takes {max(MEMORY_PHOTOGRAPHS)} different photographs")


Measure = Callable[..., Numbers]
Show = Callable[[Console, Numbers], None]
MEASUREMENTS: dict[str, tuple[Measure, Show]] = {
    "labels": (measure_labels, show_labels),
    "processing": (measure_processing, show_processing),
    "training": (measure_training, show_training),
    "redeploy": (measure_redeploy, show_redeploy),
    "whole": (measure_whole, show_whole),
}
