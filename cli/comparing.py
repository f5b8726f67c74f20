"""Answers of two versions of the model to the same labelled photographs, for `bintally model compare`.

A retraining stores the answers of both models that it compares. Versions that no retraining has compared count its test
photographs, or those of a folder, here and now, with the serving code.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from botocore.exceptions import ClientError
from rich.console import Console

from cli.errors import USAGE, CliError
from cli.photographs import find
from cli.progress import progress_bar
from cli.runs import Run, runs
from cli.versions import model_data_url, placed
from deployed.stack import Deployed, version_of
from model import package
from model.package import PackageError
from model.preprocess import BadImage
from model.serve import Counter, cores
from training.dataset.layout import Line
from training.verdict import comparison
from training.verdict.comparison import Answered


@dataclass(frozen=True)
class Labelled:
    """One labelled photograph; `read` returns its bytes."""

    id: str
    site: str
    bin: str
    quantity: int
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Compared:
    """The answers of both, the first as champion; `photographs` says in words which ones, `unread` how many were not
    readable."""

    seen: Answered
    photographs: str
    answered: str
    unread: int = 0


def stored(stack: Deployed, first: str, second: str) -> Compared | None:
    """The answers of retrainings in which both answered the same test set, the newest such; None when there is none."""
    known = [run for run in runs(stack) if run.model_version]
    of_both = [run for run in known if {run.champion, run.model_version} == {first, second}]
    for run in of_both:
        if found := predictions(stack, run):
            seen = (
                found if run.champion == first else replace(found, champion=found.challenger, challenger=found.champion)
            )
            return Compared(seen, f"test photographs of run {run.run}", "as both answered them in that run")
    sides = [
        {digest: run for run in reversed(known) if (digest := digest_of_test_set(stack, run, version))}
        for version in (first, second)
    ]
    for digest in reversed(sides[0]):
        if digest in sides[1]:
            a, b = sides[0][digest], sides[1][digest]
            one, other = predictions(stack, a), predictions(stack, b)
            # The answers are paired by their place, and older digests did not say when the audited bins alone judged.
            if one and other and np.array_equal(one.ids, other.ids):
                seen = replace(
                    one,
                    champion=one.champion if a.champion == first else one.challenger,
                    challenger=other.champion if b.champion == second else other.challenger,
                )
                return Compared(
                    seen, f"test photographs of runs {a.run} and {b.run}", "as each answered them in its run"
                )
    return None


def digest_of_test_set(stack: Deployed, run: Run, version: str) -> str | None:
    """The digest of the test set on which a run compared this version; None when it did not."""
    if version not in (run.champion, run.model_version):
        return None
    content = artifact(stack, f"retrain/{run.run}/evaluation/evaluation.json")
    return str(json.loads(content)["test_set"]["digest"]) if content else None


def predictions(stack: Deployed, run: Run) -> Answered | None:
    """The run's stored answers; None when it ended before there were any."""
    content = artifact(stack, f"retrain/{run.run}/evaluation/predictions.csv")
    if content is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "predictions.csv"
        file.write_bytes(content)
        return comparison.read(file)


def newest_test_set(stack: Deployed) -> tuple[str, list[Labelled]]:
    """The test photographs of the newest retraining that froze some, and its name. Raises CliError when none did."""
    s3, bucket = stack.client("s3"), stack.outputs()["ArtifactsBucket"]
    for run in runs(stack):
        content = artifact(stack, f"retrain/{run.run}/dataset/index.jsonl")
        lines = [line for line in map(Line.of, content.splitlines()) if line.split == "test"] if content else []
        if lines:

            def reading(key: str) -> Callable[[], bytes]:
                return lambda: bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())

            return run.run, [Labelled(x.id, x.site, x.bin, x.quantity, reading(x.object)) for x in lines]
    raise CliError(
        "no retraining has made a test set yet. Give labelled photographs that neither version was trained on:"
        " --photographs FOLDER"
    )


def labelled(folder: Path) -> list[Labelled]:
    """The photographs of a folder that its labels.csv names. Raises CliError when there are none."""
    try:
        found = find([folder], None, None)
    except ValueError as error:
        raise CliError(str(error), USAGE) from error
    tests = [
        Labelled(str(one.path.relative_to(folder)), one.site, one.bin, one.recorded, one.path.read_bytes)
        for one in found
        if one.recorded is not None
    ]
    if not tests:
        missing = "photographs" if not found else "labels.csv that names one of its photographs"
        raise CliError(f"{folder} has no {missing}. It is read as `bintally upload` reads it", USAGE)
    return sorted(tests, key=lambda one: one.id)


def counted_here(
    stack: Deployed, first: str, second: str, tests: list[Labelled], photographs: str, console: Console
) -> Compared:
    """Both packages count the photographs on this machine. Raises CliError when one cannot."""
    places = [place_of(stack, version) for version in (first, second)]
    with tempfile.TemporaryDirectory() as folder, counters(stack, (first, second), places, Path(folder)) as both:

        def answers(test: Labelled) -> list[list[float]] | None:
            try:
                photograph = test.read()
                return [counter.count(photograph)["probabilities"] for counter in both]
            except BadImage:
                return None
            except ClientError as error:  # it has expired (DatasetDays)
                if error.response["Error"]["Code"] != "NoSuchKey":
                    raise
                return None

        with progress_bar(console, "Counting", len(tests)) as tick, ThreadPoolExecutor(cores()) as pool:
            found = []
            for answer in pool.map(answers, tests):
                found.append(answer)
                tick()
    kept = [(test, answer) for test, answer in zip(tests, found, strict=True) if answer is not None]
    if not kept:
        raise CliError(
            f"none of the {len(tests)} photographs can be read. If they have expired (DatasetDays), give others:"
            " --photographs FOLDER"
        )
    seen = Answered(
        ids=np.array([test.id for test, _ in kept]),
        sites=np.array([test.site for test, _ in kept]),
        bins=np.array([test.bin for test, _ in kept]),
        quantities=np.array([test.quantity for test, _ in kept]),
        champion=np.array([answer[0] for _, answer in kept]),
        challenger=np.array([answer[1] for _, answer in kept]),
    )
    return Compared(seen, photographs, "counted here by both packages", len(tests) - len(kept))


@contextmanager
def counters(
    stack: Deployed, versions: tuple[str, str], places: list[tuple[str, str]], folder: Path
) -> Iterator[list[Counter]]:
    """The networks of both packages, which have repeated their golden images. Raises CliError."""
    found = []
    for number, (version, (bucket, key)) in enumerate(zip(versions, places, strict=True)):
        archive = folder / f"{number}.tar.gz"
        stack.client("s3").download_file(bucket, key, str(archive))
        try:
            unpacked = package.unpack(archive, folder / str(number))
        except PackageError as error:
            raise CliError(f"model {version} cannot count here: {error}") from error
        if unpacked.model_version != version:
            raise CliError(f"s3://{bucket}/{key} is version {unpacked.model_version}, not {version}")
        counter = Counter(unpacked, cores())
        if faults := counter.faults():
            raise CliError(f"model {version} does not repeat its golden images on this machine: {faults[0]}")
        found.append(counter)
    yield found


def place_of(stack: Deployed, version: str) -> tuple[str, str]:
    """Bucket and key of a version's package: of the registry, the live one, or one that a retraining made and that
    did not win. Raises CliError when there is none."""
    outputs = stack.outputs()
    urls = {version_of(found): model_data_url(found) for found in reversed(list(stack.packages()))}
    url = urls.get(version)
    live = stack.live_model_data(outputs)
    if url is None and live and live.split("/")[4] == version:
        url = live
    if url is None:
        pages = (
            stack.client("s3")
            .get_paginator("list_objects_v2")
            .paginate(Bucket=outputs["ArtifactsBucket"], Prefix=f"models/{version}/")
        )
        keys = [
            one["Key"] for page in pages for one in page.get("Contents", ()) if one["Key"].endswith("/model.tar.gz")
        ]
        url = f"s3://{outputs['ArtifactsBucket']}/{keys[-1]}" if keys else None
    if url is None:
        raise CliError(
            f"there is no package of model {version}. See: bintally model list; bintally retrain runs --json"
        )
    return placed(url)


def artifact(stack: Deployed, key: str) -> bytes | None:
    """An object of the artifacts bucket; None when there is none."""
    try:
        body: Any = stack.client("s3").get_object(Bucket=stack.outputs()["ArtifactsBucket"], Key=key)["Body"]
        return bytes(body.read())
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchKey":
            raise
        return None
