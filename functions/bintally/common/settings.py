"""The function's environment, read once on first use."""

import os
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

from bintally.retraining.names import Knobs


@dataclass(frozen=True)
class Settings:
    counts_table: str
    endpoint_name: str
    count_queue_url: str
    retry_seconds: int
    """First wait before another try; it doubles with each."""
    low_confidence_share: float
    """Share of counts of low confidence that is still as usual."""
    disagreement_limit: float
    """Share of counts that differ from the record that is still as usual."""


@cache
def settings() -> Settings:
    """Raises KeyError, which names the variable, when one is missing."""
    return Settings(
        counts_table=os.environ["COUNTS_TABLE"],
        endpoint_name=os.environ["ENDPOINT_NAME"],
        count_queue_url=os.environ["COUNT_QUEUE_URL"],
        retry_seconds=int(os.environ["RETRY_SECONDS"]),
        low_confidence_share=float(os.environ["LOW_CONFIDENCE_SHARE"]),
        disagreement_limit=float(os.environ["DISAGREEMENT_LIMIT"]),
    )


@dataclass(frozen=True)
class RecordSettings:
    """What `record` reads."""

    counts_table: str
    artifacts_bucket: str
    record_queue_url: str
    retry_seconds: int


@cache
def record_settings() -> RecordSettings:
    """Raises KeyError, which names the variable, when one is missing."""
    return RecordSettings(
        counts_table=os.environ["COUNTS_TABLE"],
        artifacts_bucket=os.environ["ARTIFACTS_BUCKET"],
        record_queue_url=os.environ["RECORD_QUEUE_URL"],
        retry_seconds=int(os.environ["RETRY_SECONDS"]),
    )


@dataclass(frozen=True)
class FollowSettings:
    """What `follow` reads."""

    counts_table: str
    artifacts_bucket: str
    pairing: timedelta


@cache
def follow_settings() -> FollowSettings:
    """Raises KeyError, which names the variable, when one is missing."""
    return FollowSettings(
        counts_table=os.environ["COUNTS_TABLE"],
        artifacts_bucket=os.environ["ARTIFACTS_BUCKET"],
        pairing=timedelta(hours=float(os.environ["PAIRING_HOURS"])),
    )


@dataclass(frozen=True)
class RetrainSettings:
    """What `plan` and `conclude` read."""

    stack_name: str
    counts_table: str
    artifacts_bucket: str
    endpoint_name: str
    alerts_topic: str
    minimum_labels: int
    """New labels that a run takes, unless it is forced."""
    approval: str
    """`automatic`, or `manual`: a person approves what the run registers."""
    bad_share: str
    """Share of new photographs that may be unreadable."""
    knobs: Knobs


@cache
def retrain_settings() -> RetrainSettings:
    """Raises KeyError, which names the variable, when one is missing."""
    return RetrainSettings(
        stack_name=os.environ["STACK_NAME"],
        counts_table=os.environ["COUNTS_TABLE"],
        artifacts_bucket=os.environ["ARTIFACTS_BUCKET"],
        endpoint_name=os.environ["ENDPOINT_NAME"],
        alerts_topic=os.environ["ALERTS_TOPIC"],
        minimum_labels=int(os.environ["MINIMUM_LABELS"]),
        approval=os.environ["APPROVAL"],
        bad_share=os.environ["BAD_SHARE"],
        knobs=Knobs(
            epochs=int(os.environ["EPOCHS"]),
            sizes=os.environ["SIZES"],
            trials=int(os.environ["TRIALS"]),
            parallel=int(os.environ["PARALLEL_TRIALS"]),
            instances=int(os.environ["TRAINING_INSTANCES"]),
            start=os.environ["START"],
        ),
    )


@dataclass(frozen=True)
class Margins:
    """What `judge` asks of a challenger, in ranked probability score (docs/decisions/judge.md says why so much)."""

    superiority: float
    """The lower bound of the gain over all photographs must exceed this."""
    noninferiority: float
    """In no group of counts may the loss be as large as this, by its lower bound."""
    least_bins: int
    """Bins that a group needs for that; a smaller one only must not be shown to be worse."""


@cache
def margins() -> Margins:
    """Raises KeyError, which names the variable, when one is missing."""
    return Margins(
        superiority=float(os.environ["SUPERIORITY_MARGIN"]),
        noninferiority=float(os.environ["NONINFERIORITY_MARGIN"]),
        least_bins=int(os.environ["LEAST_BINS"]),
    )
