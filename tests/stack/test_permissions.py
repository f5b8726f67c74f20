"""Identity checks are on: the count function can do what its role allows and no more."""

import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError


def role_of(user: Any) -> str:
    arn: str = user.functions.get_function_configuration(FunctionName=user.function)["Role"]
    return arn.rpartition("/")[2]


def without(document: dict[str, Any], action: str) -> dict[str, Any]:
    """The policy less one action."""
    statements = []
    for statement in document["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        if kept := [one for one in actions if one != action]:
            statements.append(statement | {"Action": kept})
    return document | {"Statement": statements}


@pytest.mark.parametrize(
    "action", ["s3:GetObjectVersion", "sagemaker:InvokeEndpoint", "dynamodb:PutItem", "dynamodb:UpdateItem"]
)
def test_one_permission_less_and_back(action: str, user: Any, photograph: Callable[..., bytes]) -> None:
    """Without it nothing is counted and nothing is lost; given back, the photograph is counted."""
    iam = user.stack.client("iam")
    role = role_of(user)
    (policy,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
    document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
    assert action in json.dumps(document)
    key = f"incoming/IAM1/{action.replace(':', '-')}/photo.jpg"
    iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(without(document, action)))
    try:
        before = len(user.postponed())
        user.upload(key, photograph(1))
        user.wait_postponed(before, "AccessDenied" if not action.startswith("s3") else "403")
        assert user.counts(key) == []
        assert user.depth(user.queue) == 1
    finally:
        iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(document))
    (item,) = user.wait_counts(key)
    assert item["status"] == "COUNTED"
    user.wait_drained()
    assert user.depth(user.dead) == 0


def test_the_role_cannot_write_photographs(user: Any) -> None:
    """Its credentials, taken from a worker's own environment, are refused what the policy does not name."""
    role = user.stack.client("iam").get_role(RoleName=role_of(user))["Role"]["Arn"]
    assumed = user.stack.client("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    session = boto3.Session(assumed["AccessKeyId"], assumed["SecretAccessKey"], assumed["SessionToken"], "us-east-1")
    s3 = session.client("s3", endpoint_url=user.stack.endpoint_url)
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.put_object(Bucket=user.bucket, Key="incoming/IAM1/x/y.jpg", Body=b"x")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.get_object(Bucket=user.outputs["ArtifactsBucket"], Key="models/x")
