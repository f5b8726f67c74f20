"""A real local stack, started once, and what a person does with it: upload, look up counts, hold the queue.

Nothing here is a stand-in: the emulator, the deployed template, the roles and the endpoint's process are those
that `bintally up` starts. `Relay` stands between the count function and a service only where a test needs that
service to fail in a way that cannot be asked of it.
"""

import contextlib
import functools
import http.client
import io
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from bintally.common.keys import encode_id
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from localsagemaker.ports import free_port
from PIL import Image, ImageDraw

from local import processes
from local.stack import REPOSITORY, Local
from tests.shared import shared
from tests.stack.people import Person, make_person

KEPT_BUILDS = 2
PATIENCE = float(os.environ.get("BINTALLY_PATIENCE", "inf"))
"""Seconds that anything is waited for at most: few where it is known never to come (tests/removals.py)."""
FEW_SNAPSHOTS = {"BINTALLY_SNAPSHOT_SECONDS": "120"}

Item = dict[str, Any]
Check = Callable[[], Any]


def wait_for(what: str, check: Check, seconds: float = 180) -> Any:
    """The first truthy answer of `check`. Fails the test, naming `what`, after `seconds`."""
    deadline = time.monotonic() + min(seconds, PATIENCE)
    while True:
        begun = time.monotonic()
        if found := check():
            return found
        assert time.monotonic() < deadline, f"{what}: not after {min(seconds, PATIENCE)} s"
        # A check that reads the whole table would keep the stack from what is waited for.
        time.sleep(max(0.25, time.monotonic() - begun))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker runs what uses the shared stack: tests hold its queue up, take permissions away and let its services
    fail. A file whose stack is its own names a group of its own."""
    for item in items:
        if "tests/stack/" in item.nodeid:
            item.add_marker(pytest.mark.stack)
            if not item.get_closest_marker("xdist_group"):
                item.add_marker(pytest.mark.xdist_group("stack"))


class User:
    """Someone with a client of the stack's account."""

    wait_for = staticmethod(wait_for)

    def __init__(self, stack: Local) -> None:
        self.stack = stack
        self.outputs = stack.outputs()
        self.bucket = self.outputs["ImagesBucket"]
        self.queue, self.dead = self.outputs["CountQueueUrl"], self.outputs["CountDeadLetterQueueUrl"]
        self.function = self.outputs["CountFunction"]
        self.s3, self.sqs = stack.client("s3"), stack.client("sqs")
        self.functions = stack.client("lambda")
        self.table = (
            stack.session().resource("dynamodb", endpoint_url=stack.endpoint_url).Table(self.outputs["CountsTable"])
        )

    # Photographs and counts

    def upload(self, key: str, body: bytes, **metadata: str) -> str:
        """The version id of what now stands under `key`; metadata names have _ for -."""
        named = {name.replace("_", "-"): value for name, value in metadata.items()}
        answer = self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, Metadata=named)
        return str(answer["VersionId"])

    def items(self) -> list[Item]:
        found: list[Item] = []
        page: Item = {}
        while not found or "LastEvaluatedKey" in page:
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]} if page else {}
            page = dict(self.table.scan(ConsistentRead=True, **start))
            found += page["Items"]
            if not page["Items"]:
                break
        return found

    def counts(self, *keys: str) -> list[Item]:
        """The COUNT# items of the photographs under these keys."""
        items = [item for item in self.items() if item["SK"].startswith("COUNT#")]
        return [item for item in items if item["image"]["key"] in keys]

    def of_site(self, site: str) -> list[Item]:
        """The COUNT# items of a site."""
        return [item for item in self.items() if item["SK"].startswith("COUNT#") and item["site"] == site]

    def wait_counts(self, *keys: str, number: int | None = None, seconds: float = 180) -> list[Item]:
        """The items of these keys once there are `number` of them, one a key unless told."""
        wanted = len(keys) if number is None else number
        what = f"{wanted} counts of {[key[:60] for key in keys]}"
        return list(wait_for(what, lambda: len(found := self.counts(*keys)) >= wanted and found, seconds))

    def latest(self, site: str, bin: str) -> Item:
        found = self.table.get_item(
            Key={"PK": f"BIN#{encode_id(site)}#{encode_id(bin)}", "SK": "LATEST"}, ConsistentRead=True
        )
        return dict(found.get("Item", {}))

    def totals(self, site: str) -> dict[str, int]:
        """The day counters of a site, summed over days and shards, by name."""
        sums: dict[str, int] = {}
        for item in self.items():
            if item["PK"].startswith(f"DAY#{encode_id(site)}#"):
                for name, value in item.items():
                    if name not in ("PK", "SK") and not isinstance(value, str):
                        sums[name] = sums.get(name, 0) + int(value)
        return sums

    # Queues

    def depth(self, queue: str) -> int:
        """Messages waiting or at work."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    def wait_drained(self, seconds: float = 180) -> None:
        wait_for("an empty count queue", lambda: self.depth(self.queue) == 0, seconds)

    def switch_mapping(self, *, enabled: bool) -> None:
        mapping = self.outputs["CountMapping"]
        state = "Enabled" if enabled else "Disabled"
        self.functions.update_event_source_mapping(UUID=mapping, Enabled=enabled)
        wait_for(
            f"mapping {state}",
            lambda: self.functions.get_event_source_mapping(UUID=mapping)["State"] == state,
        )
        if not enabled:
            time.sleep(1)  # A poll that began before may still take messages.

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Photographs that come meanwhile wait in the queue; afterwards they are counted."""
        self.switch_mapping(enabled=False)
        try:
            yield
        finally:
            self.switch_mapping(enabled=True)

    def take_events(self, number: int) -> list[str]:
        """Takes `number` waiting messages off the queue and answers their bodies, oldest first."""
        bodies: list[str] = []

        def receive() -> bool:
            answer = self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            for message in answer.get("Messages", []):
                bodies.append(message["Body"])
                self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
            return len(bodies) >= number

        wait_for(f"{number} events in the queue", receive, 30)
        return bodies

    def send_event(self, body: str) -> None:
        self.sqs.send_message(QueueUrl=self.queue, MessageBody=body)

    def tries(self, number: int) -> None:
        """After how many tries a message goes to the dead-letter queue."""
        name = "RedrivePolicy"
        found = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=[name])["Attributes"][name]
        policy = json.dumps(json.loads(found) | {"maxReceiveCount": number})
        self.sqs.set_queue_attributes(QueueUrl=self.queue, Attributes={name: policy})

    # The function

    def configure(self, **variables: str | None) -> None:
        """Sets environment variables of the count function; None removes one. Its workers start anew."""
        found = self.functions.get_function_configuration(FunctionName=self.function)["Environment"]["Variables"]
        kept = {name: value for name, value in (found | variables).items() if value is not None}
        self.functions.update_function_configuration(FunctionName=self.function, Environment={"Variables": kept})

    def postponed(self) -> list[str]:
        """What the count function's log says of every try that failed."""
        logs = self.stack.client("logs")
        group = self.functions.get_function_configuration(FunctionName=self.function)["LoggingConfig"]["LogGroup"]
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group)
        lines = (event["message"] for page in pages for event in page["events"])
        return [line for line in lines if '"message":"postponed"' in line]

    def wait_postponed(self, before: int, says: str = "") -> None:
        """Waits for a failed try after the first `before`, whose log says this."""
        wait_for(f"a failed try with {says!r}", lambda: any(says in line for line in self.postponed()[before:]))

    def workers(self) -> list[int]:
        """The processes that run the count function now."""
        session = self.stack.emulator_pid()
        assert session is not None
        return [pid for pid in processes.session_members(session) if self.function in environment_of(pid)]

    def serving(self) -> list[int]:
        """The processes that serve the model now."""
        session = self.stack.emulator_pid()
        assert session is not None
        return [pid for pid in processes.session_members(session) if "model.serve" in processes.command_line(pid)]


def environment_of(pid: int) -> str:
    """AWS_LAMBDA_FUNCTION_NAME of a process, or nothing."""
    with contextlib.suppress(OSError):
        for pair in Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0"):
            if pair.startswith("AWS_LAMBDA_FUNCTION_NAME="):
                return pair.partition("=")[2]
    return ""


@pytest.fixture(scope="session", autouse=True)
def builds() -> None:
    """One `sam build` for all stacks of this run and, while the sources stay as they are, of the next; of older ones
    none is kept. Programs that tests start find it too."""
    folder = REPOSITORY / ".pytest-stack"
    os.environ["BINTALLY_BUILDS"] = str(folder)
    for stamp in sorted(folder.glob("*.digest"), key=lambda path: path.stat().st_mtime)[:-KEPT_BUILDS]:
        shutil.rmtree(stamp.with_suffix(""), ignore_errors=True)
        stamp.unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def named_for_the_emulator(request: pytest.FixtureRequest, tests_now: Path | None) -> None:
    """Where the emulator notes which test uses which permission (local/grants.py)."""
    if tests_now:
        group = request.node.get_closest_marker("xdist_group")  # pytest-xdist adds it to the name
        tests_now.write_text(request.node.nodeid.removesuffix(f"@{group.args[0]}"))


@pytest.fixture(scope="session", autouse=True)
def tests_now(builds: None) -> Path | None:
    if noted := os.environ.get("BINTALLY_GRANTS"):
        file = Path(f"{noted}.{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}")
        file.write_text("the start of a stack")
        os.environ["BINTALLY_GRANTS_TEST"] = str(file)
        return file
    return None


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Local:
    def make(home: Path) -> Local:
        stack = Local(home=home, port=free_port(), variables=FEW_SNAPSHOTS)
        stack.up(print)
        return stack

    return shared(tmp_path_factory, "stack", make)


@pytest.fixture(scope="session", name="wait_for")
def waiting() -> Callable[..., Any]:
    return wait_for


@pytest.fixture(scope="session")
def a_port() -> Callable[[], int]:
    return free_port


@pytest.fixture(scope="session")
def a_user() -> Callable[[Local], User]:
    return User


@pytest.fixture(scope="session")
def user(stack: Local) -> User:
    """Retries come after 1, 2, 4 s instead of 30, 60, 120 s: the deployed waits are the template tests' affair."""
    user = User(stack)
    user.configure(RETRY_SECONDS="1")
    return user


# Photographs


def picture(mode: str = "RGB", size: tuple[int, int] = (460, 350), seed: int = 0) -> Image.Image:
    """A drawn bin with a few boxes; another seed gives other bytes."""
    image = Image.new("RGB", size, (150, 130, 110))
    draw = ImageDraw.Draw(image)
    for box in range(3):
        left = (40 + 130 * box + 7 * seed) % max(1, size[0] - 90)
        draw.rectangle((left, size[1] // 3, left + 80, size[1] - 30), fill=(200 - 40 * box, 90, 60 + 50 * box))
    draw.line((0, seed % size[1], size[0], seed % size[1]), fill=(10, 20, 30))
    return image.convert(mode)


def encoded(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.fixture(scope="session")
def draw() -> Callable[..., Image.Image]:
    """draw(mode, size, seed) is a picture."""
    return picture


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """encode(image, format, **options) is a file."""
    return encoded


@pytest.fixture(scope="session")
def photograph() -> Callable[..., bytes]:
    """photograph(seed) is a JPEG."""
    return lambda seed=0: encoded(picture(seed=seed))


# A service that fails as told


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes = b"{}"
    error: str = ""  # x-amzn-errortype
    delay: float = 0


class Relay(ThreadingHTTPServer):
    """Passes requests on to the stack, except those that `answer(operation, body)` has a Reply for.

    `operation` is what X-Amz-Target names, or the path. `answer` is asked before the service is; `after` is
    told when the service has answered and before the caller knows.
    """

    daemon_threads = True

    def __init__(self, stack: Local) -> None:
        super().__init__(("127.0.0.1", 0), RelayHandler)
        self.stack = stack
        self.reset()

    def reset(self) -> None:
        self.asked: list[str] = []
        self.answer: Callable[[str, bytes], Reply | None] = lambda operation, body: None
        self.after: Callable[[str], None] = lambda operation: None

    def fail(self, status: int, error: str = "", body: object = None, delay: float = 0, times: int = -1) -> None:
        """Answers so the next `times` times, or for ever."""
        content = body if isinstance(body, bytes) else json.dumps(body or {"message": error}).encode()
        left = [times]

        def answer(operation: str, asked: bytes) -> Reply | None:
            left[0] -= 1
            return None if left[0] == -1 else Reply(status, content, error, delay)

        self.answer = answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that was killed or gave up is what some tests are about."""


class RelayHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Relay

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        operation = (self.headers.get("X-Amz-Target") or self.path).rpartition(".")[2]
        self.server.asked.append(operation)
        reply = self.server.answer(operation, body)
        if reply:
            time.sleep(reply.delay)
            self.send(reply.status, {"Content-Type": "application/json", "x-amzn-errortype": reply.error}, reply.body)
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.server.stack.port, timeout=120)
        connection.request(self.command, self.path, body, self.signed_again(body))
        answer = connection.getresponse()
        content = answer.read()
        self.server.after(operation)
        self.send(answer.status, dict(answer.getheaders()), content)
        connection.close()

    do_GET = do_PUT = do_POST

    def signed_again(self, body: bytes) -> dict[str, str]:
        """The headers, signed by the stack's owner: the stack refuses a Host that is not its own, and the caller has
        signed the relay's."""
        region, service = self.headers["Authorization"].split("/")[2:4]
        old = ("host", "authorization", "x-amz-date", "x-amz-security-token", "content-length")
        kept = {name: value for name, value in self.headers.items() if name.lower() not in old}
        request = AWSRequest(self.command, self.server.stack.endpoint_url + self.path, kept, body)
        key = self.server.stack.owner_key()
        SigV4Auth(Credentials(key.access_key_id, key.secret_access_key), service, region).add_auth(request)
        return dict(request.headers.items())

    def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value and name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def relay_to(stack: Local) -> Iterator[Relay]:
    relay = Relay(stack)
    thread = threading.Thread(target=relay.serve_forever, daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        relay.shutdown()
        relay.server_close()


@pytest.fixture(scope="module")
def relays(user: User) -> Iterator[dict[str, Relay]]:
    """Relays by service: the count function's way to its endpoint and to its table."""
    with relay_to(user.stack) as endpoint, relay_to(user.stack) as table:
        user.configure(AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME=endpoint.url, AWS_ENDPOINT_URL_DYNAMODB=table.url)
        yield {"endpoint": endpoint, "table": table}
        user.configure(AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME=None, AWS_ENDPOINT_URL_DYNAMODB=None)


@pytest.fixture
def endpoint(relays: dict[str, Relay]) -> Iterator[Relay]:
    yield relays["endpoint"]
    relays["endpoint"].reset()


@pytest.fixture
def table(relays: dict[str, Relay]) -> Iterator[Relay]:
    yield relays["table"]
    relays["table"].reset()


@pytest.fixture(scope="session")
def person(stack: Local, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Person]:
    """person(name, *policies) makes an IAM user with these policies of docs/operations.md and no other right."""
    return functools.partial(make_person, stack, tmp_path_factory)
