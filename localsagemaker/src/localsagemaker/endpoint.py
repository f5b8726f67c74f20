"""One endpoint: its state, and its description by the service."""

import math
from dataclasses import dataclass, field

from localsagemaker.deployment import Step
from localsagemaker.host import now
from localsagemaker.wire import Json


@dataclass
class Endpoint:
    """The state of one endpoint. `variant`, `container` and `role` are copies of its configuration's, since that and
    the model may be deleted while the endpoint serves."""

    name: str
    arn: str
    config_name: str
    created: float
    changed: float
    status: str = "Creating"
    failure: str | None = None
    variant: Json = field(default_factory=dict)
    container: Json = field(default_factory=dict)
    role: str = ""
    deployment: Json | None = None
    """The DeploymentConfig of the last update."""
    pending: Json | None = None
    """The PendingDeploymentSummary of the update in progress."""

    def serverless(self) -> bool:
        return "ServerlessConfig" in self.variant


def described(endpoint: Endpoint) -> Json:
    """The endpoint as DescribeEndpoint returns it."""
    found: Json = {
        "EndpointName": endpoint.name,
        "EndpointArn": endpoint.arn,
        "EndpointConfigName": endpoint.config_name,
        "EndpointStatus": endpoint.status,
        "CreationTime": endpoint.created,
        "LastModifiedTime": endpoint.changed,
    }
    if endpoint.status not in ("Creating", "Failed"):
        found["ProductionVariants"] = [variant_summary(endpoint)]
    optional = {
        "FailureReason": endpoint.failure,
        "LastDeploymentConfig": endpoint.deployment,
        "PendingDeploymentSummary": endpoint.pending,
    }
    return found | {name: value for name, value in optional.items() if value}


def variant_summary(endpoint: Endpoint) -> Json:
    variant = endpoint.variant
    weight = variant.get("InitialVariantWeight", 1.0)
    summary: Json = {"VariantName": variant["VariantName"], "CurrentWeight": weight, "DesiredWeight": weight}
    if endpoint.serverless():
        return {**summary, "CurrentServerlessConfig": variant["ServerlessConfig"]}
    count = variant["InitialInstanceCount"]
    return {**summary, "CurrentInstanceCount": count, "DesiredInstanceCount": count}


def pending_summary(wanted: Endpoint, step: Step | None = None, started: float | None = None) -> Json:
    """DescribeEndpoint's summary of an update in progress; without a step while its process starts."""
    variant, at = variant_summary(wanted), now()
    if not wanted.serverless():
        full = variant["DesiredInstanceCount"]
        active = math.ceil(step.share * full) if step else 0
        state, message = "Creating", f"Launching {full} instance(s)."
        if step:
            capacity = f"{'full' if step.share == 1 else 'canary'} capacity of {active} instance(s)"
            state, message = (
                "Baking",
                f"Baking for {step.seconds} seconds ({step.why}) with traffic enabled on {capacity}.",
            )
        variant |= {
            "CurrentInstanceCount": active,
            "VariantStatus": [{"Status": state, "StatusMessage": message, "StartTime": at}],
        }
    return {"EndpointConfigName": wanted.config_name, "ProductionVariants": [variant], "StartTime": started or at}
