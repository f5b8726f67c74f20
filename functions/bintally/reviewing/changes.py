"""What a change of the counts table means for reviews: opens, changes and withdraws them, and tells what happened."""

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from bintally.aws import items
from bintally.aws.items import MALFORMED, Item
from bintally.aws.telemetry import logger
from bintally.common.errors import Transient
from bintally.reviewing.desk import DOUBTFUL, Desk
from bintally.reviewing.locked import LockedTrail
from bintally.reviewing.rules import Outcome, Stage

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

WORKERS = 8  # within the 10 connections of a client
ENTRIES = 10
"""Of one PutEvents."""


@dataclass(frozen=True)
class Services:
    """The clients and settings that reviewing uses."""

    desk: Desk
    events: "EventBridgeClient"
    locked: LockedTrail
    sites: set[str] = field(default_factory=set)
    """Those that this process has added to the list of sites."""


@dataclass(frozen=True)
class Reviewed:
    """The result of a batch."""

    bins: int
    told: int
    """Events that were sent."""
    unreadable: int
    """Stream records that no review follows from."""


def review_batch(services: Services, batch: Iterable[Mapping[str, Any]]) -> Reviewed:
    """Follows LATEST and RECORD items to the reviews of their bins, and tells what the trail says.

    Idempotent; a retry of the same batch sends its events again, with the same ids. Raises Transient.
    """
    bins: set[str] = set()
    sites: set[str] = set()
    entries: list[dict[str, Any]] = []
    trail: list[Item] = []
    unreadable = 0
    for record in batch:
        try:
            item = items.plain(record["dynamodb"]["NewImage"])
            if str(item["SK"]).startswith("TRAIL#"):
                entries.extend(events_of(item))
                trail.append(item)
            else:
                sites.update([str(item["site"])] if "site" in item else [])
                bins.add(str(item["PK"]))
        except MALFORMED as error:
            unreadable += 1
            logger.error("unreadable", content=json.dumps(record, default=str)[:1000], reason=repr(error))

    services.locked.store(trail)  # first: nothing is told of a line whose copy is missing
    standing = services.desk.standing(bins)

    def follow(bin_: str) -> None:
        try:
            services.desk.follow(bin_, datetime.now(UTC), standing)
        except MALFORMED as error:
            logger.error("not reviewed", item=bin_, reason=repr(error))

    for site in sites - services.sites:
        services.desk.table.put(items.site_item(site), only_if="attribute_not_exists(PK)")
        services.sites.add(site)
    with ThreadPoolExecutor(WORKERS) as workers:
        list(workers.map(follow, sorted(bins)))
    send(services.events, entries)
    return Reviewed(len(bins), len(entries), unreadable)


def events_of(line: Item) -> Iterator[dict[str, Any]]:
    """The events about one line of a trail: a review was opened, or ended."""
    review = line["review"]
    resolved = review["stage"] == Stage.RESOLVED and line["action"] != "LATE"
    if line["action"] == "OPENED":
        if review.get("audits") and review["evidence"] <= DOUBTFUL:
            return  # nothing but the draw asks
        kind = "Bin Discrepancy Detected"
    elif resolved and (line["stage_before"] != Stage.RESOLVED or line["action"] in ("CORRECTED", "UNDONE")):
        kind = "Bin Discrepancy Resolved"
    elif line["action"] == "UNDONE" and line["stage_before"] == Stage.RESOLVED:
        kind = "Bin Discrepancy Reopened"
    else:
        return
    detail = {
        "id": f"{line['PK']}/{line['SK']}",
        **{name: line[name] for name in ("site", "bin", "at", "action", "image", "captured_at", "model_version")},
        "recorded_quantity": int(review["recorded_quantity"]),
        **({"outcome": review["outcome"]} if "outcome" in review else {}),
        **({"quantity": int(review["quantity"])} if "quantity" in review else {}),
    }
    if review.get("outcome") == Outcome.RECORD_WRONG:
        detail["difference"] = detail["quantity"] - detail["recorded_quantity"]
    yield {"Source": "bintally", "DetailType": kind, "Detail": json.dumps(detail)}


def send(client: "EventBridgeClient", entries: list[dict[str, Any]]) -> None:
    """Raises Transient unless the bus has taken all of them."""
    for start in range(0, len(entries), ENTRIES):
        try:
            answer = client.put_events(Entries=entries[start : start + ENTRIES])  # type: ignore[arg-type]
        except (ClientError, BotoCoreError) as error:
            raise Transient(f"events: {error}") from error
        if answer["FailedEntryCount"]:
            raise Transient(f"events: {answer['Entries']}")
