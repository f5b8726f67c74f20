"""What a traced count function sends to the daemon of X-Ray: a subsegment for the wait, and one for each request."""

import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bintally.aws import clients, trace

from tests.functions.conftest import World
from tests.template.test_template import source, translated

KEY = "incoming/SEA1/P-4-B217/2026-11-22T10:15:00Z.jpg"
TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled={};Lineage=1:a:0"


class Daemon:
    """Listens on loopback as X-Ray's daemon does."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"

    def heard(self) -> list[dict[str, Any]]:
        """The documents since the last call: a datagram is in its socket before sendto() returns."""
        found: list[dict[str, Any]] = []
        while True:
            try:
                header, document = self.socket.recv(65_536).split(b"\n")
            except BlockingIOError:
                return found
            assert json.loads(header) == {"format": "json", "version": 1}
            found.append(json.loads(document))


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    daemon = Daemon()
    monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", daemon.address)
    monkeypatch.setenv("_X_AMZN_TRACE_ID", TRACE.format(1))
    monkeypatch.setenv("TRACING", "Active")
    yield daemon
    daemon.socket.close()
    for client in (clients.s3(), clients.endpoint(), clients.dynamodb()):
        for moment, name in (("before-call", "begin"), ("after-call", "end"), ("after-call-error", "error")):
            client.meta.events.unregister(moment, unique_id=f"trace-{name}")


def test_a_photograph_has_one_trace_from_upload_to_table(
    world: World, photo: Callable[..., bytes], daemon: Daemon
) -> None:
    event = world.put(KEY, photo())
    assert world.deliver(event) == []
    waiting, *requests = daemon.heard()
    assert waiting["annotations"] == {"photograph": KEY, "event": event["id"]}
    assert waiting["start_time"] < requests[0]["start_time"] <= requests[-1]["end_time"]
    asked = [(each["name"], each["aws"]["operation"]) for each in requests]
    assert asked[:2] == [("S3", "GetObject"), ("DynamoDB", "BatchGetItem")]
    assert ("SageMaker Runtime", "InvokeEndpoint") in asked and ("DynamoDB", "TransactWriteItems") in asked
    for each in (waiting, *requests):
        assert each["trace_id"] == "1-5759e988-bd862e3fe1be46a994272793" and each["parent_id"] == "53995c3f42cd8ad8"
        assert each["type"] == "subsegment" and re.fullmatch("[0-9a-f]{16}", each["id"])
    assert len({each["id"] for each in (waiting, *requests)}) == len(asked) + 1
    assert not any(each["error"] or each["fault"] or each["throttle"] for each in requests)


def test_photographs_of_a_batch_are_in_one_trace_each_with_its_wait(
    world: World, photo: Callable[..., bytes], daemon: Daemon
) -> None:
    events = [world.put(f"incoming/SEA1/P-{number}/a.jpg", photo()) for number in range(3)]
    assert world.deliver(*events) == []
    found = daemon.heard()
    waits = [each["annotations"]["photograph"] for each in found if each["name"] == "waiting"]
    assert sorted(waits) == [event["detail"]["object"]["key"] for event in events]
    asked = [each["aws"]["operation"] for each in found if each["name"] != "waiting"]
    assert [asked.count(name) for name in ("GetObject", "InvokeEndpoint", "TransactWriteItems")] == [3, 3, 3]
    assert {each["parent_id"] for each in found} == {"53995c3f42cd8ad8"}
    assert all(each["start_time"] <= each["end_time"] for each in found)


def test_a_request_that_fails_is_marked(world: World, daemon: Daemon) -> None:
    trace.trace_requests(clients.s3())
    with pytest.raises(clients.s3().exceptions.ClientError):
        clients.s3().head_object(Bucket="images", Key="none")
    (refused,) = daemon.heard()
    assert (refused["error"], refused["fault"]) == (True, False)


def test_a_request_without_an_answer_is_a_fault(world: World, daemon: Daemon) -> None:
    trace.trace_requests(clients.endpoint())
    world.endpoint.script = [ConnectionError("gone")]
    with pytest.raises(Exception, match="gone"):
        clients.endpoint().invoke_endpoint(EndpointName="e", Body=b"")
    (lost,) = daemon.heard()
    assert (lost["error"], lost["fault"]) == (False, True)


@pytest.mark.parametrize(("tracing", "sampled"), [("Active", 0), ("PassThrough", 1)])
def test_nothing_is_sent_for_a_call_that_is_not_sampled_or_a_stack_without_traces(
    world: World,
    photo: Callable[..., bytes],
    daemon: Daemon,
    monkeypatch: pytest.MonkeyPatch,
    tracing: str,
    sampled: int,
) -> None:
    monkeypatch.setenv("TRACING", tracing)
    monkeypatch.setenv("_X_AMZN_TRACE_ID", TRACE.format(sampled))
    assert world.deliver(world.put(KEY, photo())) == []
    assert daemon.heard() == []


def test_a_daemon_that_is_gone_costs_no_photograph(
    world: World, photo: Callable[..., bytes], daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", "256.0.0.1:1")
    assert world.deliver(world.put(KEY, photo())) == []


def test_traces_are_off_and_only_a_traced_function_may_send_them() -> None:
    assert source()["Parameters"]["Tracing"]["Default"] == "PassThrough"
    function = translated()["Resources"]["CountFunction"]["Properties"]
    assert function["TracingConfig"] == {"Mode": {"Ref": "Tracing"}}
    policy = translated()["Resources"]["CountTracePolicy"]
    assert (policy["Condition"], policy["Properties"]["Roles"]) == ("IsTraced", [{"Ref": "CountRole"}])
    assert source()["Conditions"]["IsTraced"] == {"Fn::Equals": [{"Ref": "Tracing"}, "Active"]}
