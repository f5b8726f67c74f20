"""Shared by the parts of the service: names, the stack, and the clients of a job's role."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

import boto3
import botocore.session
from botocore.config import Config

from localsagemaker.models import Assume
from localsagemaker.server import Spawner
from localsagemaker.wire import SESSION, Json, fitting, invalid, output_shape

PutEvent = Callable[[str, list[str], Json], None]
"""Puts an event of source aws.sagemaker on the default bus: detail type, ARNs of the resources, detail."""
RecordMetric = Callable[[str, str, float, str, Mapping[str, str]], None]
"""Records a value of a CloudWatch metric: namespace, name, value, unit, dimensions."""
Alarmed = Callable[[str, float], bool | None]
"""Whether the CloudWatch alarm of that name is, or was since then, in ALARM; None when it does not exist."""


class Part(Protocol):
    """One part of the service. `operations` lists its operations; each is a method of that name in snake case, which
    takes the request and returns the answer. Its state is JSON with its own keys."""

    @property
    def operations(self) -> tuple[str, ...]: ...
    def get_state(self) -> Json: ...
    def load_state(self, state: Json) -> None: ...
    def resume(self) -> None: ...
    def reset(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Host:
    """The stack that the service is part of, as its caller describes it.

    `home` contains the jobs' files and logs. `python` runs their scripts, started in `folder` with `search_path` as
    PYTHONPATH; `python_hint` says how to install it if it is missing. `entry_points` contains the command that replaces
    an image's ENTRYPOINT, by a pattern of the image's name without registry and tag: the first match is used.
    """

    home: Path
    folder: Path
    search_path: tuple[Path, ...]
    python: Path
    python_hint: str
    entry_points: Mapping[str, Sequence[str]]
    endpoint_url: str
    account: str
    region: str
    assume: Assume
    put_event: PutEvent
    record_metric: RecordMetric
    alarmed: Alarmed
    spawner: Spawner = field(default_factory=Spawner)
    variables: Mapping[str, str] = field(default_factory=dict)
    """Further environment variables of every job."""

    def entry_point(self, image: str) -> list[str]:
        """Raises ServiceError for an image without an entry point here."""
        name = image.rpartition("/")[2].partition("@")[0].partition(":")[0]
        for pattern, command in self.entry_points.items():
            if fnmatchcase(name, pattern):
                return list(command)
        raise invalid(f"not supported on one machine: the image {image}; known are {', '.join(self.entry_points)}")

    def arn(self, kind: str, name: str) -> str:
        return f"arn:aws:sagemaker:{self.region}:{self.account}:{kind}/{name.lower()}"

    def client(self, service: str, role: str) -> Any:
        """A boto3 client that acts as `role`. Raises ServiceError when SageMaker may not assume it."""
        keys: dict[str, Any] = self.assume(role)
        own = botocore.session.Session()
        own.register_component("data_loader", SESSION.get_component("data_loader"))  # it has loaded the service models
        session: Any = boto3.Session(**keys, region_name=self.region, botocore_session=own)
        settings = Config(s3={"addressing_style": "path"}, proxies={}, max_pool_connections=20)
        return session.client(service, endpoint_url=self.endpoint_url, config=settings)


def now() -> float:
    """Seconds since 1970, the service's format for times."""
    return datetime.now(UTC).timestamp()


def listed(operation: str, request: Json, items: list[Json], noun: str, status: str | None = None) -> Json:
    """One page of a List operation whose items are named `<noun>Name`: filtered, sorted by name, time or the member
    `status` (`<noun>Status` unless said), newest first by default. Items have the model's members."""
    status = status or f"{noun}Status"
    filters: dict[str, Callable[[Json], bool]] = {
        "NameContains": lambda item: request["NameContains"].lower() in item[f"{noun}Name"].lower(),
        "StatusEquals": lambda item: item[status] == request["StatusEquals"],
        "CreationTimeAfter": lambda item: item["CreationTime"] > request["CreationTimeAfter"],
        "CreationTimeBefore": lambda item: item["CreationTime"] < request["CreationTimeBefore"],
        "LastModifiedTimeAfter": lambda item: item["LastModifiedTime"] > request["LastModifiedTimeAfter"],
        "LastModifiedTimeBefore": lambda item: item["LastModifiedTime"] < request["LastModifiedTimeBefore"],
    }
    kept = [item for item in items if all(passes(item) for key, passes in filters.items() if key in request)]
    by = {"Name": f"{noun}Name", "Status": status}.get(request.get("SortBy", ""), "CreationTime")
    kept.sort(key=lambda item: item[by], reverse=request.get("SortOrder", "Descending") == "Descending")
    return paged(operation, request, kept)


def paged(operation: str, request: Json, items: list[Json]) -> Json:
    """The requested page of `items` in the answer's one list, each with its model's members."""
    token = request.get("NextToken", "0")
    if not (token.isascii() and token.isdigit() and len(token) < 10):
        raise invalid("NextToken is not one that this service gave")
    start, size = int(token), request.get("MaxResults", 100)
    members = output_shape(operation).members
    answer_key = next(name for name, shape in members.items() if shape.type_name == "list")
    page: Json = {answer_key: [fitting(item, members[answer_key].member) for item in items[start : start + size]]}
    if start + size < len(items):
        page["NextToken"] = str(start + size)
    return page
