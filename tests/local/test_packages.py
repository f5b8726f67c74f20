"""The model registry on one machine, asked with boto3 as the stack asks it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.stack import Local

Events = list[dict[str, Any]]
Watch = Callable[[str], Callable[[int], Events]]

PREFIX = "arn:aws:sagemaker:us-east-1:000000000000"


def specification(version: str) -> dict[str, Any]:
    return {
        "Containers": [{"Image": "serving", "ModelDataUrl": f"s3://models/{version}/model.tar.gz"}],
        "SupportedContentTypes": ["application/x-image"],
        "SupportedResponseMIMETypes": ["application/json"],
    }


@dataclass(frozen=True)
class Group:
    """Makes a version of the group when it is called."""

    name: str
    sagemaker: Any

    def __call__(self, **members: Any) -> Any:
        wanted = {"ModelPackageGroupName": self.name, "InferenceSpecification": specification("v"), **members}
        return self.sagemaker.create_model_package(**wanted)["ModelPackageArn"]


@pytest.fixture
def group(ours: Local, request: pytest.FixtureRequest) -> Iterator[Group]:
    """A group named after the test; it and its versions are removed afterwards."""
    sagemaker, name = ours.client("sagemaker"), request.node.name.replace("_", "-")[:63].rstrip("-")
    sagemaker.create_model_package_group(ModelPackageGroupName=name)
    yield Group(name, sagemaker)
    for package in sagemaker.list_model_packages(ModelPackageGroupName=name)["ModelPackageSummaryList"]:
        sagemaker.delete_model_package(ModelPackageName=package["ModelPackageArn"])
    sagemaker.delete_model_package_group(ModelPackageGroupName=name)


@pytest.fixture
def events(ours: Local, request: pytest.FixtureRequest) -> Iterator[Watch]:
    """The registry's events of a group, in order, as a rule delivers them to a queue."""
    name = f"registry-{request.node.name.replace('_', '-')[:50]}"
    sqs, bus = ours.client("sqs"), ours.client("events")
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allow = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [{**allow, "Resource": arn}]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})

    def watch(group_name: str) -> Callable[[int], Events]:
        detail = {"ModelPackageGroupName": [group_name]}
        pattern = {"source": ["aws.sagemaker"], "detail-type": ["SageMaker Model Package State Change"]}
        bus.put_rule(Name=name, EventPattern=json.dumps({**pattern, "detail": detail}))
        bus.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn}])

        def take(count: int) -> Events:
            found: Events = []
            while len(found) < count:
                messages = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5, MaxNumberOfMessages=1).get("Messages")
                assert messages, f"{len(found)} of {count} events came"
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=messages[0]["ReceiptHandle"])
                found.append(json.loads(messages[0]["Body"]))
            return found

        return take

    yield watch
    bus.remove_targets(Rule=name, Ids=["queue"])
    bus.delete_rule(Name=name)


def test_a_version_from_registration_to_deletion(ours: Local, group: Group) -> None:
    sagemaker = ours.client("sagemaker")
    statistics = {"ContentType": "application/json", "S3Uri": "s3://models/evaluation.json"}
    arn = group(
        ModelPackageDescription="challenger",
        ModelMetrics={"ModelQuality": {"Statistics": statistics}},
        CustomerMetadataProperties={"model_version": "2026-01-02-abcdef", "parent": "2026-01-01-abcdef"},
        MetadataProperties={"CommitId": "1234"},
        SourceUri="s3://models",
    )
    assert arn == f"{PREFIX}:model-package/{group.name}/1"
    described = sagemaker.describe_model_package(ModelPackageName=arn)
    assert described["ModelPackageVersion"] == 1
    assert described["ModelPackageGroupName"] == group.name
    assert described["ModelPackageStatus"] == "Completed"
    assert described["ModelApprovalStatus"] == "PendingManualApproval"
    assert described["InferenceSpecification"] == specification("v")
    assert described["ModelMetrics"]["ModelQuality"]["Statistics"] == statistics
    assert described["CustomerMetadataProperties"]["parent"] == "2026-01-01-abcdef"
    assert (described["MetadataProperties"], described["SourceUri"]) == ({"CommitId": "1234"}, "s3://models")
    again = sagemaker.describe_model_package(ModelPackageName=described["ModelPackageName"])
    assert (again["ModelPackageName"], again["ModelPackageArn"]) == (f"{group.name}/1", arn)
    sagemaker.delete_model_package(ModelPackageName=arn)
    with pytest.raises(ClientError, match=rf"\(ValidationException\).*ModelPackage {arn} does not exist\."):
        sagemaker.describe_model_package(ModelPackageName=arn)
    assert group() == f"{PREFIX}:model-package/{group.name}/2"


def test_an_update_sets_the_approval_and_merges_the_metadata(ours: Local, group: Group) -> None:
    sagemaker = ours.client("sagemaker")
    arn = group(CustomerMetadataProperties={"verdict": "promote", "run": "1"})
    sagemaker.update_model_package(
        ModelPackageArn=arn,
        ModelApprovalStatus="Approved",
        ApprovalDescription="by hand",
        CustomerMetadataProperties={"run": "2", "state": "live"},
        CustomerMetadataPropertiesToRemove=["verdict", "never there"],
    )
    described = sagemaker.describe_model_package(ModelPackageName=arn)
    assert (described["ModelApprovalStatus"], described["ApprovalDescription"]) == ("Approved", "by hand")
    assert described["CustomerMetadataProperties"] == {"run": "2", "state": "live"}
    assert described["LastModifiedTime"] > described["CreationTime"]


def test_each_change_is_told(ours: Local, group: Group, events: Watch) -> None:
    take = events(group.name)
    arn = group(CustomerMetadataProperties={"run": "1"})
    sagemaker = ours.client("sagemaker")
    sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    sagemaker.update_model_package(ModelPackageArn=arn, CustomerMetadataProperties={"state": "live"})
    sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Rejected", ApprovalDescription="worse")
    created, approved, stamped, rejected = take(4)
    for event in (created, approved, stamped, rejected):
        assert event["resources"] == [event["detail"]["ModelPackageArn"]] == [arn]
        assert event["detail"]["ModelPackageVersion"] == 1
        assert event["detail"]["InferenceSpecification"] == specification("v")
    assert created["detail"]["ModelApprovalStatus"] == "PendingManualApproval"
    assert "UpdatedModelPackageFields" not in created["detail"]
    assert approved["detail"]["ModelApprovalStatus"] == "Approved"
    assert approved["detail"]["UpdatedModelPackageFields"] == ["ModelApprovalStatus"]
    assert stamped["detail"]["UpdatedModelPackageFields"] == ["CustomerMetadataProperties"]
    assert stamped["detail"]["CustomerMetadataProperties"] == {"run": "1", "state": "live"}
    assert rejected["detail"]["UpdatedModelPackageFields"] == ["ApprovalDescription", "ModelApprovalStatus"]
    assert rejected["detail"]["CreationTime"].endswith("Z")


def test_a_repeated_request_registers_once(group: Group) -> None:
    assert group(ClientToken="the-same") == group(ClientToken="the-same")
    assert group(ClientToken="another") == f"{PREFIX}:model-package/{group.name}/2"


def test_versions_are_filtered_sorted_and_paged(ours: Local, group: Group) -> None:
    sagemaker = ours.client("sagemaker")
    arns = [group(ModelApprovalStatus=status) for status in ("Approved", "Rejected", "Approved")] + [group()]
    paginator = sagemaker.get_paginator("list_model_packages")

    def listed(size: int = 100, **filters: Any) -> list[list[str]]:
        pages = paginator.paginate(ModelPackageGroupName=group.name, PaginationConfig={"PageSize": size}, **filters)
        return [[package["ModelPackageArn"] for package in page["ModelPackageSummaryList"]] for page in pages]

    assert listed(3) == [arns[:3], arns[3:]]
    assert listed(SortOrder="Descending") == [arns[::-1]]
    assert listed(ModelApprovalStatus="Approved") == [[arns[0], arns[2]]]
    assert listed(ModelApprovalStatus="PendingManualApproval") == [[arns[3]]]
    (first, *_) = sagemaker.list_model_packages(ModelPackageGroupName=group.name)["ModelPackageSummaryList"]
    assert (first["ModelPackageVersion"], first["ModelPackageGroupName"]) == (1, group.name)
    assert "ModelPackageName" not in first
    # Without a group only packages that are no versions are listed, unless asked for otherwise.
    assert sagemaker.list_model_packages()["ModelPackageSummaryList"] == []
    versions = sagemaker.list_model_packages(ModelPackageType="Versioned")["ModelPackageSummaryList"]
    assert set(arns) <= {package["ModelPackageArn"] for package in versions}


def test_groups(ours: Local) -> None:
    sagemaker = ours.client("sagemaker")
    names = ["Groups-b", "Groups-a", "Groups-c"]
    for name in names:
        sagemaker.create_model_package_group(ModelPackageGroupName=name, ModelPackageGroupDescription="of a test")
    with pytest.raises(ClientError, match=r"\(ValidationException\).*Model Package Group already exists"):
        sagemaker.create_model_package_group(ModelPackageGroupName="Groups-a")
    arn = f"{PREFIX}:model-package-group/groups-a"
    described = sagemaker.describe_model_package_group(ModelPackageGroupName="Groups-a")
    assert described["ModelPackageGroupArn"] == arn
    assert described["ModelPackageGroupStatus"] == "Completed"
    by_arn = sagemaker.describe_model_package_group(ModelPackageGroupName=arn)
    assert by_arn["ModelPackageGroupName"] == "Groups-a"
    pages = sagemaker.get_paginator("list_model_package_groups").paginate(
        NameContains="groups-", PaginationConfig={"PageSize": 2}
    )
    found = [[group["ModelPackageGroupName"] for group in page["ModelPackageGroupSummaryList"]] for page in pages]
    assert found == [names[:2], names[2:]]
    package = sagemaker.create_model_package(
        ModelPackageGroupName="Groups-a", InferenceSpecification=specification("v")
    )["ModelPackageArn"]
    with pytest.raises(ClientError, match=r"\(ConflictException\)"):
        sagemaker.delete_model_package_group(ModelPackageGroupName="Groups-a")
    sagemaker.delete_model_package(ModelPackageName=package)
    for name in names:
        sagemaker.delete_model_package_group(ModelPackageGroupName=name)
    with pytest.raises(ClientError, match=rf"\(ValidationException\).*ModelPackageGroup {arn} does not exist\."):
        sagemaker.describe_model_package_group(ModelPackageGroupName="Groups-a")


def test_what_is_missing_or_not_supported_is_refused(ours: Local, group: Group) -> None:
    sagemaker = ours.client("sagemaker")
    plain = {"InferenceSpecification": specification("v")}
    for request, said in (
        ({"ModelPackageGroupName": "nowhere", **plain}, "does not exist"),
        ({"ModelPackageName": "unversioned", **plain}, "not supported on one machine: ModelPackageName"),
        (plain, "Missing ARN"),
        ({"ModelPackageGroupName": group.name}, "InferenceSpecification is needed"),
        ({"ModelPackageGroupName": group.name, "Domain": "x", **plain}, "not supported on one machine: Domain"),
        (
            {"ModelPackageGroupName": group.name, "InferenceSpecification": {"Containers": [{"Image": "serving"}]}},
            "needs Image and ModelDataUrl",
        ),
    ):
        with pytest.raises(ClientError, match=rf"\(ValidationException\).*{said}"):
            sagemaker.create_model_package(**request)
    with pytest.raises(ClientError, match=r"\(ValidationException\).*does not exist"):
        sagemaker.update_model_package(ModelPackageArn=f"{PREFIX}:model-package/nowhere/1")
    raw = ours.client("sagemaker", parameter_validation=False)
    with pytest.raises(ClientError, match="enum value set"):
        raw.update_model_package(ModelPackageArn=group(), ModelApprovalStatus="Perhaps")


def test_tags(ours: Local) -> None:
    sagemaker = ours.client("sagemaker")
    arn = sagemaker.create_model_package_group(
        ModelPackageGroupName="tagged", Tags=[{"Key": "stack", "Value": "one"}, {"Key": "part", "Value": "b"}]
    )["ModelPackageGroupArn"]
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "stack", "Value": "two"}, {"Key": "owner", "Value": "inventory"}])
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["part"])
    expected = [{"Key": "owner", "Value": "inventory"}, {"Key": "stack", "Value": "two"}]
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == expected
    with pytest.raises(ClientError, match=r"\(ValidationException\).*Could not find resource"):
        sagemaker.list_tags(ResourceArn=f"{arn}-of-another")


def test_only_a_role_that_may_register_and_approve_can(
    ours: Local, group: Group, role: Callable[..., str], as_role: Callable[..., Any]
) -> None:
    own = f"{PREFIX}:model-package/{group.name}/*"
    create = {"Effect": "Allow", "Action": "sagemaker:CreateModelPackage", "Resource": own}
    approve = {"Effect": "Allow", "Action": "sagemaker:UpdateModelPackage", "Resource": own}
    look = {
        "Effect": "Allow",
        "Action": "sagemaker:DescribeModelPackageGroup",
        "Resource": f"{PREFIX}:model-package-group/{group.name}",
    }
    registers = as_role(ours, role(ours, "registers", None, create, look), "sagemaker")
    approves = as_role(ours, role(ours, "approves", None, approve), "sagemaker")
    request = {"ModelPackageGroupName": group.name, "InferenceSpecification": specification("v")}
    arn = registers.create_model_package(**request)["ModelPackageArn"]
    registers.describe_model_package_group(ModelPackageGroupName=group.name)
    approves.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    for operation, arguments in (
        (registers.update_model_package, {"ModelPackageArn": arn, "ModelApprovalStatus": "Rejected"}),
        (registers.create_model_package, {**request, "ModelPackageGroupName": "another"}),
        (registers.delete_model_package_group, {"ModelPackageGroupName": group.name}),
        (approves.create_model_package, request),
        (approves.describe_model_package, {"ModelPackageName": arn}),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            operation(**arguments)


def test_the_registry_comes_back_after_a_stop(own: Local) -> None:
    own.start_emulator()
    sagemaker = own.client("sagemaker")
    group = sagemaker.create_model_package_group(ModelPackageGroupName="back", Tags=[{"Key": "a", "Value": "b"}])
    request = {"ModelPackageGroupName": "back", "InferenceSpecification": specification("v")}
    arn = sagemaker.create_model_package(**request, ModelApprovalStatus="Approved")["ModelPackageArn"]
    before = sagemaker.describe_model_package(ModelPackageName=arn)
    assert own.down()
    own.start_emulator()
    after = sagemaker.describe_model_package(ModelPackageName=arn)
    assert {**after, "ResponseMetadata": 0} == {**before, "ResponseMetadata": 0}
    assert sagemaker.list_tags(ResourceArn=group["ModelPackageGroupArn"])["Tags"] == [{"Key": "a", "Value": "b"}]
    assert sagemaker.create_model_package(**request)["ModelPackageArn"].endswith("/back/2")
