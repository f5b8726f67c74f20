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
from deployed.deploying import delete_stack, first_failure
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
UNITS = ("ReadCapacityUnits", "WriteCapacityUnits")
CHANGE = "adopt"
BEGUN = ("REVIEW_IN_PROGRESS", "IMPORT_ROLLBACK_COMPLETE")
"""A stack whose import did not happen: it has no resources, and is deleted before another try."""
WAIT = {"Delay": 2, "MaxAttempts": 300}


def choose(stack: Target, given: Mapping[str, str | None]) -> dict[str, str]:
    """The names to adopt by logical id: the given ones, else what the last deleted stack of this name has kept.

    Raises DeployFailed where the stack exists, or where a bucket or the table is not to be found.
    """
    live = stack.find()
    if live is not None and live["StackStatus"] not in BEGUN:
        raise DeployFailed(
            f"stack {stack.name} exists. Give another --stack, or remove this one first: bintally --stack {stack.name} "
            "stack destroy --keep-data"
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

    `folder` is the repository, whose template has the groups. CloudFormation acts as `role` (None: the caller).
    """
    cloudformation = stack.client("cloudformation")
    remove_begun(stack)
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
        reason = error.last_response.get("StatusReason") or first_failure(stack, None) or str(error)
        remove_begun(stack)
        raise DeployFailed(f"CloudFormation did not import into {stack.name}: {reason}") from error


def remove_begun(stack: Target) -> None:
    """Deletes what an import that did not happen has left."""
    found = stack.find()
    if found and found["StackStatus"] in BEGUN:
        delete_stack(stack, found["StackId"])


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
    # Not the template's RetainExceptOnCreate: an import that is rolled back must never delete what it was to import.
    return {"Type": wanted["Type"], "DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"} | {
        "Properties": properties
    }


def as_wanted(_: Target, __: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Of a group: its name and its description, which nobody changes."""
    return dict(wanted)


def bucket(stack: Target, name: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """Nothing: the update sets each property, whatever it was. Raises DeployFailed for a bucket without versions, whose
    photographs Bintally could not tell from later ones of the same name."""
    if stack.client("s3").get_bucket_versioning(Bucket=name).get("Status") != "Enabled":
        raise DeployFailed(f"bucket {name} keeps no versions: it is not one of Bintally's")
    return {}


def table(stack: Target, name: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Raises DeployFailed for a table that the deployment could not make one of Bintally's."""
    found = stack.client("dynamodb").describe_table(TableName=name)["Table"]
    if (status := found.get("TableStatus", "ACTIVE")) != "ACTIVE":
        raise DeployFailed(f"table {name} is {status}. Wait until it is ACTIVE, then run it again")
    if found["KeySchema"] != wanted["KeySchema"]:
        raise DeployFailed(f"table {name} has the key {found['KeySchema']}: it is not a table of counts")
    indexes = {index["IndexName"]: index for index in found.get("GlobalSecondaryIndexes", ())}
    if missing := sorted({index["IndexName"] for index in wanted["GlobalSecondaryIndexes"]} - indexes.keys()):
        raise DeployFailed(f"table {name} has no index {missing[0]}. Restore or import it with its indexes")
    described: dict[str, Any] = {
        "BillingMode": found.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED"),
        "AttributeDefinitions": in_order(found["AttributeDefinitions"], wanted["AttributeDefinitions"]),
        "KeySchema": found["KeySchema"],
        "GlobalSecondaryIndexes": [
            {part: indexes[name][part] for part in ("IndexName", "KeySchema", "Projection")} for name in sorted(indexes)
        ],
        "DeletionProtectionEnabled": found.get("DeletionProtectionEnabled", False),
    }
    if described["BillingMode"] == "PROVISIONED":  # TableUnits of the deployment decides what comes then
        for part, of in (
            (described, found),
            *((each, indexes[each["IndexName"]]) for each in described["GlobalSecondaryIndexes"]),
        ):
            part["ProvisionedThroughput"] = {unit: of["ProvisionedThroughput"][unit] for unit in UNITS}
    if (stream := found.get("StreamSpecification") or {}).get("StreamEnabled"):
        described["StreamSpecification"] = {"StreamViewType": stream["StreamViewType"]}
    if (key := found.get("SSEDescription", {})).get("SSEType") == "KMS":
        # DynamoDB refuses to be told again which key it has.
        described["SSESpecification"] = {"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": key["KMSMasterKeyArn"]}
    return described


def in_order(found: list[Any], wanted: list[Any]) -> list[Any]:
    """As in the template where nothing but the order differs: CloudFormation would see a change."""
    return wanted if sorted(map(str, found)) == sorted(map(str, wanted)) else found


def user_pool(stack: Target, name: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """What a pool has for ever, its name and its protection; the update sets the rest, whatever it was."""
    found = stack.client("cognito-idp").describe_user_pool(UserPoolId=name)["UserPool"]
    kept = {"UserPoolName": found["Name"], "DeletionProtection": found.get("DeletionProtection", "INACTIVE")}
    return kept | {part: found[part] for part in ("UsernameConfiguration",) if part in found}
