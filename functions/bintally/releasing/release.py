"""A release as the state machine carries it from step to step, and the names that it gives."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from bintally.common.errors import BintallyError

POLLS = 120
"""Waits of 1 to 15 s for an endpoint: 1 + 2 + … + 14 + 107 x 15 = 28 minutes."""
QUOTA_POLLS = 12
"""Waits of 5 to 60 s for a quota: 5 + 10 + 20 + 40 + 8 x 60 = 9 minutes."""


class Failed(BintallyError):
    """The release cannot go on. `error` is its name in reports and events; the message is the reason."""

    def __init__(self, error: str, reason: str, outcome: str = "failed") -> None:
        super().__init__(reason)
        self.error, self.outcome = error, outcome


@dataclass(frozen=True)
class Release:
    """The state of a release. The machine's first state makes it with the first eight fields."""

    execution: str
    """ARN of the reported execution: this one, or the stopped one that this one cleans up after."""
    stopped: str
    """ARN of the stopped execution; empty when this is a release."""
    endpoint: str
    model_version: str
    model_data_url: str
    outcome: str
    why: dict[str, str]
    """Error and Cause."""
    restored: bool
    """False when the endpoint could not be restored."""
    package: str = ""
    """ARN in the registry; empty when a person started the release."""
    package_digest: str = ""
    """SHA-256 of the package's package.json, which contains the digests of the files that are served."""
    name: str = ""
    """Of the endpoint configuration and of its model."""
    candidate: str = ""
    """Of the candidate endpoint."""
    image: str = ""
    variant: dict[str, Any] = field(default_factory=dict)
    previous: str = ""
    """The configuration that was live; empty when there was no endpoint."""
    changed: bool = False
    """Whether the change of the live endpoint was requested."""
    holder: str = ""
    holder_version: str = ""
    holder_status: str = ""
    """The execution that held the lock, its version and its last known status; empty if the lock was free."""
    awaited: str = ""
    polls: int = 0
    """The condition that this release waits for, and how often it has."""

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "Release":
        return cls(**{each.name: state[each.name] for each in fields(cls) if each.name in state})

    def state(self) -> dict[str, Any]:
        return asdict(self)

    def end(self, outcome: str, reason: str, error: str = "") -> "Release":
        return replace(self, outcome=outcome, why={"Error": error, "Cause": reason})


def short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def settings_digest(image: str, variant: Mapping[str, Any], package_digest: str) -> str:
    """Eight hexadecimal digits of all that makes up a live endpoint. A configuration has them in its name, so that
    a release sees a changed setting without another request."""
    return short_digest(json.dumps([image, variant, package_digest], sort_keys=True))
