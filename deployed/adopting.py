"""Makes a stack of the data that a lost one has left: CloudFormation imports its buckets, table and user pool.

The stack then has these alone; a deployment updates it with everything else. An imported resource is described as it
is, since CloudFormation changes only what differs between two templates: a table that was restored to a point in time
has no stream, and gets one with the update. A name that CloudFormation has chosen stays out of the description: taking
it out later would replace the resource.
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/import-resources-manually.html
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError, WaiterError

from deployed import kept
from deployed.deploying import delete_stack
from deployed.destroying import find
from deployed.errors import DeployFailed
from deployed.target import Target

DATA = ("ImagesBucket", "ArtifactsBucket", "CountsTable", "UserPool")
"""Logical ids of what the template keeps. Without the first three there is nothing to restore."""
GROUPS = ("ViewerGroup", "CounterGroup", "ManagerGroup")
"""Those of the roles, which are kept with their pool."""
IDENTIFIERS = {
    "AWS::S3::Bucket": "BucketName",
    "AWS::DynamoDB::Table": "TableName",
    "AWS::Cognito::UserPool": "UserPoolId",
    "AWS::Cognito::UserPoolGroup": "GroupName",
}
CHANGE = "adopt"
WAIT = {"Delay": 2, "MaxAttempts": 300}


def choose(stack: Target, given: Mapping[str, str | None]) -> dict[str, str]:
    """The names to adopt by logical id: the given ones, else what the last deleted stack of this name has kept.

    Raises DeployFailed where the stack exists, or where a bucket or the table is not to be found.
    """
    live = stack.find()
    if live is not None and live["StackStatus"] != "REVIEW_IN_PROGRESS":
        raise DeployFailed(
            f"stack {stack.name} exists, and nothing is adopted into it. Choose another name, or destroy it, keeping "
            "its data"
        )
    chosen = {logical: name for logical, name in given.items() if name}
    found = find(stack)
    for logical, kind, name in found.left if found else ():
        if logical in DATA and logical not in chosen and kept.holds(stack, kind, name) is not None:
            chosen[logical] = name
    if missing := [logical for logical in DATA[:3] if logical not in chosen]:
        raise DeployFailed(
            f"no deleted stack {stack.name} is known that has kept its {missing[0]}. Name what there is: "
            "--images-bucket, --artifacts-bucket, --table"
        )
    return {logical: chosen[logical] for logical in DATA if logical in chosen}


def adopt(stack: Target, names: Mapping[str, str], folder: Path, role: str | None = None) -> None:
    """Makes the stack with these resources. Raises DeployFailed with CloudFormation's reason; nothing is changed then.

    `folder` is the repository, whose template says how each is kept. CloudFormation acts as `role` (None: the caller).
    """
    cloudformation = stack.client("cloudformation")
    names = dict(names) | groups(stack, names.get("UserPool"), folder)
    resources = {logical: described(stack, logical, name, folder) for logical, name in names.items()}
    cloudformation.create_change_set(
        StackName=stack.name,
        ChangeSetName=CHANGE,
        ChangeSetType="IMPORT",
        TemplateBody=json.dumps({"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}),
        ResourcesToImport=[
            {
                "ResourceType": resources[logical]["Type"],
                "LogicalResourceId": logical,
                "ResourceIdentifier": {IDENTIFIERS[resources[logical]["Type"]]: name}
                | ({"UserPoolId": names["UserPool"]} if logical in GROUPS else {}),
            }
            for logical, name in names.items()
        ],
        **({"RoleARN": role} if role else {}),
    )
    change: dict[str, str] = {"StackName": stack.name, "ChangeSetName": CHANGE}
    try:
        if not stack.rehearsal:
            cloudformation.get_waiter("change_set_create_complete").wait(**change, WaiterConfig=WAIT)
        cloudformation.execute_change_set(**change)
        if not stack.rehearsal:
            cloudformation.get_waiter("stack_import_complete").wait(StackName=stack.name, WaiterConfig=WAIT)
    except WaiterError as error:
        reason = error.last_response.get("StatusReason") or str(error)
        if (begun := stack.find()) and begun["StackStatus"] == "REVIEW_IN_PROGRESS":
            delete_stack(stack, begun["StackId"])  # it has no resources; its name would stand in the way
        raise DeployFailed(f"CloudFormation imports nothing into {stack.name}: {reason}") from error


def groups(stack: Target, pool: str | None, folder: Path) -> dict[str, str]:
    """The names of the roles' groups that the pool has, by logical id. The others are made by the deployment."""
    if pool is None:
        return {}
    pages = stack.client("cognito-idp").get_paginator("list_groups").paginate(UserPoolId=pool)
    known = {group["GroupName"] for page in pages for group in page["Groups"]}
    wanted = {logical: str(template(folder)[logical]["Properties"]["GroupName"]) for logical in GROUPS}
    return {logical: name for logical, name in wanted.items() if name in known}


@cache
def template(folder: Path) -> dict[str, Any]:
    """The resources of the template."""
    from samtranslator.yaml_helper import yaml_parse

    found: dict[str, Any] = yaml_parse((folder / "template.yaml").read_text())["Resources"]
    return found


def described(stack: Target, logical: str, name: str, folder: Path) -> dict[str, Any]:
    """The resource as a template would have it, with the properties that it has. Raises DeployFailed."""
    wanted = template(folder)[logical]
    properties_of = {"AWS::DynamoDB::Table": table, "AWS::Cognito::UserPool": user_pool, "AWS::S3::Bucket": bucket}
    try:
        properties = properties_of.get(wanted["Type"], as_wanted)(stack, name, wanted["Properties"])
    except ClientError as error:
        if kept.gone(error):
            raise DeployFailed(f"there is no {name} to adopt as {logical}") from error
        raise
    return {name: wanted[name] for name in ("Type", "DeletionPolicy", "UpdateReplacePolicy")} | {
        "Properties": properties
    }


def as_wanted(_: Target, __: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Of a group, which has nothing but its name."""
    return dict(wanted)


def bucket(stack: Target, name: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """Nothing: the update sets each property, whatever it was. Raises DeployFailed for a bucket without versions, whose
    photographs Bintally could not tell from later ones of the same name."""
    if stack.client("s3").get_bucket_versioning(Bucket=name).get("Status") != "Enabled":
        raise DeployFailed(f"bucket {name} keeps no versions: it is not one of Bintally's")
    return {}


def table(stack: Target, name: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Raises DeployFailed for a table whose key is another."""
    found = stack.client("dynamodb").describe_table(TableName=name)["Table"]
    if found["KeySchema"] != wanted["KeySchema"]:
        raise DeployFailed(f"table {name} has another key than a table of counts")
    indexes = [
        {part: index[part] for part in ("IndexName", "KeySchema", "Projection")}
        for index in found.get("GlobalSecondaryIndexes", ())
    ]
    stream = found.get("StreamSpecification") or {}
    return {
        "BillingMode": found.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED"),
        "AttributeDefinitions": found["AttributeDefinitions"],
        "KeySchema": found["KeySchema"],
        "GlobalSecondaryIndexes": sorted(indexes, key=lambda index: str(index["IndexName"])),
        "DeletionProtectionEnabled": found.get("DeletionProtectionEnabled", False),
    } | ({"StreamSpecification": {"StreamViewType": stream["StreamViewType"]}} if stream.get("StreamEnabled") else {})


def user_pool(stack: Target, name: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    found = stack.client("cognito-idp").describe_user_pool(UserPoolId=name)["UserPool"]
    now = {"UserPoolName": found["Name"], "DeletionProtection": found.get("DeletionProtection", "INACTIVE")}
    return dict(wanted) | now
