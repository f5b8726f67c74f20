"""Deploys a stack to an account, step by step. A second run finds what the first one made, and goes on from there."""

import re
import shlex
import shutil
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from deployed import images, quotas
from deployed.costs import Usage
from deployed.errors import DeployFailed
from deployed.regions import is_served
from deployed.shell import Shell
from deployed.shipping import Say, Shipping, package_version
from deployed.stack import release_request
from deployed.target import Target
from deployed.version import RUNBOOK, code_version, runbook

TAG = "bintally-stack"
"""The cost tag, which CloudFormation hands on to all resources of the stack that take tags."""
GIVE_IMAGES = ", or give --serving-image and --training-image"
DELETE_SECONDS, POLL_SECONDS = 1800, 2.0
USE = Usage()


@dataclass(frozen=True)
class Wanted:
    """The choices of a deployment. `folder` is the repository; `environment` a section of its samconfig.toml.

    `built` is a template that `sam build` has made; None builds it. The images are built unless both are given.
    """

    folder: Path
    environment: str = "default"
    parameters: Mapping[str, str] = field(default_factory=dict)
    email: str | None = None
    role: str | None = None
    """CloudFormation acts as this role; None: as the caller."""
    built: Path | None = None
    serving_image: str | None = None
    training_image: str | None = None

    def settings(self) -> dict[str, str]:
        """The template's parameters of the environment and those given, which have precedence."""
        section = sections(self.folder).get(self.environment, {})
        text = section.get("deploy", {}).get("parameters", {}).get("parameter_overrides", "")
        return dict(word.split("=", 1) for word in shlex.split(text)) | dict(self.parameters)


def sections(folder: Path) -> dict[str, Any]:
    """The environments of samconfig.toml."""
    found = tomllib.loads((folder / "samconfig.toml").read_text())
    return {name: section for name, section in found.items() if isinstance(section, dict)}


@cache
def defaults(folder: Path) -> dict[str, str]:
    """The template's parameters with their defaults."""
    from samtranslator.yaml_helper import yaml_parse

    found = yaml_parse((folder / "template.yaml").read_text())["Parameters"]
    return {name: str(parameter["Default"]) for name, parameter in found.items()}


def deploy(stack: Target, wanted: Wanted, shell: Shell, say: Say, note: Say) -> Target:
    """Everything up to the released model. Returns the stack with the address of its serving image.

    Calls `say` with each step, and `note` with what a person should know besides.
    Raises DeployFailed, ReleaseFailed, PackageMissing, NoAccess, Denied.
    """
    version = package_version(stack.package)
    say("Checking the account, its quotas and the tools here")
    before = check(stack, wanted, shell, note)
    registry = f"{before['account']}.dkr.ecr.{before['region']}.amazonaws.com"
    serving = wanted.serving_image or image(stack, images.SERVING, registry, shell, say)
    training = wanted.training_image or image(stack, images.TRAINING, registry, shell, say)
    stack = replace(stack, image=serving)
    if wanted.built is None:
        say("Building the functions")
        shell.run("sam", "build", "--template-file", "template.yaml", "--parallel", log="sam-build")
    remove_failed(stack, say)
    say("Deploying the stack")
    parameters = {"ServingImage": serving, "TrainingImage": training, "DeletionProtection": "false"}
    protection = wanted.settings().get("DeletionProtection", defaults(wanted.folder)["DeletionProtection"])
    found = stack.find()
    if protection != "false" and (found is None or found["StackStatus"] == "REVIEW_IN_PROGRESS"):
        # CloudFormation could not take back a first deployment that fails: what is protected would stay, and cost.
        sam_deploy(stack, wanted, parameters, shell)
        say("Protecting its data from deletion")
    sam_deploy(stack, wanted, parameters | {"DeletionProtection": protection}, shell)
    if wanted.email:
        say(f"Subscribing {wanted.email} to alerts")
        subscribe(stack, wanted.email, note)
    say(f"Releasing model {version}")
    release(stack, version, note)
    return stack


def check(stack: Target, wanted: Wanted, shell: Shell, note: Say) -> dict[str, str]:
    """Who deploys, and where. Raises DeployFailed where a tool is missing or another deployment runs."""
    check_tools(stack, wanted, shell, note)
    region = str(stack.session().region_name)
    if not is_served(region):
        raise DeployFailed(f"{region} is no region of AWS that has SageMaker and Cognito. Check --region")
    unknown = sorted(wanted.settings().keys() - defaults(wanted.folder).keys())
    if unknown:
        raise DeployFailed(f"the template has no parameter {unknown[0]}. Check --set and samconfig.toml")
    where = stack.where()
    found = stack.find()
    if stack.rehearsal:
        stack.rehearsal.new = found is None
    status = found["StackStatus"] if found else ""
    if status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS":  # that of a change that never began
        raise DeployFailed(f"stack {stack.name} is {status}. Wait until that has ended, then run it again")
    if status.endswith("_FAILED") and status != "ROLLBACK_FAILED":
        raise DeployFailed(
            f"stack {stack.name} is {status}. Repair it in CloudFormation's console, or destroy it first"
        )
    now = {one["ParameterKey"]: one["ParameterValue"] for one in (found or {}).get("Parameters", [])}
    parameters = defaults(wanted.folder) | now | wanted.settings()
    check_endpoint(parameters, now, note)
    for line in quotas.short(stack, parameters):
        note(f"{line}. Ask for more: docs/deploying.md")
    return where


def check_endpoint(parameters: Mapping[str, str], now: Mapping[str, str], note: Say) -> None:
    """Tells what a real-time endpoint cannot take. Raises DeployFailed for an endpoint that would scale before the
    first release makes it. `now` are the parameters of the stack that is there."""
    if parameters["EndpointMode"] != "realtime":
        return
    if parameters["MaximumInstances"] != "0" and now.get("EndpointMode") != "realtime":
        raise DeployFailed(
            "MaximumInstances scales an endpoint, which the first release makes. Deploy with MaximumInstances=0, then"
            " set it: docs/scaling.md"
        )
    instances = max(int(parameters["InstanceCount"]), int(parameters["MaximumInstances"]))
    answered, asked = instances * USE.instance_rate, int(parameters["CountConcurrency"]) * USE.most_a_second
    if asked > answered:
        note(
            f"CountConcurrency of {parameters['CountConcurrency']} asks for up to {asked:,.0f} photographs a second,"
            f" and {instances} instances answer some {answered:,.0f}. The rest waits in the queue: docs/scaling.md"
        )


def check_tools(stack: Target, wanted: Wanted, shell: Shell, note: Say) -> None:
    """Raises DeployFailed for the first tool that is missing or does not work; a rehearsal only tells."""
    builds = not (wanted.serving_image and wanted.training_image)
    cures = {"git": "", "sam": ": make venv"} | ({"docker": GIVE_IMAGES} if builds else {})
    for tool, cure in cures.items():
        if not shutil.which(tool, path=shell.environment()["PATH"]):
            problem = f"{tool} is missing here. Install it{cure}"
            if not stack.rehearsal:
                raise DeployFailed(problem)
            note(problem)
    if builds:
        for words, cure in (
            (("docker", "version"), "Start its daemon"),
            (("docker", "buildx", "version"), "Install buildx"),
        ):
            try:
                shell.run(*words, log="docker")
            except DeployFailed as error:
                raise DeployFailed(f"{error}. {cure}{GIVE_IMAGES}") from error


def image(stack: Target, wanted: images.Image, registry: str, shell: Shell, say: Say) -> str:
    """The address of the image by its digest; builds and pushes it unless the repository has it."""
    tag, ecr = images.tag_of(wanted, shell.folder), stack.client("ecr")
    address = f"{registry}/{wanted.repository}"
    say(f"Looking for image {wanted.repository}:{tag}")
    images.make_repository(ecr, wanted.repository)
    digest = images.pushed(ecr, wanted.repository, tag)
    if digest is None:
        say(f"Building and pushing image {wanted.repository}:{tag}")
        images.sign_in(ecr, registry, shell)
        images.build_and_push(wanted, f"{address}:{tag}", shell)
        if stack.rehearsal:
            return f"{address}:{tag}"  # a digest is known only after the push
        digest = images.pushed(ecr, wanted.repository, tag)
        if digest is None:
            raise DeployFailed(f"ECR has no image {address}:{tag} after its push. Run it again")
    return f"{address}@{digest}"


def remove_failed(stack: Target, say: Say) -> None:
    """Removes a stack whose first deployment failed: CloudFormation rolled it back, and accepts no other change.
    Raises DeployFailed."""
    found = stack.find()
    if found and found["StackStatus"] in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED"):
        say("Removing the first deployment, which failed")
        status = delete_stack(stack, found["StackId"])
        if status != "DELETE_COMPLETE":
            raise DeployFailed(
                f"stack {stack.name} is {status}. Delete it in CloudFormation's console and run it again"
            )


def delete_stack(stack: Target, stack_id: str) -> str:
    """Deletes the stack and waits. Returns its status then, DELETE_COMPLETE unless something could not be deleted."""
    cloudformation = stack.client("cloudformation")
    cloudformation.delete_stack(StackName=stack_id)
    deadline = time.monotonic() + DELETE_SECONDS
    while not stack.rehearsal:
        time.sleep(POLL_SECONDS)
        status = str(cloudformation.describe_stacks(StackName=stack_id)["Stacks"][0]["StackStatus"])
        if not status.endswith("_IN_PROGRESS") or time.monotonic() > deadline:
            return status
    return "DELETE_COMPLETE"


def sam_deploy(stack: Target, wanted: Wanted, addresses: dict[str, str], shell: Shell) -> None:
    settings = runbook_of(stack, wanted) | wanted.settings() | addresses | {"CodeVersion": code_version(wanted.folder)}
    built = wanted.built or Path(".aws-sam/build/template.yaml")
    role = ("--role-arn", wanted.role) if wanted.role else ()
    before = next(events(stack), {}).get("EventId")
    try:
        shell.run(
            *("sam", "deploy", "--template-file", str(built), "--stack-name", stack.name),
            *("--region", str(stack.session().region_name), "--no-confirm-changeset", "--no-progressbar"),
            *("--config-file", str(wanted.folder / "samconfig.toml"), "--config-env", wanted.environment),
            *("--s3-prefix", stack.name, *role, "--tags", f"{TAG}={stack.name}", "Project=bintally"),
            *("--parameter-overrides", *(assigned(name, value) for name, value in settings.items())),
            log="sam-deploy",
        )
    except DeployFailed as error:
        if reason := first_failure(stack, before):
            raise DeployFailed(f"{reason} ({error})") from error
        raise


def runbook_of(stack: Target, wanted: Wanted) -> dict[str, str]:
    """The parameter Runbook: the page of the commit that is deployed, so that the links of alarms can be followed. An
    address that somebody chose stays."""
    given = {one["ParameterKey"]: one["ParameterValue"] for one in (stack.find() or {}).get("Parameters", [])}
    ours = re.fullmatch(rf"(.*/blob/[0-9a-f]{{40,}}/)?{RUNBOOK}", given.get("Runbook", RUNBOOK))
    address = runbook(wanted.folder) if ours else None
    return {"Runbook": address} if address else {}


def assigned(name: str, value: str) -> str:
    """A parameter as SAM reads it: it would take a value with spaces up to the first one, and refuses an empty one."""
    if re.fullmatch(r"[\w./:@,+*()-]+", value):
        return f"{name}={value}"
    escaped = value.replace('"', '\\"')
    return f'{name}="{escaped}"'


def events(stack: Target) -> Iterator[dict[str, Any]]:
    """What CloudFormation did to the stack, the newest first; nothing where there is none."""
    if stack.find():
        pages = stack.client("cloudformation").get_paginator("describe_stack_events").paginate(StackName=stack.name)
        yield from (event for page in pages for event in page["StackEvents"])


def first_failure(stack: Target, before: str | None) -> str | None:
    """The reason of the first resource that failed since the event `before`; the failures after it follow from it."""
    reason = None
    for event in takewhile(lambda event: event["EventId"] != before, events(stack)):
        because = event.get("ResourceStatusReason", "")
        if event["ResourceStatus"].endswith("_FAILED") and "cancelled" not in because:
            reason = f"{event['LogicalResourceId']} failed: {because}"
    return reason


def subscribe(stack: Target, email: str, note: Say) -> None:
    """Subscribes the address once; AWS then asks its owner to confirm."""
    sns, topic = stack.client("sns"), stack.outputs()["AlertsTopic"]
    for page in sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic):
        if any(one["Protocol"] == "email" and one["Endpoint"] == email for one in page["Subscriptions"]):
            return
    sns.subscribe(TopicArn=topic, Protocol="email", Endpoint=email)
    note(f"AWS asks {email} to confirm: alerts come after that")


def release(stack: Shipping, version: str, note: Say) -> None:
    """Releases the shipped model as `bintally up` does. If a model was live and stays, it is released again where the
    endpoint's settings have changed, the serving image among them; otherwise that release finds nothing to do.

    After a change of EndpointMode no model is live yet: the one on the other mode's endpoint is released first.
    """
    outputs = stack.outputs()
    before = stack.live_model_data(outputs)
    other = f"{stack.name}-{'serverless' if outputs['EndpointName'].endswith('-realtime') else 'realtime'}"
    if before is None and (live := stack.live_model_data({"EndpointName": other})):
        stack.wait_release(stack.start_release(release_request(live), outputs))
        note(f"Endpoint {other} is no longer used. Delete it: aws sagemaker delete-endpoint --endpoint-name {other}")
    stack.ship(version, note)
    if before and stack.live_model_data(outputs) == before:
        stack.wait_release(stack.start_release(release_request(before), outputs))
