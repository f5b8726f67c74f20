"""What a count is: an image version, what the model answered or why it was rejected, and the record beside it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from bintally.common.arrivals import Arrival
from bintally.common.keys import Place

OUTPUTS = 7
"""Probabilities for 0, 1, 2, 3, 4, 5, and 6 or more."""

Status = Literal["COUNTED", "REJECTED"]


@dataclass(frozen=True)
class Answer:
    """What the endpoint answers of one photograph."""

    count: int
    is_minimum: bool
    expected_capped: float
    confidence: float
    probabilities: tuple[float, ...]
    model_version: str


@dataclass(frozen=True)
class Photograph:
    """An image version and all that is known of it before it is counted."""

    arrival: Arrival
    place: Place
    captured: datetime
    uploaded: datetime
    flags: tuple[str, ...] = ()
    """Metadata that was not believed."""


@dataclass(frozen=True)
class Recorded:
    """What the inventory system says of a bin."""

    quantity: int
    source: Literal["metadata", "record"]
    """The photograph's own metadata, or the bin's RECORD item."""
    as_of: str | None
    """Fixed-width UTC. None of a RECORD without a date."""


@dataclass(frozen=True)
class Counted:
    """The model's answer, and the record beside it if there is one."""

    answer: Answer
    recorded: Recorded | None
    latency_ms: int
    """The endpoint's time."""

    @property
    def p_record(self) -> float | None:
        """The probability that the record is right, where 6 and more are one answer. 1 less this is the priority."""
        return None if self.recorded is None else self.answer.probabilities[self._pooled(self.recorded)]

    @property
    def discrepancy(self) -> bool | None:
        """Whether the answer is another quantity than the record."""
        return None if self.recorded is None else self._pooled(self.recorded) != self.answer.count

    @staticmethod
    def _pooled(recorded: Recorded) -> int:
        return min(recorded.quantity, OUTPUTS - 1)


@dataclass(frozen=True)
class Unusable:
    """A photograph that can never be counted; people read the reason."""

    reason: str


@dataclass(frozen=True)
class Count:
    """What became of one image version. Written once, never changed."""

    photograph: Photograph
    digest: str | None
    """SHA-256 of the object's bytes; None if they were never read."""
    counted: datetime
    outcome: Counted | Unusable

    @property
    def status(self) -> Status:
        return "COUNTED" if isinstance(self.outcome, Counted) else "REJECTED"
