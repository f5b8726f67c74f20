"""The whole stack on this machine: starts it, deploys the real template, releases the model, stops it.

stack = Local.from_environment()
stack.up(print)
stack.client("s3").upload_file("bin.jpg", stack.outputs()["ImagesBucket"], "incoming/SEA1/P-4-B217/1.jpg")
stack.down()
"""

import fcntl
import hashlib
import json
import os
import platform
import shlex
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import boto3
import botocore.session
from localsagemaker.ports import port_taken

from deployed.access import translate_refusals
from deployed.errors import NoAccess
from deployed.shipping import Say, Shipping
from deployed.shipping import package_version as package_version
from deployed.stack import upper_snake
from deployed.version import code_version
from local import processes
from local.errors import (
    DeployFailed,
    NotRunning,
    NotStored,
    PortTaken,
    ReconcileFailed,
    StackError,
    WrongSetting,
)
from local.home import check_home, check_space, disk_full, free_bytes, holder_of_port, unusable
from local.owner import OwnerKey, key_file, make_key, make_private, private_files, read_key
from local.snapshots import Snapshots

REPOSITORY = Path(__file__).resolve().parent.parent
REGION = "us-east-1"
START_SECONDS = 120
STOP_SECONDS = 120
SAVE_SECONDS = 180
UNDER_WAY = timedelta(minutes=5)
"""An upload's event was in its queue by then."""
FULL_BYTES = 1_000_000


@cache
def session_of(key: OwnerKey) -> boto3.Session:
    """A session that ignores the AWS profiles and files of this machine's user. Takes 0.3 s to create."""
    profile = {"profile": (None, None, None, None)}
    files = {name: (None, None, os.devnull, None) for name in ("config_file", "credentials_file")}
    session = boto3.Session(
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=key.secret_access_key,
        region_name=REGION,
        botocore_session=botocore.session.Session(session_vars=profile | files),
    )
    translate_refusals(session)
    return session


@dataclass(frozen=True)
class Local(Shipping):
    """One local stack and its process. `home` contains its state, logs, builds and pid file; `port` is the emulator's.

    `template` and `package` are the repository's unless a test gives others; `parameters` are the template's, as
    `Name=value`; `variables` are added to the emulator's environment.
    """

    home: Path
    port: int
    name: str = "bintally"
    template: Path = REPOSITORY / "template.yaml"
    package: Path = REPOSITORY / "model" / "pretrained" / "model.tar.gz"
    parameters: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    on_aws: ClassVar[bool] = False
    image: str = "bintally-serve:latest"  # see local/emulator.py
    release_seconds: ClassVar[float] = 300
    arrival_seconds: ClassVar[float] = 1  # the emulator sends the event before it answers the upload

    @classmethod
    def from_environment(cls) -> "Local":
        """BINTALLY_HOME (default `.bintally` in the repository) and BINTALLY_PORT (default 4566)."""
        home = os.environ.get("BINTALLY_HOME") or REPOSITORY / ".bintally"
        port = os.environ.get("BINTALLY_PORT") or "4566"
        if not (port.isascii() and port.isdigit()) or not 0 < int(port[:6]) < 65536:
            raise WrongSetting(f"BINTALLY_PORT must be a number from 1 to 65535, not {port}")
        place = Path(os.path.abspath(home))  # noqa: PTH100 - resolve() fails for a name that is too long
        check_home(place)
        return cls(home=place.resolve(), port=int(port))

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log_file(self) -> Path:
        return self.home / "emulator.log"

    @property
    def lock_file(self) -> Path:
        """Locked while the stack starts; it also marks the folder as a stack's."""
        return self.home / "up.lock"

    @property
    def pid_file(self) -> Path:
        return self.home / "emulator.pid"

    @property
    def scratch(self) -> Path:
        """The folder where the emulator unpacks functions; removed when it is down."""
        return self.home / "tmp"

    # Clients

    def credentials(self) -> dict[str, str]:
        """The variables with which any AWS client acts as the stack's owner. NotRunning before its first start."""
        key = self.owner_key()
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": key.access_key_id,
            "AWS_SECRET_ACCESS_KEY": key.secret_access_key,
        }

    def owner_key(self) -> OwnerKey:
        """The key of the stack's root user. Raises NotRunning before its first start."""
        key = read_key(self.home)
        if key is None:
            self.require_running()
            raise self.another_key()
        return key

    def another_key(self) -> StackError:
        file = key_file(self.home)
        return StackError(f"{file} does not contain the running stack's key. Run: bintally down, then bintally up")

    def session(self) -> boto3.Session:
        """The stack owner's session; it ignores the AWS profiles and files of this machine's user."""
        return session_of(self.owner_key())

    @property
    def client_settings(self) -> Mapping[str, Any]:
        """Loopback is reached without a proxy."""
        return {"proxies": {}}

    @property
    def hint(self) -> str:
        return f" (see {self.log_file})"

    def outputs(self) -> dict[str, str]:
        try:
            return super().outputs()
        except NoAccess as error:
            raise self.another_key() from error

    def environment(self) -> dict[str, str]:
        """`credentials` and every output, ImagesBucket as IMAGES_BUCKET."""
        return self.credentials() | {upper_snake(name): value for name, value in self.outputs().items()}

    # State

    def running(self) -> bool:
        """Whether this stack's own emulator answers."""
        return self.emulator_pid() is not None and healthy(self.endpoint_url)

    def require_running(self) -> None:
        if not self.running():
            raise NotRunning("the stack is not running; start it with: bintally up")

    def emulator_pid(self) -> int | None:
        """The session of this stack's emulator, also of a dead one that left processes; else None."""
        try:
            pid = int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None
        words = processes.command_line(pid)
        if words and "local.emulator" not in words:
            return None  # The process id was reused: this process is not ours.
        return pid if processes.session_members(pid) else None

    def status(self) -> dict[str, str]:
        """The stack's location, the live model and the last saved state. Raises NotRunning when it does not run."""
        return {**super().status(), "saved": self.saved(), "log": str(self.log_file)}

    @property
    def snapshots(self) -> Snapshots:
        return Snapshots(self.home)

    def saved(self) -> str:
        """The moment of the last saved state, and why there is no newer one, if so."""
        found, problem = self.snapshots.newest(), self.snapshots.problem()
        return (second(found.moment) if found else "nothing yet") + (f" (not since: {problem})" if problem else "")

    def where(self) -> dict[str, str]:
        return {"address": self.endpoint_url, "process": str(self.emulator_pid())}

    def not_deployed(self) -> NotRunning:
        return NotRunning(f"stack {self.name} is not deployed; start it with: bintally up")

    # Up and down

    def up(self, say: Say) -> None:
        """Starts the emulator unless it runs, deploys, and registers the shipped package, which releases it.

        Calls `say` with each step. If a step fails, everything that it started is stopped again.
        Raises PortTaken, PackageMissing, DeployFailed, ReleaseFailed.
        """
        model_version = package_version(self.package)
        self.make_home()
        with private_files(), self.lock_file.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StackError("another bintally up is running") from error
            self._up(say, model_version)

    def _up(self, say: Say, model_version: str) -> None:
        started = not self.running()
        try:
            if started:
                check_space(self.home)
                restored = self.after_a_crash() if self.crashed() else ""
                say("Starting AWS on this machine")
                self.start_emulator()
                if restored:
                    say(restored)
            say("Building the functions")
            self.build()
            say("Deploying the stack")
            self.deploy()
            say(f"Releasing model {model_version}")
            self.ship(model_version, say)
            if since := self.snapshots.unreconciled():
                self.reconcile_since(since, say)
        except BaseException:
            if started:
                self.stop()
            raise
        self.ask_to_save()

    def reconcile_since(self, since: datetime, say: Say) -> None:
        """Sends photographs that a crash left without a count, and files that nobody read, to their queues. A failure
        does not prevent the start."""
        say("Looking for photographs without a count")
        try:
            found = self.reconcile(since, grace_seconds=0)
        except ReconcileFailed as error:
            say(f"{error}. Look for photographs without a count with: bintally stack reconcile")
            return
        self.snapshots.note_reconciled()
        say(f"{found.requeued:,} of {found.checked:,} photographs since {second(since)} are counted again")
        if found.unread:
            say(f"{found.unread:,} of {found.files:,} files of records since then are read again")

    def crashed(self) -> bool:
        """Whether the stack, which does not run, ended without saving its state."""
        return not self.snapshots.stopped_in_order()

    def after_a_crash(self) -> str:
        """Notes which photographs may have lost their messages. Returns the state from which the stack starts."""
        found = self.snapshots.newest()
        if found is None:
            return "It was not stopped in order, and its state had never been saved: it starts empty"
        self.snapshots.note_loss(found.moment - UNDER_WAY)
        lost = self.snapshots.seconds_lost(found)
        moment = f"{second(found.moment)}, {lost:.0f} s before its end"
        return f"It was not stopped in order: restored its tables, and the rest of its state of {moment}"

    def down(self, discard: bool = False) -> bool:
        """Saves the state, stops the emulator and everything that it started. False when nothing ran.

        Raises NotStored when the state cannot be saved: the stack then still runs and has lost nothing. With `discard`
        it stops without, and the last saved state is kept.
        """
        session = self.emulator_pid()
        if session is None:
            if self.pid_file.exists():
                self.pid_file.unlink()
            return False
        alive = bool(processes.command_line(session))
        if alive and not discard and healthy(self.endpoint_url):
            self.save()
        self.stop()
        if alive and not discard and self.crashed():
            raise NotStored(f"the stack stopped, but its state was not saved{self.kept()} (see {self.log_file})")
        return True

    def stop(self) -> None:
        """Stops everything that the emulator started, and itself. It saves its state if it can."""
        session = self.emulator_pid()
        if session is not None:
            processes.end_session(session, STOP_SECONDS)
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.pid_file.unlink(missing_ok=True)

    def ask_to_save(self) -> bool:
        """Lets the emulator take a snapshot now. False when it is one of an older version, which takes none."""
        session = self.emulator_pid()
        if session is None or not self.crashed():
            return False
        os.kill(session, signal.SIGUSR1)
        return True

    def save(self) -> None:
        """Saves the state of the running stack. Raises NotStored."""
        asked = time.time()
        if not self.ask_to_save():
            return
        deadline = time.monotonic() + SAVE_SECONDS
        while (found := self.snapshots.last_written()) is None or found.moment.timestamp() < asked:
            problem = self.snapshots.problem()
            if problem and self.snapshots.problem_file.stat().st_mtime >= asked:
                raise self.not_saved(problem)
            if time.monotonic() > deadline or not self.running():
                raise self.not_saved(f"no answer (see {self.log_file})")
            time.sleep(0.05)

    def not_saved(self, problem: str) -> NotStored:
        return NotStored(
            f"the state could not be saved: {problem}{self.kept()}. The stack still runs. Free some space on the disk "
            f"of {self.home}, then run bintally down again; or lose the changes: bintally down --discard"
        )

    def kept(self) -> str:
        found = self.snapshots.last_written()
        return f". What changed since {second(found.moment)} (queues, people, models) is not saved" if found else ""

    def make_home(self) -> None:
        """Creates the folder, readable only by its user.

        Raises StackError where the folder contains other files, which `wipe` would remove, or belongs to someone else.
        """
        check_home(self.home)
        if self.is_of_others():
            raise StackError(
                f"{self.home} contains files that Bintally did not create. Set BINTALLY_HOME to an empty folder"
            )
        if self.home.exists() and self.home.stat().st_uid != os.geteuid():
            raise StackError(f"{self.home} belongs to another user. Set BINTALLY_HOME to a folder of your own")
        try:
            self.home.parent.mkdir(parents=True, exist_ok=True)
            with private_files():
                self.home.mkdir(exist_ok=True)
                self.lock_file.touch()
                make_private(self.home)
        except OSError as error:
            raise unusable(self.home, error) from error

    def is_of_others(self) -> bool:
        return self.home.exists() and any(self.home.iterdir()) and not self.lock_file.exists()

    def wipe(self) -> None:
        """Removes state, logs and builds. The stack must be down."""
        if self.is_of_others():
            raise StackError(f"{self.home} is no stack's folder; nothing is removed")
        if self.emulator_pid() is not None:
            raise StackError("the stack is running; stop it first with: bintally down")
        try:
            shutil.rmtree(self.home, ignore_errors=True)
        finally:
            if self.home.exists():
                self.lock_file.touch()  # The rest still belongs to a stack.

    def start_emulator(self) -> None:
        self.stop()  # Ends processes that a crash left.
        if port_taken(self.port):
            raise self.port_is_taken()
        self.make_home()
        make_key(self.home)
        with private_files():
            self.spawn_emulator()

    def port_is_taken(self) -> PortTaken:
        other, cure = holder_of_port(self.port), "set BINTALLY_PORT to another one"
        if other is None:
            return PortTaken(f"port {self.port} is taken by another program; {cure}")
        stop = f"BINTALLY_HOME={shlex.quote(str(other))} BINTALLY_PORT={self.port} bintally down"
        return PortTaken(f"port {self.port} is taken by another Bintally, that of {other}; {cure}, or stop it: {stop}")

    def spawn_emulator(self) -> None:
        self.scratch.mkdir(exist_ok=True)
        settings = {"BINTALLY_HOME": str(self.home), "BINTALLY_PORT": str(self.port)}
        environment = without_aws(os.environ) | dict(self.variables) | settings | {"TMPDIR": str(self.scratch)}
        command = [sys.executable, "-m", "local.emulator"]
        with (
            self.log_file.open("ab") as log,
            processes.started(command, cwd=self.home, env=environment, stdout=log, stderr=log) as emulator,
        ):
            self.pid_file.write_text(str(emulator.pid))  # no later command would find it without
        deadline = time.monotonic() + START_SECONDS
        while not healthy(self.endpoint_url):
            if emulator.poll() is not None or time.monotonic() > deadline:
                reason = last_line(self.log_file)
                raise StackError(f"the emulator did not start: {reason} (see {self.log_file})")
            time.sleep(0.1)

    # Deploying

    def build(self) -> None:
        """Runs `sam build` for this machine's Python, unless the sources have not changed since the last build."""
        digest = digest_of(sources(self.template))
        folder = self.build_folder(digest)
        folder.parent.mkdir(parents=True, exist_ok=True)
        stamp = folder.with_suffix(".digest")
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if stamp.exists() and stamp.read_text() == digest and (folder / "template.json").exists():
                return
            self.sam(
                ["build", "--template", str(self.template), "--build-dir", str(folder)],
                PYTHON_VERSION=f"{sys.version_info.major}.{sys.version_info.minor}",
                PYTHON_PLATFORM=f"{platform.machine()}-manylinux_2_28",
            )
            pack(folder)
            make_private(folder)  # installers copy modes
            stamp.write_text(digest)

    def build_folder(self, digest: str) -> Path:
        """In the home; where BINTALLY_BUILDS names a folder, one of the digest's there, which stacks share."""
        shared = os.environ.get("BINTALLY_BUILDS")
        return Path(shared).resolve() / digest[:16] if shared else self.home / "build"

    def deploy(self) -> None:
        built = self.build_folder(digest_of(sources(self.template)))
        self.sam(
            [
                *("deploy", "--template", str(built / "template.json")),
                *("--stack-name", self.name, "--region", REGION, "--resolve-s3"),
                *("--capabilities", "CAPABILITY_IAM", "--no-confirm-changeset"),
                *("--no-fail-on-empty-changeset", "--no-progressbar"),
                "--parameter-overrides",
                # Each concurrent function is a process here, and waits for the others half of its time: one more than
                # the cores keeps them busy; more only wait for each other's imports.
                f"CountConcurrency={1 + (os.cpu_count() or 1)}",
                # A retraining on one machine has few test bins; a verdict by so few is only for trials.
                "RetrainLeastBins=5",
                *(f"ServingImage={self.image}", "TrainingImage=bintally-train:latest"),  # see local/emulator.py
                f"CodeVersion={code_version(self.template.parent)}",
                *self.parameters,
            ],
            SAM_CLI_POLL_DELAY="0.5",  # seconds between two looks; 5 unless told, which spares AWS and nobody here
        )

    def sam(self, arguments: list[str], **settings: str) -> None:
        """Runs the SAM CLI in its own session: an interrupted `up` ends it with all its children."""
        log_file = self.home / f"sam-{arguments[0]}.log"
        environment = (
            without_aws(os.environ)
            | self.credentials()
            | settings
            | {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
            | {"SAM_CLI_TELEMETRY": "0"}
            | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
        )
        command = [sys.executable, "-m", "samcli", *arguments]
        with (
            log_file.open("wb") as log,
            processes.started(command, cwd=self.template.parent, env=environment, stdout=log, stderr=log) as process,
        ):
            failed = process.wait() != 0
        if failed:
            if "No space left" in log_file.read_text(errors="replace") or free_bytes(self.home) < FULL_BYTES:
                raise disk_full(self.home, f"sam {arguments[0]} failed: ")
            raise DeployFailed(f"sam {arguments[0]} failed: {last_line(log_file)} (see {log_file})")


def healthy(endpoint_url: str) -> bool:
    try:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"{endpoint_url}/_ministack/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def without_aws(environment: "os._Environ[str]") -> dict[str, str]:
    """The caller's environment without AWS settings and proxies, which would lead an AWS client elsewhere."""
    kept = {name: value for name, value in environment.items() if not name.startswith("AWS_")}
    around = [kept[name] for name in ("no_proxy", "NO_PROXY") if kept.get(name)]
    return kept | dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(["127.0.0.1", "localhost", *around]))


def sources(template: Path) -> Iterator[Path]:
    """The files that a build depends on: the template, the functions, the web page and the state machines."""
    yield template
    yield from sorted((template.parent / "machines").glob("*.asl.json"))
    for folder in ("functions", "page"):
        for path in sorted((template.parent / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def digest_of(paths: Iterator[Path]) -> str:
    digest = hashlib.sha256(sys.version.encode())
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{path} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def pack(folder: Path) -> None:
    """Zips what `sam build` left in `folder`, and writes its template as template.json beside it.

    `sam deploy` would zip every function, though all are the same files, and would read seven times a YAML that it
    takes half a second to read: 15 s of a processor at every deployment.
    """
    from samtranslator.yaml_helper import yaml_parse

    template = yaml_parse((folder / "template.yaml").read_text())
    packed: dict[bytes, str] = {}
    for resource in template["Resources"].values():
        code = resource.get("Properties", {}).get("CodeUri")
        if isinstance(code, str) and (folder / code).is_dir():
            files = [path for path in sorted((folder / code).rglob("*")) if path.is_file()]
            same = hashlib.sha256()
            for path in files:
                same.update(f"{path.relative_to(folder / code)} {path.stat().st_size}\n".encode() + path.read_bytes())
            if same.digest() not in packed:
                packed[same.digest()] = shutil.make_archive(str(folder / code), "zip", folder / code)
            resource["Properties"]["CodeUri"] = Path(packed[same.digest()]).name
    (folder / "template.json").write_text(json.dumps(template))


def second(moment: datetime) -> str:
    """A moment for people, with its zone."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def last_line(log_file: Path) -> str:
    """The last line of a log that is not empty."""
    lines = [line.strip() for line in log_file.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no output"
