"""`bintally fetch-abid`: downloads a part of the public data set of bin photographs."""

import csv
import json
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import boto3
import click
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli.errors import CliError

BUCKET = "aft-vbi-pds"
ADDRESS = "https://s3.us-east-1.amazonaws.com"
AT_ONCE = 16
CARRIED = ("group", "drawn")
"""Columns of an --ids file that labels.csv takes over: training.learning.data reads them."""


@click.command()
@click.option("--count", type=click.IntRange(1), help="Number of photographs.  [default: 500, or all of --ids]")
@click.option(
    "--ids",
    "sheets",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take the ids in this CSV's column id, with its columns group and drawn if it has them. May be repeated.",
)
@click.option(
    "--to",
    "folder",
    default=".data/abid",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write to.",
)
def command(count: int | None, sheets: tuple[Path, ...], folder: Path) -> None:
    """Download the first photographs of the Amazon Bin Image Dataset, or those in --ids, with their records.

    Writes images/<id>.jpg, metadata/<id>.json and labels.csv (id, quantity, group, and drawn if an --ids file has it).
    An interrupted download continues when it is run again; a larger --count adds photographs. The columns group and
    drawn of an --ids file apply only to the run that it is given to. No AWS account is needed. The photographs are
    licensed CC BY-NC-SA 3.0 US.
    """
    listed = listed_in(sheets)
    # Unsigned, and with an explicit address: credentials and AWS_ENDPOINT_URL must not interfere.
    settings = Config(
        signature_version=UNSIGNED,
        connect_timeout=10,
        read_timeout=30,
        max_pool_connections=AT_ONCE,
        retries={"total_max_attempts": 3},
    )
    s3 = boto3.client("s3", region_name="us-east-1", endpoint_url=ADDRESS, config=settings)
    console = Console(highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("Looking", total=None)
            ids = list(listed)[:count] if sheets else identities(s3, count or 500)
            progress.update(task, description="Fetching", total=len(ids))
            fetch_all(s3, ids, folder, lambda: progress.advance(task))
    except (BotoCoreError, ClientError) as error:
        raise CliError(f"cannot read the public bucket {BUCKET}: {error}") from error
    except OSError as error:
        raise CliError(f"cannot write to {folder}: {error}") from error
    labelled, unlabelled = write_labels(folder, listed)
    left_out = f", {unlabelled} without a usable record left out of labels.csv" if unlabelled else ""
    missing = sum(not (folder / "images" / f"{identity}.jpg").exists() for identity in ids)
    not_there = f", {missing} of the ids are not in the data set" if missing else ""
    console.print(f"{labelled} photographs with their records in {folder}{left_out}{not_there}")
    console.print(f"Count them with: ABID={folder} make demo")


def listed_in(sheets: tuple[Path, ...]) -> dict[str, dict[str, str]]:
    """What the CSV files say in the columns CARRIED, by id and in their order. Raises CliError."""
    listed: dict[str, dict[str, str]] = {}
    for path in sheets:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as sheet:
            rows = csv.DictReader(sheet)
            if "id" not in (rows.fieldnames or ()):
                raise CliError(f"{path} has no column id")
            for row in rows:
                listed.setdefault(row["id"], {}).update({name: row[name] for name in CARRIED if row.get(name)})
    return listed


def identities(s3: Any, count: int) -> list[str]:
    """The first `count` ids of the data set. An id is a string: 00010 and 10 are different photographs."""
    listed = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="bin-images/")
    keys = (entry["Key"] for page in listed for entry in page.get("Contents", ()))
    return [Path(key).stem for key in islice((key for key in keys if key.endswith(".jpg")), count)]


def fetch_all(s3: Any, ids: list[str], folder: Path, tick: Any) -> None:
    for name in ("images", "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)

    def fetch(identity: str) -> None:
        get(s3, f"metadata/{identity}.json", folder / "metadata" / f"{identity}.json")
        get(s3, f"bin-images/{identity}.jpg", folder / "images" / f"{identity}.jpg")
        tick()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for _ in pool.map(fetch, ids):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def get(s3: Any, key: str, path: Path) -> None:
    """Downloads one object into a file, completely or not at all. Skips an object that does not exist."""
    if path.exists():
        return
    try:
        body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    except s3.exceptions.NoSuchKey:
        return
    part = path.with_suffix(".part")
    part.write_bytes(body)
    part.replace(path)


def write_labels(folder: Path, listed: dict[str, dict[str, str]]) -> tuple[int, int]:
    """Writes labels.csv for every photograph with a record. Returns the numbers of photographs with and without one.

    `listed` is the result of `listed_in`; for photographs without a group there, the contents determine the group.
    """
    contents: dict[str, dict[str, int]] = {}
    images = sorted(path.stem for path in (folder / "images").glob("*.jpg"))
    rows = []
    for identity in images:
        try:
            record = json.loads((folder / "metadata" / f"{identity}.json").read_text())
            quantity = int(record["EXPECTED_QUANTITY"])
            contents[identity] = {asin: int(item["quantity"]) for asin, item in record["BIN_FCSKU_DATA"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        rows.append((identity, quantity))
    groups = groups_of(contents)
    drawn = ["drawn"] if any("drawn" in known for known in listed.values()) else []
    with (folder / "labels.csv").open("w", newline="") as sheet:
        writer = csv.DictWriter(sheet, ["id", "quantity", "group", *drawn], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {"id": identity, "quantity": quantity, "group": groups[identity], **listed.get(identity, {})}
            for identity, quantity in rows
        )
    return len(rows), len(images) - len(rows)


def groups_of(contents: dict[str, dict[str, int]]) -> dict[str, str]:
    """Groups photographs that may show one bin before and after a pick or stow: contents that overlap by half or more.

    `contents` is the quantity of each product, by id. A group is named after its first photograph.
    """
    parent = {identity: identity for identity in contents}
    seen: defaultdict[str, list[str]] = defaultdict(list)

    def root(identity: str) -> str:
        while parent[identity] != identity:
            parent[identity] = parent[parent[identity]]
            identity = parent[identity]
        return identity

    for identity in sorted(contents):
        mine = contents[identity]
        for other in sorted({other for asin in mine for other in seen[asin]}):
            theirs = contents[other]
            shared = sum(min(quantity, theirs.get(asin, 0)) for asin, quantity in mine.items())
            if 2 * shared >= max(sum(mine.values()), sum(theirs.values())):
                first, second = sorted((root(identity), root(other)))
                parent[second] = first
        for asin in mine:
            seen[asin].append(identity)
    return {identity: f"g{root(identity)}" for identity in contents}
