"""The quotas of an account that a stack needs: new accounts have small ones, often zero."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from deployed.access import explain
from deployed.errors import Denied

FUNCTIONS_BESIDE = 10
"""Concurrent functions that a stack needs besides those that count: 5 that read records, RecordMapping's maximum; one
each of `follow` and `review` for a shard; 3 of the API."""


class Lack(NamedTuple):
    """A quota that is too small."""

    name: str
    has: float
    needs: float


def needed(parameters: Mapping[str, str]) -> dict[str, float]:
    """What a stack with these parameters needs, by SageMaker's names of quotas in lower case.

    A release runs the new model beside the old one, with as many instances as that has come to, so an endpoint counts
    twice.
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
        wanted[f"{parameters['InstanceType']} for endpoint usage"] = 2 * max(
            float(parameters["InstanceCount"]), float(parameters["MaximumInstances"])
        )
    else:
        wanted["total concurrency of serverless endpoints"] = 2 * float(parameters["CountConcurrency"])
        if provisioned := float(parameters["ProvisionedConcurrency"]):
            wanted["total provisioned concurrency of serverless endpoints"] = 2 * provisioned
    return wanted


def name_of(quota: str) -> str:
    """A quota's name as `needed` has it. That of serverless concurrency is a sentence."""
    name = quota.lower()
    if re.search(r"total (provisioned )?concurrency .*serverless endpoint", name):
        return f"total {'provisioned ' * ('provisioned' in name)}concurrency of serverless endpoints"
    return name


def of_functions(stack: Any, parameters: Mapping[str, str]) -> Iterator[Lack]:
    """Lambda's quota, if it is too small. Raises Denied or ClientError."""
    functions = stack.client("lambda").get_account_settings()["AccountLimit"]["ConcurrentExecutions"]
    if functions < (wanted := int(parameters["CountConcurrency"]) + FUNCTIONS_BESIDE):
        yield Lack("concurrent executions", functions, wanted)


def of_sagemaker(stack: Any, parameters: Mapping[str, str]) -> Iterator[Lack]:
    """SageMaker's quotas that are too small. Raises Denied or ClientError."""
    client, found = stack.client("service-quotas"), dict[str, float]()
    for listing in ("list_aws_default_service_quotas", "list_service_quotas"):  # the second lacks those never changed
        for page in client.get_paginator(listing).paginate(ServiceCode="sagemaker"):
            found |= {name_of(quota["QuotaName"]): quota["Value"] for quota in page["Quotas"]}
    for name, number in needed(parameters).items():
        if name in found and found[name] < number:
            yield Lack(name, found[name], number)


SERVICES = {"Lambda": of_functions, "SageMaker": of_sagemaker}


def short(stack: Any, parameters: Mapping[str, str]) -> Iterator[str]:
    """A line for each quota that is too small, and for what could not be asked."""
    for service, lacks in SERVICES.items():
        try:
            for name, has, needs in lacks(stack, parameters):
                yield f"{service}'s quota of {name} is {has:g}; this stack needs {needs:g}"
        except (Denied, ClientError) as error:
            reason = f"missing permission {error.action}" if isinstance(error, Denied) else explain(error)
            yield f"{service}'s quotas are not checked: {reason}"
