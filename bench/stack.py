"""`bintally bench way`, on any stack, and `bintally bench function`, on the local one."""

import contextlib
import os
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bintally.common.keys import encode_id
from boto3.dynamodb.conditions import Key
from rich.console import Console
from rich.progress import Progress

from bench.common import (
    Numbers,
    bare_table,
    cpu_seconds,
    progress_bar,
    rank,
)
from cli.errors import USAGE, CliError
from cli.photographs import Photograph, Uploaded, find, send
from cli.readings import counted, history, pages, seconds_until_counted
from cli.stacks import chosen, on_this_machine
from deployed.stack import Deployed
from local import processes
from local.stack import Local

PATIENCE_SECONDS = 180.0


def measure_way(console: Console, photographs: Path, burst: int, steady: int) -> Numbers:
    """{"burst", "steady"}."""
    stack = chosen()
    counts = stack.counts_table()
    files = jpegs(photographs)
    with progress_bar(console) as progress:
        return {
            "burst": measure_burst(stack, counts, bench_photographs(files, "burst", burst), progress),
            "steady": measure_steady(stack, counts, bench_photographs(files, "steady", steady), progress),
        }


def jpegs(folder: Path) -> list[Path]:
    found = [photograph.path for photograph in find([folder], None, None)]
    if not found:
        raise CliError(f"there are no photographs in {folder}", USAGE)
    return found


def bench_photographs(files: list[Path], name: str, number: int) -> list[Photograph]:
    """The files repeated, each copy as a separate bin, at a new site."""
    site = f"bench-{name}-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    return [Photograph(files[place % len(files)], site, f"{place:05}", None) for place in range(number)]


def measure_burst(stack: Deployed, counts: Any, photographs: list[Photograph], progress: Progress) -> Numbers:
    """Uploads all together: photographs a second from the first upload to the last count, each counted once."""
    site, number = photographs[0].site, len(photographs)
    task = progress.add_task("Burst", total=number)
    before = cpu_by_part(stack)
    started = time.time()
    send(stack.client("s3", max_pool_connections=16), stack.outputs()["ImagesBucket"], photographs, ignore)
    uploaded = time.time()
    done, last_change = 0, time.monotonic()
    # The day's totals are few items however long the burst is, so reading them costs the stack little.
    while done < number and time.monotonic() - last_change < PATIENCE_SECONDS:
        time.sleep(1)
        if (now := day_total(counts, site)) > done:
            done, last_change = now, time.monotonic()
            progress.update(task, completed=done)
    used = {part: seconds - before.get(part, 0.0) for part, seconds in cpu_by_part(stack).items()}
    histories = [history(counts, site, photograph.bin) for photograph in photographs]
    ended = max((moment(count["counted_at"]) for found in histories for count in found), default=uploaded)
    answered = [float(count["latency_ms"]) for found in histories for count in found if "latency_ms" in count]
    once = sum(len(found) == 1 and found[0]["status"] == "COUNTED" for found in histories)
    return {
        "photographs": number,
        "counted_once": once,
        "counted_twice": sum(len(found) > 1 for found in histories),
        "day_total": day_total(counts, site),
        "seconds": ended - started,
        "upload_seconds": uploaded - started,
        "per_second": number / (ended - started),
        "endpoint_latency_ms": statistics.median(answered) if answered else None,
        "cpu_ms": {part: 1000 * seconds / number for part, seconds in used.items()},
    }


def measure_steady(stack: Deployed, counts: Any, photographs: list[Photograph], progress: Progress) -> Numbers:
    """Uploads one photograph a second: seconds from the start of its upload to its count."""
    task = progress.add_task("One a second", total=len(photographs))
    s3, bucket = stack.client("s3"), stack.outputs()["ImagesBucket"]
    uploads: list[Uploaded] = []
    due = time.monotonic()
    for photograph in photographs:
        time.sleep(max(0.0, due - time.monotonic()))
        due += 1
        uploads += send(s3, bucket, [photograph], ignore)
        progress.advance(task)
    latencies = sorted(
        1000 * seconds_until_counted(upload, count) for upload, count in counted(counts, uploads, PATIENCE_SECONDS)
    )
    if len(latencies) < len(photographs):
        raise CliError(f"{len(latencies)} of {len(photographs)} photographs were counted")
    return {"photographs": len(latencies), "p50_ms": rank(latencies, 0.5), "p99_ms": rank(latencies, 0.99)}


def day_total(counts: Any, site: str) -> int:
    """Photographs counted or rejected for a site that is younger than a day."""
    days = {f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}" for moment in (time.time(), time.time() - 86400)}
    found = [shard for day in days for shard in pages(counts, **totals_of(site, day))]
    return sum(int(shard.get("counted", 0)) + int(shard.get("rejected", 0)) for shard in found)


def totals_of(site: str, day: str) -> Numbers:
    return {"KeyConditionExpression": Key("PK").eq(f"DAY#{encode_id(site)}#{day}"), "ConsistentRead": True}


def cpu_by_part(stack: Deployed) -> dict[str, float]:
    """CPU seconds so far of the endpoint, the count function, and the emulator with everything else; empty on AWS."""
    if not isinstance(stack, Local):
        return {}
    session = stack.emulator_pid()
    used = {"endpoint": 0.0, "count function": 0.0, "emulator": 0.0}
    for pid in processes.session_members(session) if session else []:
        with contextlib.suppress(OSError):
            used[part_of(" ".join(processes.command_line(pid)))] += cpu_seconds(pid)
    return used


def part_of(command_line: str) -> str:
    if "model.serve" in command_line:
        return "endpoint"
    return "count function" if "-CountFunction-" in command_line else "emulator"


def show_way(console: Console, report: Numbers) -> None:
    burst, steady = report["burst"], report["steady"]
    table = bare_table("The whole way", "", "")
    table.add_row("Photographs in the burst", f"{burst['photographs']}")
    table.add_row("Counted once, twice", f"{burst['counted_once']}, {burst['counted_twice']}")
    table.add_row("Photographs/s, upload to count", f"{burst['per_second']:.1f}")
    for part, used in burst["cpu_ms"].items():
        table.add_row(f"CPU a photograph, {part}", f"{used:.1f} ms")
    table.add_row("At one a second, p50", f"{steady['p50_ms']:.0f} ms")
    table.add_row("At one a second, p99", f"{steady['p99_ms']:.0f} ms")
    console.print(table)


def measure_function(console: Console, photographs: Path, number: int) -> Numbers:
    stack = on_this_machine()
    counts, files = stack.counts_table(), jpegs(photographs)
    built = stack.home / "build" / "CountFunction"
    if not built.is_dir():
        raise CliError(f"{built} does not exist. Build it with: bintally up")
    settings = os.environ | {"PYTHONPATH": str(built), "AWS_DEFAULT_REGION": "us-east-1"}
    with progress_bar(console) as progress:
        imports = progress.add_task("Importing", total=11)
        times = [import_ms(settings, progress, imports) for _ in range(11)]
        # The first photographs start the function; they are counted, but not measured.
        measure_burst(stack, counts, bench_photographs(files, "warm", 50), progress)
        measured = measure_burst(stack, counts, bench_photographs(files, "function", number), progress)
    return {
        "import_ms": statistics.median(times),
        "unzipped_mb": sum(path.stat().st_size for path in built.rglob("*") if path.is_file()) / 1e6,
        "cpu_ms": measured["cpu_ms"]["count function"],
        "endpoint_cpu_ms": measured["cpu_ms"]["endpoint"],
        "endpoint_latency_ms": measured["endpoint_latency_ms"],
        "photographs": measured["counted_once"],
    }


def show_function(console: Console, report: Numbers) -> None:
    table = bare_table("The count function", "", "")
    table.add_row("Import, median of 11", f"{report['import_ms']:.0f} ms")
    table.add_row("Package unzipped", f"{report['unzipped_mb']:.1f} MB")
    table.add_row("Own CPU a photograph", f"{report['cpu_ms']:.1f} ms")
    table.add_row("Endpoint's CPU a photograph", f"{report['endpoint_cpu_ms']:.1f} ms")
    table.add_row("Endpoint's answer, as the function waits", f"{report['endpoint_latency_ms']:.0f} ms")
    console.print(table)


def import_ms(settings: dict[str, str], progress: Progress, task: Any) -> float:
    """Milliseconds to import the handler's module in a new interpreter, without the interpreter's start.

    The emulator installs pyOpenSSL, which botocore then imports; Lambda's runtime lacks it.
    """
    code = (
        "import sys, time; sys.modules['OpenSSL'] = None; t = time.perf_counter(); import bintally.count;"
        " print((time.perf_counter() - t) * 1000)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, cwd="/")
    if done.returncode:
        raise CliError(f"the function cannot be imported: {done.stderr.strip().splitlines()[-1]}")
    progress.advance(task)
    return float(done.stdout)


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def ignore() -> None:
    """A tick that does nothing."""
