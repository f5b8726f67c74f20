"""One step of `bintally bench scale`, in a process of its own. Prints JSON.

python -m bench.scale_loop follow 100000

The environment names the emulator (AWS_ENDPOINT_URL, keys, region), which has the template's table and a bucket.
"""

import hashlib
import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Lock
from typing import Any

from bintally.aws import clients
from bintally.aws.items import wire
from bintally.aws.table import Table
from bintally.common.arrivals import Arrival
from bintally.labels.follow_batch import Services as Following
from bintally.labels.follow_batch import follow_batch
from bintally.labels.slices import Limits, Reading, merge, read_slices
from bintally.records.record_file import Services as Recording
from bintally.records.record_file import record_file

from bench.common import Numbers
from bench.labels import BUCKET, LINES_OF_OBJECT

SITE = "SEA1"
BATCH = 25
"""Items of a BatchWriteItem, DynamoDB's most."""


@contextmanager
def counted(client: Any, service: str) -> Iterator[Counter[str]]:
    """Requests by operation, and units: as reported for writes; for reads one for each key, which is what
    DynamoDB takes for an item of up to 4 KB and for one that is missing. The emulator reports none for the latter."""
    found: Counter[str] = Counter()
    lock = Lock()  # a bulk client asks from several threads

    def ask(params: dict[str, Any], model: Any, **_: Any) -> None:
        if "ReturnConsumedCapacity" in model.input_shape.members:
            params.setdefault("ReturnConsumedCapacity", "TOTAL")
        if model.name == "BatchGetItem":
            asked = params["RequestItems"].values()
            found["read units"] += sum(len(one["Keys"]) for one in asked if one["ConsistentRead"])

    def note(parsed: dict[str, Any], model: Any, **_: Any) -> None:
        with lock:
            found[model.name] += 1
        used = parsed.get("ConsumedCapacity") or []
        for each in used if isinstance(used, list) else [used]:
            found["write units"] += each["CapacityUnits"] if model.name.startswith(("Put", "Update", "Trans")) else 0

    client.meta.events.register(f"before-parameter-build.{service}", ask)
    client.meta.events.register(f"after-call.{service}", note)
    yield found


def change(number: int, at: datetime) -> dict[str, Any]:
    """The stream's record of a new count, of a bin of its own."""
    moment = f"{at:%Y-%m-%dT%H:%M:%S}.000000Z"
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    key = f"incoming/{SITE}/P-{number:07}/20261122T100000Z.jpg"
    item = {
        **{"PK": f"BIN#{SITE}#P-{number:07}", "SK": f"COUNT#{moment}#{digest}", "site": SITE, "bin": f"P-{number:07}"},
        "image": {"bucket": "images", "key": key, "version_id": digest[:32], "digest": digest},
        **{"captured_at": moment, "counted_at": moment, "order": f"{moment}#{digest[:32]}", "status": "COUNTED"},
        **{"count": 3, "confidence": Decimal("0.61"), "p_record": Decimal("0.28"), "model_version": "2026-11-01-abc"},
        "probabilities": [Decimal("0.1")] * 4 + [Decimal("0.2")] * 3,
        **{"recorded_quantity": 4, "recorded_from": "metadata", "recorded_as_of": moment},
    }
    stream = {"ApproximateCreationDateTime": at.timestamp(), "NewImage": wire(item)}
    return {"eventID": digest[:32], "eventName": "INSERT", "dynamodb": stream}


def put_records(dynamodb: Any, size: int, at: datetime) -> None:
    """The RECORD of each bin, the one that its count was compared with."""
    moment = f"{at:%Y-%m-%dT%H:%M:%S}.000000Z"
    for first in range(0, size, BATCH):
        items = [
            {"PK": f"BIN#{SITE}#P-{number:07}", "SK": "RECORD", "site": SITE, "bin": f"P-{number:07}"}
            | {"expected_quantity": 4, "as_of": moment, "order": f"{moment}#records/all.csv#{number:09}"}
            for number in range(first, min(size, first + BATCH))
        ]
        dynamodb.batch_write_item(RequestItems={"counts": [{"PutRequest": {"Item": wire(item)}} for item in items]})


def follow(size: int) -> Numbers:
    s3, dynamodb = clients.s3(), clients.dynamodb()
    services = Following(s3, Table("counts", dynamodb), BUCKET, timedelta(hours=24))
    now = datetime.now(UTC) - timedelta(seconds=1)  # so that the rows of `records` are later than these
    put_records(dynamodb, size, now)
    labels, seconds, cpu, slowest = 0, 0.0, 0.0, 0.0
    with counted(s3, "s3") as stored, counted(dynamodb, "dynamodb") as read:
        for first in range(0, size, LINES_OF_OBJECT):
            batch = [change(number, now) for number in range(first, min(size, first + LINES_OF_OBJECT))]
            began, used = time.perf_counter(), time.process_time()
            labels += follow_batch(services, batch).lines
            took = time.perf_counter() - began
            seconds, cpu, slowest = seconds + took, cpu + time.process_time() - used, max(slowest, took)
    assert labels == size
    return {
        "changes/s": size / seconds,
        "CPU us each": 1e6 * cpu / size,
        "slowest batch s": slowest,
        "look-ups per 1,000": 1000 * read["BatchGetItem"] / size,
        "read units per 1,000": 1000 * read["read units"] / size,
        "objects per 1,000": 1000 * stored["PutObject"] / size,
    }


def records(size: int) -> Numbers:
    s3, dynamodb = clients.s3(), clients.dynamodb()
    services = Recording(s3, Table("counts", dynamodb), clients.events(), BUCKET, UTC)
    now = datetime.now(UTC)
    rows = (f"{SITE},P-{number:07},{number % 9},{now:%Y-%m-%dT%H:%M:%SZ}" for number in range(size))
    body = "\n".join(["site,bin,expected_quantity,as_of", *rows]).encode()
    put = s3.put_object(Bucket=BUCKET, Key="records/all.csv", Body=body)
    arrival = Arrival("event", now, BUCKET, "records/all.csv", put.get("VersionId", "null"), put["ETag"], "01")
    with counted(dynamodb, "dynamodb") as used, counted(s3, "s3") as stored:
        began, cpu = time.perf_counter(), time.process_time()
        report = record_file(services, arrival, lambda: True)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert report.kept == size, report
    return {
        "seconds": took,
        "rows/s": size / took,
        "CPU us each": 1e6 * cpu / size,
        "look-ups per 1,000": 1000 * used["BatchGetItem"] / size,
        "read units per 1,000": 1000 * used["read units"] / size,
        "write units per 1,000": 1000 * used["write units"] / size,
        "objects read and written": stored["GetObject"] + stored["PutObject"],
    }


def labels(size: int) -> Numbers:
    """All of the log in one run; RetrainMaximumLabels would end one at a million."""
    s3 = clients.s3_bulk()
    with counted(s3, "s3") as asked:
        began, cpu = time.perf_counter(), time.process_time()
        reading, _ = read_slices(s3, BUCKET, "retrain/1", Reading(), Limits(labels=10**9, share=1), float("inf"))
        took = time.perf_counter() - began
        found = merge(s3, BUCKET, reading, "retrain/1/manifest.jsonl")
    assert found == size
    return {
        "slices": len(reading.slices),
        "objects per 1,000": 1000 * asked["GetObject"] / size,
        "lists and writes per 1,000": 1000 * (asked.total() - asked["GetObject"]) / size,
        "read s": took,
        "merged s": time.perf_counter() - began - took,
        "CPU us each": 1e6 * (time.process_time() - cpu) / size,
    }


if __name__ == "__main__":
    part, number = sys.argv[1], int(sys.argv[2])
    report = {"follow": follow, "records": records, "labels": labels}[part](number)
    print(json.dumps(report | {"memory MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
