"""Reads the versions of the model from the registry, and formats them for people."""

import json
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError
from rich.markup import escape
from rich.table import Table

from cli.errors import CliError
from deployed.stack import Deployed, release_request, version_of

STATES = {"Approved": "approved", "Rejected": "rejected", "PendingManualApproval": "pending"}
STYLES = {"live": "bold green", "rejected": "red", "pending": "yellow"}
WIDE = 110
METRICS = {"rps": "RPS", "log_loss": "Log\nloss", "accuracy": "Accuracy"}


@dataclass(frozen=True)
class Version:
    """A version of the model. `state` is live, approved, pending or rejected; `package` its ARN in the registry, None
    when it is live and was never registered; `metrics` those of METRICS on its own dataset's test set, where known.
    """

    model_version: str
    state: str
    package: str | None
    model_data_url: str
    metrics: dict[str, float]
    parent: str | None = None
    dataset_digest: str | None = None
    made_at: str | None = None
    why: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def versions(stack: Deployed) -> Iterator[Version]:
    """Every version, the newest first; the live one precedes them if the registry lacks it."""
    live = stack.live_model_data(stack.outputs())
    packages = list(stack.packages())
    if live and live not in map(model_data_url, packages):
        yield Version(release_request(live)["model_version"], "live", None, live, metrics_inside(stack, live))
    for package in packages:
        known = package.get("CustomerMetadataProperties", {})
        yield Version(
            model_version=version_of(package),
            state="live" if model_data_url(package) == live else STATES[package["ModelApprovalStatus"]],
            package=package["ModelPackageArn"],
            model_data_url=model_data_url(package),
            metrics=metrics(stack, package),
            parent=None if known.get("parent") == "none" else known.get("parent"),
            dataset_digest=known.get("dataset_digest"),
            made_at=package["CreationTime"].astimezone(UTC).isoformat(timespec="seconds"),
            why=package.get("ApprovalDescription"),
        )


def model_data_url(package: dict[str, Any]) -> str:
    return str(package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"])


def metrics(stack: Deployed, package: dict[str, Any]) -> dict[str, float]:
    """The package's metrics as shipped: the challenger's in an evaluation, or those in the package itself."""
    statistics = package.get("ModelMetrics", {}).get("ModelQuality", {}).get("Statistics")
    found = None
    if statistics:
        bucket, key = placed(statistics["S3Uri"])
        try:
            found = json.load(stack.client("s3").get_object(Bucket=bucket, Key=key)["Body"])
        except (ClientError, ValueError):  # reports may be deleted before the version is
            found = None
    return chosen_of(found) or metrics_inside(stack, model_data_url(package))


def metrics_inside(stack: Deployed, url: str) -> dict[str, float]:
    """The metrics that the package at this s3:// address contains: of one that a person registered or released by hand.

    Empty when it contains none, or is not a package. It is read through, since package.json is its last file.
    """
    bucket, key = placed(url)
    try:
        body = stack.client("s3").get_object(Bucket=bucket, Key=key)["Body"]
        with tarfile.open(fileobj=body, mode="r|gz") as archive:
            for member in archive:
                if member.name.removeprefix("./") == "package.json" and (file := archive.extractfile(member)):
                    return chosen_of(json.load(file).get("metrics"))
    except (ClientError, tarfile.TarError, zlib.error, OSError, EOFError):
        return {}
    except (AttributeError, OverflowError, TypeError, ValueError):  # also of a gzip header that ends early
        return {}
    return {}


def chosen_of(found: object) -> dict[str, float]:
    """Those of METRICS in an evaluation, or in a package's metrics."""
    try:
        shipped = found.get("challenger", found).get("as_shipped", {})  # type: ignore[attr-defined]
        return {name: float(shipped[name]) for name in METRICS if name in shipped}
    except (AttributeError, TypeError, ValueError):
        return {}


def placed(url: str) -> tuple[str, str]:
    """Bucket and key of an s3:// address."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


def find_package(stack: Deployed, model_version: str) -> dict[str, Any]:
    """The model package of a version. Raises CliError when the registry lacks it, NotRunning when no stack runs."""
    stack.require_running()
    package = stack.find_package(model_version)
    if package is None:
        raise CliError(f"the registry has no model {model_version}. See: bintally model list")
    return package


def decide(stack: Deployed, model_version: str, status: str, why: str | None = None) -> tuple[str, str]:
    """Sets the approval of a version. Returns its package's ARN and its previous approval. Raises CliError."""
    package = find_package(stack, model_version)
    description = {"ApprovalDescription": why} if why else {}
    stack.client("sagemaker").update_model_package(
        ModelPackageArn=package["ModelPackageArn"], ModelApprovalStatus=status, **description
    )
    return package["ModelPackageArn"], package["ModelApprovalStatus"]


def table_of(found: list[Version], width: int) -> Table:
    """A row for each version in the order given; below WIDE columns without the parent and the time of day."""
    wide = width >= WIDE
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("Version", "State"):
        table.add_column(name, no_wrap=True)  # people copy the version from here
    for name in METRICS.values():
        table.add_column(name, justify="right", no_wrap=True)
    for name in (*(("Parent",) if wide else ()), "Data", "Made (UTC)"):
        table.add_column(name, no_wrap=True)
    for version in found:
        figures = [f"{version.metrics[name]:.3f}" if name in version.metrics else "-" for name in METRICS]
        figures = figures if version.metrics else ["unknown", "-", "-"]
        form = "%Y-%m-%d %H:%M" if wide else "%Y-%m-%d"
        made = datetime.fromisoformat(version.made_at).strftime(form) if version.made_at else "-"
        texts = (version.model_version, version.state, *figures, *((version.parent or "-",) if wide else ()))
        short = (version.dataset_digest or "-")[:8]
        table.add_row(*map(escape, (*texts, short, made)), style=STYLES.get(version.state, ""))
    return table
