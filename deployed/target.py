"""A stack in an account that is deployed or removed, for real or, in a dry run, on paper."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3

from deployed.errors import NotDeployed
from deployed.rehearsal import ACCOUNT, Rehearsal
from deployed.shipping import Shipping
from deployed.stack import Account

NAMES = (
    *("ImagesBucket", "ArtifactsBucket", "CountsTable", "CountMapping", "EndpointName", "AlertsTopic"),
    *("ReleaseStateMachine", "RetrainStateMachine", "ReconcileStateMachine"),
)
"""The outputs that a deployment reads."""


@dataclass(frozen=True)
class Target(Account, Shipping):
    """With a `rehearsal` it changes nothing, waits for nothing, and has outputs before it exists."""

    package: Path = Path()
    image: str = ""
    rehearsal: Rehearsal | None = None

    @cached_property
    def _session(self) -> boto3.Session:
        session = super()._session
        if self.rehearsal:
            self.rehearsal.offline = session.get_credentials() is None
            self.rehearsal.watch(session)
        return session

    def find(self) -> dict[str, Any] | None:
        """The stack as DescribeStacks returns it; None where there is none."""
        try:
            found: dict[str, Any] = self.describe()
        except NotDeployed:
            return None
        return found

    def outputs(self) -> dict[str, str]:
        """In a dry run of a stack that does not exist: what it would have, with x for the endings that AWS chooses."""
        try:
            return super().outputs()
        except NotDeployed:
            if not self.rehearsal:
                raise
        return {name: self.expected(name) for name in NAMES}

    def expected(self, name: str) -> str:
        chosen = "xxxxxxxxxxxx"
        if name.endswith("Bucket"):
            return f"{self.name.lower()}-{name.lower()}-{chosen}"
        if name == "CountMapping":
            return "00000000-0000-0000-0000-000000000000"
        place = f"{self.session().region_name}:{ACCOUNT}"
        if name.endswith("StateMachine"):
            return f"arn:aws:states:{place}:stateMachine:{self.name}-{name.removesuffix('StateMachine').lower()}"
        if name == "AlertsTopic":
            return f"arn:aws:sns:{place}:{self.name}-{name}-{chosen}"
        return f"{self.name}-serverless" if name == "EndpointName" else f"{self.name}-{name}-{chosen}"

    def release_of(self, package: str, outputs: dict[str, str]) -> str:
        return "" if self.rehearsal else super().release_of(package, outputs)

    def wait_release(self, execution: str) -> None:
        if not self.rehearsal:
            super().wait_release(execution)

    def wait_endpoint(self, name: str) -> None:
        if not self.rehearsal:
            super().wait_endpoint(name)
