"""The quotas of an account that a stack needs: new accounts have small ones, often zero."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError

from deployed.access import explain
from deployed.errors import Denied

FUNCTIONS_BESIDE = 10
"""Concurrent functions that a stack needs besides those that count."""


def needed(parameters: Mapping[str, str]) -> dict[str, float]:
    """What a stack with these parameters needs, by SageMaker's names of quotas in lower case.

    A release runs the new model beside the old one, so an endpoint counts twice.
    """
    instances, jobs = parameters["TrainingInstanceType"], parameters["JobInstanceType"]
    spot = "spot training" if parameters["SpotTraining"] == "true" else "training"
    wanted = {
        f"{instances} for {spot} job usage": float(parameters["TrainingInstances"]),
        f"{jobs} for processing job usage": float(parameters["ProcessingInstances"]),
        f"{parameters['TransformInstanceType']} for transform job usage": 1,
    }
    if parameters["RetrainTrials"] != "0":
        trials = float(parameters["RetrainParallelTrials"])
        tuning = f"{instances} for training job usage"
        wanted[tuning] = max(wanted.get(tuning, 0), trials)
    if parameters["EndpointMode"] == "realtime":
        wanted[f"{parameters['InstanceType']} for endpoint usage"] = 2 * float(parameters["InstanceCount"])
    else:
        wanted["total concurrency of serverless endpoints"] = 2 * float(parameters["CountConcurrency"])
    return wanted


def name_of(quota: str) -> str:
    """A quota's name as `needed` has it. That of serverless concurrency is a sentence."""
    name = quota.lower()
    if re.search(r"total concurrency .*serverless endpoint", name) and "provisioned" not in name:
        return "total concurrency of serverless endpoints"
    return name


def short(stack: Any, parameters: Mapping[str, str]) -> Iterator[str]:
    """A line for each quota that is too small, and for what could not be asked."""
    try:
        functions = stack.client("lambda").get_account_settings()["AccountLimit"]["ConcurrentExecutions"]
        if functions < (wanted := int(parameters["CountConcurrency"]) + FUNCTIONS_BESIDE):
            yield f"Lambda's quota of concurrent executions is {functions:g}; this stack needs {wanted}"
    except (Denied, ClientError) as error:
        yield f"Lambda's quota is not checked: {reason(error)}"
    found: dict[str, float] = {}
    try:
        for page in (
            stack.client("service-quotas").get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker")
        ):
            found |= {name_of(quota["QuotaName"]): quota["Value"] for quota in page["Quotas"]}
    except (Denied, ClientError) as error:
        yield f"SageMaker's quotas are not checked: {reason(error)}"
        return
    for name, number in needed(parameters).items():
        if name in found and found[name] < number:
            yield f"SageMaker's quota of {name} is {found[name]:g}; this stack needs {number:g}"


def reason(error: Denied | ClientError) -> str:
    return f"missing permission {error.action}" if isinstance(error, Denied) else str(explain(error))
