"""What `bintally stack adopt` asks of CloudFormation. tests/stack/test_restore.py adopts with it."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import WaiterError

from deployed import adopting
from deployed.errors import DeployFailed
from deployed.rehearsal import Rehearsal, missing
from deployed.target import Target
from local.stack import REPOSITORY
from tests.cli.test_deploy import nobody  # noqa: F401 - one reading of the services' models for all tests

NAMES = {
    "ImagesBucket": "bins-imagesbucket-1",
    "ArtifactsBucket": "bins-artifactsbucket-1",
    "CountsTable": "bins-CountsTable-1",
    "UserPool": "eu_1",
}
KINDS = ("S3::Bucket", "S3::Bucket", "DynamoDB::Table", "Cognito::UserPool")
WANTED = adopting.template(REPOSITORY)["CountsTable"]["Properties"]
INDEXES = [
    {part: index[part] for part in ("IndexName", "KeySchema", "Projection")}
    for index in WANTED["GlobalSecondaryIndexes"]
]
TABLE = {
    "KeySchema": WANTED["KeySchema"],
    "AttributeDefinitions": WANTED["AttributeDefinitions"][::-1],
    "GlobalSecondaryIndexes": [index | {"IndexSizeBytes": 3} for index in reversed(INDEXES)],
    "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
    "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    "TableSizeBytes": 10,
    "TableStatus": "ACTIVE",
}
LEFT: dict[str, Any] = {
    "cloudformation:DescribeStacks": missing("ValidationError"),
    "cloudformation:ListStacks": {
        "StackSummaries": [
            {"StackName": "bins", "StackId": "bins/1", "DeletionTime": datetime(2026, 11, 2, tzinfo=UTC)},
            {"StackName": "bins-two", "StackId": "two/1", "DeletionTime": datetime(2026, 11, 3, tzinfo=UTC)},
        ]
    },
    "cloudformation:DescribeStackEvents": {
        "StackEvents": [
            {"LogicalResourceId": logical, "PhysicalResourceId": name, "ResourceType": f"AWS::{kind}"}
            | {"EventId": logical, "ResourceStatus": "DELETE_SKIPPED"}
            for (logical, name), kind in zip(NAMES.items(), KINDS, strict=True)
        ]
    },
    "s3:ListObjectVersions": {},
    "s3:GetBucketVersioning": {"Status": "Enabled"},
    "dynamodb:DescribeTable": {"Table": TABLE},
    "cognito-idp:DescribeUserPool": {
        "UserPool": {"Name": "bins", "DeletionProtection": "ACTIVE", "UsernameConfiguration": {"CaseSensitive": False}}
    },
    "cognito-idp:ListGroups": {"Groups": [{"GroupName": "manager"}, {"GroupName": "site:SEA1"}]},
}


def lost(**answers: Any) -> Any:
    """A stack that was deleted, in a dry run without an account: what it has left answers."""
    told = LEFT | {
        name.replace("_", ":", 1).replace("cognito:idp_", "cognito-idp:"): is_ for name, is_ in answers.items()
    }
    return Target("bins", region="eu-central-1", rehearsal=Rehearsal(print, offline=True, answers=told))


def created(stack: Any) -> dict[str, Any]:
    (asked,) = [parameters for name, parameters in stack.rehearsal.calls if name == "cloudformation:CreateChangeSet"]
    return dict(asked)


def test_it_finds_what_the_deleted_stack_has_kept_and_imports_that() -> None:
    stack = lost()
    names = adopting.choose(stack, dict.fromkeys(NAMES))
    assert names == NAMES
    adopting.adopt(stack, names, REPOSITORY, role="arn:aws:iam::123456789012:role/cloudformation")
    asked = created(stack)
    assert (asked["ChangeSetType"], asked["RoleARN"][-14:]) == ("IMPORT", "cloudformation")
    assert [(one["LogicalResourceId"], one["ResourceIdentifier"]) for one in asked["ResourcesToImport"]] == [
        ("ImagesBucket", {"BucketName": "bins-imagesbucket-1"}),
        ("ArtifactsBucket", {"BucketName": "bins-artifactsbucket-1"}),
        ("CountsTable", {"TableName": "bins-CountsTable-1"}),
        ("UserPool", {"UserPoolId": "eu_1"}),
        ("ManagerGroup", {"GroupName": "manager", "UserPoolId": "eu_1"}),
    ]
    resources = json.loads(asked["TemplateBody"])["Resources"]
    assert {one["DeletionPolicy"] for one in resources.values()} == {"Retain"}, "also when it is rolled back"
    table = resources["CountsTable"]["Properties"]
    assert "TableName" not in table, "leaving it out later would replace the table"
    assert table["StreamSpecification"] == {"StreamViewType": "NEW_AND_OLD_IMAGES"}
    assert table["GlobalSecondaryIndexes"] == INDEXES and "ProvisionedThroughput" not in table
    assert table["AttributeDefinitions"] == WANTED["AttributeDefinitions"]
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    kept = {"UserPoolName": "bins", "DeletionProtection": "ACTIVE", "UsernameConfiguration": {"CaseSensitive": False}}
    assert resources["UserPool"]["Properties"] == kept


def test_the_last_deletion_counts() -> None:
    summaries = [
        {"StackName": "bins", "StackId": f"bins/{day}", "DeletionTime": datetime(2026, 11, day, tzinfo=UTC)}
        for day in (3, 9, 5)
    ]
    stack = lost(cloudformation_ListStacks={"StackSummaries": summaries})
    adopting.choose(stack, {})
    asked = [call for name, call in stack.rehearsal.calls if name == "cloudformation:DescribeStackEvents"]
    assert [one["StackName"] for one in asked] == ["bins/9", "bins/5", "bins/3"]


def test_a_table_keeps_the_key_that_encrypts_it() -> None:
    key = "arn:aws:kms:eu-central-1:123456789012:key/1"
    described = {"Table": TABLE | {"SSEDescription": {"Status": "ENABLED", "SSEType": "KMS", "KMSMasterKeyArn": key}}}
    stack = lost(dynamodb_DescribeTable=described)
    adopting.adopt(stack, NAMES, REPOSITORY)
    table = json.loads(created(stack)["TemplateBody"])["Resources"]["CountsTable"]["Properties"]
    assert table["SSESpecification"] == {"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": key}


@pytest.mark.parametrize("summary", [{}, {"BillingModeSummary": {"BillingMode": "PROVISIONED"}}])
def test_a_table_with_provisioned_capacity_keeps_it_until_the_deployment(summary: dict[str, Any]) -> None:
    """DynamoDB says nothing of the mode of a table that was never on demand."""
    table = {name: value for name, value in TABLE.items() if name != "BillingModeSummary"} | summary
    has = {"ReadCapacityUnits": 40, "WriteCapacityUnits": 90, "NumberOfDecreasesToday": 1}
    indexes = [index | {"ProvisionedThroughput": has | {"WriteCapacityUnits": 9}} for index in INDEXES]
    answer = {"Table": table | {"ProvisionedThroughput": has, "GlobalSecondaryIndexes": indexes}}
    stack = lost(dynamodb_DescribeTable=answer)
    adopting.adopt(stack, NAMES, REPOSITORY)
    made = json.loads(created(stack)["TemplateBody"])["Resources"]["CountsTable"]["Properties"]
    assert made["BillingMode"] == "PROVISIONED"
    assert made["ProvisionedThroughput"] == {"ReadCapacityUnits": 40, "WriteCapacityUnits": 90}
    for index in made["GlobalSecondaryIndexes"]:
        assert index["ProvisionedThroughput"] == {"ReadCapacityUnits": 40, "WriteCapacityUnits": 9}


def test_a_table_that_was_restored_has_no_stream_yet() -> None:
    restored = {name: value for name, value in TABLE.items() if name != "StreamSpecification"}
    stack = lost(dynamodb_DescribeTable={"Table": restored})
    names = adopting.choose(stack, {"CountsTable": "bins-CountsTable-202611"})
    assert names["CountsTable"] == "bins-CountsTable-202611"
    adopting.adopt(stack, names, REPOSITORY)
    table = json.loads(created(stack)["TemplateBody"])["Resources"]["CountsTable"]["Properties"]
    assert "StreamSpecification" not in table


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({"s3_GetBucketVersioning": {}}, "bucket bins-imagesbucket-1 keeps no versions"),
        ({"dynamodb_DescribeTable": {"Table": TABLE | {"KeySchema": []}}}, "it is not a table of counts"),
        ({"dynamodb_DescribeTable": {"Table": TABLE | {"TableStatus": "CREATING"}}}, "is CREATING. Wait until"),
        ({"dynamodb_DescribeTable": {"Table": TABLE | {"GlobalSecondaryIndexes": []}}}, "has no index review"),
        ({"s3_GetBucketVersioning": missing("NoSuchBucket")}, "there is no bins-imagesbucket-1 to adopt"),
    ],
)
def test_what_is_not_of_bintally_is_refused_before_anything_is_asked(answers: dict[str, Any], says: str) -> None:
    stack = lost(**answers)
    with pytest.raises(DeployFailed, match=says):
        adopting.adopt(stack, NAMES, REPOSITORY)
    assert "cloudformation:CreateChangeSet" not in {name for name, _ in stack.rehearsal.calls}


def test_without_anything_left_it_says_what_to_name() -> None:
    stack = lost(cloudformation_ListStacks={"StackSummaries": []})
    with pytest.raises(DeployFailed, match="no deleted stack bins is known that has kept its ImagesBucket"):
        adopting.choose(stack, {})
    gone = lost(s3_ListObjectVersions=missing("NoSuchBucket"))
    with pytest.raises(DeployFailed, match="its ImagesBucket"):
        adopting.choose(gone, {})


@pytest.mark.parametrize(
    ("status", "refused"),
    [("CREATE_COMPLETE", True), ("REVIEW_IN_PROGRESS", False), ("IMPORT_ROLLBACK_COMPLETE", False)],
)
def test_a_stack_that_exists_is_left_alone_and_an_import_that_failed_is_begun_again(status: str, refused: bool) -> None:
    described = {"StackName": "bins", "StackId": "bins/2", "StackStatus": status}
    stack = lost(
        cloudformation_DescribeStacks={"Stacks": [described]},
        cloudformation_ListStackResources={"StackResourceSummaries": []},
    )
    if refused:
        with pytest.raises(DeployFailed, match="stack bins exists"):
            adopting.choose(stack, dict.fromkeys(NAMES))
        return
    adopting.adopt(stack, adopting.choose(stack, dict.fromkeys(NAMES)), REPOSITORY)
    calls = [name for name, _ in stack.rehearsal.calls]
    assert calls.index("cloudformation:DeleteStack") < calls.index("cloudformation:CreateChangeSet")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"StatusReason": "bins-imagesbucket-1 already exists in stack other"}, "already exists in stack other"),
        ({"Stacks": []}, "UserPool failed: no such pool"),
    ],
    ids=["the change set", "the import"],
)
def test_a_refused_import_says_why_and_leaves_no_name_in_the_way(
    monkeypatch: pytest.MonkeyPatch, answer: Any, said: str
) -> None:
    """CloudFormation makes the stack with the change set, whether or not that can be executed."""
    begun = {"StackName": "bins", "StackId": "bins/2", "StackStatus": "IMPORT_ROLLBACK_COMPLETE"}
    event = {"LogicalResourceId": "UserPool", "ResourceStatus": "IMPORT_FAILED", "EventId": "1"}
    stack = lost(
        cloudformation_DescribeStacks={"Stacks": [begun]},
        cloudformation_DescribeStackEvents={"StackEvents": [event | {"ResourceStatusReason": "no such pool"}]},
    )

    def fails(*_: object, **__: object) -> None:
        raise WaiterError("as a waiter does", "failed", answer)

    monkeypatch.setattr(stack.client("cloudformation"), "execute_change_set", fails)
    with pytest.raises(DeployFailed, match=said):
        adopting.adopt(stack, NAMES, REPOSITORY)
    deleted = [parameters for name, parameters in stack.rehearsal.calls if name == "cloudformation:DeleteStack"]
    assert deleted == [{"StackName": "bins/2"}] * 2
