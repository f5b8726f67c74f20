"""Removes a stack from an account: first what runs, then the stack, then what CloudFormation leaves or keeps.

Each part is looked up when it is its turn, so a second run removes what the first one left. CloudFormation knows
deleted stacks, and what they kept, for 90 days.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from deployed import kept, leftovers
from deployed.access import explain
from deployed.deploying import delete_stack
from deployed.errors import Denied, DestroyFailed
from deployed.images import IMAGES
from deployed.shipping import Say
from deployed.target import Target

LOCKED = "TrailBucket"


@dataclass(frozen=True)
class Found:
    """`stack_id` is None where the stack is deleted; `resources` are type and name by logical id; `left` is what the
    deletions of stacks of this name have kept, as logical id, type and name, the last deletion first."""

    stack_id: str | None
    resources: dict[str, tuple[str, str]]
    left: list[tuple[str, str, str]]

    def of(self, kind: str) -> list[str]:
        return [name for found, name in self.resources.values() if found == kind]

    def kept(self) -> list[tuple[str, str]]:
        """Type and name of all that is kept unless it is deleted by hand."""
        found = (one for one in self.everything() if one[0] != LOCKED and one[1] in kept.KEPT)
        return list(dict.fromkeys((kind, name) for _, kind, name in found))

    def locked(self) -> list[str]:
        """Buckets of a locked trail, which nobody can empty."""
        return list(dict.fromkeys(name for logical, _, name in self.everything() if logical == LOCKED))

    def everything(self) -> list[tuple[str, str, str]]:
        """Logical id, type and name."""
        return [*((logical, *one) for logical, one in self.resources.items()), *self.left]


def find(stack: Target) -> Found | None:
    """The stack, and what deleted ones of its name have left; None where there was never one."""
    cloudformation, live = stack.client("cloudformation"), stack.find()
    deleted = deleted_stacks(cloudformation, stack.name)
    if live is None and not deleted:
        return None
    left = [one for stack_id in deleted for one in skipped(cloudformation, stack_id)]
    if live is None:
        return Found(None, {}, left)
    pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=live["StackId"])
    found = [one for page in pages for one in page["StackResourceSummaries"] if one.get("PhysicalResourceId")]
    resources = {one["LogicalResourceId"]: (one["ResourceType"], one["PhysicalResourceId"]) for one in found}
    return Found(live["StackId"], resources, left)


def deleted_stacks(cloudformation: Any, name: str) -> list[str]:
    """The last one first."""
    pages = cloudformation.get_paginator("list_stacks").paginate(StackStatusFilter=["DELETE_COMPLETE"])
    found = [one for page in pages for one in page["StackSummaries"] if one["StackName"] == name]
    found.sort(key=lambda one: one.get("DeletionTime") or datetime.min.replace(tzinfo=UTC), reverse=True)
    return [one["StackId"] for one in found]


def skipped(cloudformation: Any, stack_id: str) -> Iterator[tuple[str, str, str]]:
    """Logical id, type and name of what the deletion of a stack kept, as its events say."""
    for page in cloudformation.get_paginator("describe_stack_events").paginate(StackName=stack_id):
        for event in page["StackEvents"]:
            if event["ResourceStatus"] == "DELETE_SKIPPED":
                yield event["LogicalResourceId"], event["ResourceType"], event["PhysicalResourceId"]


def what_is_kept(stack: Target, found: Found) -> Iterator[str]:
    """A line for each resource that a deletion keeps, and that exists."""
    for kind, name in found.kept():
        if (line := kept.holds(stack, kind, name)) is not None:
            yield line


def images_left(stack: Target) -> Iterator[str]:
    """A line for each repository of the two images that exists, or could not be asked for."""
    for image in IMAGES:
        try:
            stack.client("ecr").describe_repositories(repositoryNames=[image.repository])
        except Denied as error:
            yield f"repository {image.repository}, if there is one: {error}"
        except ClientError as error:
            if not kept.gone(error):
                yield f"repository {image.repository}, if there is one: {explain(error)}"
        else:
            yield f"repository {image.repository}, which all stacks of the region use"


def destroy(stack: Target, found: Found, *, data: bool, images: bool, say: Say, note: Say) -> None:
    """Removes everything; what is kept only with `data`, the repositories of the two images only with `images`.

    Calls `say` with each step, and `note` with what it found and removed. Raises DestroyFailed where something stays.
    """
    if found.stack_id:
        say("Stopping retrainings and releases")
        stop(stack, found, note)
        say(f"Deleting stack {stack.name}")
        if (status := delete_stack(stack, found.stack_id)) != "DELETE_COMPLETE":
            raise DestroyFailed(f"stack {stack.name} is {status}: {why(stack, found.stack_id)}. Run it again")
    say("Looking for what the stack has left")
    for lines in (
        leftovers.stop_jobs(stack),
        leftovers.delete_models(stack),
        leftovers.delete_logs(stack),
        leftovers.delete_code(stack),
    ):
        for line in lines:
            note(line)
    for kind, name in found.kept() if data else ():
        if (held := kept.holds(stack, kind, name)) is not None:
            say(f"Deleting {held}")
            kept.delete(stack, kind, name)
    for name in found.locked():
        note(f"bucket {name} stays: its lines of the trail are locked. S3 deletes them after their day")
    if images:
        say("Deleting the images")
        delete_images(stack, note)


def stop(stack: Target, found: Found, note: Say) -> None:
    """Stops the executions of all state machines, waits for their end, and stops the jobs of retrainings."""
    states = stack.client("stepfunctions")

    def running() -> list[str]:
        return [
            execution["executionArn"]
            for machine in found.of("AWS::StepFunctions::StateMachine")
            for execution in states.list_executions(stateMachineArn=machine, statusFilter="RUNNING")["executions"]
        ]

    for execution in running():
        states.stop_execution(executionArn=execution, error="Stopped", cause="the stack is removed")
        note(f"Stopped {execution.rpartition(':')[2]}")
    kept.wait(lambda: not running(), stack, "an execution")
    for line in leftovers.stop_jobs(stack):
        note(line)


def why(stack: Target, stack_id: str) -> str:
    """The first resource that CloudFormation could not delete, with its reason."""
    for page in stack.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack_id):
        for one in page["StackResourceSummaries"]:
            if one["ResourceStatus"] == "DELETE_FAILED":
                return f"{one['LogicalResourceId']}: {one.get('ResourceStatusReason', 'no reason given')}"
    return "no reason given"


def delete_images(stack: Target, note: Say) -> None:
    """Deletes the repositories of the two images, except where another stack of the region uses one."""
    pages = stack.client("cloudformation").get_paginator("describe_stacks").paginate()
    others = {
        parameter.get("ParameterValue", ""): other["StackName"]
        for page in pages
        for other in page["Stacks"]
        for parameter in other.get("Parameters", ())
        if other["StackName"] != stack.name
    }
    for image in IMAGES:
        user = next((name for value, name in others.items() if f"/{image.repository}" in value), None)
        if user:
            note(f"Stack {user} uses repository {image.repository}, which stays")
            continue
        try:
            stack.client("ecr").delete_repository(repositoryName=image.repository, force=True)
        except ClientError as error:
            if not kept.gone(error):
                raise
        else:
            note(f"Deleted repository {image.repository}")
