"""`bintally bench serving`: compares the serving app with an eager torch server and a loop without HTTP."""

import contextlib
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localsagemaker.ports import free_port
from rich.console import Console

from bench.common import (
    CORES,
    Numbers,
    bare_table,
    cpu_seconds,
    json_of,
    number,
    progress_bar,
    rotated,
)
from cli.errors import PACKAGE_MISSING, USAGE, CliError
from local.stack import REPOSITORY
from model.package import extract

START_SECONDS = 600
NAMES = {"ours": "OpenVINO int8", "eager": "eager torch", "loop": "int8, no HTTP"}


def measure(
    console: Console, photographs: Path, package: Path, eager_python: Path, rounds: int, seconds: float
) -> Numbers:
    """{"summary", "rows"}: every measurement, and their medians and ratios."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        jpegs = flat_copy(photographs, Path(folder) / "photographs")
        unpack(package, Path(folder) / "model")
        settings = os.environ | {"SM_MODEL_DIR": f"{folder}/model", "OMP_WAIT_POLICY": "PASSIVE"}
        servers = {
            "ours": running.enter_context(server([sys.executable, "-m", "model.serve"], settings)),
            "eager": running.enter_context(server([str(eager_python), "-m", "bench.eager_server"], settings)),
        }
        rows: list[Numbers] = []
        with progress_bar(console) as progress:
            task = progress.add_task("Serving", total=rounds * 2 * 3 + rounds * 2)
            for turn in range(rounds):
                for concurrency in (1, 8):
                    load = ["--concurrency", str(concurrency), "--seconds", str(seconds)]
                    # The order changes from round to round, so a machine that slows down affects all equally.
                    for subject in rotated(["ours", "eager", "loop"], turn):
                        measured = (
                            ask_loop(jpegs, load, settings) if subject == "loop" else servers[subject].ask(jpegs, load)
                        )
                        rows.append({"subject": subject, "concurrency": concurrency, "round": turn, **measured})
                        progress.advance(task)
            for turn in range(rounds):
                for subject in rotated(list(servers), turn):
                    rate = 0.7 * median(rows, subject, 8, "per_second_raw")
                    measured = servers[subject].ask(jpegs, ["--rate", str(rate), "--seconds", str(2 * seconds)])
                    rows.append({"subject": subject, "concurrency": "70 %", "round": turn, **measured})
                    progress.advance(task)
        peaks = {subject: one.peak_memory() for subject, one in servers.items()}
    return {"summary": summarise(rows, peaks), "rows": rows}


@dataclass(frozen=True)
class Server:
    """A running serving app."""

    port: int
    process: subprocess.Popen[bytes]

    def ask(self, jpegs: Path, load: list[str]) -> Numbers:
        """The results of bench/client.py with this server's CPU time, and without the client's.

        A client of concurrency c occupies at most min(c, cores) cores. The server could not use the client's share:
        the client's CPU time divided by that number is subtracted from the wall time.
        """
        before = cpu_seconds(self.process.pid)
        arguments = ["--port", str(self.port), "--photographs", str(jpegs), *load]
        seen = json_of([sys.executable, "-m", "bench.client", *arguments], os.environ)
        used = cpu_seconds(self.process.pid) - before
        seconds = seen["wall_s"]
        if seen["concurrency"]:
            seconds -= seen["client_cpu_s"] / min(seen["concurrency"], CORES)
        return {
            "per_second": seen["photographs"] / seconds,
            "per_second_raw": seen["photographs"] / seen["wall_s"],
            "cpu_ms": 1000 * used / (seen["photographs"] + seen["warmed_up"]),
            "client_cpu_ms": 1000 * seen["client_cpu_s"] / seen["photographs"],
            "p50_ms": seen["p50_ms"],
            "p99_ms": seen["p99_ms"],
            "photographs": seen["photographs"],
        }

    def peak_memory(self) -> float:
        """Peak memory in MB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM"))


@contextlib.contextmanager
def server(arguments: list[str], settings: dict[str, str]) -> Iterator[Server]:
    """Starts a serving app, waits until it listens, and stops it at the end."""
    port = free_port()
    environment = settings | {"SAGEMAKER_BIND_TO_PORT": str(port)}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(arguments, cwd=REPOSITORY, env=environment, stderr=log)
        try:
            deadline = time.monotonic() + START_SECONDS
            while b'"message": "serving"' not in log_of(log):
                if process.poll() is not None or time.monotonic() > deadline:
                    lines = log_of(log).decode(errors="replace").strip().splitlines() or ["no output"]
                    raise CliError(f"{' '.join(arguments)} does not serve: {lines[-1]}")
                time.sleep(0.1)
            yield Server(port, process)
        finally:
            process.terminate()
            process.wait()


def log_of(log: Any) -> bytes:
    """Everything that was written so far. The writer shares the file position, so this leaves it at the end."""
    return os.pread(log.fileno(), 1_000_000, 0)


def ask_loop(jpegs: Path, load: list[str], settings: dict[str, str]) -> Numbers:
    seen = json_of([sys.executable, "-m", "bench.loop", "--photographs", str(jpegs), *load], settings)
    per_second = seen["photographs"] / seen["wall_s"]
    return {
        "per_second": per_second,
        "per_second_raw": per_second,
        "cpu_ms": 1000 * seen["cpu_s"] / seen["photographs"],
        "photographs": seen["photographs"],
    }


def summarise(rows: list[Numbers], peaks: dict[str, float]) -> Numbers:
    """Medians over the rounds, and ratios of throughput taken within each round before their median."""
    columns = ("per_second", "per_second_raw", "cpu_ms", "client_cpu_ms", "p50_ms", "p99_ms")
    subjects = sorted({(row["subject"], row["concurrency"]) for row in rows}, key=str)
    medians = [
        {"subject": subject, "concurrency": concurrency}
        | {name: value for name in columns if (value := median(rows, subject, concurrency, name)) is not None}
        for subject, concurrency in subjects
    ]
    ratios = {
        f"ours_to_{other}_at_{concurrency}": statistics.median(
            ours["per_second"] / peer["per_second"]
            for ours, peer in zip(of(rows, "ours", concurrency), of(rows, other, concurrency), strict=True)
        )
        for other in ("eager", "loop")
        for concurrency in (1, 8)
    }
    return {"medians": medians, "ratios": ratios, "peak_memory_mb": peaks}


def of(rows: list[Numbers], subject: str, concurrency: object) -> list[Numbers]:
    """The rows of a subject, in the order of the rounds."""
    return [row for row in rows if (row["subject"], row["concurrency"]) == (subject, concurrency)]


def median(rows: list[Numbers], subject: str, concurrency: object, name: str) -> Any:
    values = [row[name] for row in of(rows, subject, concurrency) if name in row]
    return statistics.median(values) if values else None


def show(console: Console, summary: Numbers) -> None:
    table = bare_table("Serving", "", "at once", "images/s", "as seen", "CPU ms", "client's", "p50 ms", "p99 ms")
    for row in summary["medians"]:
        numbers = ("per_second", "per_second_raw", "cpu_ms", "client_cpu_ms", "p50_ms", "p99_ms")
        table.add_row(NAMES[row["subject"]], str(row["concurrency"]), *(number(row.get(name)) for name in numbers))
    console.print(table)
    ratios = summary["ratios"]
    for concurrency in (1, 8):
        console.print(
            f"At {concurrency} at once: {ratios[f'ours_to_eager_at_{concurrency}']:.1f} x eager torch, "
            f"{ratios[f'ours_to_loop_at_{concurrency}']:.0%} of the loop without HTTP"
        )
    peaks = ", ".join(f"{NAMES[name]} {peak:.0f} MB" for name, peak in summary["peak_memory_mb"].items())
    console.print(f"Peak memory: {peaks}")


def flat_copy(photographs: Path, folder: Path) -> Path:
    """The JPEGs below a folder as links in one folder, which both the client and the loop read."""
    found = sorted(path for path in photographs.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        raise CliError(f"there are no JPEGs in {photographs}", USAGE)
    folder.mkdir()
    for place, path in enumerate(found):
        (folder / f"{place:05}.jpg").symlink_to(path.absolute())
    return folder


def unpack(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive) as tar:
            extract(tar, folder)
    except (tarfile.TarError, OSError) as error:
        raise CliError(f"{archive} is not a model package: {error}", PACKAGE_MISSING) from error
