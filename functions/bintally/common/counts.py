"""The types of a count: an image version, the model's answer or the reason for its rejection, and the record."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from bintally.common.arrivals import Arrival
from bintally.common.keys import Place

OUTPUTS = 7
"""Probabilities for 0, 1, 2, 3, 4, 5, and 6 or more."""

FLAT = 0.23
"""An answer whose greatest probability is smaller says nothing. Of the shipped model's 2,276 held-out answers 5 are."""
RETAKE = frozenset({"dark", "blurred", "colourless", "flat"})
"""Flags of a count that ask for a new photograph."""

Status = Literal["COUNTED", "REJECTED"]


@dataclass(frozen=True)
class Answer:
    """The endpoint's answer for one photograph."""

    count: int
    is_minimum: bool
    expected_capped: float
    confidence: float
    probabilities: tuple[float, ...]
    model_version: str
    prior: tuple[float, ...] | None = None
    """The shares of the classes that the probabilities assume; None: evidence.PRIOR."""


@dataclass(frozen=True)
class Photograph:
    """An image version and its metadata, before it is counted."""

    arrival: Arrival
    place: Place
    captured: datetime
    uploaded: datetime
    flags: tuple[str, ...] = ()
    """What was not used because it is implausible or unreadable, what was missing and did not matter, and why a new
    photograph is needed (RETAKE)."""
    captured_from: str = "upload"
    """The source of `captured`: taken.py names them."""


@dataclass(frozen=True)
class Recorded:
    """The quantity that the inventory system records for a bin."""

    quantity: int
    source: Literal["metadata", "record"]
    """The photograph's own metadata, or the bin's RECORD item."""
    as_of: str | None
    """Fixed-width UTC. None for a RECORD without a date."""
    order: str
    """Tells it from others: items.record_digest, or for metadata its time and items.METADATA."""
    value: Decimal | None = None
    """Of one item, in whatever unit the records use."""


@dataclass(frozen=True)
class Counted:
    """The model's answer, and the record if there is one."""

    answer: Answer
    recorded: Recorded | None
    latency_ms: int
    """The endpoint's time."""

    @property
    def discrepancy(self) -> bool | None:
        """Whether the answer differs from the record."""
        return None if self.recorded is None else pooled(self.recorded.quantity) != self.answer.count


def pooled(quantity: int) -> int:
    """The class of a recorded quantity: 6 and more are one."""
    return min(quantity, OUTPUTS - 1)


@dataclass(frozen=True)
class Unusable:
    """A photograph that can never be counted, with the reason for people."""

    reason: str


@dataclass(frozen=True)
class Count:
    """The result for one image version. Written once, never changed."""

    photograph: Photograph
    digest: str | None
    """SHA-256 of the object's bytes; None if they were never read."""
    counted: datetime
    outcome: Counted | Unusable

    @property
    def status(self) -> Status:
        return "COUNTED" if isinstance(self.outcome, Counted) else "REJECTED"
