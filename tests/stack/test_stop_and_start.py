"""What is kept over a stop, and that a stop, a crash and Ctrl-C leave nothing running."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bintally.labels import log
from boto3.dynamodb.conditions import Attr
from localsagemaker.ports import port_taken

from deployed.people import People
from local.stack import Local
from tests.stack.people import Browser

OWN = "a password of my own"
KEY = "incoming/SEA1/P-1-A1/2026-11-22T10:15:00Z.jpg"


def left_behind(home: Path) -> list[str]:
    """Processes that were started for this home, by what they were told or where they stand."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
                if str(home).encode() in told or (process / "cwd").readlink().is_relative_to(home):
                    found.append(f"{process.name} {(process / 'cmdline').read_text()}")
    return found


def start(home: Path, port: int, *words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"BINTALLY_HOME": str(home), "BINTALLY_PORT": str(port)}
    return subprocess.Popen(
        [Path(sys.executable).with_name("bintally"), *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(stack: Local, *words: str) -> tuple[int, str]:
    """Exit code and output of a `bintally` command."""
    process = start(stack.home, stack.port, *words)
    printed, _ = process.communicate(timeout=600)
    return process.returncode, printed


def labelled(user: Any) -> set[str]:
    """Photographs in the label log."""
    found = log.winners(user.s3, user.outputs["ArtifactsBucket"], datetime.now(UTC))
    return {label["image"]["key"] for label in found.lines()}


def concluded(user: Any, execution: str) -> bool:
    """Whether the run of an execution has ended for its readers, too."""
    runs = user.table.scan(FilterExpression=Attr("execution").eq(execution) & Attr("concluded_at").exists())["Items"]
    return bool(runs) and runs[0]["outcome"] == "failed"


@pytest.fixture
def own(tmp_path: Path, a_port: Callable[[], int]) -> Iterator[Local]:
    stack = Local(home=tmp_path / "own", port=a_port())
    yield stack
    stack.down()


@pytest.mark.xdist_group("stop and start")
@pytest.mark.timeout(1800)
def test_stop_start_and_crash(own: Local, a_user: Callable[[Local], Any], photograph: Callable[..., bytes]) -> None:
    assert run(own, "status")[0] == 3  # not running
    code, printed = run(own, "up")
    assert code == 0, printed
    user = a_user(own)
    user.upload(KEY, photograph(1), expected_quantity="3")
    (item,) = user.wait_counts(KEY)
    user.wait_drained()
    temporary = People(own).add("ida", "counter", ["SEA1"])
    assert Browser(own).session(name="ida", password=temporary, new_password=OWN)[0] == 200

    # An orderly stop keeps everything, and a retraining that it cuts off is concluded.
    assert left_behind(own.home)
    started = own.client("stepfunctions").start_execution(
        stateMachineArn=user.outputs["RetrainStateMachine"], input=json.dumps({"reason": "by hand", "force": True})
    )
    code, printed = run(own, "down")
    assert code == 0, printed
    assert left_behind(own.home) == []
    assert not port_taken(own.port)
    code, printed = run(own, "up")
    assert code == 0, printed
    user = a_user(own)
    assert Browser(own).session(name="ida", password=OWN)[0] == 200
    assert user.counts(KEY) == [item]
    assert user.latest("SEA1", "P-1-A1")["image"] == item["image"]
    assert user.s3.get_object(Bucket=user.bucket, Key=KEY)["Body"].read() == photograph(1)
    user.wait_for("the retraining's end", lambda: concluded(user, started["executionArn"]), 60)
    again = KEY.replace("A1", "A2")
    user.upload(again, photograph(2), expected_quantity="3")
    assert user.wait_counts(again)[0]["status"] == "COUNTED"
    user.wait_for("a label of what was counted after the stop", lambda: labelled(user) == {KEY, again}, 60)

    # A crash of the emulator leaves its children; `down` finds them, and `up` starts from the last snapshot. What was
    # counted since is there too.
    own.save()
    late = KEY.replace("A1", "A4")
    user.upload(late, photograph(4), expected_quantity="3")
    (kept,) = user.wait_counts(late)
    emulator = own.emulator_pid()
    assert emulator is not None
    os.kill(emulator, signal.SIGKILL)
    user.wait_for("the emulator is gone", lambda: not own.running(), 10)
    code, printed = run(own, "down")
    assert code == 0, printed
    assert left_behind(own.home) == []
    code, printed = run(own, "up")
    assert code == 0, printed
    assert "It was not stopped in order: restored its tables, and the rest of its state of" in printed
    assert "photographs since" in printed
    user = a_user(own)
    assert user.counts(KEY) == [item]
    assert user.counts(late) == [kept]
    third = KEY.replace("A1", "A3")
    user.upload(third, photograph(3), expected_quantity="3")
    assert user.wait_counts(third)[0]["status"] == "COUNTED"
    user.wait_for("a label of what was counted after the crash", lambda: third in labelled(user), 60)

    code, printed = run(own, "down", "--wipe")
    assert code == 0, printed
    assert left_behind(own.home) == []
    assert not own.home.exists()


@pytest.mark.xdist_group("interrupted up")
@pytest.mark.parametrize("after", ["emulator.pid", "sam-build.log", "sam-deploy.log"])
def test_ctrl_c_during_up_leaves_nothing(
    own: Local, after: str, wait_for: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if after == "sam-build.log":
        monkeypatch.delenv("BINTALLY_BUILDS")  # there is nothing left to build
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and hands that on
    process = start(own.home, own.port, "up")
    wait_for(after, lambda: (own.home / after).exists(), 120)
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=200)
    assert process.returncode != 0
    assert "Traceback" not in printed
    assert left_behind(own.home) == []
    assert not port_taken(own.port)


def test_a_taken_port_is_named(own: Local, stack: Local) -> None:
    taken = Local(home=own.home, port=stack.port)
    code, printed = run(taken, "up")
    assert code == 4
    assert f"port {stack.port} is taken" in printed
    assert stack.running()
