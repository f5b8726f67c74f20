"""What ran for a stack and is not in it: jobs, endpoints, models, versions in the registry, logs, code.

Deleting the stack removes most of it already (functions/bintally/releasing/remove_all.py); this removes the rest. Names
are matched in full, so that nothing of a stack `<stack>-two` is touched.
"""

import re
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from deployed.kept import empty, gone
from deployed.target import Target

SAM_STACK = "aws-sam-cli-managed-default"
"""The stack whose bucket `sam deploy` uploads code to; other stacks of the region use it too."""
ENDPOINTS = "/aws/sagemaker/Endpoints/"
JOB_LOGS = ("TrainingJobs", "ProcessingJobs", "TransformJobs")
JOBS = ("ProcessingJob", "HyperParameterTuningJob", "TrainingJob", "TransformJob")


def run(stack: Target) -> str:
    """A pattern for the names of a retraining's jobs and models (functions/bintally/retraining/names.py)."""
    return rf"{re.escape(stack.name)}-\d{{6}}-[0-9a-f]{{6}}(-[A-Za-z0-9-]+)?"


def live(stack: Target) -> str:
    """A pattern for the names of endpoints (functions/bintally/releasing/endpoints.py)."""
    return rf"{re.escape(stack.name)}-(serverless|realtime|candidate-[0-9a-f]{{8}})"


def stop_jobs(stack: Target) -> Iterator[str]:
    """Stops the running jobs of retrainings; yields a line for each."""
    for kind in JOBS:
        for name in names(stack, kind, f"{kind}Summaries", run(stack), StatusEquals="InProgress"):
            getattr(stack.client("sagemaker"), f"stop_{snake(kind)}")(**{f"{kind}Name": name})
            yield f"Stopped {name}"


def delete_models(stack: Target) -> Iterator[str]:
    """Deletes endpoints, their configurations, models, and the versions in the registry; yields a line for each."""
    sagemaker, made = stack.client("sagemaker"), rf"{live(stack)}(-[0-9a-f]{{8}}){{0,2}}|{run(stack)}"
    for kind, pattern in (("Endpoint", live(stack)), ("EndpointConfig", made), ("Model", made)):
        for one in names(stack, kind, f"{kind}s", pattern):
            getattr(sagemaker, f"delete_{snake(kind)}")(**{f"{kind}Name": one})
            yield f"Deleted {snake(kind).replace('_', ' ')} {one}"
    try:
        pages = list(sagemaker.get_paginator("list_model_packages").paginate(ModelPackageGroupName=stack.name))
        for package in (one for page in pages for one in page["ModelPackageSummaryList"]):
            sagemaker.delete_model_package(ModelPackageName=package["ModelPackageArn"])
        sagemaker.describe_model_package_group(ModelPackageGroupName=stack.name)
        sagemaker.delete_model_package_group(ModelPackageGroupName=stack.name)
    except ClientError as error:
        if not gone(error):
            raise
    else:
        yield f"Deleted the registry's group {stack.name}"


def names(stack: Target, kind: str, listed: str, pattern: str, **asked: str) -> list[str]:
    """All pages are read first: a deletion shifts the next one."""
    pages = (
        stack.client("sagemaker").get_paginator(f"list_{snake(kind)}s").paginate(NameContains=f"{stack.name}-", **asked)
    )
    found = [one[f"{kind}Name"] for page in pages for one in page[listed]]
    return [name for name in found if re.fullmatch(pattern, name)]


def snake(kind: str) -> str:
    """HyperParameterTuningJob as hyper_parameter_tuning_job."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()


def delete_logs(stack: Target) -> Iterator[str]:
    """Deletes the log groups of endpoints, which a last line may make again, and the streams of jobs in SageMaker's own
    groups; yields a line for each."""
    logs: Any = stack.client("logs")
    pages = logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=f"{ENDPOINTS}{stack.name}-")
    for group in [group["logGroupName"] for page in pages for group in page["logGroups"]]:
        if re.fullmatch(re.escape(ENDPOINTS) + live(stack), group):
            logs.delete_log_group(logGroupName=group)
            yield f"Deleted log group {group}"
    ours = re.compile(rf"{run(stack)}/.*")
    for kind in JOB_LOGS:
        group = f"/aws/sagemaker/{kind}"
        asked = {"logGroupName": group, "logStreamNamePrefix": f"{stack.name}-"}
        try:
            pages = list(logs.get_paginator("describe_log_streams").paginate(**asked))
        except ClientError as error:
            if not gone(error):
                raise
            continue
        streams = [stream["logStreamName"] for page in pages for stream in page["logStreams"]]
        for stream in filter(ours.fullmatch, streams):
            logs.delete_log_stream(logGroupName=group, logStreamName=stream)
            yield f"Deleted log stream {stream}"


def delete_code(stack: Target) -> Iterator[str]:
    """Deletes what `sam deploy` has uploaded for the stack."""
    try:
        found = stack.client("cloudformation").describe_stacks(StackName=SAM_STACK)["Stacks"][0]
    except ClientError as error:
        if gone(error):
            return
        raise
    for output in found.get("Outputs", ()):
        if output["OutputKey"] == "SourceBucket":
            number = empty(
                stack.client("s3"), output["OutputValue"], f"{stack.name}/", rehearsing=stack.rehearsal is not None
            )
            if number:
                yield f"Deleted {number} uploads of code in {output['OutputValue']}"
