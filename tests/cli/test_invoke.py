"""invoke before Docker: its events, its line, and what it refuses. tests/stack/test_sam_local_invoke.py runs it."""

import json
import re
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from bintally.common.arrivals import parse_arrival
from click.testing import CliRunner, Result
from localsagemaker.ports import free_port

from cli.errors import CliError
from cli.invoke import EVENTS, FUNCTIONS, Invocation, python_of, sequencer, with_object
from cli.main import main
from local.errors import StackError
from local.relay import relay
from local.stack import REPOSITORY


def run(*words: str) -> Result:
    return CliRunner(mix_stderr=False).invoke(main, ["invoke", *words])


def test_every_function_of_the_template_can_be_invoked() -> None:
    handlers = re.findall(r"Handler: (?:bintally\.)?(\w+)\.handler", (REPOSITORY / "template.yaml").read_text())
    assert sorted(handlers) == FUNCTIONS


def test_the_event_is_the_sample_with_the_photograph() -> None:
    sample = json.loads((EVENTS / "count.json").read_text())
    uploaded = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
    found = {"ContentLength": 7, "ETag": '"abc"', "VersionId": "v1", "LastModified": uploaded}
    event = with_object(sample, "images", "incoming/S/a b/1+1.jpg", found)
    arrival = parse_arrival(event["Records"][0]["body"])
    assert (arrival.bucket, arrival.key, arrival.version_id) == ("images", "incoming/S/a b/1+1.jpg", "v1")
    assert (arrival.etag, arrival.sequencer) == ("abc", sequencer(uploaded))
    assert event["Records"][0].keys() == sample["Records"][0].keys()
    assert "images" not in sample["Records"][0]["body"].split("bintally-imagesbucket")[0], "the sample stays as it is"


def test_sequencers_grow_with_time() -> None:
    moments = [datetime(2026, 11, 22, tzinfo=UTC), datetime(2026, 11, 22, 0, 0, 1, tzinfo=UTC), datetime.now(UTC)]
    found = [sequencer(moment) for moment in moments]
    assert found[0] < found[1]
    assert all(re.fullmatch("[0-9A-F]{16}", each) for each in found)


@pytest.mark.parametrize(
    ("image", "ending"), [(None, []), ("base:1", ["--invoke-image", "base:1", "--skip-pull-image"])]
)
def test_the_line_names_an_image_only_when_it_is_told_one(image: str | None, ending: list[str]) -> None:
    line = Invocation("CountFunction", Path("t.yaml"), Path("e.json"), Path("v.json"), image).line()
    assert line[:4] == ["sam", "local", "invoke", "CountFunction"]
    assert line[4:] == ["--template", "t.yaml", "--event", "e.json", "--env-vars", "v.json", *ending]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("count", "incoming/S/none.jpg"), 1, "images contains no photograph incoming/S/none.jpg. Find keys with:"),
        (("count", "s3://other/a.jpg"), 2, "s3://other/a.jpg is not in the stack's images bucket images"),
        (("plan", "incoming/a/b/c.jpg"), 2, "plan takes no photograph; only count does"),
        (("nothing",), 2, "'nothing' is not one of"),
    ],
)
def test_what_is_refused(aws: SimpleNamespace, words: tuple[str, ...], code: int, says: str) -> None:
    shown = run(*words)
    assert shown.exit_code == code
    assert says in shown.stderr


def test_without_docker_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CliError, match="the docker command was not found"):
        python_of("base:1")


def test_the_relay_carries_both_directions_until_it_ends() -> None:
    """127.0.0.2 stands for Docker's bridge."""
    with socket.create_server(("127.0.0.1", free_port())) as stack:
        port = stack.getsockname()[1]

        def echo() -> None:
            connection, _ = stack.accept()
            with connection:
                while data := connection.recv(65536):
                    connection.sendall(data.upper())

        threading.Thread(target=echo, daemon=True).start()
        with relay("127.0.0.2", port) as url:
            assert url == f"http://127.0.0.2:{port}"
            with (
                pytest.raises(StackError, match=f"cannot listen on 127.0.0.2:{port} for the container"),
                relay("127.0.0.2", port),
            ):
                pass
            with socket.create_connection(("127.0.0.2", port)) as container:
                container.sendall(b"a" * 300_000)
                container.shutdown(socket.SHUT_WR)
                received = b"".join(iter(lambda: container.recv(65536), b""))
            assert received == b"A" * 300_000
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port))
