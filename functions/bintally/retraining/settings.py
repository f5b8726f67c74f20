"""The environments of `plan`, `conclude` and `judge`, read once on first use."""

import os
from dataclasses import dataclass
from functools import cache

from bintally.retraining.names import Knobs


@dataclass(frozen=True)
class RetrainSettings:
    """The settings of `plan` and `conclude`."""

    stack_name: str
    counts_table: str
    artifacts_bucket: str
    endpoint_name: str
    alerts_topic: str
    minimum_labels: int
    """New labels that a run needs, unless it is forced."""
    maximum_labels: int
    """New labels that a run takes; the next run goes on after them."""
    label_share: float
    """The share of bins of which records become labels."""
    approval: str
    """`automatic`, or `manual`: a person approves the version that the run registers."""
    bad_share: str
    """Maximum share of unreadable new photographs."""
    dataset_days: int
    """Days after which photographs in datasets expire; 0 for never."""
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
        maximum_labels=int(os.environ["MAXIMUM_LABELS"]),
        label_share=float(os.environ["LABEL_SHARE"]),
        approval=os.environ["APPROVAL"],
        bad_share=os.environ["BAD_SHARE"],
        dataset_days=int(os.environ["DATASET_DAYS"]),
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
    """The margins for a challenger, in ranked probability score (docs/decisions/judge.md gives the reasons)."""

    superiority: float
    """The lower bound of the gain over all photographs must exceed this."""
    noninferiority: float
    """In no group of counts may the loss be as large as this, by its lower bound."""
    least_bins: int
    """Bins that a group needs for that margin; in a smaller group a challenger must only not be shown to be worse."""


@cache
def margins() -> Margins:
    """Raises KeyError, which names the variable, when one is missing."""
    return Margins(
        superiority=float(os.environ["SUPERIORITY_MARGIN"]),
        noninferiority=float(os.environ["NONINFERIORITY_MARGIN"]),
        least_bins=int(os.environ["LEAST_BINS"]),
    )
