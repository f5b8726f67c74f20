"""Reads a label log in slices as `plan` does, and merges them into a manifest. Prints JSON.

python -m bench.labels_loop --bucket artifacts --folder retrain/1

The environment names the S3 (AWS_ENDPOINT_URL, keys, region).
"""

import argparse
import json
import resource
import time

from bintally.aws import clients
from bintally.labels.slices import Limits, Reading, merge, read_slices

from bench.common import Numbers


def timed(seconds: float, cpu: float) -> Numbers:
    return {"seconds": time.perf_counter() - seconds, "cpu_s": time.process_time() - cpu}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--folder", required=True)
    options = parser.parse_args()

    s3 = clients.s3_bulk()
    started = time.perf_counter(), time.process_time()
    limits = Limits(labels=10**9, share=1)
    reading, ended = read_slices(s3, options.bucket, options.folder, Reading(), limits, float("inf"))
    read = timed(*started)
    started = time.perf_counter(), time.process_time()
    labels = merge(s3, options.bucket, reading, f"{options.folder}/manifest.jsonl")
    report = {"ended": ended, "slices": len(reading.slices), "labels": labels, "read": read, "merge": timed(*started)}
    print(json.dumps(report | {"peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
