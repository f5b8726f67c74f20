"""The photographs of a batch are counted at once: they wait together, and each counts as it would alone."""

import gc
import io
import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aws_lambda_powertools.utilities.batch import process_partial_response
from bintally import count
from bintally.aws import clients, endpoint, telemetry
from bintally.aws.table import Table
from bintally.common.errors import Transient
from bintally.counting import images
from PIL import Image

from tests.functions.conftest import Endpoint, World
from tests.template.test_template import of_type

Photo = Callable[..., bytes]
ROOT = Path(__file__).parents[2]
BATCH = 5


def put_all(world: World, data: bytes, number: int = BATCH) -> list[dict[str, Any]]:
    """Photographs of bins of their own."""
    return [world.put(f"incoming/SEA1/P-{n}/2026-11-22T10:15:00Z.jpg", data) for n in range(number)]


class Inside:
    """How many threads were in a place at the same time, each for a while."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.lock, self.never = threading.Lock(), threading.Event()

    def during(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)
            self.never.wait(0.03)  # not time.sleep, which is nothing in these tests
            try:
                return function(*given, **named)
            finally:
                with self.lock:
                    self.now -= 1

        return call


@contextmanager
def met(client: Any, operation: str, number: int = BATCH) -> Iterator[None]:
    """The first `number` requests of a kind leave only when all of them are about to."""
    barrier, first = threading.Barrier(number, timeout=10), iter(range(number))

    def wait(**_: Any) -> None:
        if next(first, None) is not None:
            barrier.wait()

    event = f"before-call.{client.meta.service_model.service_id.hyphenize()}.{operation}"
    client.meta.events.register(event, wait)
    yield
    client.meta.events.unregister(event, wait)


@pytest.mark.parametrize("operation", ["GetObject", "TransactWriteItems"])
def test_photographs_of_a_batch_wait_together(world: World, photo: Photo, operation: str) -> None:
    events = put_all(world, photo())
    with met(clients.s3() if operation == "GetObject" else clients.dynamodb(), operation):
        assert world.deliver(*events) == []
    assert world.totals() == {"counted": BATCH, "rejected": 0}


def test_a_function_asks_the_endpoint_about_one_photograph_at_a_time(
    world: World, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint takes as many requests at once as there may be functions: CountConcurrency."""
    asking = Inside()
    monkeypatch.setattr(Endpoint, "__call__", asking.during(Endpoint.__call__))
    assert world.deliver(*put_all(world, photo())) == []
    assert (len(world.endpoint.asked), asking.most) == (BATCH, 1)


@pytest.mark.parametrize("step", ["read", "prepare"])
def test_a_function_decodes_one_photograph_at_a_time(
    world: World, photo: Photo, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    decoding = Inside()
    monkeypatch.setattr(images, step, decoding.during(getattr(images, step)))
    assert world.deliver(*put_all(world, photo())) == []
    assert decoding.most == 1


def test_no_thread_runs_on_when_photographs_are_reported(
    world: World, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lambda would stop it after the answer; and neither the logger nor the metrics are made for threads."""
    before, writing = set(threading.enumerate()), Inside()

    def alone(*given: Any) -> Any:
        assert set(threading.enumerate()) == before
        return process_partial_response(*given)

    monkeypatch.setattr(count, "process_partial_response", alone)
    monkeypatch.setattr(Table, "write_count", writing.during(Table.write_count))
    assert world.deliver(*put_all(world, photo()), "nonsense") == [BATCH]
    assert writing.most > 1, "so there were threads"


@pytest.mark.parametrize("others", [0, 1])
def test_a_photograph_alone_takes_no_thread(
    world: World, photo: Photo, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    monkeypatch.setattr(count, "ThreadPoolExecutor", lambda *_: pytest.fail("made threads"))
    assert world.deliver(*put_all(world, photo(), 1), *["nonsense"] * others) == [1] * others
    assert world.only()["status"] == "COUNTED"


def test_duplicates_and_photographs_of_one_bin_in_a_batch(world: World, photo: Photo, capsys: Any) -> None:
    """All five write at the same time."""
    key = "incoming/SEA1/P-4-B217/front.jpg"
    one, two, three = (world.put(key, photo(), captured_at=f"2020-01-0{day}T00:00:00Z") for day in (1, 2, 3))
    with met(clients.dynamodb(), "TransactWriteItems"):
        assert world.deliver(three, one, three, two, three) == []
    assert len(world.items("COUNT#")) == 3
    assert world.only("LATEST")["image"]["version_id"] == three["detail"]["object"]["version-id"]
    assert world.totals() == {"counted": 3, "rejected": 0}
    (printed,) = (json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line)
    assert (printed["Counted"], printed["Repeated"]) == ([1.0] * 3, [1.0] * 2)


@pytest.mark.parametrize("step", ["read", "prepare"])
def test_an_error_that_nobody_expects_returns_its_message_alone(
    world: World, photo: Photo, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    bad, work = photo(quality=50), getattr(images, step)

    def fail(data: bytes, *more: Any) -> Any:
        return work(data, *more) if data != bad else [][0]

    monkeypatch.setattr(images, step, fail)
    good = put_all(world, photo(), 4)
    assert world.deliver(*good[:2], world.put("incoming/SEA1/P-9/a.jpg", bad), *good[2:]) == [2]
    assert world.totals() == {"counted": 4, "rejected": 0}


def test_a_batch_that_failed_leaves_no_photograph_behind(
    world: World, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of each, its thread's frames and its future would keep one another until the collector comes."""

    class Photograph:
        pass

    left: list[weakref.ref[Photograph]] = []

    def fail(*_: Any) -> Any:
        photograph = Photograph()
        left.append(weakref.ref(photograph))
        raise Transient("the endpoint is busy")

    monkeypatch.setattr(endpoint, "ask", fail)
    monkeypatch.setattr(telemetry.logger, "exception", lambda *_, **__: None)  # pytest keeps its errors
    events = put_all(world, photo())
    gc.collect()
    gc.disable()
    try:
        assert world.deliver(*events) == list(range(BATCH))
        count.processor.exceptions.clear()  # as the next batch does first
        assert [each() for each in left] == [None] * BATCH
    finally:
        gc.enable()


def test_the_errors_of_the_last_batch_are_gone_before_the_next_is_counted(
    world: World, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = put_all(world, photo(), 2)
    kept: list[int] = []

    def fail(*_: Any) -> Any:
        kept.append(len(count.processor.exceptions))
        raise Transient("the endpoint is busy")

    monkeypatch.setattr(endpoint, "ask", fail)
    assert world.deliver(first) == [0]
    assert world.deliver(second, first) == [0, 1]
    assert kept == [0, 0, 0]


def test_clients_that_cannot_be_made_postpone_each_photograph(
    world: World, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Any:
        raise Transient("no credentials")

    monkeypatch.setattr(count, "services", fail)
    assert world.deliver(*put_all(world, photo())) == list(range(BATCH))


def test_records_are_read_once_for_a_batch_also_where_they_cannot_be(
    world: World, photo: Photo, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    events = put_all(world, photo())
    asked: list[int] = []

    def throttle(_: Table, keys: Any, **__: Any) -> Any:
        asked.append(len(keys))
        raise Transient("throttled")

    with monkeypatch.context() as patch:
        patch.setattr(Table, "get_many", throttle)
        assert world.deliver(*events) == list(range(BATCH))
    assert (asked, world.endpoint.asked) == ([BATCH], [])
    calls.clear()
    monkeypatch.setattr(Table, "get_many", Inside().during(Table.get_many))
    assert world.deliver(*events) == []
    assert calls.count("BatchGetItem") == 1


def test_lines_and_metrics_come_in_the_order_of_the_messages(
    world: World, photo: Photo, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Whichever photograph is done first; and a line of a thread names its photograph too."""
    stream = io.StringIO()
    monkeypatch.setattr(telemetry.logger.registered_handler, "stream", stream)
    events, last = put_all(world, photo()), threading.Event()
    for number, event in enumerate(events):
        event["id"] = f"event-{number}"
    broken = {"PK": {"S": "BIN#SEA1#P-3"}, "SK": {"S": "RECORD"}, "expected_quantity": {"S": "four"}}
    world.dynamodb.put_item(TableName="counts", Item=broken)
    write = Table.write_count

    def in_turn(table: Table, found: Any) -> bool:
        if found.photograph.place.bin != "P-4":
            assert last.wait(10)
        try:
            return write(table, found)
        finally:
            last.set()

    monkeypatch.setattr(Table, "write_count", in_turn)
    assert world.deliver(*events) == []
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    told = [(line["message"], line["correlation_id"]) for line in lines]
    assert told == [("unreadable record", "event-3"), *(("counted", f"event-{number}") for number in range(BATCH))]
    assert [line["image"]["key"] for line in lines[1:]] == [event["detail"]["object"]["key"] for event in events]
    assert '"Counted":[1.0,1.0,1.0,1.0,1.0]' in capsys.readouterr().out.replace(" ", "")


def test_as_many_photographs_are_started_as_end_in_time(world: World, photo: Photo) -> None:
    events = put_all(world, photo())
    limit = 1000 * of_type("AWS::Lambda::Function")["CountFunction"]["Timeout"]
    least = 1000 * (count.BATCH_SECONDS + BATCH * count.PHOTOGRAPH_SECONDS)
    assert least < limit
    assert world.deliver(*events, remaining_ms=least - 1) == [4]
    assert world.totals() == {"counted": 4, "rejected": 0}
    assert world.deliver(*events, remaining_ms=least) == []
    assert world.totals() == {"counted": 5, "rejected": 0}


MEASURE = """
import io, sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from bintally.aws.objects import Stored
from bintally.counting.count_photograph import _prepare
from bintally.counting.images import Prepared
from botocore.response import StreamingBody
size = Path(sys.argv[1]).stat().st_size
def prepare(_):
    with Path(sys.argv[1]).open("rb") as body:
        return _prepare(Stored(size, datetime.now(UTC), {}), StreamingBody(body, size))[2]
with ThreadPoolExecutor(5) as threads:
    assert all(isinstance(found, Prepared) for found in threads.map(prepare, range(5)))
print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])
"""


@pytest.mark.slow
def test_a_batch_of_the_largest_photographs_fits_the_function(tmp_path: Path) -> None:
    """Of the kind that takes the most memory, each with 29 MB of EXIF."""
    properties = of_type("AWS::Lambda::Function")["CountFunction"]
    exif = b"Exif\0\0MM\0*" + bytes(29 * 1024**2)
    image, path = Image.new("RGBA", (8000, 6200), (200, 100, 50, 128)), tmp_path / "photograph"
    image.save(path, "WEBP", lossless=True, quality=0, method=0, exif=exif)
    name = "MALLOC_ARENA_MAX"
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)],
        cwd=ROOT / "functions",
        env={name: properties["Environment"]["Variables"][name]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) // 1024 < 1400  # of the function's 1,769
