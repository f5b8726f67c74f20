"""Turns table changes into labels, in one object per batch in the label log."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from bintally.aws import items, objects
from bintally.aws.items import MALFORMED, Item, Standing
from bintally.aws.table import Table
from bintally.aws.telemetry import logger
from bintally.common.errors import Rejected
from bintally.common.keys import moment, utc
from bintally.labels import log
from bintally.labels.log import Label, Source

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True)
class Services:
    """The clients and settings that following uses."""

    s3: "S3Client"
    table: Table
    artifacts_bucket: str
    pairing: timedelta
    """Maximum distance in time between a photograph and a record that labels it."""


@dataclass(frozen=True)
class Change:
    """An item that was added to the table or replaced one."""

    id: str
    at: datetime
    kind: str
    """COUNT, RECOUNT, UNDONE or RECORD."""
    item: Item
    before: Item | None
    """The item that it replaced."""
    beside: Item | None
    """The key of the related item: for a count the RECORD of its bin, for a recount its count."""


@dataclass(frozen=True)
class Said:
    """A quantity that a record or a person states."""

    quantity: int
    source: Source
    as_of: datetime
    told: str = ""
    """A RECORD's `order`."""
    audit: bool = False
    """By a person, of a bin that was drawn at random."""


@dataclass(frozen=True)
class Followed:
    """The result of a batch."""

    lines: int
    aside: tuple[str, ...]
    """The reasons for which stream records were quarantined, one each."""


def follow_batch(services: Services, batch: list[dict[str, Any]]) -> Followed:
    """Writes the labels of stream records, and quarantines those that can never give a label.

    Raises Transient. A retry of the same batch replaces what it wrote before, unless its changes are older than a day.
    """
    changes: list[tuple[Change, dict[str, Any]]] = []
    lines: dict[str, Label] = {}
    reasons: list[str] = []

    def put(key: str, body: str) -> None:
        objects.put(services.s3, services.artifacts_bucket, key, body.encode())

    def quarantine(record: dict[str, Any], error: Rejected) -> None:
        reasons.append(str(error))
        text = json.dumps({"reason": str(error), "record": record}, sort_keys=True)
        logger.error("quarantined", content=text[:1000])
        put(f"{log.ASIDE}{digest_of(json.dumps(record, sort_keys=True))}.json", text)

    for record in batch:
        try:
            changes.append((parse_change(record), record))
        except Rejected as error:
            quarantine(record, error)
    keys = [change.beside for change, _ in changes if change.beside]
    standing = services.table.get_many(keys)
    for change, record in changes:
        try:
            lines |= {label["id"]: label for label in labels_of(services, change, standing)}
        except Rejected as error:
            quarantine(record, error)
    if lines:
        newest = max(change.at for change, _ in changes)
        name = log.day_folder(newest) + f"{newest:%H%M%S}-{digest_of(*(change.id for change, _ in changes))}"
        found = [json.dumps(line) + "\n" for line in lines.values()]
        for first in range(0, len(found), log.LARGEST):
            put(f"{name}{f'-{first}' if first else ''}.jsonl", "".join(found[first : first + log.LARGEST]))
    return Followed(len(lines), tuple(reasons))


def parse_change(record: Mapping[str, Any]) -> Change:
    """A record of the table's stream. Raises Rejected."""
    try:
        at = datetime.fromtimestamp(float(record["dynamodb"]["ApproximateCreationDateTime"]), UTC)
        if now() - at > log.OVERLAP:  # replayed by hand: readers of the log do not read so far back
            at = now()
        item = items.plain(record["dynamodb"]["NewImage"])
        old = record["dynamodb"].get("OldImage")
        kind = str(item["SK"]).partition("#")[0]
        return Change(str(record["eventID"]), at, kind, item, items.plain(old) if old else None, key_beside(kind, item))
    except MALFORMED as error:
        raise Rejected(f"not a readable stream record: {error!r}") from error


def now() -> datetime:
    return datetime.now(UTC)


def key_beside(kind: str, item: Item) -> Item | None:
    """A RECOUNT, and an UNDONE, names its photograph by `image` and `captured_at`, as the count does.

    A recount without them was made without a photograph, and labels none.
    """
    match kind:
        case "COUNT":
            return {"PK": str(item["PK"]), "SK": "RECORD"}
        case "RECOUNT" | "UNDONE" if "image" in item:
            image = item["image"]
            digest = items.version_digest(image["bucket"], image["key"], image["version_id"])
            return {"PK": str(item["PK"]), "SK": f"COUNT#{utc(moment(item['captured_at']))}#{digest}"}
        case "RECOUNT" | "UNDONE" | "RECORD":
            return None
    raise ValueError(f"an item {item['SK']} gives no label")


def labels_of(services: Services, change: Change, standing: Standing) -> Iterator[Label]:
    """Raises Rejected when the changed item cannot give a label that it should give, and Transient."""
    beside = standing.get((change.beside["PK"], change.beside["SK"])) if change.beside else None
    if change.kind == "COUNT":
        for said in said_of_count(change.item, beside, services.pairing):
            yield label_of(change.item, said, change.at)
    elif change.kind == "RECORD":
        said = said_by_record(change.item)
        if (old := change.before) and all(old.get(k) == change.item[k] for k in ("expected_quantity", "as_of")):
            return  # reported again: its labels were written the first time
        for count in counts_around(services, str(change.item["PK"]), said.as_of):
            try:
                yield label_of(count, said, change.at)
            except Rejected as error:  # it was quarantined when its own change arrived
                logger.warning("no label", item=f"{count['PK']} {count['SK']}", reason=str(error))
    elif change.beside:
        if beside is None:
            raise Rejected(f"the recount's count does not exist: {change.beside['SK']}")
        label = label_of(beside, said_by_person(change.item), change.at)
        yield {**label, "withdrawn": True} if change.kind == "UNDONE" else label


def counts_around(services: Services, bin_: str, middle: datetime) -> Iterator[Item]:
    """The counts of a bin (`bin_` is its PK) near a record's effective time. Raises Rejected or Transient."""
    try:
        first, last = middle - services.pairing, middle + services.pairing
    except OverflowError as error:
        raise Rejected(f"no count can be near {middle}") from error
    return services.table.counts_between(bin_, first, last)


def said_of_count(count: Item, record: Item | None, pairing: timedelta) -> Iterator[Said]:
    """The recorded quantities of a photograph: the one it was compared with, and the current RECORD.

    A quantity in the photograph's metadata applies whenever it was taken; a bin's RECORD only near its own time.
    Raises Rejected.
    """
    try:
        captured = moment(count["captured_at"])
        if "recorded_as_of" in count:
            said = Said(int(count["recorded_quantity"]), "record", moment(count["recorded_as_of"]))
            if count["recorded_from"] == "metadata" or abs(said.as_of - captured) <= pairing:
                yield said
    except MALFORMED as error:
        raise Rejected(f"not a count: {error!r}") from error
    try:
        if record and abs((said := said_by_record(record)).as_of - captured) <= pairing:
            yield said
    except Rejected:
        return  # quarantined when its own change arrived


def said_by_record(item: Item) -> Said:
    """Raises Rejected."""
    try:
        return Said(int(item["expected_quantity"]), "record", moment(item["as_of"]), str(item.get("order", "")))
    except MALFORMED as error:
        raise Rejected(f"not a record: {error!r}") from error


def said_by_person(item: Item) -> Said:
    """The quantity of a RECOUNT or an UNDONE at `recounted_at`. Raises Rejected."""
    try:
        return Said(int(item["quantity"]), "person", moment(item["recounted_at"]), audit=bool(item.get("audits")))
    except MALFORMED as error:
        raise Rejected(f"not a recount: {error!r}") from error


def label_of(count: Item, said: Said, logged: datetime) -> Label:
    """The log line that labels the count's image version. Raises Rejected."""
    try:
        bucket, key, version_id = (str(count["image"][name]) for name in ("bucket", "key", "version_id"))
        image: log.Image = {"bucket": bucket, "key": key, "version_id": version_id}
        as_of = utc(said.as_of)
        label: Label = {
            "id": log.label_id(image, said.source, as_of, said.quantity),
            "image": image,
            "site": str(count["site"]),
            "bin": str(count["bin"]),
            "quantity": said.quantity,
            "source": said.source,
            "as_of": as_of,
            "told": said.told,
            "captured_at": str(count["captured_at"]),
            "logged_at": utc(logged),
            "count": int(count["count"]),
            "confidence": float(count["confidence"]),
            "p_record": float(count["p_record"]) if "p_record" in count else None,
            "model_version": str(count["model_version"]),
        }
    except MALFORMED as error:
        raise Rejected(f"not a count: {error!r}") from error
    if said.audit:
        label["audit"] = True
    return label


def digest_of(*parts: str) -> str:
    """32 hex digits."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
