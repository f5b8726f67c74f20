"""What stands in the table about a photograph. Pure: dictionaries out of what is known."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from bintally.aws import table
from bintally.aws.arrivals import Arrival
from bintally.aws.endpoint import OUTPUTS, Answer
from bintally.common.keys import Place, quantity, utc


@dataclass(frozen=True)
class Photograph:
    """An image version and all that is known of it before it is counted."""

    arrival: Arrival
    place: Place
    captured: datetime
    uploaded: datetime
    flags: tuple[str, ...] = ()
    """Why what its metadata says was not believed."""


@dataclass(frozen=True)
class Recorded:
    """What the inventory system says of a bin."""

    quantity: int
    source: Literal["metadata", "record"]
    """Who told: the photograph's own metadata, or the bin's RECORD item."""
    as_of: str | None
    """Fixed-width UTC. None of a RECORD that does not tell."""


def expected_quantity(metadata: Mapping[str, str], uploaded: datetime) -> tuple[Recorded | None, tuple[str, ...]]:
    """What the uploader says the inventory system records, which was so when it was uploaded, and flags."""
    if (text := metadata.get("expected-quantity")) is None:
        return None, ()
    if (found := quantity(text)) is None:
        return None, ("expected_quantity_unreadable",)
    return Recorded(found, "metadata", utc(uploaded)), ()


def counted(
    photograph: Photograph, answer: Answer, recorded: Recorded | None, *, digest: str, latency_ms: int, now: datetime
) -> dict[str, Any]:
    """A COUNTED item. `latency_ms` is the endpoint's time; `digest` the SHA-256 of the object's bytes."""
    return _common(photograph, digest, now) | {
        "status": "COUNTED",
        "count": answer.count,
        "is_minimum": answer.is_minimum,
        "expected_capped": answer.expected_capped,
        "confidence": answer.confidence,
        "probabilities": list(answer.probabilities),
        "model_version": answer.model_version,
        "latency_ms": latency_ms,
        **({} if recorded is None else compared(answer, recorded)),
    }


def compared(answer: Answer, recorded: Recorded) -> dict[str, Any]:
    """The record beside the answer.

    `p_record` is the probability that the record is right, where 6 and more are one answer. `discrepancy` says that
    the answer is another quantity. `priority` is the probability that the record is wrong: recount the greatest first.
    """
    pooled = min(recorded.quantity, OUTPUTS - 1)
    p_record = answer.probabilities[pooled]
    return {
        "recorded_quantity": recorded.quantity,
        "recorded_from": recorded.source,
        **({} if recorded.as_of is None else {"recorded_as_of": recorded.as_of}),
        "p_record": p_record,
        "discrepancy": pooled != answer.count,
        "priority": 1 - p_record,
    }


def rejected(photograph: Photograph, reason: str, *, digest: str | None, now: datetime) -> dict[str, Any]:
    """A REJECTED item. What was never read has no `digest`."""
    return _common(photograph, digest, now) | {"status": "REJECTED", "reason": reason}


def _common(photograph: Photograph, digest: str | None, now: datetime) -> dict[str, Any]:
    arrival, place = photograph.arrival, photograph.place
    return table.count_key(arrival, place, photograph.captured) | {
        "site": place.site,
        "bin": place.bin,
        "image": {
            "bucket": arrival.bucket,
            "key": arrival.key,
            "version_id": arrival.version_id,
            "etag": arrival.etag,
            "sequencer": arrival.sequencer,
            **({} if digest is None else {"digest": digest}),
        },
        "captured_at": utc(photograph.captured),
        "uploaded_at": utc(photograph.uploaded),
        "counted_at": utc(now),
        "order": table.order(arrival, photograph.captured, photograph.uploaded),
        **({"flags": list(photograph.flags)} if photograph.flags else {}),
    }
