"""The model registry: groups of model packages, their versions, and the approval of each."""

import copy
import threading
from datetime import UTC, datetime

from localsagemaker.host import Host, listed, now
from localsagemaker.jobs import only, refuse_unsupported
from localsagemaker.wire import Json, ServiceError, fitting, invalid, output_shape

EVENT = "SageMaker Model Package State Change"

CREATE_GROUP = only("ModelPackageGroupName ModelPackageGroupDescription Tags")
CREATE = {
    **only("ModelPackageGroupName ModelPackageDescription InferenceSpecification ModelApprovalStatus ModelMetrics"),
    **only("MetadataProperties CustomerMetadataProperties SourceUri ClientToken"),
}
UPDATE = {
    **only("ModelPackageArn ModelApprovalStatus ApprovalDescription ClientToken"),
    **only("CustomerMetadataProperties CustomerMetadataPropertiesToRemove"),
}


class Packages:
    """Model package groups and model packages, which are versions in a group.

    Each change of a package puts an event, even a change of its metadata only, as on AWS; the event's
    UpdatedModelPackageFields lists the changed fields.
    """

    operations = (
        *("CreateModelPackageGroup", "DescribeModelPackageGroup", "ListModelPackageGroups", "DeleteModelPackageGroup"),
        *("CreateModelPackage", "DescribeModelPackage", "ListModelPackages", "UpdateModelPackage"),
        "DeleteModelPackage",
    )

    def __init__(self, host: Host) -> None:
        self.host = host
        self.groups: dict[str, Json] = {}  # by name
        self.packages: dict[str, Json] = {}  # by ARN
        self._lock = threading.RLock()

    # Groups

    def create_model_package_group(self, request: Json) -> Json:
        refuse_unsupported(request, CREATE_GROUP)
        name = request["ModelPackageGroupName"]
        arn = self.host.arn("model-package-group", name)
        with self._lock:
            if name in self.groups:
                raise invalid(f"Model Package Group already exists: {arn}")
            group = {**request, "ModelPackageGroupArn": arn, "ModelPackageGroupStatus": "Completed"}
            self.groups[name] = {**group, "CreationTime": now(), "CreatedBy": {}, "LatestVersion": 0}
        return {"ModelPackageGroupArn": arn}

    def describe_model_package_group(self, request: Json) -> Json:
        with self._lock:
            group = self._group(request["ModelPackageGroupName"])
            return fitting(group, output_shape("DescribeModelPackageGroup"))

    def list_model_package_groups(self, request: Json) -> Json:
        if "CrossAccountFilterOption" in request:
            raise invalid("not supported on one machine: CrossAccountFilterOption")
        with self._lock:
            groups = list(self.groups.values())
        return listed("ListModelPackageGroups", oldest_first(request), groups, "ModelPackageGroup")

    def delete_model_package_group(self, request: Json) -> Json:
        with self._lock:
            group = self._group(request["ModelPackageGroupName"])
            name, arn = group["ModelPackageGroupName"], group["ModelPackageGroupArn"]
            if any(package["ModelPackageGroupName"] == name for package in self.packages.values()):
                raise ServiceError("ConflictException", f"ModelPackageGroup {arn} still has model packages.")
            del self.groups[name]
        return {}

    # Packages

    def create_model_package(self, request: Json) -> Json:
        refuse_unsupported(request, CREATE)
        if "ModelPackageGroupName" not in request:
            raise invalid("Missing ARN. On one machine a model package is a version in a ModelPackageGroupName.")
        if "InferenceSpecification" not in request:
            raise invalid("InferenceSpecification is needed on one machine")
        for container in request["InferenceSpecification"]["Containers"]:
            if not {"Image", "ModelDataUrl"} <= container.keys():
                raise invalid("a container needs Image and ModelDataUrl on one machine")
        with self._lock:
            group = self._group(request["ModelPackageGroupName"])
            name = group["ModelPackageGroupName"]
            for package in self.packages.values():
                if request.get("ClientToken") and package.get("ClientToken") == request["ClientToken"]:
                    return {"ModelPackageArn": package["ModelPackageArn"]}
            group["LatestVersion"] += 1
            arn = self.host.arn("model-package", f"{name}/{group['LatestVersion']}")
            self.packages[arn] = {
                "ModelApprovalStatus": "PendingManualApproval",
                **request,
                "ModelPackageGroupName": name,
                "ModelPackageVersion": group["LatestVersion"],
                "ModelPackageArn": arn,
                "ModelPackageStatus": "Completed",
                "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
                "CertifyForMarketplace": False,
                "CreationTime": now(),
                "CreatedBy": {},
            }
            self._tell(self.packages[arn])
        return {"ModelPackageArn": arn}

    def describe_model_package(self, request: Json) -> Json:
        with self._lock:
            package = self._package(request["ModelPackageName"])
            # The answer's model requires a name, which a version lacks: the name given here is accepted by Describe.
            name = f"{package['ModelPackageGroupName']}/{package['ModelPackageVersion']}"
            named = {**package, "ModelPackageName": name}
            return copy.deepcopy(fitting(named, output_shape("DescribeModelPackage")))

    def list_model_packages(self, request: Json) -> Json:
        with self._lock:
            found = list(self.packages.values())
            if "ModelPackageGroupName" in request:
                name = self._group(request["ModelPackageGroupName"])["ModelPackageGroupName"]
                found = [package for package in found if package["ModelPackageGroupName"] == name]
            elif request.get("ModelPackageType", "Unversioned") == "Unversioned":
                found = []
            if status := request.get("ModelApprovalStatus"):
                found = [package for package in found if package["ModelApprovalStatus"] == status]
            return listed("ListModelPackages", oldest_first(request), found, "ModelPackageGroup")

    def update_model_package(self, request: Json) -> Json:
        refuse_unsupported(request, UPDATE)
        with self._lock:
            package = self._package(request["ModelPackageArn"])
            properties = package.get("CustomerMetadataProperties", {}) | request.get("CustomerMetadataProperties", {})
            for key in request.get("CustomerMetadataPropertiesToRemove", []):
                properties.pop(key, None)
            wanted: Json = {
                key: request[key] for key in ("ModelApprovalStatus", "ApprovalDescription") if key in request
            }
            if properties or "CustomerMetadataProperties" in package:
                wanted["CustomerMetadataProperties"] = properties
            changed = {key: value for key, value in wanted.items() if package.get(key) != value}
            if changed:
                package.update(changed, LastModifiedTime=now(), LastModifiedBy={})
                self._tell(package, UpdatedModelPackageFields=sorted(changed))
        return {"ModelPackageArn": package["ModelPackageArn"]}

    def delete_model_package(self, request: Json) -> Json:
        with self._lock:
            del self.packages[self._package(request["ModelPackageName"])["ModelPackageArn"]]
        return {}

    # State across a stop and a start

    def get_state(self) -> Json:
        with self._lock:
            return copy.deepcopy({"ModelPackageGroups": self.groups, "ModelPackages": self.packages})

    def load_state(self, state: Json) -> None:
        with self._lock:
            self.groups = state.get("ModelPackageGroups", {})
            self.packages = state.get("ModelPackages", {})

    def resume(self) -> None:
        """The registry has no processes."""

    def reset(self) -> None:
        """Forgets everything."""
        with self._lock:
            self.groups, self.packages = {}, {}

    def close(self) -> None:
        """The registry has no processes."""

    # Helpers

    def _group(self, name: str) -> Json:
        """The group of this name or ARN. Raises ServiceError."""
        name = name.rpartition("/")[2]
        for known, group in self.groups.items():
            if name in (known, known.lower()):  # An ARN contains it in lower case.
                return group
        raise invalid(f"ModelPackageGroup {self.host.arn('model-package-group', name)} does not exist.")

    def _package(self, name: str) -> Json:
        """The package of this ARN, or of `<group>/<version>`. Raises ServiceError."""
        arn = name if name.startswith("arn:") else self.host.arn("model-package", name)
        if arn not in self.packages:
            raise invalid(f"ModelPackage {arn} does not exist.")
        return self.packages[arn]

    def _tell(self, package: Json, **members: object) -> None:
        """Puts an event with the package's current state; these events have times as text."""
        detail = fitting(package, output_shape("DescribeModelPackage"))
        for key in ("CreationTime", "LastModifiedTime"):
            if key in detail:
                detail[key] = datetime.fromtimestamp(detail[key], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.host.put_event(EVENT, [package["ModelPackageArn"]], copy.deepcopy({**detail, **members}))


def oldest_first(request: Json) -> Json:
    """The request with the default order of the registry's lists."""
    return {"SortOrder": "Ascending", **request}
