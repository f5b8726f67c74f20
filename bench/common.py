"""Shared by the benchmarks: CPU time of processes, tables, the JSON report."""

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from localsagemaker.ports import free_port
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli.errors import CliError
from cli.up import interrupt, start
from local.stack import REPOSITORY, Local

CORES = len(os.sched_getaffinity(0))
TICKS = os.sysconf("SC_CLK_TCK")

Numbers = dict[str, Any]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, including its finished children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / TICKS


def json_of(arguments: list[str], settings: Any) -> Numbers:
    done = subprocess.run(arguments, cwd=REPOSITORY, env=settings, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no output"]
        raise CliError(f"{arguments[2] if arguments[1] == '-m' else arguments[1]} failed: {lines[-1]}")
    found: Numbers = json.loads(done.stdout)
    return found


@contextlib.contextmanager
def own_stack(console: Console, *parameters: str, home: Path | None = None) -> Iterator[Local]:
    """A stack for one measurement, with the template's `parameters`. After a failure its logs are kept."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    home = home or Path(tempfile.mkdtemp(prefix="bintally-bench-"))
    stack = Local(home=home, port=free_port(), parameters=parameters)
    start(stack, console)
    try:
        yield stack
    finally:
        stack.down()
    shutil.rmtree(home, ignore_errors=True)


def rotated(subjects: list[str], by: int) -> list[str]:
    by %= len(subjects)
    return subjects[by:] + subjects[:by]


def rank(ordered: list[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def bare_table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    return table


def progress_bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def machine() -> Numbers:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {"cores": CORES, "processor": model, "python": platform.python_version(), "load_average": os.getloadavg()[0]}


def write(json_file: Path | None, name: str, report: Numbers) -> None:
    """Adds a report to a JSON file, next to those of the other commands."""
    if json_file is None:
        return
    found = json.loads(json_file.read_text()) if json_file.exists() else {}
    found |= {name: {"machine": machine(), "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", **report}}
    json_file.write_text(json.dumps(found, indent=1, default=float) + "\n")
