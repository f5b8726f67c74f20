"""The endpoint: a model package behind SageMaker's serving contract.

    SM_MODEL_DIR=/opt/ml/model SAGEMAKER_BIND_TO_PORT=8080 python -m model.serve

`GET /ping` is 200 only when the model answers its own golden images as its package records them.
`POST /invocations` answers one photograph (image/jpeg, image/png, image/webp, application/x-image) or, as
application/json, `{"images": [base64, ...]}` with a list in the same order. The endpoint never fetches a URL.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import ctypes
import json
import logging
import mmap
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import openvino  # type: ignore[import-untyped,unused-ignore]
import uvicorn
from numpy.typing import NDArray

from model import answer, package, preprocess
from model.answer import Answer
from model.package import Package, PackageError

PHOTOGRAPH_TYPES = {"image/jpeg", "image/png", "image/webp", "application/x-image"}
MAX_BODY = 6 * 1024 * 1024
"""Bytes. A serverless endpoint passes at most 4 MB, and the count function sends less."""
MAX_IMAGES = 64
"""In one JSON request, so that one caller cannot occupy the endpoint for minutes."""
MAX_REQUEST_PIXELS = preprocess.MAX_PIXELS
"""In one JSON request: as many as in its largest photograph, some 3 s of a core. Photographs of 12 megapixels go one
by one, or shrunk: the network sees 160 pixels of an edge."""
BODY_SECONDS = 30
"""A slower upload is aborted, so that it does not keep its place in the queue."""
QUEUE_PER_CORE = 32
"""Photographs in the queue or being counted. A core counts at least 70 a second, so none waits more than 0.5 s."""
TOGETHER_PER_CORE = 2
"""Photographs that the network takes at once. More would be somewhat faster still, and make all of them wait longer."""
DRAIN_SECONDS = 20
"""SageMaker kills a container 30 s after asking it to stop."""

Headers = list[tuple[bytes, bytes]]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Refusal(Exception):
    """A request that gets no count: HTTP status, a code for programs, a message for people."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers


@dataclass
class Waiting:
    """A decoded photograph, [1, 3, S, S], that waits for the network."""

    pixels: NDArray[np.float32]
    future: Future[Answer]


class Counter:
    """The package's network, compiled for this machine, and a thread for each core.

    It is compiled once, and all cores work on what it takes. Photographs that are decoded while it works are taken
    together next: two on two cores take hardly longer than one on both, and none waits for company.
    """

    def __init__(self, source: Package, threads: int) -> None:
        self.source = source
        self.together = TOGETHER_PER_CORE * threads
        core = openvino.Core()
        network = core.read_model(source.network)
        network.reshape([openvino.Dimension(1, self.together), 3, source.size, source.size])
        # float32 outside the int8 layers, so that machines with and without bfloat16 give the same answers.
        options = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
        options |= {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        self._request = core.compile_model(network, "CPU", options).create_infer_request()
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix="count")
        self._waiting: list[Waiting] = []
        self._inferring = threading.Lock()
        # The first answers take longest, and make OpenVINO's own form of the weights.
        for together in range(1, self.together + 1):
            self._answers([np.zeros((1, 3, source.size, source.size), np.float32)] * together)
        release_pages(source.network.with_suffix(".bin"))

    def submit(self, photograph: bytes) -> Future[Answer]:
        """The answer for one photograph's bytes. Its result raises `preprocess.BadImage`."""
        future: Future[Answer] = Future()
        self.threads.submit(self._count, photograph, future)
        return future

    def count(self, photograph: bytes) -> Answer:
        """Waits for the answer. Raises `preprocess.BadImage`."""
        return self.submit(photograph).result()

    def _count(self, photograph: bytes, future: Future[Answer]) -> None:
        if not future.set_running_or_notify_cancel():
            return  # the caller has closed the connection
        try:
            pixels = self._pixels(photograph)
        except preprocess.BadImage as error:
            # A new one: the old one's frames keep the picture, and the future itself, until the collector comes.
            future.set_exception(type(error)(str(error)))
            return
        except Exception as error:  # noqa: BLE001 - the caller gets it
            future.set_exception(error)
            return
        self._waiting.append(Waiting(pixels, future))
        # If another thread has the network, that one takes this photograph too: it looks again after it let go.
        while self._waiting and self._inferring.acquire(blocking=False):
            try:
                if self._waiting:
                    self._answer_waiting()
            finally:
                self._inferring.release()

    def _answer_waiting(self) -> None:
        together = self._waiting[: self.together]
        del self._waiting[: len(together)]
        futures = [one.future for one in together]
        try:
            answers = self._answers([one.pixels for one in together])
            for future, found in zip(futures, answers, strict=True):
                future.set_result(found)
        except Exception as error:  # noqa: BLE001 - the callers get it
            for future in futures:
                if not future.done():
                    future.set_exception(error)

    def _pixels(self, photograph: bytes) -> NDArray[np.float32]:
        size = self.source.size
        return preprocess.normalise(preprocess.to_array(preprocess.decode(photograph, size=size), size)[None])

    def _answers(self, pixels: list[NDArray[np.float32]]) -> list[Answer]:
        """Of at most `together` photographs, which the network takes at once."""
        self._request.infer({0: np.concatenate(pixels)}, share_inputs=True)
        logits = self._request.get_output_tensor(0).data
        rows = answer.probabilities(logits, self.source.temperature, self.source.bias)
        return [answer.answer(row, self.source.model_version, self.source.prior) for row in rows]

    def faults(self) -> list[str]:
        """Golden images whose answers differ from the recorded ones, alone or together with others, which take another
        way through the processor; empty when the model is sound."""
        golden = self.source.golden
        if not golden:
            return ["the package has none"]
        pixels = [self._pixels(one.data) for one in golden]
        found = []
        for together in range(1, min(self.together, len(golden)) + 1):
            for start in range(0, len(golden), together):
                answers = self._answers(pixels[start : start + together])
                for one, given in zip(golden[start:], answers, strict=False):
                    if difference := one.difference(given):
                        found.append(f"{one.file}: {difference}")
        return list(dict.fromkeys(found))


def release_pages(file: Path) -> None:
    """Gives the pages of a mapped file back; the kernel reads again what is used again. OpenVINO has made its own form
    of the weights, and hardly reads the file any more: 25 MB."""
    mappings = Path("/proc/self/maps")
    for line in mappings.read_text().splitlines() if mappings.exists() else ():
        if line.endswith(f" {file.resolve()}"):
            start, end = (int(address, 16) for address in line.split()[0].split("-"))
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


class App:
    """The ASGI application. `queue` limits the photographs waiting or being counted; one more gets a 503."""

    def __init__(self, counter: Counter, queue: int) -> None:
        self.counter, self.queue = counter, queue
        self.load = 0
        self.faults = counter.faults()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            status, headers, content = 200, {}, await self.answer(scope, receive)
        except ConnectionAbortedError:
            return  # the caller has closed the connection
        except Refusal as refusal:
            status, headers = refusal.status, refusal.headers
            content = {"error": {"code": refusal.code, "message": str(refusal)}}
            log("warning", str(refusal), path=scope["path"], status=status, code=refusal.code)
        body = json.dumps(content).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **headers}
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": body})

    async def answer(self, scope: Scope, receive: Receive) -> object:
        """The body of the 200. Raises `Refusal` or ConnectionAbortedError."""
        match scope["path"], scope["method"]:
            case "/ping", "GET" | "HEAD":
                return self.ping()
            case "/invocations", "POST":
                return await self.invoke(scope["headers"], receive)
            case "/ping" | "/invocations" as path, method:
                allowed = "GET" if path == "/ping" else "POST"
                raise Refusal(405, "MethodNotAllowed", f"{path} takes {allowed}, not {method}", allow=allowed)
            case path, _:
                raise Refusal(404, "NotFound", f"there is no {path}, only /ping and /invocations")

    def ping(self) -> object:
        if self.faults:
            raise Refusal(503, "ModelUnsound", f"golden images answered wrongly: {'; '.join(self.faults)}")
        return {"model_version": self.counter.source.model_version}

    async def invoke(self, headers: Headers, receive: Receive) -> object:
        if self.faults:
            raise Refusal(500, "ModelUnsound", "the model does not answer its golden images as recorded")
        sent = {name: value.decode("latin-1") for name, value in headers}
        media_type = sent.get(b"content-type", "").partition(";")[0].strip().lower()
        if media_type not in PHOTOGRAPH_TYPES | {"application/json"}:
            wanted = ", ".join(sorted(PHOTOGRAPH_TYPES | {"application/json"}))
            raise Refusal(415, "UnsupportedMediaType", f"send one of {wanted}, not {media_type or 'nothing'}")
        # A place in the queue is taken before the body is read: this also limits memory.
        self.take(1)
        held = 1
        try:
            body = await read(sent, receive)
            if media_type != "application/json":
                return await self.count(body)
            images = images_of(body)
            self.take(len(images) - held, held=held)
            held = len(images)
            await asyncio.get_running_loop().run_in_executor(self.counter.threads, check_pixels, images)
            counting = map(self.count_encoded, range(held), images)
            answers = await asyncio.gather(*counting, return_exceptions=True)
            for one in answers:
                if isinstance(one, BaseException):
                    raise one
            return answers
        finally:
            self.load -= held

    def take(self, places: int, *, held: int = 0) -> None:
        """Takes places in the queue. A request larger than the queue is admitted when the queue is empty."""
        if self.load > held and self.load + places > self.queue:
            raise Refusal(503, "Overloaded", f"{self.load} photographs are waiting", **{"retry-after": "1"})
        self.load += places

    async def count(self, photograph: bytes) -> Answer:
        try:
            return await asyncio.wrap_future(self.counter.submit(photograph))
        except preprocess.ImageTooLarge as error:
            raise Refusal(413, "ImageTooLarge", str(error)) from error
        except preprocess.BadImage as error:
            raise Refusal(400, "BadImage", str(error)) from error

    async def count_encoded(self, position: int, encoded: str) -> Answer:
        try:
            return await self.count(decoded(encoded))
        except Refusal as refusal:
            raise Refusal(refusal.status, refusal.code, f"image {position}: {refusal}") from refusal


async def read(sent: dict[bytes, str], receive: Receive) -> bytes:
    """The request's body, aborted as soon as it exceeds MAX_BODY, whatever its length header says."""
    too_large = Refusal(413, "BodyTooLarge", f"the body is larger than {MAX_BODY} bytes")
    if int(sent.get(b"content-length", 0)) > MAX_BODY:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ConnectionAbortedError
                body += message.get("body", b"")
                if len(body) > MAX_BODY:
                    raise too_large
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError as error:
        raise Refusal(400, "BodyTooSlow", f"the body did not arrive in {BODY_SECONDS} s") from error


def images_of(body: bytes) -> list[str]:
    """The base64 texts of a JSON request."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "BadRequest", f"not JSON: {error}") from error
    images = request.get("images") if isinstance(request, dict) else None
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise Refusal(400, "BadRequest", 'JSON must be {"images": [base64, ...]}')
    if not images:
        raise Refusal(400, "BadRequest", '"images" is empty')
    if len(images) > MAX_IMAGES:
        raise Refusal(413, "TooManyImages", f"{len(images)} images are more than {MAX_IMAGES}")
    return images


def decoded(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise Refusal(400, "BadRequest", f"not base64: {error}") from error


def check_pixels(images: list[str]) -> None:
    """Refuses a request of more than MAX_REQUEST_PIXELS by the photographs' headers. Those that are unreadable or too
    large by themselves are not decoded later either, and get their own answer."""
    pixels = 0
    for encoded in images:
        with contextlib.suppress(preprocess.BadImage, Refusal):
            size = preprocess.pixels_of(decoded(encoded))
            pixels += size if size <= preprocess.MAX_PIXELS else 0
    if pixels > MAX_REQUEST_PIXELS:
        raise Refusal(413, "TooManyPixels", f"the images have {pixels} pixels, more than {MAX_REQUEST_PIXELS} together")


def cores() -> int:
    """The cores that this process may use. A container's quota applies: threads beyond it are throttled."""
    allowed = len(os.sched_getaffinity(0))
    limit = Path("/sys/fs/cgroup/cpu.max")
    quota, _, period = limit.read_text().partition(" ") if limit.exists() else ("max", "", "")
    return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))


def log(level: str, message: str, **fields: object) -> None:
    """One line of JSON to standard error."""
    line = {"time": round(time.time(), 3), "level": level, "message": message, **fields}
    print(json.dumps(line), file=sys.stderr, flush=True)


class JsonLines(logging.Handler):
    """Logs of libraries, in the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        fields = {"logger": record.name}
        if record.exc_info:
            fields["trace"] = logging.Formatter().formatException(record.exc_info)
        log(record.levelname.lower(), record.getMessage(), **fields)


def run(load: Callable[[int], Counter], host: str, queue: int | None = None) -> None:
    """Serves the counter that `load` returns for a number of threads, until SIGTERM. Raises SystemExit."""
    port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
    # uvicorn replaces these handlers by its own, drains, and raises the signal again when it is done.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    logging.basicConfig(level=logging.WARNING, handlers=[JsonLines()])
    started = time.monotonic()
    threads = cores()
    counter = load(threads)
    app = App(counter, queue or QUEUE_PER_CORE * threads)
    for fault in app.faults:
        log("error", f"golden images: {fault}")
    try:
        listener = socket.create_server((host, port), backlog=2048)
    except OSError as error:
        give_up(f"cannot listen on {host}:{port}: {error.strerror}")
    took = round(time.monotonic() - started, 2)
    version = counter.source.model_version
    log("info", "serving", model_version=version, port=port, threads=threads, queue=app.queue, seconds=took)
    config = uvicorn.Config(
        app,
        http="httptools",
        loop="uvloop",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listener])


def stop(*_: object) -> NoReturn:
    raise SystemExit(0)


def give_up(reason: str) -> NoReturn:
    log("error", " ".join(reason.split()))
    raise SystemExit(1)


def load_from(folder: Path) -> Callable[[int], Counter]:
    """A function that loads a folder's package; a fault in it ends the process with one line."""

    def load(threads: int) -> Counter:
        try:
            return Counter(package.load(folder, os.environ.get("BINTALLY_PACKAGE_DIGEST")), threads)
        except (PackageError, OSError, RuntimeError) as error:
            give_up(f"no model to serve in {folder}: {error}")

    return load


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m model.serve", description="Serves a model package.")
    parser.add_argument("command", nargs="?", choices=["serve"], help="as SageMaker starts its containers")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--queue", type=int, help="photographs waiting or being counted (default: 32 a core)")
    options = parser.parse_args()
    folder = Path(os.environ.get("SM_MODEL_DIR", "/opt/ml/model"))
    run(load_from(folder), options.host, options.queue)


if __name__ == "__main__":
    main()
