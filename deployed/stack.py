"""A deployed stack: its clients, outputs, table, models and releases.

stack = Account("bintally", region="eu-central-1")
stack.client("s3").upload_file("bin.jpg", stack.outputs()["ImagesBucket"], "incoming/SEA1/P-4-B217/1.jpg")
"""

import json
import os
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from deployed.access import explain, no_region, translate_refusals
from deployed.errors import Denied, NotDeployed, ReconcileFailed, ReleaseFailed

CREATING = threading.Lock()  # boto3's sessions create one client at a time
EVENT_SECONDS = 60  # until the registry's event must have started a release
ENDPOINT_SECONDS = 120


@dataclass(frozen=True)
class Reconciled:
    """The outcome of reconciling, in image versions below incoming/ and in versions of files below records/."""

    checked: int
    uncounted: int
    """Checked versions without a count."""
    requeued: int
    """Uncounted versions that were sent to the count queue."""
    young: int
    """Versions of both that were too young to be checked."""
    files: int = 0
    """Checked versions of files."""
    unread: int = 0
    """Those that nobody had read. They were sent to the record queue."""


class Deployed(ABC):
    """A stack in an account, or the one on this machine. `name` is the stack's name and the model registry's group."""

    name: str
    arrival_seconds: ClassVar[float] = 60
    """After this time an upload is in the count queue, or lost."""
    on_aws: ClassVar[bool] = True
    release_seconds: ClassVar[float] = 3600
    """A release has ended by then: a new account's quota alone is waited for up to 9 minutes, twice."""

    @property
    def client_settings(self) -> Mapping[str, Any]:
        """Settings of every client's botocore Config, besides the caller's."""
        return {}

    @property
    def hint(self) -> str:
        """The place to look for an error's cause, with a leading space."""
        return ""

    @abstractmethod
    def session(self) -> boto3.Session:
        """The caller's session. Raises NotRunning or NoAccess when there is none."""

    @property
    def endpoint_url(self) -> str | None:
        """The address of every service; None for AWS's own addresses."""
        return None

    @abstractmethod
    def require_running(self) -> None:
        """Raises NotRunning when the stack cannot answer."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """The variables with which any AWS client finds the stack, and every output: ImagesBucket as IMAGES_BUCKET."""

    @abstractmethod
    def not_deployed(self) -> Exception:
        """The error for a missing stack, with the cure."""

    @abstractmethod
    def where(self) -> dict[str, str]:
        """The stack's location for people: names and values."""

    # Clients

    def client(self, service: str, **config: Any) -> Any:
        """A boto3 client of the stack, created on first use; keyword arguments go to botocore's Config."""
        session: Any = self.session()
        settings = dict(self.client_settings) | config
        made = (session, service, repr(settings))
        with CREATING:
            if made not in self._clients:
                self._clients[made] = session.client(service, endpoint_url=self.endpoint_url, config=Config(**settings))
        return self._clients[made]

    @cached_property
    def _clients(self) -> dict[tuple[boto3.Session, str, str], Any]:
        """To read a service's model takes longer than most requests."""
        return {}

    def counts_table(self) -> Any:
        """boto3's Table of the counts."""
        session: Any = self.session()
        settings = Config(**self.client_settings)
        resource = session.resource("dynamodb", endpoint_url=self.endpoint_url, config=settings)
        return resource.Table(self.outputs()["CountsTable"])

    def describe(self) -> dict[str, Any]:
        """The stack as DescribeStacks returns it. Raises NotRunning when it is not up, NotDeployed when it does not
        exist."""
        self.require_running()
        try:
            found: dict[str, Any] = self.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"][0]
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            raise self.not_deployed() from error
        return found

    def outputs(self) -> dict[str, str]:
        """The stack's outputs by name. Raises NotRunning when it is not up, NotDeployed when it does not exist."""
        return {output["OutputKey"]: output["OutputValue"] for output in self.describe().get("Outputs", [])}

    def status(self) -> dict[str, str]:
        """The stack's location and the live model."""
        outputs = self.outputs()
        return {
            **self.where(),
            "stack": self.name,
            "endpoint": f"{outputs.get('EndpointName', '-')} {self.endpoint_status(outputs)}",
            "model": self.live_model_data(outputs) or "none",
            "retraining": self.under_way_for_people(outputs.get("RetrainStateMachine")),
            "release": self.under_way_for_people(outputs.get("ReleaseStateMachine")),
        }

    def under_way_for_people(self, state_machine: str | None) -> str:
        """Some people may not see it; a stack of another template has none."""
        try:
            return (state_machine and self.under_way(state_machine)) or "none"
        except Denied as error:
            return f"unknown: missing permission {error.action}"

    def under_way(self, state_machine: str) -> str | None:
        """The newest running execution of a state machine; None if none runs."""
        found = self.client("stepfunctions").list_executions(stateMachineArn=state_machine, statusFilter="RUNNING")
        return next((str(one["executionArn"]) for one in found["executions"]), None)

    # The model registry

    def packages(self) -> Iterator[dict[str, Any]]:
        """The model packages in the registry, the newest first, as DescribeModelPackage returns them."""
        sagemaker = self.client("sagemaker")
        pages = sagemaker.get_paginator("list_model_packages").paginate(
            ModelPackageGroupName=self.name, SortBy="CreationTime", SortOrder="Descending"
        )
        for page in pages:
            for summary in page["ModelPackageSummaryList"]:
                yield sagemaker.describe_model_package(ModelPackageName=summary["ModelPackageArn"])

    def find_package(self, model_version: str) -> dict[str, Any] | None:
        """The newest model package of this version in the registry, as DescribeModelPackage returns it."""
        return next((found for found in self.packages() if version_of(found) == model_version), None)

    # The endpoint

    def live_variant(self, outputs: dict[str, str]) -> dict[str, Any] | None:
        """The endpoint's variant, as DescribeEndpointConfig returns it; None when no model is live."""
        sagemaker = self.client("sagemaker")
        try:
            endpoint = sagemaker.describe_endpoint(EndpointName=outputs["EndpointName"])
        except (ClientError, KeyError):
            return None
        if endpoint["EndpointStatus"] == "Failed":
            return None
        config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
        return dict(config["ProductionVariants"][0])

    def live_model(self, outputs: dict[str, str]) -> dict[str, Any] | None:
        """The live model, as DescribeModel returns it; None when no model is live."""
        variant = self.live_variant(outputs)
        return variant and dict(self.client("sagemaker").describe_model(ModelName=variant["ModelName"]))

    def live_model_data(self, outputs: dict[str, str]) -> str | None:
        """The s3:// address of the live model; None when no model is live."""
        model = self.live_model(outputs)
        return str(model["PrimaryContainer"]["ModelDataUrl"]) if model else None

    def endpoint_status(self, outputs: dict[str, str]) -> str:
        try:
            found = self.client("sagemaker").describe_endpoint(EndpointName=outputs["EndpointName"])
        except (ClientError, KeyError):
            return "not released"
        return str(found["EndpointStatus"])

    def wait_endpoint(self, name: str) -> None:
        """Waits until the endpoint is in service; after a restart this takes a moment."""
        deadline = time.monotonic() + ENDPOINT_SECONDS
        while True:
            found = self.client("sagemaker").describe_endpoint(EndpointName=name)
            if found["EndpointStatus"] == "InService":
                return
            if found["EndpointStatus"] == "Failed" or time.monotonic() > deadline:
                reason = found.get("FailureReason", "no reason given")
                raise ReleaseFailed(f"endpoint {name} is {found['EndpointStatus']}: {reason}")
            time.sleep(0.25)

    def counting(self, outputs: dict[str, str]) -> bool:
        """Whether the count queue's mapping is enabled, as it is from the first release on."""
        mapping = self.client("lambda").get_event_source_mapping(UUID=outputs["CountMapping"])
        return bool(mapping["State"] == "Enabled")

    # Releases

    def start_release(self, request: dict[str, Any], outputs: dict[str, str]) -> str:
        """Starts a release by hand and returns its execution."""
        name = re.sub("[^A-Za-z0-9-]", "-", request["model_version"])[:40]
        started = self.client("stepfunctions").start_execution(
            stateMachineArn=outputs["ReleaseStateMachine"],
            name=f"by-hand-{name}-{int(time.time() * 1000)}",
            input=json.dumps(request),
        )
        return str(started["executionArn"])

    def release_of(self, package: str, outputs: dict[str, str]) -> str:
        """The execution that the registry's event about a package started."""
        states = self.client("stepfunctions")
        deadline = time.monotonic() + EVENT_SECONDS
        while time.monotonic() < deadline:
            newest = states.list_executions(stateMachineArn=outputs["ReleaseStateMachine"], maxResults=10)
            for execution in newest["executions"]:
                found = states.describe_execution(executionArn=execution["executionArn"])
                if json.loads(found["input"]).get("detail", {}).get("ModelPackageArn") == package:
                    return str(execution["executionArn"])
            time.sleep(0.25)
        raise ReleaseFailed(f"no release of {package} was started within {EVENT_SECONDS} s")

    def wait_release(self, execution: str) -> None:
        states = self.client("stepfunctions")
        deadline = time.monotonic() + self.release_seconds
        while (found := states.describe_execution(executionArn=execution))["status"] == "RUNNING":
            if time.monotonic() > deadline:
                raise ReleaseFailed(f"the release takes over {self.release_seconds:.0f} s: {execution}")
            time.sleep(0.25)
        if found["status"] != "SUCCEEDED":
            raise ReleaseFailed(how_it_failed(found))

    # Reconciling

    def start_reconcile(self, since: datetime | None = None, grace_seconds: float | None = None) -> str:
        """Starts the comparison of the photographs with their counts, and returns its execution.

        It checks what was uploaded from `since` until `grace_seconds` before now; None takes arrival_seconds, and the
        caller should have waited that long for what it wants to be checked. Raises ReconcileFailed for a stack of an
        older release.
        """
        machine = self.outputs().get("ReconcileStateMachine")
        if machine is None:
            raise ReconcileFailed(f"stack {self.name} is older than this command and cannot reconcile; deploy it again")
        grace = self.arrival_seconds if grace_seconds is None else grace_seconds
        request = {"grace_seconds": grace} | ({"since": since.isoformat()} if since else {})
        started = self.client("stepfunctions").start_execution(
            stateMachineArn=machine, name=f"by-hand-{time.time_ns()}", input=json.dumps(request)
        )
        return str(started["executionArn"])

    def wait_reconcile(self, execution: str) -> Reconciled:
        """Waits as long as it takes: hours for a hundred million photographs. Raises ReconcileFailed."""
        states = self.client("stepfunctions")
        while (found := states.describe_execution(executionArn=execution))["status"] == "RUNNING":
            time.sleep(0.25)
        if found["status"] != "SUCCEEDED":
            raise ReconcileFailed(how_it_failed(found, "reconcile"))
        output = json.loads(found["output"])
        # A stack of an earlier version looks for no files.
        return Reconciled(**{field.name: output.get(field.name, 0) for field in fields(Reconciled)})

    def reconcile(self, since: datetime | None = None, grace_seconds: float | None = None) -> Reconciled:
        """Sends photographs without a count and unread record files to their queues again; waits until all are sent.

        Idempotent: a photograph that is in the queue already gets one count all the same. Raises ReconcileFailed.
        """
        return self.wait_reconcile(self.start_reconcile(since, grace_seconds))


@dataclass(frozen=True)
class Account(Deployed):
    """A stack in the caller's account. Where `profile` or `region` is None, AWS's usual default is used."""

    name: str
    profile: str | None = None
    region: str | None = None

    @cached_property
    def _session(self) -> boto3.Session:
        try:
            session = boto3.Session(
                profile_name=self.profile, region_name=self.region or os.environ.get("AWS_REGION") or None
            )
        except BotoCoreError as error:
            raise explain(error) from error
        if session.region_name is None:
            raise no_region()
        translate_refusals(session)
        return session

    def session(self) -> boto3.Session:
        return self._session

    def require_running(self) -> None:
        """AWS always runs."""

    def environment(self) -> dict[str, str]:
        """Without credentials: a shell finds them in the same places as this command."""
        region = str(self.session().region_name)
        found = {"BINTALLY_STACK": self.name, "AWS_REGION": region, "AWS_DEFAULT_REGION": region}
        profile = {"AWS_PROFILE": self.profile} if self.profile else {}
        return found | profile | {upper_snake(name): value for name, value in self.outputs().items()}

    def not_deployed(self) -> NotDeployed:
        return NotDeployed(
            f"there is no stack {self.name} in {self.session().region_name}. "
            "Check --stack, --region and --profile, or deploy it (docs/operations.md)"
        )

    def where(self) -> dict[str, str]:
        caller = self.client("sts").get_caller_identity()
        return {"account": caller["Account"], "region": str(self.session().region_name), "you": caller["Arn"]}


def upper_snake(name: str) -> str:
    """ImagesBucket as IMAGES_BUCKET, CountDeadLetterQueueUrl as COUNT_DEAD_LETTER_QUEUE_URL."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper()


def version_of(package: dict[str, Any]) -> str:
    """The model version that a model package in the registry names; empty when it names none."""
    return str(package.get("CustomerMetadataProperties", {}).get("model_version", ""))


def release_request(model_data_url: str) -> dict[str, str]:
    """The input of a release by hand; a package is stored at `s3://<bucket>/models/<version>/…`."""
    return {"model_version": model_data_url.split("/")[4], "model_data_url": model_data_url}


def how_it_failed(execution: dict[str, Any], name: str = "release") -> str:
    """Describes a failed execution in one line, from DescribeExecution's answer."""
    reason = " ".join(f"{execution.get('error', '')} {execution.get('cause', '')}".split())
    return f"{name} {execution['status'].lower()}: {reason or 'no reason given'}"
