"""The model package that the repository ships: what it says of itself, and its registration, which releases it."""

import hashlib
import json
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from deployed.errors import DeployFailed, PackageMissing
from deployed.stack import Deployed, release_request

SHIPPED = "The model that Bintally ships"
"""The registry's description of a package that the repository ships."""

Say = Callable[[str], None]


class Shipping(Deployed):
    """A stack that gets the shipped model. `package` is its file, `image` the address of the serving image."""

    package: Path
    image: str

    def ship(self, model_version: str, say: Say) -> None:
        """Registers the shipped package as approved, and waits for the release that the registry's event starts.

        If a retrained model is live, the package waits for a person's approval: nobody has compared the two. A package
        that was registered before is released only if no model is live: the live one has replaced it since.
        Raises ReleaseFailed.
        """
        outputs = self.outputs()
        if "ReleaseStateMachine" not in outputs:
            raise DeployFailed("the template has no output ReleaseStateMachine")
        live, known = self.live_model_data(outputs), self.find_package(model_version)
        if known is None and (live is None or self.is_shipped(live)):
            self.wait_release(self.release_of(self.register(model_version, outputs, "Approved"), outputs))
            return
        if known is None:
            self.register(model_version, outputs, "PendingManualApproval")
            say(f"A retrained model is live and stays. To release this one: bintally model approve {model_version}")
        if live is None and known and known["ModelApprovalStatus"] == "Approved":
            self.release(model_version)
        elif live is None:
            say("No model is live, and the shipped one is not approved. See: bintally model list")
        elif self.counting(outputs):
            self.wait_endpoint(outputs["EndpointName"])
        else:  # A release that finds it live enables counting.
            self.wait_release(self.start_release(release_request(live), outputs))

    def release(self, model_version: str) -> None:
        """Uploads the shipped package and releases it by hand. Raises ReleaseFailed."""
        outputs = self.outputs()
        url = self.upload_package(model_version, outputs)
        self.wait_release(self.start_release(release_request(url), outputs))

    def upload_package(self, model_version: str, outputs: dict[str, str]) -> str:
        """The shipped package's s3:// address."""
        key = f"models/{model_version}/model.tar.gz"
        with self.package.open("rb") as body:
            self.client("s3").put_object(Bucket=outputs["ArtifactsBucket"], Key=key, Body=body)
        return f"s3://{outputs['ArtifactsBucket']}/{key}"

    def is_shipped(self, url: str) -> bool:
        """Whether the package at this s3:// address is one that Bintally ships."""
        return any(
            found.get("ModelPackageDescription") == SHIPPED
            and found["InferenceSpecification"]["Containers"][0]["ModelDataUrl"] == url
            for found in self.packages()
        )

    def register(
        self, model_version: str, outputs: dict[str, str], approval: Literal["Approved", "PendingManualApproval"]
    ) -> str:
        """Registers the shipped package with the metrics that it contains. Returns its ARN."""
        url = self.upload_package(model_version, outputs)
        return register(self, self.package, url, self.image, approval, SHIPPED)


def register(
    stack: Deployed,
    package: Path,
    url: str,
    image: str,
    approval: Literal["Approved", "PendingManualApproval"],
    about: str,
) -> str:
    """Registers the package at this s3:// address with the metrics that it contains; `package` is the same file here,
    `image` the address of the serving image, `about` the registry's description. Returns the registration's ARN."""
    description = package_description(package)
    model_version = description["model_version"]
    bucket, metrics = stack.outputs()["ArtifactsBucket"], f"models/{model_version}/metrics.json"
    figures = json.dumps(figures_of(package, description.get("metrics", {})))
    stack.client("s3").put_object(Bucket=bucket, Key=metrics, Body=figures)
    origin = {
        "parent": description.get("parent"),
        "dataset_digest": description.get("training_data_digest"),
        "test_set_digest": description.get("test_set_digest"),
        "code_version": description.get("code_version"),
        "package_digest": hashlib.sha256(package_json(package)).hexdigest(),
    }
    known = {name: value for name, value in origin.items() if value}
    created = stack.client("sagemaker").create_model_package(
        ModelPackageGroupName=stack.name,
        ModelPackageDescription=about,
        ModelApprovalStatus=approval,
        InferenceSpecification={
            "Containers": [{"Image": image, "ModelDataUrl": url}],
            "SupportedContentTypes": ["image/jpeg", "image/png", "image/webp", "application/x-image"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
        ModelMetrics={
            "ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": f"s3://{bucket}/{metrics}"}}
        },
        CustomerMetadataProperties={"model_version": model_version, **known},
    )
    return str(created["ModelPackageArn"])


def package_version(package: Path) -> str:
    """The model version that a package names. Raises PackageMissing when it cannot be read."""
    version: str = package_description(package)["model_version"]
    return version


def figures_of(package: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    """The figures beside the package, if they are of this package; else the metrics that it contains."""
    try:
        found: dict[str, Any] = json.loads(package.with_name("figures.json").read_bytes())
    except (OSError, ValueError):
        return metrics
    return found if {name: found.get(name) for name in metrics} == metrics else metrics


def package_description(package: Path) -> dict[str, Any]:
    """The package.json of a package. Raises PackageMissing when it cannot be read or names no version."""
    try:
        description: dict[str, Any] = json.loads(package_json(package))
        return description | {"model_version": str(description["model_version"])}
    except (KeyError, ValueError) as error:
        raise PackageMissing(f"{package} is not a model package: {error}") from error


def package_json(package: Path) -> bytes:
    """The bytes of a package's package.json. Raises PackageMissing."""
    try:
        with tarfile.open(package) as tar:
            member = tar.extractfile("package.json")
            assert member is not None
            return member.read()
    except FileNotFoundError as error:
        raise PackageMissing(f"there is no model package at {package}") from error
    except (tarfile.TarError, zlib.error, EOFError, KeyError, AssertionError, OSError) as error:
        raise PackageMissing(f"{package} is not a model package: {error}") from error
