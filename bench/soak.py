"""`make soak`: uploads photographs while things break, and accounts for every one of them.

    python -m bench.soak --photographs 10000 --times 10 --faults all --seed 7

It starts a separate stack. Some photographs are no images, their capture times are in no order, and faults come between
uploads, in an order that the seed decides. An upload that fails is repeated until it is acknowledged. In the end the
dead letters are redriven and the stack is reconciled, as an operator would do; then each version in S3 must have one
count, the totals must agree, and each bin's LATEST must be its newest count. Meanwhile people recount bins of the site
and files of records arrive (bench/soak_work.py); those are accounted for too, and what the overview adds up is computed
again from the items (bench/soak_totals.py).
"""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from bintally.aws.table import Table
from botocore.exceptions import BotoCoreError, ClientError
from PIL import Image, ImageDraw
from rich.console import Console

from bench.common import own_stack, write
from bench.soak_totals import Totals, totals_of
from bench.soak_work import FOLLOWED_SECONDS, Work, WorkDone
from bench.stack import day_total
from cli.errors import CliError
from cli.invoke import EVENTS, with_object
from cli.readings import history, latest
from cli.stack_reconcile import queued
from cli.stack_redrive import redrive
from local import processes
from local.stack import Local

UPLOADERS = 8
NO_IMAGE = 0.05
"""Share of photographs that are text."""
REPEATED = 0.1
"""Share of photographs whose event is sent a second and third time, under the fault `duplicates`."""
DISK = "4g"
"""Size of the file system of the stack's home, under the fault `disk-full`: 6,000 photographs take 0.8 GB of it."""
START_SECONDS = 60.0
FUNCTIONS = ("Count", "Record", "Follow", "Review", "Answer")
"""All that a photograph, a record or a recount passes."""
ROUNDS = 5
"""Redriving and reconciling, in the end, at most."""
PEOPLE = 4
RECORDED = 0.2
"""Share of the bins of a part of the photographs that get a record with it."""
QUIET_SECONDS = 300.0
"""The count queue must become shorter within this time."""

Say = Callable[[str], None]


@dataclass
class Soak:
    """One run on a running stack, and what happened so far."""

    stack: Local
    rng: random.Random
    site: str
    hold_seconds: float
    """Duration of each fault that lasts."""
    visibility_seconds: int
    """After this time the message of a killed function returns; the template's 24 minutes are too long to wait for."""
    acknowledged: set[tuple[str, str]] = field(default_factory=set)
    """Key and version of each upload that was answered."""
    refused: int = 0
    repeated: int = 0
    happened: Counter[str] = field(default_factory=Counter)
    killed_functions: Counter[str] = field(default_factory=Counter)
    given_up: threading.Event = field(default_factory=threading.Event)
    """Set when a fault has failed: no upload is repeated any more."""

    def __post_init__(self) -> None:
        self.outputs = self.stack.outputs()
        self.bucket = self.outputs["ImagesBucket"]
        # A new client for each upload would take longer than the upload. The port and the key outlast a restart.
        self.s3 = self.stack.client("s3", max_pool_connections=UPLOADERS + 1, retries={"total_max_attempts": 1})
        self.work = Work(self.stack, self.site, random.Random(self.rng.getrandbits(64)))
        self.began = time.monotonic()

    def session_members(self, words: str) -> list[int]:
        """The stack's processes whose command line or function name contains these words."""
        session = self.stack.emulator_pid()
        members = processes.session_members(session) if session else []
        return [pid for pid in members if words in " ".join(processes.command_line(pid)) + function_of(pid)]

    def send(self, words: str, number: int) -> None:
        """Signals the processes of these words; waits for one to start. Raises CliError when none does."""
        deadline = time.monotonic() + START_SECONDS
        while not (found := self.session_members(words)):
            if time.monotonic() > deadline:
                raise CliError(f"no process of {words} runs, so a fault would change nothing")
            time.sleep(0.05)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    # Uploads

    def upload(self, key: str, body: bytes) -> None:
        """Repeats it until it is acknowledged."""
        while not self.given_up.is_set():
            try:
                answer = self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
            except (ClientError, BotoCoreError):
                self.refused += 1
                time.sleep(0.5)
                continue
            self.acknowledged.add((key, answer["VersionId"]))
            return

    # Faults

    def duplicates(self) -> None:
        """Sends the events of some acknowledged photographs twice more."""
        sample = json.loads((EVENTS / "count.json").read_text())
        sqs = self.stack.client("sqs")
        known = sorted(self.acknowledged.copy())
        for key, version_id in self.rng.sample(known, round(REPEATED * len(known))):
            found = self.s3.head_object(Bucket=self.bucket, Key=key, VersionId=version_id)
            body = with_object(sample, self.bucket, key, found)["Records"][0]["body"]
            for _ in range(2):
                sqs.send_message(QueueUrl=self.outputs["CountQueueUrl"], MessageBody=body)
                self.repeated += 1

    def endpoint_killed(self) -> None:
        self.send("model.serve", signal.SIGKILL)

    def endpoint_stopped(self) -> None:
        """It accepts connections and never answers."""
        self.send("model.serve", signal.SIGSTOP)
        time.sleep(self.hold_seconds)
        self.send("model.serve", signal.SIGCONT)

    def endpoint_slow(self) -> None:
        """It runs for a tenth of the time."""
        ends = time.monotonic() + self.hold_seconds
        while time.monotonic() < ends:
            self.send("model.serve", signal.SIGSTOP)
            time.sleep(0.45)
            self.send("model.serve", signal.SIGCONT)
            time.sleep(0.05)

    def functions_killed(self) -> None:
        """Each of them, in an order of its own."""
        for verb in self.rng.sample(FUNCTIONS, len(FUNCTIONS)):
            self.send(f"-{verb}Function-", signal.SIGKILL)
            self.killed_functions[verb] += 1

    def stopped(self) -> None:
        """The stack stops in order, and starts again."""
        self.stack.down()
        self.stack.up(ignore)

    def killed(self) -> None:
        """A laptop's battery: the emulator ends without a word, then the stack starts again."""
        session = self.stack.emulator_pid()
        assert session is not None
        os.kill(session, signal.SIGKILL)
        self.stack.up(ignore)

    def disk_full(self) -> None:
        """Nothing can be written for a while."""
        ballast = self.stack.home / "ballast"
        try:
            with ballast.open("wb", buffering=0) as file:
                for size in (1 << 20, 1 << 12, 1):
                    with contextlib.suppress(OSError):
                        while True:
                            file.write(b"x" * size)
            time.sleep(self.hold_seconds)
        finally:
            ballast.unlink(missing_ok=True)

    # The whole

    def run(self, number: int, faults: Sequence[str], times: int, say: Say) -> None:
        """Uploads `number` photographs while each fault comes `times` times."""
        plan = [fault for fault in faults for _ in range(times)]
        self.rng.shuffle(plan)
        keys = self.keys(number)
        parts = split(keys, len(plan) + 1)
        self.shorten_visibility()
        self.work.start(PEOPLE)
        self.stack.save()  # a kill would take the people's keys
        with ThreadPoolExecutor(UPLOADERS) as pool:
            for part, fault in zip(parts, [*plan, None], strict=True):
                # Uploads are faster than counting: without a wait, most would be counted after the last fault.
                self.wait_drained(self.stack.client("sqs"), self.outputs["CountQueueUrl"], left=len(part))
                running = [pool.submit(self.upload, key, self.picture()) for key in part]
                bins = sorted({key.split("/")[2] for key in part})
                recorded = self.rng.sample(bins, max(1, round(RECORDED * len(bins))))
                running.append(pool.submit(self.work.send_records, self.s3, self.bucket, recorded))
                if fault:
                    say(f"{len(self.acknowledged):,} uploaded; {fault}")
                    try:
                        getattr(self, fault.replace("-", "_"))()
                    except BaseException:
                        self.given_up.set()
                        self.work.ended.set()
                        raise
                    self.happened[fault] += 1
                    self.shorten_visibility()
                for future in running:
                    future.result()

    def keys(self, number: int) -> list[str]:
        """About ten photographs a bin, taken in the last day and sent in another order."""
        now = datetime.now(UTC)
        moments = [now - timedelta(seconds=1 + self.rng.randrange(86_000)) for _ in range(number)]
        bins = [f"B{self.rng.randrange(max(1, number // 10)):04}" for _ in range(number)]
        return [
            f"incoming/{self.site}/{bin_}/{moment:%Y-%m-%dT%H-%M-%SZ}-{place}.jpg"
            for place, (bin_, moment) in enumerate(zip(bins, moments, strict=True))
        ]

    def picture(self) -> bytes:
        """Bytes that no other photograph has; some are no image."""
        seed = self.rng.getrandbits(64)
        if self.rng.random() < NO_IMAGE:
            return f"no image {seed}".encode()
        image = Image.new("RGB", (240, 180), (150, 130, 110))
        draw = ImageDraw.Draw(image)
        for bit in range(8):
            left, top = 10 + 28 * bit, 20 + (seed >> 8 * bit & 0xFF) // 2
            draw.rectangle((left, top, left + 22, 170), fill=(seed >> bit & 0xFF, 90, seed >> 2 * bit & 0xFF))
        file = io.BytesIO()
        image.save(file, "JPEG")
        return file.getvalue()

    def shorten_visibility(self) -> None:
        for queue in ("CountQueueUrl", "RecordQueueUrl"):
            self.stack.client("sqs").set_queue_attributes(
                QueueUrl=self.outputs[queue], Attributes={"VisibilityTimeout": str(self.visibility_seconds)}
            )

    def settle(self, say: Say) -> Counter[str]:
        """Waits until nothing is under way; redrives and reconciles until there is nothing left to do."""
        sqs, found = self.stack.client("sqs"), Counter[str]()
        self.work.end()
        for _ in range(ROUNDS):
            redriven = 0
            for verb in ("Count", "Record"):
                queue, dead = self.outputs[f"{verb}QueueUrl"], self.outputs[f"{verb}DeadLetterQueueUrl"]
                self.wait_drained(sqs, queue)
                redriven += sum(sent for sent, _ in redrive(sqs, dead, queue)) if queued(sqs, dead) else 0
                self.wait_drained(sqs, queue)
            uncounted = self.stack.reconcile(grace_seconds=0).uncounted
            found.update(redriven=redriven, reconciled=uncounted)
            say(f"{redriven} redriven, {uncounted} found by reconciling")
            if not redriven and not uncounted:
                break
        return found

    def wait_drained(self, sqs: Any, queue: str, left: int = 0) -> None:
        """Waits until `left` messages are in the queue. Raises CliError when it no longer becomes shorter."""
        least, since = queued(sqs, queue), time.monotonic()
        while (depth := queued(sqs, queue)) > left:
            if depth < least:
                least, since = depth, time.monotonic()
            if time.monotonic() - since > QUIET_SECONDS:
                raise CliError(f"{depth} messages have been in the count queue for {QUIET_SECONDS:.0f} s")
            time.sleep(0.5)

    def account(self) -> "Account":
        """What the table has, once nothing follows any more."""
        deadline = time.monotonic() + FOLLOWED_SECONDS
        while (found := self._account()).faults and time.monotonic() < deadline:
            time.sleep(5)
        return found

    def _account(self) -> "Account":
        """Compares acknowledgements, S3 and the table."""
        s3, counts = self.stack.client("s3"), self.stack.counts_table()
        pages = s3.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix=f"incoming/{self.site}/")
        stored = {(found["Key"], found["VersionId"]) for page in pages for found in page.get("Versions", [])}
        bins = sorted({key.split("/")[2] for key, _ in stored | self.acknowledged})
        items = {bin_: history(counts, self.site, bin_) for bin_ in bins}
        of_version = Counter(
            (item["image"]["key"], item["image"]["version_id"]) for found in items.values() for item in found
        )
        status = Counter(item["status"] for found in items.values() for item in found)
        newest = {item["bin"]: item["order"] for item in latest(counts, self.site)}
        wanted = {
            bin_: max(item["order"] for item in found if item["status"] == "COUNTED")
            for bin_, found in items.items()
            if any(item["status"] == "COUNTED" for item in found)
        }
        return Account(
            uploaded=len(self.acknowledged),
            refused=self.refused,
            unanswered=len(stored - self.acknowledged),
            counted=status["COUNTED"],
            rejected=status["REJECTED"],
            vanished=len(self.acknowledged - stored),
            lost=len((stored | self.acknowledged) - of_version.keys()),
            double=sum(number - 1 for number in of_version.values()),
            miscounted_totals=day_total(counts, self.site) - sum(of_version.values()),
            stale=sum(newest.get(bin_) != order for bin_, order in wanted.items()),
            totals=totals_of(Table(counts.name, self.stack.client("dynamodb")), self.site, bins, self.days()),
        )

    def days(self) -> list[str]:
        """The days, of UTC, since it began."""
        seconds = range(0, round(time.monotonic() - self.began) + 86_400, 86_400)
        return sorted({f"{datetime.now(UTC) - timedelta(seconds=back):%Y-%m-%d}" for back in seconds})


@dataclass(frozen=True)
class Account:
    """What became of the photographs, in image versions."""

    uploaded: int
    """Acknowledged by S3."""
    refused: int
    """Uploads that failed, each of which was repeated."""
    unanswered: int
    """Versions that S3 has although their upload failed; they are counted too."""
    counted: int
    rejected: int
    vanished: int
    """Acknowledged, and no longer in S3; each is lost as well."""
    lost: int
    """Without a count, in S3 or acknowledged."""
    double: int
    """Counts beyond the first of a version."""
    miscounted_totals: int
    """The day's totals minus the counts."""
    stale: int
    """Bins whose LATEST is not their newest count."""
    totals: Totals

    @property
    def faults(self) -> list[str]:
        names = ("vanished", "lost", "double", "miscounted_totals", "stale")
        found = [f"{getattr(self, name)} {name.replace('_', ' ')}" for name in names if getattr(self, name)]
        if self.counted + self.rejected - self.double + self.lost != self.uploaded + self.unanswered:
            found.append("the sums do not agree")
        return [*found, *self.totals.wrong]

    def lines(self) -> list[str]:
        totals = self.totals
        return [
            f"{self.uploaded:,} uploaded; {self.refused:,} uploads repeated, {self.unanswered:,} stored unanswered",
            f"{self.counted:,} counted, {self.rejected:,} rejected",
            f"{self.lost:,} lost, {self.double:,} double, {self.stale:,} stale, totals {self.miscounted_totals:+,}",
            f"{totals.compared:,} compared, {totals.agreed:,} agreed; {totals.opened:,} reviews opened, "
            f"{totals.resolved:,} resolved, {totals.waiting:,} wait; {len(totals.wrong)} contradict the items",
        ]


ON_A_RUNNING_STACK = ("endpoint-killed", "endpoint-stopped", "endpoint-slow", "functions-killed", "duplicates")
FAULTS = (*ON_A_RUNNING_STACK, "stopped", "killed", "disk-full")


def soak(
    stack: Local,
    *,
    number: int,
    faults: Sequence[str],
    seed: int,
    times: int = 1,
    hold_seconds: float = 20,
    visibility_seconds: int = 60,
    say: Say = print,
) -> tuple[Account, WorkDone]:
    """Runs on a stack that is up, and prints both accounts. `times` is how often each fault comes.

    A held endpoint is held for longer than the 15 s that a function waits for it, unless a test is in a hurry.
    """
    say(f"seed {seed}")
    began = time.monotonic()
    run = Soak(stack, random.Random(seed), f"SOAK-{seed}-{time.time_ns() % 10**9}", hold_seconds, visibility_seconds)
    run.run(number, faults, times, say)
    settled = run.settle(say)
    work = run.work.account()
    account = run.account()
    for line in (*account.lines(), *work.lines()):
        say(line)
    happened = ", ".join(f"{fault} {count}" for fault, count in sorted(run.happened.items()))
    functions = ", ".join(f"{verb.lower()} {number}" for verb, number in sorted(run.killed_functions.items()))
    say(f"{happened}{f' ({functions})' if functions else ''}; {run.repeated:,} events repeated")
    seconds = time.monotonic() - began
    say(f"{settled['redriven']} redriven, {settled['reconciled']} found by reconciling in the end; {seconds:.0f} s")
    return account, work


def function_of(pid: int) -> str:
    """AWS_LAMBDA_FUNCTION_NAME of a process, or nothing."""
    with contextlib.suppress(OSError):
        for pair in Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0"):
            if pair.startswith("AWS_LAMBDA_FUNCTION_NAME="):
                return pair.partition("=")[2]
    return ""


def split(keys: list[str], parts: int) -> list[list[str]]:
    return [keys[len(keys) * part // parts : len(keys) * (part + 1) // parts] for part in range(parts)]


def ignore(_: str) -> None:
    """Nothing is said."""


@contextlib.contextmanager
def small_disk() -> Iterator[Path]:
    """A folder on a file system of its own, that may be filled. Raises CliError without root's rights."""
    place = Path(tempfile.mkdtemp(prefix="bintally-soak-"))
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "soak", str(place)], capture_output=True, text=True
    )
    if done.returncode:
        place.rmdir()
        raise CliError(f"disk-full mounts a small file system, as root: {done.stderr.strip()}. Leave it out: --faults")
    try:
        yield place / "home"
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)
        shutil.rmtree(place, ignore_errors=True)


def chosen_faults(text: str) -> list[str]:
    """Raises click.BadParameter."""
    found = list(FAULTS) if text == "all" else [name for name in text.split(",") if name]
    if unknown := sorted(set(found) - set(FAULTS)):
        raise click.BadParameter(f"{', '.join(unknown)}; known are {', '.join(FAULTS)}", param_hint="--faults")
    return found


@click.command()
@click.option("--photographs", type=click.IntRange(1), default=3000, show_default=True)
@click.option("--faults", default="all", show_default=True, help=f"all, or some of: {','.join(FAULTS)}.")
@click.option("--times", type=click.IntRange(1), default=3, show_default=True, help="How often each fault comes.")
@click.option("--seed", type=int, help="Repeats the photographs and the order of the faults of a run.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="File for the account.")
def main(photographs: int, faults: str, times: int, seed: int | None, json_file: Path | None) -> None:
    """Upload photographs while things break, and account for every one of them. Exits 1 when one is lost or double."""
    wanted, console = chosen_faults(faults), Console(highlight=False)

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    with contextlib.ExitStack() as cleanup:
        home = cleanup.enter_context(small_disk()) if "disk-full" in wanted else None
        stack = cleanup.enter_context(own_stack(console, "RetrySeconds=2", home=home))
        account, work = soak(stack, number=photographs, faults=wanted, seed=seed, times=times, say=say)
    write(json_file, "soak", {"seed": seed, "faults": wanted, "times": times, **asdict(account), **asdict(work)})
    if faulty := account.faults + work.faults:
        raise CliError(f"{'; '.join(faulty)}. Repeat with: --seed {seed} --faults {faults}")


if __name__ == "__main__":
    main()
