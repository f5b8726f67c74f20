"""How long saving the local stack's state stalls it, how long a snapshot takes, and a start from one.

python -m bench.saving --bins 100000

Writes the items and log lines of one photograph for each bin into an emulator of its own, and asks for a small item
without pause: alone, then while snapshots are written. Prints JSON; docs/reliability.md has the figures.
"""

import argparse
import json
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from localsagemaker.ports import free_port

from bench.common import TICKS, Numbers, rank
from local.stack import Local

TABLE, GROUP = "bins", "/aws/lambda/count"
STALL = re.compile(r"snapshot: requests waited ([0-9.]+) ms")
LINES = 3
"""Of one photograph in the logs: 2 kB in all, as with samples that are counted in batches."""


def items(number: int) -> Iterator[dict[str, Any]]:
    """COUNT and LATEST of one bin, as the count function writes them; 1.3 kB of JSON each."""
    bin_id, moment = f"P-{number % 90}-{number:06d}", f"2026-11-28T10:{number // 60 % 60:02d}:{number % 60:02d}.000000Z"
    key, digest = f"incoming/SEA1/{bin_id}/20261128T100000Z.jpg", f"{number:064x}"
    image = {"bucket": "images", "key": key, "version_id": digest[:32], "etag": digest[:32], "sequencer": digest[:16]}
    probabilities = {"L": [{"N": str(round(0.1 + number % 7 / 70, 6))} for _ in range(7)]}
    texts = {"site": "SEA1", "bin": bin_id, "captured_at": moment, "uploaded_at": moment, "counted_at": moment}
    texts |= {"status": "COUNTED", "model_version": "2026-11-27-731e9eed", "order": f"{moment}#{moment}#{digest}"}
    numbers = {"count": 3, "confidence": 0.614, "expected_capped": 2.91, "p_record": 0.28, "priority": 0.72}
    numbers |= {"recorded_quantity": 4, "discrepancy": -1, "latency_ms": 143}
    common = {name: {"S": text} for name, text in texts.items()} | {
        "PK": {"S": f"BIN#SEA1#{bin_id}"},
        "image": {"M": {name: {"S": text} for name, text in (image | {"digest": digest}).items()}},
        "probabilities": probabilities,
        "is_minimum": {"BOOL": False},
        **{name: {"N": str(value)} for name, value in numbers.items()},
    }
    yield common | {"SK": {"S": f"COUNT#{moment}#{digest[:16]}"}}
    yield common | {"SK": {"S": "LATEST"}, "GSI1PK": {"S": "SITE#SEA1"}, "GSI1SK": {"S": bin_id}}


def fill(stack: Local, bins: int) -> None:
    table, logs = stack.client("dynamodb"), stack.client("logs")
    table.create_table(
        TableName=TABLE,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "PK", "KeyType": "HASH"}, {"AttributeName": "SK", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("PK", "SK")],
    )
    logs.create_log_group(logGroupName=GROUP)
    logs.create_log_stream(logGroupName=GROUP, logStreamName="one")

    def put(first: int) -> None:
        found = [item for number in range(first, min(first + 12, bins)) for item in items(number)]
        table.batch_write_item(RequestItems={TABLE: [{"PutRequest": {"Item": item}} for item in found]})

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(put, range(0, bins, 12)))
    line = json.dumps({"level": "INFO", "message": "counted", "text": "x" * 400})
    for first in range(0, bins * LINES, 2000):
        events = [
            {"timestamp": int(time.time() * 1000), "message": f"{first + number} {line}"} for number in range(2000)
        ]
        logs.put_log_events(logGroupName=GROUP, logStreamName="one", logEvents=events)


def latencies(stack: Local, until: threading.Event) -> list[float]:
    """Seconds of each of a row of small requests."""
    table, found = stack.client("dynamodb"), []
    while not until.is_set():
        before = time.perf_counter()
        table.get_item(TableName=TABLE, Key={"PK": {"S": "a"}, "SK": {"S": "b"}})
        found.append(time.perf_counter() - before)
    return sorted(found)


def milliseconds(found: list[float]) -> Numbers:
    shares = {"median": rank(found, 0.5), "p99": rank(found, 0.99), "longest": found[-1]}
    return {name: round(value * 1000, 1) for name, value in shares.items()}


def children_seconds(pid: int) -> float:
    """Processor time of the children that have ended: those that wrote snapshots, since no function runs here."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[13:15]) / TICKS


def measure(stack: Local, bins: int, rounds: int) -> Numbers:
    stack.start_emulator()
    fill(stack, bins)
    stack.save()
    pid, done, seconds = stack.emulator_pid(), threading.Event(), []
    assert pid is not None
    before_cpu = children_seconds(pid)
    timer = threading.Timer(20, done.set)
    timer.start()
    alone, done = latencies(stack, done), threading.Event()

    def save() -> None:
        for number in range(rounds):
            stack.client("dynamodb").put_item(TableName=TABLE, Item=next(items(number)))
            before = time.perf_counter()
            stack.save()
            seconds.append(round(time.perf_counter() - before, 2))
        done.set()

    threading.Thread(target=save).start()
    during, saved = latencies(stack, done), stack.snapshots.newest()
    assert saved is not None
    cpu = (children_seconds(pid) - before_cpu) / rounds
    stalls = [float(found) for found in STALL.findall(stack.log_file.read_text())]
    memory = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    os.kill(pid, signal.SIGKILL)
    before = time.perf_counter()
    stack.start_emulator()
    return {
        "bins": bins,
        "snapshot_mb": round(saved.size() / 1e6, 1),
        "emulator_mb": round(memory / 1e6),
        "snapshot_s": seconds,
        "snapshot_cpu_s": round(cpu, 2),
        "stall_ms": stalls[-rounds:],
        "request_ms_alone": milliseconds(alone),
        "request_ms_while_saving": milliseconds(during),
        "start_s": round(time.perf_counter() - before, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--bins", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bintally-bench-") as folder:
        own = Local(home=Path(folder) / "home", port=free_port())
        try:
            print(json.dumps(measure(own, options.bins, options.rounds), indent=1))
        finally:
            own.down(discard=True)
