"""Counts photographs in one process, from JPEG bytes to probabilities without HTTP, as fast as possible.

SM_MODEL_DIR=DIR python -m bench.loop --photographs DIR --concurrency 8 --seconds 5
"""

import argparse
import itertools
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from model import package, serve

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()

    photographs = [path.read_bytes() for path in sorted(options.photographs.glob("*.jp*g"))]
    source = itertools.cycle(photographs)
    cores = serve.cores()
    threads = min(cores, options.concurrency)
    counter = serve.Counter(package.load(Path(os.environ["SM_MODEL_DIR"])), cores)
    # OpenVINO may wait for itself for ever if its first two tensors are made by two threads at once.
    assert not counter.faults()

    def count_until(end: float) -> int:
        counted = 0
        while time.perf_counter() < end:
            counter.count(next(source), alone=threads == 1)
            counted += 1
        return counted

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(count_until, [time.perf_counter() + 0.5] * threads))
        wall, cpu = time.perf_counter(), time.process_time()
        counted = sum(pool.map(count_until, [wall + options.seconds] * threads))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"photographs": counted, "wall_s": wall, "cpu_s": cpu}))
