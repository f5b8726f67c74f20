"""SageMaker as a release uses it. Whatever creates or deletes may be repeated: an earlier try may have taken effect."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from bintally.aws.telemetry import logger

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker.type_defs import TagTypeDef

BROKEN = ("Failed", "OutOfService", "UpdateRollbackFailed")
"""Statuses in which an endpoint can only be deleted."""
ABSENT = "Absent"
VARIANT = "AllTraffic"
"""The name of each configuration's variant, always the same: the template scales the variant of this name."""


@dataclass(frozen=True)
class Live:
    """An endpoint's status, ABSENT when there is none; its configuration, and the one that an update moves to."""

    status: str
    config: str = ""
    pending: str = ""
    failure: str = "no reason given"


@dataclass(frozen=True)
class Endpoints:
    client: "SageMakerClient"
    stack: str
    """The stack's name. Whatever is created is tagged with it, as the stack's resources are, so that a bill can tell
    stacks apart."""

    @property
    def tags(self) -> "list[TagTypeDef]":
        return [{"Key": "bintally-stack", "Value": self.stack}]

    def listed(self, contained: str) -> dict[str, str]:
        """Names and statuses of the endpoints whose name contains this."""
        pages = self.client.get_paginator("list_endpoints").paginate(NameContains=contained)
        return {found["EndpointName"]: found["EndpointStatus"] for page in pages for found in page["Endpoints"]}

    def find(self, name: str) -> Live:
        """Listed first: a missing endpoint is then an empty answer, so that no error can be mistaken for one."""
        status = self.listed(name).get(name, ABSENT)
        if status in (ABSENT, "Deleting"):  # it may be gone before it is described
            return Live(status)
        found = self.client.describe_endpoint(EndpointName=name)
        return Live(
            found["EndpointStatus"],
            found["EndpointConfigName"],
            found.get("PendingDeploymentSummary", {}).get("EndpointConfigName", ""),
            found.get("FailureReason", "no reason given"),
        )

    def create_model(self, name: str, request: Mapping[str, Any]) -> None:
        self._once(
            lambda: self.client.create_model(ModelName=name, Tags=self.tags, **request),
            lambda: self.client.describe_model(ModelName=name),
        )

    def create_config(self, name: str, variant: Mapping[str, Any], capture: Mapping[str, Any]) -> None:
        request: Any = {"ProductionVariants": [{"VariantName": VARIANT, "ModelName": name, **variant}], **capture}
        self._once(
            lambda: self.client.create_endpoint_config(EndpointConfigName=name, Tags=self.tags, **request),
            lambda: self.client.describe_endpoint_config(EndpointConfigName=name),
        )

    def create(self, name: str, config: str) -> None:
        self._once(
            lambda: self.client.create_endpoint(EndpointName=name, EndpointConfigName=config, Tags=self.tags),
            lambda: self.client.describe_endpoint(EndpointName=name),
        )

    def update(self, name: str, config: str, deployment: Mapping[str, Any] | None, *, scaled: bool) -> None:
        """A scaled endpoint keeps its number of instances; captured is what the new configuration says. Tags too, since
        a release of an older version created the endpoint without any."""
        arn = self.client.describe_endpoint(EndpointName=name)["EndpointArn"]
        self.client.add_tags(ResourceArn=arn, Tags=self.tags)
        more: Any = {"DeploymentConfig": deployment} if deployment else {}
        if scaled:
            more["RetainAllVariantProperties"] = True
            more["ExcludeRetainedVariantProperties"] = [{"VariantPropertyType": "DataCaptureConfig"}]
        self.client.update_endpoint(EndpointName=name, EndpointConfigName=config, **more)

    def delete(self, name: str) -> None:
        self.client.delete_endpoint(EndpointName=name)

    def delete_candidates(self) -> dict[str, str]:
        """Deletes the stack's candidate endpoints where SageMaker allows it now. Returns those that still exist."""
        candidate = re.compile(rf"{re.escape(self.stack)}-candidate-[0-9a-f]{{8}}")
        found = {n: status for n, status in self.listed(f"{self.stack}-candidate-").items() if candidate.fullmatch(n)}
        for name, status in found.items():
            if status not in ("Creating", "Deleting"):  # SageMaker does not delete an endpoint while it creates it
                self._ignoring(lambda name=name: self.delete(name))  # type: ignore[misc]
        return found

    def delete_config(self, name: str) -> None:
        """The configuration and its model, whether they exist or not."""
        self._ignoring(lambda: self.client.delete_endpoint_config(EndpointConfigName=name))
        self._ignoring(lambda: self.client.delete_model(ModelName=name))

    def configs(self, endpoint: str) -> list[str]:
        """The configurations that releases made for this endpoint, the newest first; 100 at most."""
        made = re.compile(rf"{re.escape(endpoint)}(-[0-9a-f]{{8}}){{1,2}}")
        found = self.client.list_endpoint_configs(
            NameContains=f"{endpoint}-", SortBy="CreationTime", SortOrder="Descending", MaxResults=100
        )
        names = (config["EndpointConfigName"] for config in found["EndpointConfigs"])
        return [name for name in names if made.fullmatch(name)]

    def package(self, arn: str) -> Mapping[str, Any]:
        return self.client.describe_model_package(ModelPackageName=arn)

    def newest_approved(self) -> str:
        """The ARN of the newest approved package in the group of the stack's name, empty when there is none."""
        found = self.client.list_model_packages(
            ModelPackageGroupName=self.stack,
            ModelApprovalStatus="Approved",
            SortBy="CreationTime",
            SortOrder="Descending",
            MaxResults=100,
        )
        return next((summary["ModelPackageArn"] for summary in found["ModelPackageSummaryList"]), "")

    def _once(self, create: Callable[[], object], describe: Callable[[], object]) -> None:
        """The names are of one execution: what exists already is ours."""
        try:
            create()
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationException":
                raise
            try:
                describe()
            except ClientError:
                raise error from None

    def _ignoring(self, delete: Callable[[], object]) -> None:
        try:
            delete()
        except ClientError as error:
            logger.warning("not deleted", extra={"reason": str(error)})
