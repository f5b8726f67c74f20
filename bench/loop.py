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

import openvino  # type: ignore[import-untyped,unused-ignore]

from model import answer, package, preprocess, serve

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()

    photographs = [path.read_bytes() for path in sorted(options.photographs.glob("*.jp*g"))]
    following = itertools.cycle(photographs)
    cores = serve.cores()
    threads = min(cores, options.concurrency)
    source = package.load(Path(os.environ["SM_MODEL_DIR"]))
    # All cores for one photograph, or a core for each of several: the fastest ways of OpenVINO without batches.
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": cores, "NUM_STREAMS": threads}
    network = openvino.Core().compile_model(source.network, "CPU", {**hints, "ENABLE_CPU_PINNING": False})
    requests = [network.create_infer_request() for _ in range(threads)]

    def count(request: openvino.InferRequest) -> None:
        pixels = preprocess.to_array(preprocess.decode(next(following), size=source.size), source.size)
        request.infer({0: preprocess.normalise(pixels[None])}, share_inputs=True)
        logits = request.get_output_tensor(0).data
        probabilities = answer.probabilities(logits, source.temperature, source.bias)
        answer.answer(probabilities[0], source.model_version, source.prior)

    def count_until(end: float, request: openvino.InferRequest) -> int:
        counted = 0
        while time.perf_counter() < end:
            count(request)
            counted += 1
        return counted

    # OpenVINO may wait for itself for ever if its first two tensors are made by two threads at once.
    for request in requests:
        count(request)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(count_until, [time.perf_counter() + 0.5] * threads, requests))
        wall, cpu = time.perf_counter(), time.process_time()
        counted = sum(pool.map(count_until, [wall + options.seconds] * threads, requests))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"photographs": counted, "wall_s": wall, "cpu_s": cpu}))
