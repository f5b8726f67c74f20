"""`bintally bench review people|queue|api`: many people at one queue, what its page reads, and how long it takes."""

import contextlib
import random
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import boto3
from bintally.answering.bins import Bins
from bintally.answering.recounts import Recounts
from bintally.answering.requests import Caller
from bintally.aws.items import Item, wire
from bintally.aws.table import Table
from bintally.common.errors import Transient
from bintally.reviewing import stored
from bintally.reviewing.desk import Desk, Person
from bintally.reviewing.rules import Entry, Refused
from localsagemaker.ports import free_port
from rich.console import Console
from samtranslator.yaml_helper import yaml_parse

from bench.common import Numbers, bare_table, progress_bar, rank
from cli.errors import CliError
from deployed.api import Api
from deployed.errors import ApiRefused
from local.stack import REPOSITORY, Local

SITE = "SEA1"
PEOPLE = 20
BINS = 2000
SIZES = (1000, 20_000)
REQUESTS = 200
T = TypeVar("T")
TRIES = 4
NOON = "2026-11-22T12:00:00.000000Z"


@contextlib.contextmanager
def table_of_its_own() -> Iterator[Callable[[], Table]]:
    """The template's table in an emulator that runs nothing else; each call makes a client of its own."""
    with tempfile.TemporaryDirectory() as home:
        stack = Local(home=Path(home) / "home", port=free_port())
        stack.start_emulator()
        try:
            made_table(stack.client("dynamodb"))
            yield lambda: Table("counts", stack.client("dynamodb"))
        finally:
            stack.down(discard=True)


def latest(number: int) -> Item:
    """The newest count of a bin whose record of 3 its photograph doubts, some more than others."""
    key = f"incoming/{SITE}/B-{number:05}/a.jpg"
    p = [0.05, 0.05, 0.1, 0.1, 0.2 + number % 97 / 500, 0.3, 0.2 - number % 97 / 500]
    return {
        **{"PK": f"BIN#{SITE}#B-{number:05}", "SK": "LATEST", "site": SITE, "bin": f"B-{number:05}"},
        "image": {"bucket": "images", "key": key, "version_id": f"{number:032x}", "digest": f"{number:064x}"},
        **{"captured_at": NOON, "order": f"{NOON}#{number}", "count": 4, "recorded_quantity": 3},
        **{"probabilities": [Decimal(f"{each:.4f}") for each in p], "model_version": "v", "recorded_from": "record"},
    }


def now() -> datetime:
    return datetime.now(UTC)


def made_table(client: Any = None) -> Table:
    """The template's table, on demand, in an account that lacks it."""
    client = client or boto3.client("dynamodb")
    properties = yaml_parse((REPOSITORY / "template.yaml").read_text())["Resources"]["CountsTable"]["Properties"]
    for index in properties["GlobalSecondaryIndexes"]:
        del index["ProvisionedThroughput"]
    known = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes")
    client.create_table(TableName="counts", BillingMode="PAY_PER_REQUEST", **{name: properties[name] for name in known})
    return Table("counts", client)


# 20 people, 2,000 bins


def measure_people(console: Console, bins: int = BINS, people: int = PEOPLE) -> Numbers:
    """People who claim the next bin, count it, and go on until nothing is left. Half of the records are wrong, so that
    half of the bins need a second person; a tenth of the entries is sent twice, a twentieth is taken back."""
    with table_of_its_own() as table, progress_bar(console) as progress:
        task = progress.add_task("People", total=2 * bins)

        def opened(numbers: range) -> None:
            desk = Desk(table())
            for number in numbers:
                desk.table.put(latest(number))
                desk.follow(latest(number)["PK"], now())
                progress.advance(task)

        with ThreadPoolExecutor(8) as workers:
            list(workers.map(opened, [range(start, bins, 8) for start in range(8)]))
        counters = [Counting(Desk(table()), f"person {number}") for number in range(people)]
        begun = time.monotonic()
        threads = [threading.Thread(target=each.work, args=(lambda: progress.advance(task),)) for each in counters]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - begun
        return {"people": people, "bins": bins, "seconds": seconds} | audited(Desk(table()), bins, counters)


class Counting:
    """One person at work. `accepted` are the ids of the entries that were stored for them."""

    def __init__(self, desk: Desk, name: str) -> None:
        self.desk, self.person = desk, Person(name)
        self.accepted: dict[str, str] = {}
        self.claims, self.refused, self.failure = 0, 0, ""

    def work(self, done: Callable[[], None], patience: int = 5) -> None:
        """Ends when nothing was left `patience` times in a row."""
        chance, idle = random.Random(self.person.name), 0
        try:
            while idle < patience:
                item = again(lambda: self.desk.claim_next(SITE, self.person, now()))
                if item is None:
                    idle += 1
                    time.sleep(0.2)
                    continue
                idle = 0
                self.claims += 1
                number = int(item["image"]["version_id"], 16)
                self.enter(item, 3 if number % 2 else 4, chance)
                done()
        except Transient as error:
            self.failure = repr(error)

    def enter(self, item: Item, quantity: int, chance: random.Random) -> None:
        entry = Entry(f"{chance.getrandbits(128):032x}", self.person.name, now(), quantity)
        seen = item["image"]["version_id"]
        try:
            for _ in range(2 if chance.random() < 0.1 else 1):
                again(lambda: self.desk.enter(item["PK"], entry, self.person, seen, now()))
            self.accepted[entry.id] = item["PK"]
            if chance.random() < 0.05:
                again(lambda: self.desk.undo(item["PK"], self.person, now()))
                self.enter(item, quantity, chance)
        except Refused:
            self.refused += 1


def again(call: Callable[[], T]) -> T:
    """As the page does when the answer is to try again. Raises Transient after the last try."""
    for left in range(TRIES - 1, -1, -1):
        try:
            return call()
        except Transient:
            if not left:
                raise
            time.sleep(0.2)
    raise AssertionError("the last try returns or raises")


def audited(desk: Desk, bins: int, counters: list[Counting]) -> Numbers:
    """What the table says afterwards: every figure but claims and entries must be 0."""
    stored_ids: set[str] = set()
    twice = differ = unresolved = 0
    for number in range(bins):
        pk = latest(number)["PK"]
        item, trail = desk.table.get(stored.review_key(pk), consistent=True), desk.trail(pk)
        stored_ids |= {str(found["id"]) for found in desk.table.beginning(pk, "RECOUNT#")}
        twice += claimed_twice(trail)
        differ += item is None or stored.replay(trail) != stored.review_of(item)
        unresolved += item is None or item["stage"] != "RESOLVED"
    accepted = {id_ for each in counters for id_ in each.accepted}
    return {
        "claims": sum(each.claims for each in counters),
        "entries": len(accepted),
        "claimed_by_two": twice,
        "lost": len(accepted - stored_ids),
        "unknown": len(stored_ids - accepted),
        "trail_differs": differ,
        "unresolved": unresolved,
        "failures": [each.failure for each in counters if each.failure],
    }


def claimed_twice(trail: list[Item]) -> int:
    """How often somebody got a bin while another one held it. No claim expires here."""
    holder, found = None, 0
    for line in trail:
        if line["action"] in ("CLAIMED", "UNDONE"):
            found += holder not in (None, line["person"])
            holder = line["person"]
        elif line["action"] in ("ENTERED", "RELEASED"):
            holder = None
    return found


def show_people(console: Console, report: Numbers) -> None:
    console.print(
        f"{report['people']} people, {report['bins']:,} bins: {report['claims']:,} claims,"
        f" {report['entries']:,} entries in {report['seconds']:.0f} s;"
        f" {report['claimed_by_two']} bins claimed by two at once,"
        f" {report['lost']} entries lost, {report['unknown']} that nobody made,"
        f" {report['trail_differs']} trails that replay to another state, {report['unresolved']} bins left"
    )
    if wrong := [name for name in ("claimed_by_two", "lost", "unknown", "trail_differs", "failures") if report[name]]:
        raise CliError(f"wrong: {', '.join(f'{name} {report[name]}' for name in wrong)}")


# What a page reads


def measure_queue(console: Console, sizes: tuple[int, ...] = SIZES) -> Numbers:
    """Items and read units of the queue's first page and of a bin's page, for who counts and for a manager."""
    rows = []
    with progress_bar(console) as progress:
        task = progress.add_task("Queue", total=sum(sizes))
        for size in sizes:
            with table_of_its_own() as table:
                desk = Desk(table())
                for start in range(0, size, 5):
                    bins = range(start, min(size, start + 5))
                    puts: Any = [{"PutRequest": {"Item": wire(item)}} for number in bins for item in of_bin(number)]
                    desk.table.client.batch_write_item(RequestItems={"counts": puts})
                    progress.advance(task, len(bins))
                rows += [{"bins": size} | row for row in first_pages(desk)]
    return {"rows": rows}


def first_pages(desk: Desk) -> Iterator[Numbers]:
    """What each page reads, for each role."""
    for role in ("counter", "manager"):
        caller = Caller(Person("ana", manager=role == "manager"), role, None)
        queue = Recounts(desk, None, SITE, caller)  # type: ignore[arg-type]
        bins = Bins(desk.table, NoCopies(), SITE, caller, timedelta(hours=1))  # type: ignore[arg-type]
        with units(desk.table.client) as used:
            items = queue.listed({})["recounts"]
        yield {"page": "queue", "role": role, "items": len(items), "requests": len(used), "units": sum(used)}
        with units(desk.table.client) as used:
            items = bins.one("B-00000", {})["photographs"]
        yield {"page": "bin", "role": role, "items": len(items), "requests": len(used), "units": sum(used)}


def of_bin(number: int) -> list[Item]:
    """Two photographs, their review and its trail: at most 5 items, so that five bins are one batch."""
    newest = latest(number)
    counts = [newest | {"SK": f"COUNT#{NOON}#{number}-{each}", "order": f"{NOON}#{number}-{each}"} for each in range(2)]
    line = {"PK": newest["PK"], "SK": f"TRAIL#{NOON}", "action": "OPENED", "at": NOON}
    return [newest, *counts, waiting(number), line]


class NoCopies:
    """No display copy is made: the table alone is measured."""

    def link(self, image: Mapping[str, Any]) -> str:
        return str(image["key"])

    thumbnail = link


def waiting(number: int) -> Item:
    """A REVIEW that waits."""
    item = latest(number) | stored.review_key(f"BIN#{SITE}#B-{number:05}")
    item |= {"review_key": stored.queue_key(SITE), "priority": Decimal(number % 997) / 1000, "p_record": Decimal("0.8")}
    return item | {"version": 1, "stage": "FIRST", "photograph": item["order"], "tolerance": 0, "entries": []}


READS = ("Query", "GetItem", "BatchGetItem")


@contextlib.contextmanager
def units(client: Any) -> Iterator[list[float]]:
    """The read units of each of READS in it: the emulator's, which names none of a BatchGetItem; its small items take
    one each, since they are read consistently."""
    used: list[float] = []

    def ask(params: dict[str, Any], **_: Any) -> None:
        params.setdefault("ReturnConsumedCapacity", "TOTAL")

    def note(parsed: dict[str, Any], **_: Any) -> None:
        found = [item for items in parsed.get("Responses", {}).values() for item in items]
        used.append(len(found) if found else float(parsed["ConsumedCapacity"]["CapacityUnits"]))

    events = client.meta.events
    for operation in READS:
        events.register(f"before-parameter-build.dynamodb.{operation}", ask)
        events.register(f"after-call.dynamodb.{operation}", note)
    try:
        yield used
    finally:
        for operation in READS:
            events.unregister(f"before-parameter-build.dynamodb.{operation}", ask)
            events.unregister(f"after-call.dynamodb.{operation}", note)


def show_queue(console: Console, report: Numbers) -> None:
    """Raises CliError where a page reads more of a table that has more bins."""
    table = bare_table("First pages", "page", "role", "bins", "items", "requests", "read units")
    read: dict[tuple[str, str], set[tuple[float, ...]]] = {}
    for row in report["rows"]:
        figures = row["items"], row["requests"], row["units"]
        read.setdefault((row["page"], row["role"]), set()).add(figures)
        table.add_row(row["page"], row["role"], f"{row['bins']:,}", *map(str, figures[:2]), f"{row['units']:.1f}")
    console.print(table)
    for (page, role), found in read.items():
        if len(found) > 1:
            raise CliError(f"the page {page} of a {role} reads more where there are more bins: {sorted(found)}")


# How long the API takes


def measure_api(console: Console, stack: Local, site: str, requests: int = REQUESTS) -> Numbers:
    """Milliseconds of requests of the stack of this machine, one after the other. Each recount is undone and its bin
    given back, so that the trail alone keeps them. The floor is a path that does not exist: the same function, which
    reads nothing."""
    counter = Api(stack, "counter", site)
    taken: dict[str, list[float]] = {
        name: [] for name in ("floor", "queue page", "claim", "recount", "undo", "release")
    }

    def timed(name: str, ask: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        try:
            return ask()
        finally:
            taken[name].append((time.perf_counter() - begun) * 1000)

    def floor() -> None:
        with contextlib.suppress(ApiRefused):
            counter.ask("nothing")

    with progress_bar(console) as progress:
        task = progress.add_task("API", total=requests)
        for _ in range(requests):
            timed("floor", floor)
            timed("queue page", lambda: counter.ask("recounts"))
            claimed = timed("claim", lambda: counter.ask("claims", {"skip": []}))
            bin_ = {"bin": claimed["bin"]}
            seen = bin_ | {"id": str(uuid.uuid4()), "image_version": claimed["image_version"], "quantity": 0}
            timed("recount", partial(counter.ask, "recounts", seen))
            timed("undo", partial(counter.ask, "undos", bin_))
            timed("release", partial(counter.ask, "releases", bin_))
            progress.advance(task)
    return {
        name: {"p50": statistics.median(each), "p99": rank(sorted(each), 0.99), "requests": len(each)}
        for name, each in taken.items()
    }


def show_api(console: Console, report: Numbers) -> None:
    table = bare_table("The HTTP API", "request", "p50 ms", "p99 ms")
    for name, row in report.items():
        table.add_row(name, f"{row['p50']:.0f}", f"{row['p99']:.0f}")
    console.print(table)
