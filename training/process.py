"""Makes a dataset of labelled photographs, as a SageMaker processing job or in local folders.

    python -m training.process --manifest s3://…/manifest.jsonl --previous s3://…/index.jsonl
        --dataset s3://…/dataset --parts s3://…/parts --shards s3://…/datasets

Every instance of the job reads the new photographs of its bins, checks and measures them, and stores them in shards
(train, validation) or one by one (test); it writes the results to --parts. The first instance waits for all parts and
writes the dataset: index, manifests, unreadable and duplicate photographs, and the drift from the --reference. The same
input gives the same dataset, byte by byte, on any number of instances, and again after a restart. With --stored-between
the input includes when objects of earlier datasets were stored.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import multiprocessing
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, NoReturn

from model.answer import CLASSES
from training import container
from training.dataset import drift
from training.dataset.ahead import ahead
from training.dataset.catalogue import Catalogue
from training.dataset.examine import Examined, Facts, begin, examine_all
from training.dataset.layout import SPLITS, BadDataset, Shard, digest, manifest, read_index
from training.dataset.store import Store, StoreError, located, store

CHUNK = 32
"""Photographs that a process gets together: enough to make the transfer cheap, few enough to hold in memory."""
WRITERS = 8
"""Shards or test photographs that are being stored concurrently."""
LEAST_JUDGED = 20
"""New photographs; with fewer, the share of bad ones is not checked."""
POLL_SECONDS = 1.0

Outcome = dict[str, Any]

flags = container.Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
flags.add_argument("--manifest", required=True, help="labels of photographs, one per line")
flags.add_argument("--previous", help="index.jsonl of the dataset that this one adds to")
flags.add_argument("--reference", help="dataset.json to compare with for drift")
flags.add_argument("--dataset", required=True, help="folder to write the dataset to")
flags.add_argument("--parts", required=True, help="folder for the instances' results, which the first one reads")
flags.add_argument("--shards", required=True, help="folder of the photographs of all datasets")
flags.add_argument(
    "--stored-between",
    nargs=2,
    type=datetime.fromisoformat,
    metavar=("FROM", "TO"),
    help="leave out earlier photographs whose objects were stored at other times: they are about to expire",
)
flags.add_argument(
    "--bad-share", type=float, default=0.2, help="share of unreadable new photographs above which the job fails"
)
flags.add_argument("--patience", type=float, default=1800, help="seconds to wait for the other instances")


@dataclass(frozen=True)
class Job:
    """The work of an instance, its number and the number of instances."""

    manifest: str
    previous: str | None
    reference: str | None
    dataset: Store
    parts: Store
    shards: Store
    bad_share: float
    patience: float
    host: int
    hosts: int
    stored_between: Sequence[datetime] | None = None


def main(arguments: list[str] | None = None) -> None:
    a = flags.parse_args(arguments)
    hosts = container.hosts()
    places = {name: store(getattr(a, name)) for name in ("dataset", "parts", "shards")}
    job = Job(**(vars(a) | places), host=hosts.index, hosts=len(hosts.names))
    try:
        with tempfile.TemporaryDirectory() as folder:
            run(job, Path(folder))
    except (StoreError, BadDataset) as error:
        raise SystemExit(str(error)) from error


def run(job: Job, folder: Path) -> None:
    """The whole work of one instance; `folder` is for its temporary files. Raises `StoreError`, `BadDataset`."""
    started = time.monotonic()
    start_fork_server()
    with closing(Catalogue(folder / "catalogue.db")) as catalogue:
        name = fill(catalogue, job, folder)
        part = folder / "part.jsonl"
        read = examine_new(catalogue, job, part, folder)
        job.parts.write(part_name(name, job.host, job.hosts), part)
        seconds = time.monotonic() - started
        print(f"read {read} new photographs in {seconds:.1f} s, {read / seconds:.1f} a second", flush=True)
        if job.host == 0:
            gather(catalogue, job, name, folder)
            conclude(catalogue, job, folder)
            print(f"the dataset is there after {time.monotonic() - started:.1f} s", flush=True)


def start_fork_server() -> None:
    """Starts the server that forks the decoding processes; it imports their modules while this process reads labels."""
    multiprocessing.set_forkserver_preload(["training.dataset.examine"])
    forkserver.ensure_running()


def fill(catalogue: Catalogue, job: Job, folder: Path) -> str:
    """Reads the earlier index and the manifest. Returns a name for this input, the same in all instances."""
    read = hashlib.sha256()
    if job.previous:
        index = downloaded(job.previous, folder / "previous.jsonl")
        read.update(digest_of(index))
        catalogue.add_known(read_index(index))
        if job.stored_between:
            names = job.shards.stored_between(*job.stored_between)
            left_out = catalogue.keep_only(f"datasets/{name}" for name in names)
            print(f"{left_out} photographs of the earlier dataset have expired, or are about to", flush=True)
    labels = downloaded(job.manifest, folder / "manifest.jsonl")
    read.update(digest_of(labels))
    with labels.open("rb") as lines:
        catalogue.add_labels(lines)
    catalogue.share_out()
    return read.hexdigest()[:12]


def downloaded(address: str, to: Path) -> Path:
    place, name = located(address)
    place.download(name, to)
    return to


def digest_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def part_name(name: str, host: int, hosts: int) -> str:
    return f"{name}-{host + 1}-of-{hosts}.jsonl"


def examine_new(catalogue: Catalogue, job: Job, part: Path, folder: Path) -> int:
    """Reads this instance's photographs, stores the good ones, and writes each one's result to `part`.

    Processes read and decode, threads of this one store. Both work ahead only by a fixed amount, so that memory holds
    a few chunks and the disk a few shards. Returns the number of photographs.
    """
    cores = len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("forkserver")  # this process has threads and connections: never fork it
    number, since = 0, job.stored_between[0] if job.stored_between else None
    with ExitStack() as until:
        decoders = until.enter_context(ProcessPoolExecutor(cores, context, begin))
        writers = until.enter_context(ThreadPoolExecutor(WRITERS))
        out = until.enter_context(part.open("w"))
        wanted = catalogue.wanted(job.host, job.hosts)
        chunks = iter(lambda: list(itertools.islice(wanted, CHUNK)), [])
        examined = itertools.chain.from_iterable(ahead(decoders, examine_all, chunks, 2 * cores))
        for outcomes in ahead(writers, partial(put, job.shards, since), packed(examined, folder), WRITERS):
            out.writelines(json.dumps(outcome) + "\n" for outcome in outcomes)
            number += len(outcomes)
    return number


@dataclass(frozen=True)
class Packed:
    """An object to store, and the results of its photographs, including those that could not be read."""

    outcomes: list[Outcome]
    name: str | None = None
    content: bytes | Path = b""


def packed(examined: Iterable[Examined], folder: Path) -> Iterator[Packed]:
    """Test photographs singly, the others in their shards; a shard is a file in `folder` until it is stored."""
    for (split, shard), group in itertools.groupby(examined, key=lambda one: (one.wanted.split, one.wanted.shard)):
        if split == "test":
            yield from map(alone, group)
        else:
            yield together(split, group, folder / f"{shard}.tar")


def alone(one: Examined) -> Packed:
    if one.facts is None:
        return Packed([outcome(one)])
    name = f"test/{member(one)}"
    return Packed([outcome(one) | {"object": f"datasets/{name}"}], name, one.data)


def together(split: str, group: Iterable[Examined], file: Path) -> Packed:
    outcomes = []
    with file.open("wb", buffering=0) as content:
        shard = Shard(content)
        for one in group:
            if one.facts is not None:
                shard.add(member(one), one.data)
            outcomes.append(outcome(one))
        name = f"{split}/{shard.close()}.tar"
    return Packed([{**one, "object": f"datasets/{name}"} for one in outcomes], name, file)


def member(one: Examined) -> str:
    return f"{one.wanted.id}.{one.suffix}"


def outcome(one: Examined) -> Outcome:
    """A line of a part: {"id", "fault"}, or {"id"} with the catalogue's `FACTS`."""
    if one.facts is None:
        return {"id": one.wanted.id, "fault": one.fault}
    return {"id": one.wanted.id, "member": member(one), **{name: getattr(one.facts, name) for name in Facts.__slots__}}


def put(shards: Store, since: datetime | None, one: Packed) -> list[Outcome]:
    """Stores an object, unless the same one has been there `since` then, or at all."""
    if one.name and not shards.holds(one.name, since):
        shards.write(one.name, one.content)
    if isinstance(one.content, Path):
        one.content.unlink()
    return one.outcomes


def gather(catalogue: Catalogue, job: Job, name: str, folder: Path) -> None:
    """Waits for the parts of all instances and reads them."""
    until = time.monotonic() + job.patience
    for host in range(job.hosts):
        part = part_name(name, host, job.hosts)
        while not job.parts.holds(part):
            if time.monotonic() > until:
                raise SystemExit(f"instance {host + 1} of {job.hosts} did not finish within {job.patience:g} s")
            time.sleep(POLL_SECONDS)
        job.parts.download(part, folder / part)
        with (folder / part).open() as lines:
            catalogue.take(map(json.loads, lines))
    if missing := catalogue.missing():
        raise SystemExit(f"the instances left {missing} photographs out: they did not get the same input")


def conclude(catalogue: Catalogue, job: Job, folder: Path) -> None:
    """Writes the dataset, dataset.json last. Ends the job if the photographs are too few or too many are bad."""
    catalogue.drop_duplicates()
    numbers = catalogue.numbers()
    job.dataset.write("unreadable.jsonl", lines_of(catalogue.unreadable()))
    judge_unreadable(catalogue, numbers, job)
    job.dataset.write("duplicates.jsonl", lines_of(catalogue.duplicates()))

    classes = {split: [0] * len(CLASSES) for split in SPLITS}
    index = folder / "index.jsonl"
    with index.open("w") as out:
        for line in catalogue.lines():
            out.write(line.json() + "\n")
            classes[line.split][line.label] += 1
    job.dataset.write("index.jsonl", index)
    for split in SPLITS:
        names = [Path(name).name for name in catalogue.objects(split)]
        job.dataset.write(f"{split}.manifest", manifest(f"{job.shards.address}/{split}/", names).encode())

    reference = json.loads(downloaded(job.reference, folder / "reference.json").read_bytes()) if job.reference else None
    drifted = drift.report(drift.profile(catalogue.lines(new=True), catalogue.bins(new=True)), reference)
    job.dataset.write("drift.json", as_json(drifted))
    summary = {
        "format": 1,
        "digest": digest(catalogue.lines()),
        "test_digest": digest(line for line in catalogue.lines() if line.split == "test"),
        "photographs": {split: sum(classes[split]) for split in SPLITS},
        "classes": classes,
        **{name: numbers[name] for name in ("new", "duplicates", "unreadable")},
        "edges": drift.EDGES,
        "profile": drift.profile(catalogue.lines(), catalogue.bins()),
    }
    job.dataset.write("dataset.json", as_json(summary))
    for text in (f"{numbers}, {summary['photographs']}", *(site["sentence"] for site in drifted["sites"].values())):
        print(text, flush=True)
    if empty := [split for split in SPLITS if not sum(classes[split])]:
        raise SystemExit(f"there are no photographs for {' and '.join(empty)}: labels of more bins are needed")


def judge_unreadable(catalogue: Catalogue, numbers: dict[str, int], job: Job) -> None:
    asked, unreadable = numbers["asked"], numbers["unreadable"]
    if asked >= LEAST_JUDGED and unreadable > job.bad_share * asked:
        reasons = Counter(one["reason"].partition(":")[0] for one in catalogue.unreadable())
        raise SystemExit(
            f"{unreadable} of {asked} new photographs cannot be read, more than {job.bad_share:.0%}"
            f" (most often: {reasons.most_common(1)[0][0]}); see {job.dataset.address}/unreadable.jsonl"
        )


def lines_of(items: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(item) + "\n" for item in items).encode()


def as_json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def stopped(*_: object) -> NoReturn:
    raise SystemExit("the job was stopped")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stopped)
    with container.failure_told():
        main()
