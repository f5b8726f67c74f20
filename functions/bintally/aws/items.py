"""The counts table's items: their keys, their attributes and their wire format. Pure.

docs/decisions/one-table.md gives the reasons.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from bintally.common.arrivals import Arrival
from bintally.common.counts import FLAT, RETAKE, Count, Counted, Recorded, pooled
from bintally.common.evidence import Evidence, weigh
from bintally.common.keys import Place, encode_id, utc
from bintally.common.parts import part_of, site_parts

Item = dict[str, Any]
Standing = Mapping[tuple[str, str], Item]
"""Items of the table by PK and SK."""

MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""Errors when an item lacks an attribute, or has one of the wrong type or out of range: people write items by hand."""

COMPARED = ("recorded_as_of", "recorded_value")
"""Attributes of a comparison that it may lack."""
SHARDS = 16
"""Items that share a day's total of a site, so that 10 concurrent functions seldom wait for each other."""
SEQUENCER_WIDTH = 32
METADATA = "metadata"
"""Ends the order of a quantity in a photograph's metadata, dated by its upload. It sorts after that of a RECORD of the
same time, which begins with a digit: who uploads a photograph with its quantity says it of this photograph."""

_serialise = TypeSerializer().serialize
_deserialise = TypeDeserializer().deserialize


def bin_key(place: Place) -> str:
    return f"BIN#{encode_id(place.site)}#{encode_id(place.bin)}"


def version_digest(bucket: str, key: str, version_id: str) -> str:
    """16 hex digits of the image version."""
    return _version_sha256(bucket, key, version_id)[:16]


def _version_sha256(bucket: str, key: str, version_id: str) -> str:
    """The separator occurs in no bucket name or version id."""
    return hashlib.sha256("\0".join((bucket, key, version_id)).encode()).hexdigest()


def digest_of(arrival: Arrival) -> str:
    return version_digest(arrival.bucket, arrival.key, arrival.version_id)


def count_key(arrival: Arrival, place: Place, captured: datetime) -> Item:
    return {"PK": bin_key(place), "SK": f"COUNT#{utc(captured)}#{digest_of(arrival)}"}


def marker_key(arrival: Arrival) -> Item:
    """The key of an image version's marker, which follows from the version alone, whatever its place and its date.

    All 64 digits: two of a hundred million versions share their first 16 with a probability of 1 in 4,000, and the
    second one would pass for counted.
    """
    return marker_key_of(arrival.bucket, arrival.key, arrival.version_id)


def marker_key_of(bucket: str, key: str, version_id: str) -> Item:
    return {"PK": f"IMAGE#{_version_sha256(bucket, key, version_id)}", "SK": "IMAGE"}


def marker_item(arrival: Arrival, count: Item) -> Item:
    """The marker of an image version: it points to its COUNT item."""
    return marker_key(arrival) | {"count_pk": count["PK"], "count_sk": count["SK"]}


def marked(marker: Item) -> Item:
    """The key of the COUNT item that a marker points to."""
    return {"PK": marker["count_pk"], "SK": marker["count_sk"]}


def record_key(place: Place) -> Item:
    return {"PK": bin_key(place), "SK": "RECORD"}


def totals_key(count: Item) -> Item:
    """The totals to which a photograph belongs, by its COUNT or LATEST item: of the day (UTC) on which it was
    counted."""
    image = count["image"]
    digest = version_digest(image["bucket"], image["key"], image["version_id"])
    day = day_key(count["site"], count["counted_at"])
    return {"PK": part_of(day, digest, site_parts()), "SK": f"TOTALS#{int(digest, 16) % SHARDS:02d}"}


def day_key(site: str, at: str) -> str:
    """Lists what happened at a site on a day (UTC); totals are spread. `at` as `utc` spells it, or only its date."""
    return f"DAY#{encode_id(site)}#{at[:10]}"


def agreement(count: Item) -> Item:
    """What a count adds to its day's totals as compared with its record; nothing while it has none."""
    return {"compared": 1, "agreed": int(not count["discrepancy"])} if "discrepancy" in count else {}


def rejected_key(site: str) -> str:
    """Lists a site's REJECTED photographs in the index `site`, apart from its LATEST items."""
    return f"REJECTED#{encode_id(site)}"


def site_key(site: str) -> str:
    """Lists a site's LATEST items in the index `site`, by bin; they are spread."""
    return f"SITE#{encode_id(site)}"


SITES = "SITES"
"""Lists the sites that have counts."""


def site_item(site: str) -> Item:
    """One of the sites that have counts; named as its first photograph names it."""
    return {"PK": SITES, "SK": site_key(site), "site": site}


def order(arrival: Arrival, captured: datetime, uploaded: datetime) -> str:
    """Text that sorts by capture time, then by storage_order."""
    return f"{utc(captured)}#{storage_order(arrival, uploaded)}"


def storage_order(arrival: Arrival, uploaded: datetime) -> str:
    """Text that sorts by upload time, then by S3's sequencer, then by version id."""
    sequencer = arrival.sequencer.upper().ljust(SEQUENCER_WIDTH, "0")
    return "#".join((utc(uploaded), sequencer, arrival.version_id))


def count_item(count: Count, share: float) -> Item:
    """The COUNT item of an image version. `share` of the records are wrong."""
    photograph, outcome = count.photograph, count.outcome
    arrival, place = photograph.arrival, photograph.place
    item = count_key(arrival, place, photograph.captured) | {
        "site": place.site,
        "bin": place.bin,
        "image": image_of(count),
        "captured_at": utc(photograph.captured),
        "captured_from": photograph.captured_from,
        "uploaded_at": utc(photograph.uploaded),
        "counted_at": utc(count.counted),
        "order": order(arrival, photograph.captured, photograph.uploaded),
        **({"flags": list(photograph.flags)} if photograph.flags else {}),
        "status": count.status,
    }
    if not isinstance(outcome, Counted):
        return item | {"reason": outcome.reason, "site_key": rejected_key(place.site)}
    answer = outcome.answer
    if max(answer.probabilities) < FLAT:
        item["flags"] = [*photograph.flags, "flat"]
    return item | {
        "count": answer.count,
        "is_minimum": answer.is_minimum,
        "expected_capped": answer.expected_capped,
        "confidence": answer.confidence,
        "probabilities": list(answer.probabilities),
        "model_version": answer.model_version,
        **({} if answer.prior is None else {"prior": list(answer.prior)}),
        "latency_ms": outcome.latency_ms,
        **(comparison(outcome.recorded, answer.count, answer.probabilities, share) if outcome.recorded else {}),
    }


def image_of(count: Count) -> Item:
    """The image version that was counted."""
    arrival = count.photograph.arrival
    return {
        "bucket": arrival.bucket,
        "key": arrival.key,
        "version_id": arrival.version_id,
        "etag": arrival.etag,
        "sequencer": arrival.sequencer,
        **({} if count.digest is None else {"digest": count.digest}),
    }


def needs_retake(count: Item) -> bool:
    """Whether a COUNT item has a flag that asks for a new photograph (RETAKE)."""
    return count["status"] == "COUNTED" and not RETAKE.isdisjoint(count.get("flags", ()))


def record_order(record: Item) -> str:
    """Text that sorts as Table.put_record replaces RECORDs: by effective time, then by when it was reported."""
    return f"{record.get('as_of', '')}#{record.get('order', '')}"


def record_digest(record: Item) -> str:
    """Tells a bin's RECORDs apart. Counts keep this and not the order, with which they would not fit in 1 KB, the unit
    in which DynamoDB charges writes."""
    return hashlib.sha256(record_order(record).encode()).hexdigest()[:16]


def outranks(record: Item, count: Item) -> bool:
    """Whether a count is to be compared with the RECORD, and not with what it is compared with.

    The RECORD is the only one of its bin, so it replaces any other. A quantity of the photograph's own metadata gives
    way to a RECORD of a later time. Counts of older versions lack `recorded_order`, or keep the order whole.
    """
    if count.get("recorded_from") == "metadata":
        return record_order(record) > str(count.get("recorded_order", f"{count['recorded_as_of']}#{METADATA}"))
    said = (count.get("recorded_order"), count.get("recorded_quantity"))
    return said != (record_digest(record), int(record["expected_quantity"]))


def comparison(recorded: Recorded, count: int, probabilities: Sequence[float | Decimal], share: float) -> Item:
    """How a count compares with the record, where `share` of the records are wrong."""
    return {
        "recorded_quantity": recorded.quantity,
        "recorded_from": recorded.source,
        **({} if recorded.as_of is None else {"recorded_as_of": recorded.as_of}),
        **({} if recorded.value is None else {"recorded_value": recorded.value}),
        "recorded_order": recorded.order,
        "discrepancy": pooled(recorded.quantity) != count,
        **assessment(weigh(probabilities, recorded.quantity), share, recorded.value),
    }


def assessment(evidence: Evidence, share: float, value: Decimal | None) -> Item:
    """`p_record`, the probability that the record is right, where `share` of the records are wrong, what it follows
    from, and the priority: the greater, the sooner the bin is recounted.

    The priority is the number of wrong records that a recount finds on average; where the value of an item is known,
    the value by which the records that it finds are off.
    """
    p_wrong = evidence.p_wrong(share)
    at_stake = 1.0 if value is None else evidence.size * float(value)
    return {
        "evidence": _rounded(evidence.ratio),
        "direction": evidence.direction,
        "likely_size": _rounded(evidence.size),
        "p_record": (1 - Decimal(f"{p_wrong:.6f}")).normalize(),
        "priority": _rounded(p_wrong * at_stake),
    }


def _rounded(number: float) -> Decimal:
    """Six digits, whatever the size."""
    return Decimal(f"{number:.6g}").normalize()


def latest_of(count: Item) -> Item:
    """The bin's LATEST item if `count` is its newest; `site_key` puts it into the index `site`."""
    return {**count, "SK": "LATEST", "site_key": part_of(site_key(count["site"]), count["PK"], site_parts())}


def plain(item: Mapping[str, Any]) -> Item:
    """An item from the wire format of DynamoDB's client or stream. Numbers become decimals."""
    return {name: _deserialise(value) for name, value in item.items()}


def wire(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item in the wire format of DynamoDB's client."""
    return {name: _serialise(_exact(value)) for name, value in item.items()}


def _exact(value: Any) -> Any:
    """DynamoDB accepts no floats: decimals of six places."""
    if isinstance(value, float):
        return Decimal(f"{value:.6f}").normalize()
    if isinstance(value, list | tuple):
        return [_exact(each) for each in value]
    return value
