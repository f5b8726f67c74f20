"""up, down, status and env, each as a person runs it: exit codes and one-line errors."""

import errno
import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from localsagemaker.ports import free_port

from cli.main import main
from local.errors import NotStored, PortTaken
from local.owner import make_key
from local.stack import Local

UpWith = Callable[[Path], Result]
VERBS_THAT_NEED_THE_STACK = ["status", "env"]


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Local]:
    monkeypatch.setenv("BINTALLY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BINTALLY_PORT", str(free_port()))
    found = Local.from_environment()
    yield found
    found.down()


def bintally(*words: str) -> tuple[int, str, str]:
    """Exit code, output and error lines."""
    command = [sys.executable, "-c", "from cli.main import main; main(prog_name='bintally')", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("verb", VERBS_THAT_NEED_THE_STACK)
def test_without_a_stack_it_says_how_to_start_one(stack: Local, verb: str) -> None:
    shown = CliRunner(mix_stderr=False).invoke(main, [verb])
    assert (shown.exit_code, shown.stdout) == (3, "")
    assert shown.stderr == "Error: the stack is not running; start it with: bintally up\n"


def test_down_without_a_stack_is_no_error(stack: Local) -> None:
    shown = CliRunner(mix_stderr=False).invoke(main, ["down"])
    assert (shown.exit_code, shown.output) == (0, "nothing was running\n")


@pytest.fixture
def up_with(stack: Local, monkeypatch: pytest.MonkeyPatch) -> Iterator[UpWith]:
    """Runs `bintally up` with a package of the test's own."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def run(package: Path) -> Result:
        chosen = replace(stack, package=package)
        monkeypatch.setattr(Local, "from_environment", classmethod(lambda cls: chosen))
        return CliRunner(mix_stderr=False).invoke(main, ["up"])

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_up_on_a_taken_port_exits_4(stack: Local, up_with: UpWith, tmp_path: Path) -> None:
    package = tmp_path / "model.tar.gz"
    with tarfile.open(package, "w:gz") as tar:
        content = b'{"model_version": "v1"}'
        member = tarfile.TarInfo("package.json")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    with socket.socket() as other:
        other.bind(("127.0.0.1", stack.port))
        other.listen()
        shown = up_with(package)
    assert shown.exit_code == 4
    assert shown.stderr.splitlines()[-1].startswith(f"Error: port {stack.port} is taken by another program")


def test_up_without_a_package_exits_5(up_with: UpWith, tmp_path: Path) -> None:
    shown = up_with(tmp_path / "none.tar.gz")
    assert shown.exit_code == 5
    assert shown.stderr.strip() == f"Error: there is no model package at {tmp_path}/none.tar.gz"


def test_up_takes_the_sites_time_zone(stack: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Local] = []
    monkeypatch.setattr("cli.up.signal.signal", lambda *_: None)
    monkeypatch.setattr("cli.up.start", lambda chosen, _: started.append(chosen))
    monkeypatch.setattr(Local, "outputs", lambda _: {})
    for words in (["up"], ["up", "--timezone", "Europe/Berlin"]):
        shown = CliRunner(mix_stderr=False).invoke(main, words)
        assert shown.exit_code == 0, shown.stderr
    assert [chosen.parameters for chosen in started] == [(), ("SiteTimezone=Europe/Berlin",)]


def test_up_refuses_a_time_zone_that_iana_does_not_know(stack: Local) -> None:
    shown = CliRunner(mix_stderr=False).invoke(main, ["up", "--timezone", "Mars/Base"])
    assert shown.exit_code == 2
    assert "Mars/Base is no IANA time zone; Europe/Berlin, America/New_York and UTC are" in shown.stderr


@pytest.mark.stack
def test_env_and_status_of_a_deployed_stack_then_down_and_wipe(stack: Local) -> None:
    stack.start_emulator()
    value = "it's a value"
    template = {
        "Resources": {"ImagesBucket": {"Type": "AWS::S3::Bucket"}},
        "Outputs": {
            "ImagesBucket": {"Value": {"Ref": "ImagesBucket"}},
            "EndpointName": {"Value": "bintally-serverless"},
            "CountDeadLetterQueueUrl": {"Value": value},
        },
    }
    stack.client("cloudformation").create_stack(StackName="bintally", TemplateBody=json.dumps(template))
    code, exports, _ = bintally("env")
    assert code == 0
    unset, *lines = exports.splitlines()
    assert unset == "unset AWS_SESSION_TOKEN AWS_PROFILE"
    assert all(line.startswith("export ") for line in lines)
    shown = subprocess.run(
        ["bash", "-c", f"{exports}\nenv -0"], capture_output=True, text=True, env={}, check=True
    ).stdout
    variables = dict(pair.split("=", 1) for pair in shown.split("\0") if pair)
    assert variables["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{stack.port}"
    assert variables["AWS_REGION"] == variables["AWS_DEFAULT_REGION"] == "us-east-1"
    assert variables["IMAGES_BUCKET"] == stack.outputs()["ImagesBucket"]
    assert variables["COUNT_DEAD_LETTER_QUEUE_URL"] == value
    code, shown, _ = bintally("status", "--json")
    status = json.loads(shown)
    assert (code, status["endpoint"], status["model"]) == (0, "bintally-serverless not released", "none")
    assert bintally("down", "--wipe") == (0, "stopped\n", "")
    assert not stack.home.exists()
    assert shlex.quote(value) in exports


def file_in_the_way(place: Path) -> Path:
    place.write_text("a file")
    return place


def below_a_file(place: Path) -> Path:
    return file_in_the_way(place) / "stack"


def name_too_long(place: Path) -> Path:
    return place / ("a" * 300)


def path_too_long(place: Path) -> Path:
    return place.joinpath(*["a" * 200] * 30)


HOMES: dict[Callable[[Path], Path], str] = {
    file_in_the_way: "is a file. Set BINTALLY_HOME to a folder of your own",
    below_a_file: "is a file. Set BINTALLY_HOME to a folder of your own",
    name_too_long: "File name too long. Set BINTALLY_HOME to a folder of your own",
    path_too_long: "File name too long. Set BINTALLY_HOME to a folder of your own",
}
EVERY_VERB = [
    *(
        ["up"],
        ["down"],
        ["down", "--wipe"],
        ["status"],
        ["env"],
        ["upload", "samples"],
        ["counts"],
        ["retrain", "start"],
    ),
    *(["model", "list"], ["model", "approve", "1"], ["model", "reject", "1"], ["model", "release", "1"]),
    *(["model", "rollback"], ["stack", "redrive"], ["demo"], ["bench"], ["invoke", "count"]),
]


def one_line_of(shown: Result, exit_code: int) -> str:
    """The error that a command ended with: one line, and no traceback."""
    assert isinstance(shown.exception, SystemExit), shown.exception
    assert (shown.exit_code, shown.stdout) == (exit_code, "")
    assert shown.stderr.count("\n") == 1
    assert shown.stderr.startswith("Error: ")
    return shown.stderr


@pytest.mark.parametrize("words", EVERY_VERB, ids=" ".join)
@pytest.mark.parametrize("home", HOMES, ids=lambda home: home.__name__)
def test_a_home_that_cannot_be_one_is_named(
    words: list[str], home: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BINTALLY_HOME", str(home(tmp_path / "place")))
    shown = CliRunner(mix_stderr=False).invoke(main, words)
    assert HOMES[home] in one_line_of(shown, exit_code=1)


@pytest.mark.parametrize("words", EVERY_VERB, ids=" ".join)
@pytest.mark.parametrize("port", ["abc", "0", "65536", "-1", "4566.0", "²", "٣", " ", "9" * 5000])
def test_a_port_that_is_none_is_wrong_use(words: list[str], port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINTALLY_PORT", port)
    shown = CliRunner(mix_stderr=False).invoke(main, words)
    assert "BINTALLY_PORT must be a number from 1 to 65535, not" in one_line_of(shown, exit_code=2)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that allows no writing: root may write into any other."""
    place = tmp_path / "read-only"
    place.mkdir()
    if os.geteuid() == 0:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "read-only", str(place)], check=True)
    else:
        place.chmod(0o500)
    yield place
    if os.geteuid() == 0:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("words", [["up"], ["demo"]], ids=" ".join)
def test_a_home_that_cannot_be_written_is_named(
    words: list[str], read_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BINTALLY_HOME", str(read_only / "home"))
    shown = CliRunner(mix_stderr=False).invoke(main, words)
    assert "cannot be written: " in one_line_of(shown, exit_code=1)
    assert "Set BINTALLY_HOME to a folder of your own" in shown.stderr


def test_a_stack_whose_home_becomes_read_only_says_so(
    stack: Local, read_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BINTALLY_HOME", str(read_only))
    shown = CliRunner(mix_stderr=False).invoke(main, ["down"])
    assert (shown.exit_code, shown.output) == (0, "nothing was running\n")
    shown = CliRunner(mix_stderr=False).invoke(main, ["up"])
    assert "cannot be written: " in one_line_of(shown, exit_code=1)


def test_a_port_of_another_bintally_is_named_as_such(stack: Local, tmp_path: Path) -> None:
    other = replace(stack, home=tmp_path / "other")
    script = "import socket, sys, time; s = socket.socket(); s.bind(('127.0.0.1', int(sys.argv[2]))); s.listen()"
    variables = {"BINTALLY_HOME": str(other.home), "BINTALLY_PORT": str(stack.port)}
    command = [sys.executable, "-c", f"{script}; print(flush=True); time.sleep(60)", "local.emulator", str(stack.port)]
    holder = subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(PortTaken) as taken:
        stack.start_emulator()
    holder.kill()
    holder.wait()
    assert str(taken.value) == (
        f"port {stack.port} is taken by another Bintally, that of {other.home}; set BINTALLY_PORT to another one, "
        f"or stop it: BINTALLY_HOME={other.home} BINTALLY_PORT={stack.port} bintally down"
    )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_an_error_of_the_disk_is_one_line(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "emulator.log")

    monkeypatch.setattr(Local, "down", fails)
    shown = CliRunner(mix_stderr=False).invoke(main, ["down"])
    assert one_line_of(shown, exit_code=1).startswith(f"Error: emulator.log: {os.strerror(number)}")


def test_a_build_on_a_full_disk_says_so(stack: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    stack.make_home()
    make_key(stack.home)
    full = stack.home / "sam"
    full.mkdir()
    (full / "samcli.py").write_text("raise OSError(28, 'No space left on device')")
    monkeypatch.setenv("PYTHONPATH", str(full))
    with pytest.raises(NotStored, match=r"sam build failed: the disk of .* is full \(.* free\). Free some space"):
        stack.sam(["build"])
