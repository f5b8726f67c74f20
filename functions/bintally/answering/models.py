"""Versions of the model and retrainings over the API: what people read of them, and what managers decide.

A decision is the same request that the command line sends: an approval is the package's state in the registry, whose
event starts the release; a release by hand, a rollback and a retraining are executions of their state machines. They
concern every site, so they need a manager of all sites.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import ClientError

from bintally.answering.problems import Problem, wrong
from bintally.answering.recounts import number
from bintally.answering.requests import Caller, text_of
from bintally.answering.settings import AnswerSettings
from bintally.aws.objects import located
from bintally.aws.table import Table
from bintally.releasing.endpoints import Endpoints
from bintally.releasing.goldens import NAME, BadPackage, read_package
from bintally.retraining import plan_run
from bintally.retraining.names import Refused, checked

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_stepfunctions import SFNClient

MOST_MODELS = 50
MOST_RUNS = 50
LONGEST_REASON = 500
"""Characters; SageMaker takes 1,024, and the person's name is added."""
WORKERS = 8  # within the 10 connections of a client
STATES = {"Approved": "approved", "Rejected": "rejected", "PendingManualApproval": "pending"}
VIEWS = ("as_shipped", "as_published")
DETAILS = ("intervals", "confusion", "calibration", "per_class")
RUN = ("run", "outcome", "started_at", "concluded_at", "trigger", "model_version", "error", "reason")

Package = Mapping[str, Any]


@dataclass(frozen=True)
class Services:
    """The clients and settings that answers about models use."""

    sagemaker: "SageMakerClient"
    s3: "S3Client"
    states: "SFNClient"
    table: Table
    settings: AnswerSettings


@dataclass(frozen=True)
class Models:
    """The answers about models to one caller. Raises Problem, Transient, and ClientError when a service refuses."""

    services: Services
    caller: Caller

    # What people read

    def listed(self, query: Mapping[str, str]) -> dict[str, Any]:
        """The versions in the registry, the newest first, which of them is live, and the newest release."""
        self.caller.check("viewer")
        limit = number(query.get("limit", "20"), "limit", 1, MOST_MODELS)
        more = {"NextToken": query["cursor"]} if "cursor" in query else {}
        try:
            page = self.services.sagemaker.list_model_packages(**self._newest, MaxResults=limit, **more)  # type: ignore[arg-type]
        except ClientError as error:
            if more and error.response["Error"]["Code"] == "ValidationException":
                raise wrong("this is not a cursor of this list") from error
            raise
        live = self._live()
        with ThreadPoolExecutor(WORKERS) as workers:
            packages = list(workers.map(self._describe, page["ModelPackageSummaryList"]))
            found = list(workers.map(self._measured, packages))
        return {
            "live": live["model_version"] if live else None,
            "models": [
                self._version(package, live) | {view: figures[view] for view in VIEWS if view in figures}
                for package, (figures, _) in zip(packages, found, strict=True)
            ],
            "cursor": page.get("NextToken"),
            "release": self._release(),
        }

    def one(self, version: str) -> dict[str, Any]:
        """A version with its figures on the test set of its own dataset: confusion matrix, calibration, by class."""
        self.caller.check("viewer")
        package = self._find(version)
        figures, test_set = self._measured(package)
        if not figures:  # registered by hand: what the package itself contains
            figures = self._inside(package)
        told = {name: figures[name] for name in (*VIEWS, *DETAILS) if name in figures}
        return self._version(package, self._live()) | told | ({"test_set": test_set} if test_set else {})

    def retrainings(self, query: Mapping[str, str]) -> dict[str, Any]:
        """The newest retrainings; of the one that runs, its step."""
        self.caller.check("viewer")
        limit = number(query.get("limit", "20"), "limit", 1, MOST_RUNS)
        found, _ = self.services.table.page("RETRAIN", "RUN#", limit, newest=True)
        found.sort(key=lambda run: str(run.get("started_at", run.get("concluded_at", ""))), reverse=True)
        return {
            "retrainings": [
                {name: str(run[name]) for name in RUN if name in run}
                | {"champion": (run.get("champion") or {}).get("model_version")}
                | ({"step": self._step(str(run["execution"]))} if run["outcome"] == "running" else {})
                for run in found
            ]
        }

    # What managers decide

    def approve(self, version: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Approves a version. `release` says what follows: STARTS; NOT_NEWEST, since a newer version is approved too;
        or BEFORE: it was approved before, and no event follows."""
        self._check_may_decide()
        package, newest = self._decide(version, "Approved", body), ""
        if package["ModelApprovalStatus"] == "Approved":
            return {"model_version": version, "state": "approved", "release": "BEFORE"}
        newest = Endpoints(self.services.sagemaker, self.services.settings.package_group).newest_approved()
        follows = "STARTS" if newest == package["ModelPackageArn"] else "NOT_NEWEST"
        return {"model_version": version, "state": "approved", "release": follows}

    def reject(self, version: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Rejects a version. A live one stays live until another is released."""
        self._check_may_decide()
        self._decide(version, "Rejected", body)
        return {"model_version": version, "state": "rejected"}

    def release(self, version: str) -> dict[str, Any]:
        """Starts the release of a version by hand, such as of one that was approved before."""
        self._check_may_decide()
        package = self._find(version)
        if package["ModelApprovalStatus"] == "Rejected":
            raise Problem(409, "REJECTED", f"model {version} is rejected; approve it to release it")
        request = {"model_version": version, "model_data_url": model_data_url(package)}
        if digest := package.get("CustomerMetadataProperties", {}).get("package_digest"):
            request["package_digest"] = digest
        return self._start_release(request)

    def roll_back(self) -> dict[str, Any]:
        """Starts the release of the version that was live before, at once: without a canary. Approvals stay."""
        self._check_may_decide()
        live = self._live()
        if live is None:
            raise Problem(409, "NOT_LIVE", "no model is live; release one first")
        sagemaker = self.services.sagemaker
        endpoints = Endpoints(sagemaker, self.services.settings.package_group)
        for name in endpoints.configs(self.services.settings.endpoint_name):
            container = sagemaker.describe_model(ModelName=name)["PrimaryContainer"]  # named as its configuration
            url = container["ModelDataUrl"]
            if url != live["model_data_url"]:
                digest = container.get("Environment", {}).get("BINTALLY_PACKAGE_DIGEST")
                request = {"model_version": url.split("/")[4], "model_data_url": url, "at_once": True}
                return self._start_release(request | ({"package_digest": digest} if digest else {}))
        raise Problem(409, "NONE_BEFORE", "no model was live before this one")

    def retrain(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Starts a retraining, as the schedule does."""
        self._check_may_decide()
        flags = {name: body.get(name, False) for name in ("force", "approve")}
        if not all(isinstance(flag, bool) for flag in flags.values()):
            raise wrong("force and approve are true or false")
        try:
            settings = checked(body.get("settings") or {})
        except Refused as error:
            raise wrong(str(error)) from error
        self._check_idle(self.services.settings.retrain_machine, "a retraining runs already; wait for its end")
        reason = f"by {self.caller.person.name}, over the API"
        request = {"reason": reason, **flags, "settings": settings}
        started = self.services.states.start_execution(
            stateMachineArn=self.services.settings.retrain_machine, input=json.dumps(request)
        )
        return {"started": True, "execution": started["executionArn"]}

    # How it is read and done

    @property
    def _newest(self) -> dict[str, Any]:
        return {
            "ModelPackageGroupName": self.services.settings.package_group,
            "SortBy": "CreationTime",
            "SortOrder": "Descending",
        }

    def _describe(self, summary: Package) -> Package:
        return self.services.sagemaker.describe_model_package(ModelPackageName=summary["ModelPackageArn"])

    def _packages(self) -> Iterator[Package]:
        for page in self.services.sagemaker.get_paginator("list_model_packages").paginate(**self._newest):
            yield from map(self._describe, page["ModelPackageSummaryList"])

    def _find(self, version: str) -> Package:
        """The newest package of this version. Raises Problem."""
        if found := next((each for each in self._packages() if version_of(each) == version), None):
            return found
        raise Problem(404, "UNKNOWN", f"the registry has no model {version[:60]}")

    def _live(self) -> dict[str, str] | None:
        try:
            return plan_run.live_model(self.services.sagemaker, self.services.settings.endpoint_name)
        except Refused:
            return None

    def _version(self, package: Package, live: Mapping[str, str] | None) -> dict[str, Any]:
        """What a list says of a version. A live one may be pending or rejected."""
        known = package.get("CustomerMetadataProperties", {})
        made: datetime = package["CreationTime"]
        return {
            "model_version": version_of(package),
            "state": STATES[package["ModelApprovalStatus"]],
            "live": live is not None and live["model_data_url"] == model_data_url(package),
            "made_at": made.astimezone(UTC).isoformat(timespec="seconds"),
            "parent": None if known.get("parent") == "none" else known.get("parent"),
            "run": known.get("run"),
            "dataset_digest": known.get("dataset_digest"),
            "test_set_digest": known.get("test_set_digest"),
            "description": package.get("ModelPackageDescription"),
            "why": package.get("ApprovalDescription"),
        }

    def _measured(self, package: Package) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The version's figures and their test set: the challenger's of its evaluation, or those of its registration.
        Empty when there are none: reports may be deleted before the version is."""
        statistics = package.get("ModelMetrics", {}).get("ModelQuality", {}).get("Statistics")
        if not statistics:
            return {}, None
        bucket, key = located(statistics["S3Uri"])
        if bucket != self.services.settings.artifacts_bucket:
            return {}, None
        try:
            found = json.load(self.services.s3.get_object(Bucket=bucket, Key=key)["Body"])
        except (ClientError, ValueError):
            return {}, None
        if not isinstance(found, dict):
            return {}, None
        figures = found.get("challenger", found)
        return (figures if isinstance(figures, dict) else {}), found.get("test_set")

    def _inside(self, package: Package) -> dict[str, Any]:
        url = model_data_url(package)
        if located(url)[0] != self.services.settings.artifacts_bucket:
            return {}
        try:
            found = json.loads(read_package(self.services.s3, url)[NAME])["metrics"]
        except (BadPackage, ClientError, ValueError, KeyError, TypeError):
            return {}
        return found if isinstance(found, dict) else {}

    def _release(self) -> dict[str, Any] | None:
        """The newest release; None before the first."""
        found = self.services.states.list_executions(
            stateMachineArn=self.services.settings.release_machine, maxResults=1
        )["executions"]
        if not found:
            return None
        ended = {"stopped_at": found[0]["stopDate"].astimezone(UTC).isoformat()} if "stopDate" in found[0] else {}
        started = found[0]["startDate"].astimezone(UTC).isoformat()
        return {"name": found[0]["name"], "status": found[0]["status"], "started_at": started, **ended}

    def _step(self, execution: str) -> str | None:
        """The state that an execution entered last."""
        events = self.services.states.get_execution_history(executionArn=execution, reverseOrder=True, maxResults=50)
        entered = (event.get("stateEnteredEventDetails") for event in events["events"])
        return next((each["name"] for each in entered if each), None)

    def _check_may_decide(self) -> None:
        self.caller.check("manager")
        if not self.caller.everywhere:
            raise Problem(403, "FORBIDDEN", "this concerns every site, and you belong to some")

    def _check_idle(self, machine: str, detail: str) -> None:
        running = self.services.states.list_executions(stateMachineArn=machine, statusFilter="RUNNING", maxResults=1)
        if running["executions"]:
            raise Problem(409, "RUNNING", detail)

    def _decide(self, version: str, status: Literal["Approved", "Rejected"], body: Mapping[str, Any]) -> Package:
        """Sets the state of a version, with who decided; the package as it was before."""
        reason = text_of(body, "reason", longest=LONGEST_REASON, default="")
        package = self._find(version)
        said = f"{reason} ({self.caller.person.name})" if reason else f"by {self.caller.person.name}"
        self.services.sagemaker.update_model_package(
            ModelPackageArn=package["ModelPackageArn"], ModelApprovalStatus=status, ApprovalDescription=said[:1024]
        )
        return package

    def _start_release(self, request: Mapping[str, Any]) -> dict[str, Any]:
        machine = self.services.settings.release_machine
        self._check_idle(machine, "a release runs already; wait for its end")
        name = re.sub("[^A-Za-z0-9-]", "-", str(request["model_version"]))[:40]
        started = self.services.states.start_execution(
            stateMachineArn=machine, name=f"by-hand-{name}-{time.time_ns() // 1_000_000}", input=json.dumps(request)
        )
        return {"model_version": request["model_version"], "started": True, "execution": started["executionArn"]}


def version_of(package: Package) -> str:
    return str(package.get("CustomerMetadataProperties", {}).get("model_version", ""))


def model_data_url(package: Package) -> str:
    return str(package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"])
