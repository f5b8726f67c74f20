"""The serving app over real HTTP, as a process of its own, with a small network that tells colours apart."""

import base64
import gc
import http.client
import io
import json
import mmap
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import openvino
import pytest
from localsagemaker.ports import free_port
from openvino import opset13 as ops
from PIL import Image

from model import package, preprocess, serve
from model.answer import CLASSES
from tests.outgoing import opened_by

Body = bytes | str | Iterator[bytes]

REPOSITORY = Path(__file__).resolve().parents[2]
COLOURS = {"red": "red", "lime": "lime", "blue": "blue", "black": "black"}
ANSWER_KEYS = {"count", "is_minimum", "expected_capped", "confidence", "probabilities", "model_version", "prior"}


# ---- A package and its process ----


def picture(colour: str, form: str = "PNG", size: tuple[int, int] = (320, 240), **save: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, form, **save)
    return buffer.getvalue()


def save_network(folder: Path) -> None:
    """Mean colour times a fixed matrix: red counts as 1, lime as 3, blue as "6 or more"."""
    images = ops.parameter([-1, 3, preprocess.SIZE, preprocess.SIZE], np.float32, name="images")
    weights = np.zeros((3, len(CLASSES)), dtype=np.float32)
    weights[[0, 1, 2], [1, 3, 6]] = 3
    pooled = ops.reduce_mean(images, np.array([2, 3]), keep_dims=False)
    logits = ops.matmul(pooled, weights, transpose_a=False, transpose_b=False)
    network = openvino.Model([logits], [images], "colours")
    network.inputs[0].get_tensor().set_names({"images"})
    network.outputs[0].get_tensor().set_names({"logits"})
    openvino.save_model(network, folder / "model.xml", compress_to_fp16=False)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound package of the colour network, with golden images."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "golden").mkdir()
    save_network(folder)
    counter = serve.Counter(package.build(folder, model_version="colours-1", golden={}), threads=1)
    golden = {}
    for name, colour in COLOURS.items():
        (folder / f"golden/{name}.png").write_bytes(picture(colour))
        golden[f"golden/{name}.png"] = counter.count(picture(colour))
    package.build(folder, model_version="colours-1", golden=golden, details={"prior": [1 / 7] * 7})
    return folder


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The error's code; what is not shaped as an error fails the test."""
        assert set(self.json) == {"error"}
        assert set(self.json["error"]) == {"code", "message"}
        assert self.json["error"]["message"]
        code: str = self.json["error"]["code"]
        return code


@dataclass
class Endpoint:
    """`python -m model.serve` as SageMaker would start it."""

    folder: Path
    port: int = field(default_factory=free_port)
    arguments: tuple[str, ...] = ()
    written: IO[str] = field(default_factory=partial(tempfile.TemporaryFile, "w+"))
    """Its log. A pipe that nobody reads would stop it once it is full."""

    def start(self) -> "Endpoint":
        settings = {"SM_MODEL_DIR": str(self.folder), "SAGEMAKER_BIND_TO_PORT": str(self.port)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "model.serve", *self.arguments],
            cwd=REPOSITORY,
            env=os.environ | settings,
            stderr=self.written,
        )
        return self

    def wait(self) -> "Endpoint":
        """Until it listens."""
        deadline = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                self.ask("GET", "/ping")
                return self
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"it does not serve: {self.log()}")

    def ask(self, method: str, path: str, body: Body | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            reply = connection.getresponse()
            return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    def invoke(self, body: Body, content_type: str) -> Reply:
        return self.ask("POST", "/invocations", body, content_type=content_type)

    def log(self) -> str:
        """What it wrote, once it has ended."""
        self.process.wait(60)
        self.written.seek(0)
        return self.written.read()

    def stop(self) -> tuple[int, list[dict[str, Any]]]:
        """Its exit code and its log."""
        self.process.send_signal(signal.SIGTERM)
        log = self.log()
        return self.process.returncode, [json.loads(line) for line in log.splitlines()]


@pytest.fixture
def start(colours: Path) -> Iterator[Callable[..., Endpoint]]:
    """Starts endpoints that end with the test."""
    started: list[Endpoint] = []

    def begin(*arguments: str, folder: Path = colours, port: int | None = None) -> Endpoint:
        endpoint = Endpoint(folder, port or free_port(), arguments).start()
        started.append(endpoint)
        return endpoint

    yield begin
    for endpoint in started:
        if endpoint.process.poll() is None:
            endpoint.process.kill()
            endpoint.process.wait()


@pytest.fixture(scope="module")
def endpoint(colours: Path) -> Iterator[Endpoint]:
    """One sound endpoint for the tests that only ask."""
    endpoint = Endpoint(colours).start().wait()
    yield endpoint
    code, _ = endpoint.stop()
    assert code == 0


def encoded(*photographs: bytes) -> str:
    return json.dumps({"images": [base64.b64encode(photograph).decode() for photograph in photographs]})


# ---- Answers ----


def test_ping_says_which_model_is_sound(endpoint: Endpoint) -> None:
    reply = endpoint.ask("GET", "/ping")
    assert reply.status == 200
    assert reply.json == {"model_version": "colours-1"}


@pytest.mark.parametrize(
    ("form", "content_type"),
    [
        ("JPEG", "image/jpeg"),
        ("PNG", "image/png"),
        ("WEBP", "image/webp"),
        ("JPEG", "application/x-image"),
        ("PNG", "Image/PNG; charset=binary"),
    ],
)
def test_photograph_gets_an_answer(endpoint: Endpoint, form: str, content_type: str) -> None:
    reply = endpoint.invoke(picture("lime", form), content_type)
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    answer = reply.json
    assert set(answer) == ANSWER_KEYS
    assert (answer["count"], answer["is_minimum"], answer["model_version"]) == (3, False, "colours-1")
    assert len(answer["probabilities"]) == 7
    assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-4)
    assert answer["confidence"] == pytest.approx(answer["probabilities"][3], abs=1e-4)
    mean = sum(k * p for k, p in enumerate(answer["probabilities"]))
    assert answer["expected_capped"] == pytest.approx(mean, abs=1e-3)


def test_the_sample_request_gets_an_answer_of_the_sample_s_shape(endpoint: Endpoint) -> None:
    """The contract with the count function, whose tests check the same two files from the other side."""
    request = json.loads((REPOSITORY / "events" / "endpoint_request.json").read_text())
    sample = json.loads((REPOSITORY / "events" / "endpoint_answer.json").read_text())
    reply = endpoint.invoke(base64.b64decode(request["Body"]), request["ContentType"])
    assert reply.status == 200
    assert list(reply.json) == list(sample)
    assert {name: type(value) for name, value in reply.json.items()} == {n: type(v) for n, v in sample.items()}
    assert len(reply.json["probabilities"]) == len(sample["probabilities"])


def test_six_or_more_is_a_minimum(endpoint: Endpoint) -> None:
    answer = endpoint.invoke(picture("blue"), "image/png").json
    assert (answer["count"], answer["is_minimum"]) == (6, True)


def test_json_is_answered_in_order(endpoint: Endpoint) -> None:
    colours = ["red", "lime", "blue", "blue", "red", "lime"] * 5
    reply = endpoint.invoke(encoded(*map(picture, colours)), "application/json")
    assert reply.status == 200
    assert [answer["count"] for answer in reply.json] == [{"red": 1, "lime": 3, "blue": 6}[c] for c in colours]


def test_one_image_as_json_is_a_list_of_the_same_answer(endpoint: Endpoint) -> None:
    alone = endpoint.invoke(picture("red"), "image/png").json
    assert endpoint.invoke(encoded(picture("red")), "application/json").json == [alone]


def stalled(package_folder: Path) -> tuple[serve.Counter, list[int], threading.Event, threading.Event]:
    """A counter whose network waits until the last event is set, how many photographs it took each time, and an event
    for when it has begun."""
    counter = serve.Counter(package.load(package_folder), threads=2)
    answers = counter._answers
    sizes: list[int] = []
    started, go_on = threading.Event(), threading.Event()

    def wait(pixels: list[Any]) -> Any:
        sizes.append(len(pixels))
        started.set()
        assert go_on.wait(20)
        return answers(pixels)

    counter._answers = wait  # type: ignore[method-assign]
    return counter, sizes, started, go_on


def test_photographs_that_come_while_the_network_works_are_taken_together(colours: Path) -> None:
    counter, sizes, started, go_on = stalled(colours)
    asked = ["red", "lime", "blue", "red", "blue", "lime"]
    futures = [counter.submit(picture(asked[0]))]
    assert started.wait(20)
    futures += [counter.submit(picture(colour)) for colour in asked[1:]]
    until(lambda: len(counter._waiting) == 5)
    go_on.set()
    counts = [one.result(20)["count"] for one in futures]
    assert counts == [{"red": 1, "lime": 3, "blue": 6}[colour] for colour in asked]
    assert sizes == [1, 4, 1]


def test_a_network_that_fails_says_so_to_each_that_waits_and_goes_on(colours: Path) -> None:
    counter = serve.Counter(package.load(colours), threads=2)
    answers = counter._answers
    failed: list[int] = []

    def first_fails(pixels: list[Any]) -> Any:
        if not failed:
            failed.append(len(pixels))
            until(lambda: len(counter._waiting) == 1)
            raise RuntimeError("out of memory")
        return answers(pixels)

    counter._answers = first_fails  # type: ignore[method-assign]
    futures = [counter.submit(picture("blue")) for _ in range(2)]
    assert sorted(str(one.exception(20)) for one in futures) == ["None", "out of memory"]
    assert counter.count(picture("blue"))["count"] == 6


def test_a_caller_who_left_is_not_counted_and_stops_nobody(colours: Path) -> None:
    counter, sizes, started, go_on = stalled(colours)
    first = counter.submit(picture("red"))
    assert started.wait(20)
    counter.threads.submit(go_on.wait, 20)  # the other thread: what follows waits to be decoded
    left, stayed = counter.submit(picture("red")), counter.submit(picture("blue"))
    assert left.cancel()
    go_on.set()
    assert (first.result(20)["count"], stayed.result(20)["count"]) == (1, 6)
    assert sizes == [1, 1]


def test_nothing_keeps_a_broken_picture(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error, the thread and its future would keep one another, and the picture, until the collector comes."""
    counter = serve.Counter(package.load(colours), threads=1)

    class Picture:
        pass

    left: list[weakref.ref[Picture]] = []

    def fail(*_: Any, **__: Any) -> Any:
        picture = Picture()
        left.append(weakref.ref(picture))
        try:
            raise OSError("truncated")
        except OSError as error:
            raise preprocess.ImageTooLarge("too large") from error

    monkeypatch.setattr(preprocess, "decode", fail)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(preprocess.ImageTooLarge, match="too large"):
            counter.count(b"")
        until(lambda: left[0]() is None)
    finally:
        gc.enable()


def test_a_network_that_answers_otherwise_in_company_is_unsound(colours: Path) -> None:
    counter = serve.Counter(package.load(colours), threads=1)
    assert counter.faults() == []
    answers = counter._answers
    counter._answers = lambda pixels: answers(pixels)[::-1]  # type: ignore[method-assign]
    assert [fault.partition(":")[0] for fault in counter.faults()] == [f"golden/{name}.png" for name in COLOURS]


def test_pages_of_a_mapped_file_are_given_back_and_read_again(tmp_path: Path) -> None:
    def resident() -> int:
        """Kilobytes of the file."""
        smaps = Path("/proc/self/smaps").read_text().partition(str(tmp_path / "weights"))[2]
        return int(smaps.partition("Rss:")[2].split()[0])

    (tmp_path / "weights").write_bytes(b"weights!" * 2**17)
    with (tmp_path / "weights").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:] == b"weights!" * 2**17
        assert resident() == 1024
        serve.release_pages(tmp_path / "weights")
        assert resident() == 0
        assert mapped[-8:] == b"weights!"


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_many_at_once_are_answered_as_one_alone(endpoint: Endpoint) -> None:
    alone = {colour: endpoint.invoke(picture(colour), "image/png").json for colour in COLOURS}
    asked = list(COLOURS) * 6
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda colour: endpoint.invoke(picture(colour), "image/png"), asked))
    for colour, reply in zip(asked, replies, strict=True):
        assert reply.status == 200
        assert reply.json["count"] == alone[colour]["count"]
        assert reply.json["probabilities"] == pytest.approx(alone[colour]["probabilities"], abs=1e-4)


# ---- Refusals ----


def huge_png(width: int, height: int) -> bytes:
    """A PNG header of that size with nothing behind it: whoever decodes it to learn so has lost."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def scans(jpeg: bytes, number: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: each costs the decoder as much as a whole one."""
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + last * number + jpeg[-2:]


BAD_PHOTOGRAPHS = {
    "empty": (b"", 400, "BadImage"),
    "text": (b"this is not a photograph", 400, "BadImage"),
    "tiff": (picture("red", "TIFF"), 400, "BadImage"),
    "many scans": (scans(picture("red", "JPEG", progressive=True), 200), 400, "BadImage"),
    "truncated JPEG": (picture("red", "JPEG")[:-200], 400, "BadImage"),
    "truncated PNG": (picture("red", "PNG")[:200], 400, "BadImage"),
    "truncated WebP": (picture("red", "WEBP")[:-20], 400, "BadImage"),
    "pixel bomb": (huge_png(30_000, 30_000), 413, "ImageTooLarge"),
    "large pixel bomb": (huge_png(8_000, 8_000), 413, "ImageTooLarge"),
}


@pytest.mark.parametrize("name", BAD_PHOTOGRAPHS)
def test_bad_photograph_is_refused(endpoint: Endpoint, name: str) -> None:
    photograph, status, code = BAD_PHOTOGRAPHS[name]
    reply = endpoint.invoke(photograph, "application/x-image")
    assert (reply.status, reply.error) == (status, code)


def test_bad_photograph_in_json_is_named_by_its_place(endpoint: Endpoint) -> None:
    good = picture("red")
    reply = endpoint.invoke(encoded(good, good, b"text"), "application/json")
    assert (reply.status, reply.error) == (400, "BadImage")
    assert reply.json["error"]["message"].startswith("image 2: ")
    reply = endpoint.invoke(encoded(good, huge_png(30_000, 30_000)), "application/json")
    assert (reply.status, reply.error) == (413, "ImageTooLarge")


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[" * 100_000,
        "[]",
        "3",
        "{}",
        '{"images": "abc"}',
        '{"images": []}',
        '{"images": [3]}',
        '{"images": ["?not base64"]}',
        r'{"images": ["\u00e4"]}',
        '{"images": ["http://127.0.0.1/bin.jpg"]}',
        b"\xff\xfe\x00",
    ],
)
def test_bad_json_is_refused(endpoint: Endpoint, body: bytes | str) -> None:
    reply = endpoint.invoke(body, "application/json")
    assert (reply.status, reply.error) == (400, "BadRequest")


def test_too_many_images_are_refused(endpoint: Endpoint) -> None:
    reply = endpoint.invoke(encoded(*[picture("red", size=(8, 8))] * 65), "application/json")
    assert (reply.status, reply.error) == (413, "TooManyImages")


def test_pixels_are_counted_before_any_is_decoded(endpoint: Endpoint) -> None:
    """Twenty photographs of the largest size took 57 s of a core in one request."""
    started = time.monotonic()
    reply = endpoint.invoke(encoded(*[huge_png(8_000, 6_000)] * 20), "application/json")
    assert (reply.status, reply.error) == (413, "TooManyPixels")
    assert "960000000 pixels, more than 50000000 together" in reply.json["error"]["message"]
    assert time.monotonic() - started < 5
    assert endpoint.invoke(encoded(*[picture("red", size=(500, 400))] * 64), "application/json").status == 200


@pytest.mark.parametrize("content_type", ["", "text/plain", "image/gif", "application/octet-stream", "image/jpegs"])
def test_other_media_types_are_refused(endpoint: Endpoint, content_type: str) -> None:
    reply = endpoint.invoke(picture("red"), content_type)
    assert (reply.status, reply.error) == (415, "UnsupportedMediaType")


def test_missing_media_type_is_refused(endpoint: Endpoint) -> None:
    reply = endpoint.ask("POST", "/invocations", picture("red"))
    assert (reply.status, reply.error) == (415, "UnsupportedMediaType")


def test_large_body_is_refused_by_its_length(endpoint: Endpoint) -> None:
    reply = endpoint.invoke(bytes(serve.MAX_BODY + 1), "image/jpeg")
    assert (reply.status, reply.error) == (413, "BodyTooLarge")


def test_large_body_without_a_length_is_refused_while_it_streams(endpoint: Endpoint) -> None:
    before = peak_memory(endpoint.process.pid)
    reply = endpoint.invoke((bytes(65536) for _ in range(1600)), "image/jpeg")  # 100 MiB
    assert (reply.status, reply.error) == (413, "BodyTooLarge")
    assert peak_memory(endpoint.process.pid) - before < 40 * 1024 * 1024


def peak_memory(pid: int) -> int:
    """Bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/", 404, None),
        ("POST", "/invocations/x", 404, None),
        ("GET", "/invocations", 405, "POST"),
        ("POST", "/ping", 405, "GET"),
    ],
)
def test_there_are_two_paths_with_one_method_each(
    endpoint: Endpoint, method: str, path: str, status: int, allow: str | None
) -> None:
    reply = endpoint.ask(method, path)
    assert reply.status == status
    assert reply.error in ("NotFound", "MethodNotAllowed")
    assert reply.headers.get("allow") == allow


def test_it_answers_on_after_refusals(endpoint: Endpoint) -> None:
    """Places in the queue come back, also on one connection that is kept."""
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=60)
    for _ in range(3 * serve.QUEUE_PER_CORE):
        connection.request("POST", "/invocations", b"text", {"content-type": "image/jpeg"})
        reply = connection.getresponse()
        reply.read()
        assert reply.status == 400
    connection.close()
    assert endpoint.invoke(picture("red"), "image/png").status == 200


# ---- Overload ----


def slow_picture() -> bytes:
    """Takes a third of a second or more to decode and shrink, and a few kilobytes to send."""
    return picture("lime", size=(8_000, 6_000))


def test_more_than_the_queue_holds_is_refused(start: Callable[..., Endpoint]) -> None:
    endpoint = start("--queue", "2").wait()
    photograph = slow_picture()
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: endpoint.invoke(photograph, "image/png"), range(8)))
    counted = [reply for reply in replies if reply.status == 200]
    refused = [reply for reply in replies if reply.status == 503]
    assert len(counted) >= 2
    assert len(refused) >= 1
    assert len(counted) + len(refused) == 8
    assert all(reply.json["count"] == 3 for reply in counted)
    assert {reply.error for reply in refused} == {"Overloaded"}
    assert {reply.headers["retry-after"] for reply in refused} == {"1"}
    # It is well meanwhile and afterwards, and a list longer than the queue is let in when it is empty.
    assert endpoint.ask("GET", "/ping").status == 200
    reply = endpoint.invoke(encoded(*[picture("red")] * 5), "application/json")
    assert [answer["count"] for answer in reply.json] == [1] * 5


def test_ping_answers_while_photographs_are_counted(start: Callable[..., Endpoint]) -> None:
    endpoint = start().wait()
    photograph = slow_picture()
    with ThreadPoolExecutor(4) as pool:
        counting = [pool.submit(endpoint.invoke, photograph, "image/png") for _ in range(4)]
        time.sleep(0.1)
        assert endpoint.ask("GET", "/ping").status == 200
        assert not all(one.done() for one in counting)
        assert [one.result().status for one in counting] == [200] * 4


def test_caller_who_hangs_up_leaves_no_place_taken(start: Callable[..., Endpoint]) -> None:
    endpoint = start("--queue", "1").wait()
    for _ in range(3):
        caller = socket.create_connection(("127.0.0.1", endpoint.port))
        caller.sendall(b"POST /invocations HTTP/1.1\r\ncontent-type: image/png\r\ncontent-length: 999\r\n\r\nabc")
        assert eventually(endpoint, 503)
        caller.close()
        assert eventually(endpoint, 200)


def eventually(endpoint: Endpoint, status: int) -> bool:
    """Whether a photograph gets this status within some seconds."""
    deadline = time.monotonic() + 10
    while endpoint.invoke(picture("red"), "image/png").status != status:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


# ---- Soundness, start and stop ----


@pytest.fixture
def copied(colours: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(colours, folder)
    return folder


def test_model_that_answers_its_golden_images_otherwise_is_not_well(
    start: Callable[..., Endpoint], copied: Path
) -> None:
    description = json.loads((copied / "package.json").read_text())
    description["golden"][0]["answer"]["probabilities"][1] -= 0.2
    (copied / "package.json").write_text(json.dumps(description))
    endpoint = start(folder=copied).wait()
    reply = endpoint.ask("GET", "/ping")
    assert (reply.status, reply.error) == (503, "ModelUnsound")
    assert "golden/red.png" in reply.json["error"]["message"]
    reply = endpoint.invoke(picture("red"), "image/png")
    assert (reply.status, reply.error) == (500, "ModelUnsound")
    code, log = endpoint.stop()
    assert code == 0
    assert any("golden/red.png" in line["message"] for line in log if line["level"] == "error")


def test_model_without_golden_images_is_not_well(start: Callable[..., Endpoint], copied: Path) -> None:
    package.build(copied, model_version="colours-1", golden={})
    endpoint = start(folder=copied).wait()
    assert endpoint.ask("GET", "/ping").status == 503


def damage_digest(folder: Path) -> None:
    with (folder / "model.bin").open("ab") as file:
        file.write(b"x")


def damage_network(folder: Path) -> None:
    golden = {one.file: one.answer for one in package.load(folder).golden}
    (folder / "model.xml").write_text("<net/>")
    package.build(folder, model_version="colours-1", golden=golden)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (shutil.rmtree, "there is no package.json"),
        (damage_digest, "model.bin is missing or not the file"),
        (damage_network, "no model to serve"),
    ],
)
def test_package_that_does_not_verify_is_not_served(
    start: Callable[..., Endpoint], copied: Path, damage: Callable[[Path], None], reason: str
) -> None:
    damage(copied)
    endpoint = start(folder=copied)
    log = endpoint.log()
    assert endpoint.process.returncode == 1
    ours = [line for line in log.splitlines() if line.startswith("{")]  # OpenVINO may write lines of its own
    assert len(ours) == 1
    assert reason in json.loads(ours[0])["message"]


def test_another_package_than_the_pinned_one_is_not_served(
    start: Callable[..., Endpoint], colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release gives its model the digest of the package that it judged."""
    monkeypatch.setenv("BINTALLY_PACKAGE_DIGEST", package.sha256(colours / package.NAME))
    start().wait()
    monkeypatch.setenv("BINTALLY_PACKAGE_DIGEST", "0" * 64)
    endpoint = start()
    assert "the package was replaced after its release" in endpoint.log()
    assert endpoint.process.returncode == 1


def test_taken_port_is_told_in_one_line(start: Callable[..., Endpoint], endpoint: Endpoint) -> None:
    second = start(port=endpoint.port)
    log = second.log()
    assert second.process.returncode == 1
    assert log.count("\n") == 1
    assert f":{endpoint.port}" in json.loads(log)["message"]


def test_it_starts_again_on_its_port_after_a_crash(start: Callable[..., Endpoint]) -> None:
    first = start().wait()
    before = first.invoke(picture("blue"), "image/png").json
    first.process.kill()
    first.process.wait()
    again = start(port=first.port).wait()
    assert again.invoke(picture("blue"), "image/png").json == before


@pytest.mark.slow
def test_stopping_finishes_what_has_begun_and_takes_nothing_new(start: Callable[..., Endpoint]) -> None:
    endpoint = start("serve").wait()
    photograph = slow_picture()
    with ThreadPoolExecutor(2) as pool:
        begun = [pool.submit(endpoint.invoke, photograph, "image/png") for _ in range(2)]
        time.sleep(0.2)
        endpoint.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        with pytest.raises(OSError):
            endpoint.ask("GET", "/ping")
        assert [one.result().status for one in begun] == [200] * 2
    log = endpoint.log().splitlines()
    assert endpoint.process.returncode == 0
    assert all(json.loads(line)["level"] == "info" for line in log)


def test_log_is_a_line_of_json_for_each_thing_that_matters(start: Callable[..., Endpoint]) -> None:
    endpoint = start().wait()
    endpoint.invoke(picture("red"), "image/png")
    endpoint.invoke(b"text\nand more", "image/png")
    _, log = endpoint.stop()
    assert [line["message"] for line in log] == ["serving", "not a JPEG, PNG or WebP image"]
    assert log[0]["model_version"] == "colours-1"
    assert (log[1]["status"], log[1]["code"]) == (400, "BadImage")


def test_loading_the_network_reports_to_nobody(tmp_path: Path, colours: Path) -> None:
    """`import openvino` alone sends a client id to an analytics service."""
    assert opened_by("import openvino", tmp_path / "bare") != []
    counter = f"serve.Counter(package.load(Path({str(colours)!r})), threads=1)"
    code = f"from pathlib import Path; from model import package, serve; {counter}"
    assert opened_by(code, tmp_path / "product") == []


ANSWERS = """
import json, sys
from pathlib import Path
from model import package, serve
found = package.load(Path(sys.argv[1]))
counter = serve.Counter(found, threads=1)
print(json.dumps({golden.file: counter.count(golden.data) for golden in found.golden}))
"""


def answers(folder: Path, processor: str) -> dict[str, Any]:
    """The golden images' answers on a processor with no more than these instructions (the cap only lowers)."""
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": processor}
    done = subprocess.run(
        [sys.executable, "-c", ANSWERS, str(folder)], env=environment, cwd=REPOSITORY, capture_output=True, check=True
    )
    return dict(json.loads(done.stdout))


@pytest.mark.slow
def test_golden_answers_of_one_processor_are_right_on_another(tmp_path: Path) -> None:
    """Recorded on AVX2 as on a host with a GPU, asked where there is VNNI, and the other way round."""
    shipped = package.unpack(REPOSITORY / "model" / "pretrained" / "model.tar.gz", tmp_path)
    recorded = {processor: answers(shipped.directory, processor) for processor in ("AVX2", "DEFAULT")}
    for golden in shipped.golden:
        for one, other in (("AVX2", "DEFAULT"), ("DEFAULT", "AVX2")):
            as_recorded = package.Golden(golden.file, golden.data, recorded[one][golden.file])
            assert as_recorded.difference(recorded[other][golden.file]) is None
