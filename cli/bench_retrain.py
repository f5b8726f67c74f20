"""`bintally bench retrain`: what a retraining run is made of, each beside the least that it could cost."""

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

from cli.bench_common import CORES, Numbers, bare_table, json_of, number, progress_bar, rotated
from cli.errors import USAGE, CliError
from local import processes
from local.stack import REPOSITORY

SPEED_PHOTOGRAPHS = 6000
"""At least so many a round, the photographs over and over: a job of seconds, beside which its start is small."""
MEMORY_PHOTOGRAPHS = (1000, 9000)


def measure_processing(console: Console, photographs: Path, rounds: int) -> Numbers:
    """{"summary", "rows"}: training/process.py and a bare decode-and-resize loop in turns, and the job's memory."""
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
    """Each a bin of its own, and of other copies of the same file another version."""
    with file.open("w") as out:
        for place, path in enumerate(photographs):
            image = {"bucket": str(path.parent), "key": path.name, "version_id": str(place)}
            label = {"site": "bench", "bin": f"{place:05}", "quantity": place % 7, "source": "record"}
            moment = "2026-01-01T00:00:00.000Z"
            out.write(json.dumps({"image": image, **label, "as_of": moment, "captured_at": moment}) + "\n")
    return file


def run_job(manifest: Path, work: Path) -> Numbers:
    """The job as it is called, with its interpreter's start and the dataset written, and the memory of all it runs."""
    with tempfile.TemporaryDirectory(dir=work) as out:
        places = [f"--{name}={out}/{name}" for name in ("dataset", "parts", "shards")]
        command = [sys.executable, "-m", "training.process", "--manifest", str(manifest), *places]
        started = time.perf_counter()
        with (Path(out) / "log").open("w+") as log:
            job = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True)
            peak = 0.0
            while job.poll() is None:
                peak = max(peak, sum(map(resident_mb, processes.session_members(job.pid))))
                time.sleep(0.05)
            seconds = time.perf_counter() - started
            log.seek(0)
            said = log.read().strip().splitlines()
        if job.returncode:
            raise CliError(f"training.process failed: {said[-1] if said else 'no output'}")
    photographs = sum(1 for _ in manifest.open())
    return {"per_second_per_core": photographs / seconds / CORES, "photographs": photographs, "peak_memory_mb": peak}


def resident_mb(pid: int) -> float:
    """Of a process; what it shares with others is counted for each."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS")), 0.0)


def run_loop(manifest: Path) -> Numbers:
    command = [sys.executable, str(REPOSITORY / "bench" / "decode_loop.py"), "--manifest", str(manifest)]
    seen = json_of(command, os.environ)
    rate = seen["photographs"] / seen["seconds"] / CORES
    return {"per_second_per_core": rate, "photographs": seen["photographs"]}


def summarise(rows: list[Numbers]) -> Numbers:
    """Medians over the rounds; the ratio is taken within each round before its median."""
    rates = {
        subject: [row["per_second_per_core"] for row in rows if row["subject"] == subject]
        for subject in ("job", "loop")
    }
    return {
        "per_second_per_core": {subject: statistics.median(found) for subject, found in rates.items()},
        "job_to_loop": statistics.median(job / loop for job, loop in zip(*rates.values(), strict=True)),
    }


def show_processing(console: Console, report: Numbers) -> None:
    summary = report["summary"]
    table = bare_table("Processing", "", "photographs/s per core")
    for subject, name in (("job", "training.process"), ("loop", "decode and resize")):
        table.add_row(name, number(summary["per_second_per_core"][subject]))
    console.print(table)
    console.print(f"The job reaches {summary['job_to_loop']:.0%} of the bare loop")
    if memory := summary["peak_memory_mb"]:
        console.print(
            "Peak memory: " + ", ".join(f"{mb:.0f} MB with {many} photographs" for many, mb in memory.items())
        )
    else:
        console.print(f"Peak memory was not measured: that takes {max(MEMORY_PHOTOGRAPHS)} different photographs")


Measure = Callable[[Console, Path, int], Numbers]
Show = Callable[[Console, Numbers], None]
MEASUREMENTS: dict[str, tuple[Measure, Show]] = {
    "processing": (measure_processing, show_processing),
    # training, redeploy and whole are added here: what measures (console, photographs, rounds), and what shows it.
}
