"""Only decodes photographs and shrinks them to 224 x 224, antialiased, on every core.

python -m bench.decode_loop --manifest manifest.jsonl

The photographs are those of a manifest of training/process.py whose buckets are folders.
"""

import argparse
import io
import json
import multiprocessing
import os
import time
from pathlib import Path

from PIL import Image

SIZE = 224


def shrink(paths: list[Path]) -> None:
    for path in paths:
        image = Image.open(io.BytesIO(path.read_bytes()))
        image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--manifest", type=Path, required=True)
    options = parser.parse_args()

    images = [json.loads(line)["image"] for line in options.manifest.read_text().splitlines()]
    photographs = [Path(image["bucket"]) / image["key"] for image in images]
    cores = len(os.sched_getaffinity(0))
    with multiprocessing.Pool(cores) as pool:
        pool.map(shrink, [photographs[:1]] * cores)  # all have started
        started = time.perf_counter()
        for _ in pool.imap_unordered(shrink, (photographs[i : i + 32] for i in range(0, len(photographs), 32))):
            pass
        seconds = time.perf_counter() - started
        pool.close()
        pool.join()  # which adds their time to this process's children's
    used = os.times()
    cpu = used.children_user + used.children_system
    print(json.dumps({"photographs": len(photographs), "seconds": seconds, "cpu_s": cpu}))
