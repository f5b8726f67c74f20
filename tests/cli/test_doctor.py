"""What `bintally stack doctor` finds wrong, look by look, and how it says so. AWS's answers are checked by Stubber."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, ClassVar

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from click.testing import CliRunner, Result
from moto import mock_aws

from cli.main import main
from deployed import doctor, looks, settings
from deployed.access import translate_refusals
from deployed.errors import StackError
from deployed.patient import Finding, Patient
from deployed.stack import Account
from local.stack import Local
from tests.docs.test_links import anchors
from tests.template.test_template import ROOT, of_type

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
LIVE = "s3://artifacts/models/m2/model.tar.gz"
IMAGE = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/bintally-serve"
DIGESTS = [f"sha256:{letter * 64}" for letter in "ab"]
SESSION: Any = boto3.Session("test", "test", region_name="eu-west-1")
translate_refusals(SESSION)

Answer = tuple[str, Any]
"""An operation, and its answer or the code of its error."""


@cache
def client(service: str) -> Any:
    return SESSION.client(service)


class Stack(Account):
    """A stack with this description and live model; everything else it asks of AWS."""

    ended = "UPDATE_COMPLETE"
    set: ClassVar[dict[str, str]] = {}
    """Parameters with another value."""

    def client(self, service: str, **config: Any) -> Any:
        return client(service)

    def describe(self) -> dict[str, Any]:
        outputs = {f"{name}StateMachine": f"arn:machine:{name}" for name in ("Release", "Retrain", "Reconcile")}
        outputs |= {"EndpointName": "bintally-serverless", "AlertsTopic": "arn:aws:sns:eu-west-1:111122223333:alerts"}
        parameters = {
            **{"CountConcurrency": "5", "ServerlessMemory": "3072", "ProvisionedConcurrency": "0"},
            **{"EndpointMode": "serverless", "InstanceType": "ml.c7i.large", "Runbook": "https://wiki/runbook"},
            **{"InstanceCount": "2", "MaximumInstances": "0", "DataCapturePercent": "0"},
            **{"DeletionProtection": "true", "DataKey": "", "ProcessingInstances": "1", "RetrainTrials": "8"},
            **{"JobInstanceType": "ml.c7i.xlarge", "TrainingInstanceType": "ml.g5.xlarge", "TrainingInstances": "1"},
            **{"TransformInstanceType": "ml.c5.xlarge", "SpotTraining": "true", "RetrainParallelTrials": "2"},
            **{"ReconcileScheduleState": "ENABLED", "RetrainScheduleState": "ENABLED"},
            **{"ServingImage": f"{IMAGE}:1", "TrainingImage": "elsewhere/train:1"},
        }
        return {
            "StackStatus": self.ended,
            "Outputs": [{"OutputKey": key, "OutputValue": value} for key, value in outputs.items()],
            "Parameters": [{"ParameterKey": k, "ParameterValue": v} for k, v in (parameters | self.set).items()],
        }

    is_live = True

    def live_model(self, outputs: dict[str, str]) -> dict[str, Any] | None:
        return {"PrimaryContainer": {"ModelDataUrl": LIVE, "Image": f"{IMAGE}@{DIGESTS[0]}"}} if self.is_live else None


def patient(**told: Any) -> Patient:
    return Patient(type("Told", (Stack,), told)("bintally"), NOW)


def found(
    look: Callable[[Patient], Iterator[Finding]], told: dict[str, Any] | None = None, /, **answers: list[Answer]
) -> list[tuple[str, str, str]]:
    """What a look finds: about, what is wrong, and the section. `answers` by service, in the order of the requests."""
    with ExitStack() as stubs:
        made = [stubs.enter_context(Stubber(client(service.replace("_", "-")))) for service in answers]
        for stub, given in zip(made, answers.values(), strict=True):
            for operation, answer in given:
                if isinstance(answer, str):
                    stub.add_client_error(operation, answer)
                else:
                    stub.add_response(operation, answer)
        findings = [(each.about, each.wrong, each.section) for each in look(patient(**(told or {})))]
        for stub in made:
            stub.assert_no_pending_responses()
    return findings


def resources(kind: str, **ids: str) -> Answer:
    """ListStackResources' answer: physical ids by logical id."""
    common = {"ResourceType": kind, "ResourceStatus": "CREATE_COMPLETE", "LastUpdatedTimestamp": NOW}
    listed = [common | {"LogicalResourceId": name, "PhysicalResourceId": value} for name, value in ids.items()]
    return "list_stack_resources", {"StackResourceSummaries": listed}


# Deployment and drift


@pytest.mark.parametrize(
    ("status", "wrong"),
    [
        ("CREATE_COMPLETE", []),
        ("UPDATE_COMPLETE", []),
        ("UPDATE_IN_PROGRESS", ["a deployment is running (UPDATE_IN_PROGRESS)"]),
        ("UPDATE_ROLLBACK_COMPLETE", ["the last deployment failed (UPDATE_ROLLBACK_COMPLETE)"]),
    ],
)
def test_the_last_deployment(status: str, wrong: list[str]) -> None:
    assert found(looks.deployment, {"ended": status}) == [("stack", each, "deployment") for each in wrong]


def drifts(*drifted: dict[str, Any], status: str = "DETECTION_COMPLETE") -> list[Answer]:
    common = {"StackId": "s", "ResourceType": "AWS::Lambda::Function", "Timestamp": NOW}
    state = {"StackId": "s", "StackDriftDetectionId": "d", "DetectionStatus": status, "Timestamp": NOW}
    listed: Answer = ("describe_stack_resource_drifts", {"StackResourceDrifts": [common | each for each in drifted]})
    return [
        resources("AWS::Lambda::Function", CountFunction="f"),
        ("detect_stack_drift", {"StackDriftDetectionId": "d"}),
        ("describe_stack_drift_detection_status", state),
        *([listed] if status == "DETECTION_COMPLETE" else []),
    ]


def test_what_was_changed_or_deleted_by_hand() -> None:
    assert found(looks.drift, cloudformation=drifts()) == []
    difference = {"PropertyPath": "/MemorySize", "ExpectedValue": "1769", "ActualValue": "512"}
    changed = {
        **{"LogicalResourceId": "CountFunction", "StackResourceDriftStatus": "MODIFIED"},
        "PropertyDifferences": [difference | {"DifferenceType": "NOT_EQUAL"}],
    }
    gone = {"LogicalResourceId": "CountQueue", "StackResourceDriftStatus": "DELETED"}
    assert found(looks.drift, cloudformation=drifts(changed, gone)) == [
        ("CountFunction", "MemorySize was changed by hand: it is 512, and the template says 1769", "drift"),
        ("CountQueue", "it was deleted by hand", "drift"),
    ]
    with pytest.raises(StackError, match="drift detection failed"):
        found(looks.drift, cloudformation=drifts(status="DETECTION_FAILED"))


# Endpoint, model, images


GONE: Answer = ("describe_endpoint", "ValidationException")
"""The answer about the endpoint of the other mode."""


def endpoint(status: str, reads: int, **capacity: Any) -> list[Answer]:
    described = {
        **{"EndpointName": "bintally-serverless", "EndpointArn": "arn:aws:sagemaker:eu-west-1:1:endpoint/e"},
        **{"EndpointStatus": status, "CreationTime": NOW, "LastModifiedTime": NOW, "EndpointConfigName": "c"},
    }
    variant = {"VariantName": "AllTraffic", "ModelName": "m"} | capacity
    config: dict[str, Any] = {
        "EndpointConfigName": "c",
        "EndpointConfigArn": "arn:aws:sagemaker:eu-west-1:1:endpoint-config/c",
    }
    config |= {"CreationTime": NOW, "ProductionVariants": [variant]}
    told: list[Answer] = [GONE, *[("describe_endpoint", described)] * reads]
    return [*told, ("describe_endpoint_config", config)] if capacity else told


def test_the_endpoint() -> None:
    serverless = {"MaxConcurrency": 5, "MemorySizeInMB": 3072}
    assert found(looks.endpoint, sagemaker=endpoint("InService", 2, ServerlessConfig=serverless)) == []
    name = "bintally-serverless"
    smaller = endpoint("InService", 2, ServerlessConfig=serverless | {"MaxConcurrency": 2})
    differs = "MaxConcurrency is 2, and the stack's parameters say 5"
    assert found(looks.endpoint, sagemaker=smaller) == [(name, differs, "endpoint")]
    failed, updating = endpoint("Failed", 2), endpoint("Updating", 2)
    assert found(looks.endpoint, sagemaker=failed) == [(name, "it is Failed: no reason given", "endpoint")]
    assert found(looks.endpoint, sagemaker=updating) == [(name, "it is Updating", "endpoint")]
    none = [GONE, GONE]
    waits = "no model was released, so photographs wait in the count queue"
    assert found(looks.endpoint, sagemaker=none) == [(name, waits, "endpoint")]
    _, *both = endpoint("InService", 3, ServerlessConfig=serverless)
    left = ("bintally-realtime", "nothing asks it: EndpointMode is serverless", "endpoint")
    assert found(looks.endpoint, sagemaker=both) == [left]


def realtime(instances: int, capacity: tuple[int, int] | None, captured: int = 0) -> dict[str, list[Answer]]:
    """An endpoint of so many instances, whose number follows its requests between the two of `capacity`."""
    *before, config = endpoint("InService", 3, InstanceType="ml.c7i.large")
    runs = before.pop()[1] | {"ProductionVariants": [{"VariantName": "AllTraffic", "DesiredInstanceCount": instances}]}
    runs["DataCaptureConfig"] = {
        **{"EnableCapture": captured > 0, "CaptureStatus": "Started", "CurrentSamplingPercentage": captured},
        **{"DestinationS3Uri": "s3://artifacts/captures/", "KmsKeyId": "k"},
    }
    target = {
        **{"ServiceNamespace": "sagemaker", "ResourceId": "endpoint/bintally-serverless/variant/AllTraffic"},
        **{"ScalableDimension": "sagemaker:variant:DesiredInstanceCount", "RoleARN": "r", "CreationTime": NOW},
    }
    targets = [target | dict(zip(("MinCapacity", "MaxCapacity"), capacity, strict=True))] if capacity else []
    return {
        "sagemaker": [*before, config, ("describe_endpoint", runs)],
        "application_autoscaling": [("describe_scalable_targets", {"ScalableTargets": targets})],
    }


SCALED = {"set": {"MaximumInstances": "6"}}


@pytest.mark.parametrize(
    ("told", "answers", "wrong"),
    [
        ({}, realtime(2, None), []),
        ({}, realtime(5, None), ["it has 5 instances, and the stack's parameters say 2"]),
        ({}, realtime(2, (2, 6)), ["it scales between 2 and 6, and the stack's parameters say not at all"]),
        (SCALED, realtime(5, (2, 6)), []),
        (SCALED, realtime(7, (2, 6)), ["it has 7 instances, and the stack's parameters say 2 to 6"]),
        (SCALED, realtime(5, None), ["it scales not at all, and the stack's parameters say between 2 and 6"]),
        (SCALED, realtime(5, (1, 6)), ["it scales between 1 and 6, and the stack's parameters say between 2 and 6"]),
        ({}, realtime(2, None, 20), ["it captures 20 % of its requests, and the stack's parameters say 0 %"]),
        ({"set": {"DataCapturePercent": "20"}}, realtime(2, None, 20), []),
    ],
)
def test_a_realtime_endpoint(told: dict[str, Any], answers: dict[str, list[Answer]], wrong: list[str]) -> None:
    expected = [("bintally-serverless", each, "endpoint") for each in wrong]
    assert found(looks.endpoint, told, **answers) == expected


def packages(**statuses: str) -> list[Answer]:
    """The registry, the newest first."""
    listed, described = [], []
    for version, status in statuses.items():
        arn = f"arn:aws:sagemaker:eu-west-1:111122223333:model-package/bintally/{version[1:]}"
        common = {"ModelPackageArn": arn, "CreationTime": NOW, "ModelPackageStatus": "Completed"}
        listed.append(common | {"ModelPackageName": version})
        containers = [{"Image": "i", "ModelDataUrl": f"s3://artifacts/models/{version}/model.tar.gz"}]
        known = {"ModelApprovalStatus": status, "CustomerMetadataProperties": {"model_version": version}}
        more = {"ModelPackageName": version, "ModelPackageStatusDetails": {"ValidationStatuses": []}}
        answer: dict[str, Any] = common | known | more | {"InferenceSpecification": {"Containers": containers}}
        described.append(("describe_model_package", answer))
    return [("list_model_packages", {"ModelPackageSummaryList": listed}), *described]


def test_the_live_model_is_the_newest_approved_one() -> None:
    pending = packages(m3="PendingManualApproval", m2="Approved")
    assert found(looks.model, sagemaker=pending) == []
    forgotten = packages(m3="Approved", m2="Approved")
    left = [("model", "version m3 is approved, and another one is live", "model")]
    assert found(looks.model, sagemaker=forgotten) == left
    rejected = packages(m2="Rejected")
    assert found(looks.model, sagemaker=rejected) == [
        ("model", "version m2 is live and not approved (Rejected)", "model")
    ]
    assert found(looks.model, {"is_live": False}) == [], "the endpoint's look says so"


def test_images() -> None:
    def image(digest: str) -> list[Answer]:
        return [("describe_images", {"imageDetails": [{"imageDigest": digest}]})]

    assert found(looks.images, ecr=image(DIGESTS[0])) == []
    pushed = f"{IMAGE}:1 is {DIGESTS[1][:19]} now, and the endpoint runs {IMAGE}@{DIGESTS[0]}"
    assert found(looks.images, ecr=image(DIGESTS[1])) == [("ServingImage", pushed, "images")]
    gone: list[Answer] = [("describe_images", "ImageNotFoundException")]
    assert found(looks.images, ecr=gone) == [("ServingImage", f"there is no image {IMAGE}:1", "images")]
    with pytest.raises(ClientError, match="ServerException"):
        found(looks.images, ecr=[("describe_images", "ServerException")])


# Mappings, queues, topic


def mapping(name: str, state: str, result: str = "OK") -> dict[str, list[Answer]]:
    """A mapping of the stack, and one of another stack."""
    ours, other = ("1" * 36, "2" * 36)
    found = [{"UUID": ours, "State": state, "LastProcessingResult": result}, {"UUID": other, "State": "Disabled"}]
    listed = resources("AWS::Lambda::EventSourceMapping", **{name: ours})
    return {"lambda": [("list_event_source_mappings", {"EventSourceMappings": found})], "cloudformation": [listed]}


def test_mappings() -> None:
    assert found(looks.mappings, **mapping("CountMapping", "Enabled")) == []
    disabled = [("CountMapping", "it is disabled, so nothing reaches its function", "mappings")]
    assert found(looks.mappings, **mapping("CountMapping", "Disabled")) == disabled
    assert found(looks.mappings, {"is_live": False}, **mapping("CountMapping", "Disabled")) == []
    failing = mapping("FollowMapping", "Enabled", "PROBLEM: Function call failed")
    assert found(looks.mappings, **failing) == [
        ("FollowMapping", "its last call failed: PROBLEM: Function call failed", "mappings")
    ]


URL = "https://sqs.eu-west-1.amazonaws.com/111122223333/"


def depth(number: int) -> Answer:
    return "get_queue_attributes", {"Attributes": {"ApproximateNumberOfMessages": str(number)}}


def age(seconds: float) -> Answer:
    points = [{"Timestamp": NOW - timedelta(minutes=5), "Maximum": 5000.0}, {"Timestamp": NOW, "Maximum": seconds}]
    return "get_metric_statistics", {"Datapoints": points}


def test_queues() -> None:
    names = {"CountDeadLetterQueue": f"{URL}dead", "CountQueue": f"{URL}count"}
    queues = resources("AWS::SQS::Queue", **names)
    assert found(looks.queues, cloudformation=[queues], sqs=[depth(0), depth(0)]) == []
    dead = [("CountDeadLetterQueue", "dead letters: 1,234", "countdeadletteralarm")]
    assert found(looks.queues, cloudformation=[queues], sqs=[depth(1234), depth(0)]) == dead
    listed = {"StackResourceSummaries": [*queues[1]["StackResourceSummaries"], *ALARM[1]["StackResourceSummaries"]]}
    told: dict[str, list[Answer]] = {
        "cloudformation": [("list_stack_resources", listed)],
        "sqs": [depth(0), depth(70)],
    }
    alarm = alarms("OK")
    assert found(looks.queues, **told, cloudwatch=[alarm, age(800)]) == [], "its alarm allows 900 seconds"
    late = [("CountQueue", "70 messages wait, the oldest for 20 minutes", "countqueueagealarm")]
    assert found(looks.queues, **told, cloudwatch=[alarm, age(1200)]) == late


def test_somebody_hears_of_alarms() -> None:
    def subscribed(*arns: str) -> list[Answer]:
        return [("list_subscriptions_by_topic", {"Subscriptions": [{"SubscriptionArn": arn} for arn in arns]})]

    assert found(looks.alerts, sns=subscribed("PendingConfirmation", "arn:aws:sns:eu-west-1:1:alerts:1")) == []
    nobody = "nobody hears of alarms: no subscription is confirmed"
    assert found(looks.alerts, sns=subscribed()) == [("AlertsTopic", nobody, "alerts")]
    pending = [("AlertsTopic", f"{nobody}, and 1 not yet", "alerts")]
    assert found(looks.alerts, sns=subscribed("PendingConfirmation")) == pending


# Schedules and runs


SUNDAYS = "cron(0 3 ? * SUN *)"


def timers(state: str = "ENABLED", changed: datetime = NOW, expression: str = SUNDAYS) -> dict[str, list[Answer]]:
    answer = {"State": state, "ScheduleExpression": expression, "LastModificationDate": changed}
    listed = resources("AWS::Scheduler::Schedule", RetrainTimer="bintally-RetrainTimer-1")
    return {"cloudformation": [listed], "scheduler": [("get_schedule", answer)]}


def test_schedules() -> None:
    assert found(looks.schedules, **timers()) == []
    by_hand = [("RetrainTimer", "it was disabled by hand, and the stack says ENABLED", "schedules")]
    assert found(looks.schedules, **timers("DISABLED")) == by_hand
    rare = [("RetrainTimer", f"it is rate(90 days), and the stack's parameters say {SUNDAYS}", "schedules")]
    assert found(looks.schedules, {"set": {"RetrainSchedule": SUNDAYS}}, **timers(expression="rate(90 days)")) == rare


def executions(status: str, age: timedelta = timedelta(days=1)) -> Answer:
    arn = "arn:aws:states:eu-west-1:111122223333:execution:bintally-retrain:1"
    one = {"executionArn": arn, "stateMachineArn": "arn", "name": "1", "status": status, "startDate": NOW - age}
    return "list_executions", {"executions": [one]}


def test_runs() -> None:
    well = executions("SUCCEEDED")
    assert found(looks.runs, **timers(), stepfunctions=[well, well, well]) == []
    running = executions("RUNNING")
    assert found(looks.runs, **timers(), stepfunctions=[running, running, running]) == []
    why: Answer = (
        "describe_execution",
        {**executions("FAILED")[1]["executions"][0], "error": "NoLabels", "cause": "none"},
    )
    reason = [("RetrainStateMachine", "the last retraining failed: NoLabels none", "runs")]
    assert found(looks.runs, **timers(), stepfunctions=[well, executions("FAILED"), why, well]) == reason


def test_a_schedule_that_starts_nothing() -> None:
    old, well = timers(changed=NOW - timedelta(days=90)), executions("SUCCEEDED")
    late = executions("SUCCEEDED", timedelta(days=15))
    said = [("RetrainTimer", "it has started nothing since 2026-11-14, and should every 7 days", "runs")]
    assert found(looks.runs, **old, stepfunctions=[well, late, well]) == said
    assert found(looks.runs, **timers(), stepfunctions=[well, late, well]) == [], "it was changed since"


@pytest.mark.parametrize(
    ("expression", "days"),
    [
        ("cron(0 3 ? * SUN *)", 7),
        ("cron(0 3 * * ? *)", 1),
        ("cron(0 3 1 * ? *)", 31),
        ("cron(0 3 ? * 6#1 *)", 31),
        ("cron(0 3 1 1 ? *)", 366),
        ("rate(12 hours)", 0.5),
        ("rate(1 day)", 1),
    ],
)
def test_the_longest_time_between_two_starts(expression: str, days: float) -> None:
    assert looks.interval(expression) == timedelta(days=days)


def test_a_schedule_that_starts_once_has_no_interval() -> None:
    assert looks.interval("at(2026-11-22T10:15:00)") is None


# Settings


class Whole(Stack):
    """A bucket, the table, a rule and a state machine in moto, as the template makes them."""

    def client(self, service: str, **config: Any) -> Any:
        return self if service == "cloudformation" else client(service)

    def get_paginator(self, name: str) -> Any:
        return self

    def paginate(self, **asked: Any) -> list[Any]:
        machine = "arn:aws:states:eu-west-1:123456789012:stateMachine:bintally-release"
        kinds = {
            settings.BUCKET: {"ImagesBucket": "images"},
            settings.TABLE: {"CountsTable": "counts"},
            settings.RULE: {"CountRule": "bintally-count"},
            settings.MACHINE: {"ReleaseStateMachine": machine},
        }
        return [resources(kind, **ids)[1] for kind, ids in kinds.items()]

    def make(self) -> None:
        s3, dynamodb, events, states = map(self.client, ("s3", "dynamodb", "events", "stepfunctions"))
        s3.create_bucket(Bucket="images", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        self.change("s3", "put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
        self.change("s3", "put_public_access_block", PublicAccessBlockConfiguration=dict.fromkeys(FLAGS, True))
        self.change("s3", "put_bucket_encryption", ServerSideEncryptionConfiguration=encrypted("AES256"))
        key = {"AttributeName": "PK"}
        dynamodb.create_table(
            TableName="counts",
            KeySchema=[key | {"KeyType": "HASH"}],
            AttributeDefinitions=[key | {"AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            DeletionProtectionEnabled=True,
        )
        recovery = {"PointInTimeRecoveryEnabled": True}
        self.change("dynamodb", "update_continuous_backups", PointInTimeRecoverySpecification=recovery)
        events.put_rule(Name="bintally-count", EventPattern='{"source": ["aws.s3"]}')
        states.create_state_machine(
            name="bintally-release", definition="{}", roleArn="arn:aws:iam::123456789012:role/r"
        )

    def change(self, service: str, operation: str, **request: Any) -> None:
        """Changes the one resource of a service."""
        named = {
            "s3": {"Bucket": "images"},
            "dynamodb": {"TableName": "counts"},
            "events": {"Name": "bintally-count"},
            "stepfunctions": {"stateMachineArn": "arn:aws:states:eu-west-1:123456789012:stateMachine:bintally-release"},
        }
        getattr(self.client(service), operation)(**named[service], **request)


FLAGS = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")


def encrypted(algorithm: str) -> dict[str, Any]:
    return {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": algorithm}}]}


@pytest.mark.parametrize(
    ("service", "operation", "request_", "about", "wrong"),
    [
        (
            *("s3", "put_bucket_versioning", {"VersioningConfiguration": {"Status": "Suspended"}}),
            *("ImagesBucket", "versioning is Suspended, and the template says Enabled"),
        ),
        (
            *("s3", "delete_public_access_block", {}),
            *("ImagesBucket", "the block of public access is off, and the template says on"),
        ),
        (
            *("s3", "put_public_access_block", {"PublicAccessBlockConfiguration": {"BlockPublicAcls": True}}),
            *("ImagesBucket", "the block of public access is partly off, and the template says on"),
        ),
        (
            *("s3", "put_bucket_encryption", {"ServerSideEncryptionConfiguration": encrypted("aws:kms")}),
            *("ImagesBucket", "encryption is aws:kms, and the template says AES256"),
        ),
        ("s3", "delete_bucket", {}, "ImagesBucket", "it was deleted by hand"),
        (
            *("dynamodb", "update_continuous_backups"),
            {"PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": False}},
            *("CountsTable", "point-in-time recovery is DISABLED, and the template says ENABLED"),
        ),
        (
            *("dynamodb", "update_table", {"DeletionProtectionEnabled": False}),
            *("CountsTable", "deletion protection is off, and the template says on"),
        ),
        (
            *("dynamodb", "update_table"),
            {
                "BillingMode": "PROVISIONED",
                "ProvisionedThroughput": {"ReadCapacityUnits": 5, "WriteCapacityUnits": 5},
            },
            *("CountsTable", "its capacity mode is provisioned, and the template says on demand"),
        ),
        ("events", "disable_rule", {}, "CountRule", "its state is DISABLED, and the template says ENABLED"),
        ("events", "delete_rule", {}, "CountRule", "it was deleted by hand"),
        ("stepfunctions", "delete_state_machine", {}, "ReleaseStateMachine", "it was deleted by hand"),
    ],
)
def test_a_setting_that_was_changed_by_hand(
    service: str, operation: str, request_: dict[str, Any], about: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [each for each in settings.SETTINGS if each.read is not settings.sends_events]  # moto does not tell
    monkeypatch.setattr(settings, "SETTINGS", known)
    with mock_aws():
        stack = Whole("bintally")
        stack.make()
        assert list(settings.settings(Patient(stack, NOW))) == []
        stack.change(service, operation, **request_)
        (only,) = settings.settings(Patient(stack, NOW))
    assert (only.about, only.wrong, only.section) == (about, wrong, "settings")
    assert "NAME" not in only.cure


@pytest.mark.parametrize(("answer", "said"), [({"EventBridgeConfiguration": {}}, "on"), ({}, "off")])
def test_the_bucket_of_photographs_sends_events(answer: dict[str, Any], said: str) -> None:
    (setting,) = (each for each in settings.SETTINGS if each.read is settings.sends_events)
    with Stubber(client("s3")) as stub:
        stub.add_response("get_bucket_notification_configuration", answer)
        assert setting.read(client("s3"), "images") == said
    assert (setting.only, setting.wanted(patient())) == ("ImagesBucket", "on")


def test_what_the_doctor_wants_is_what_the_template_says() -> None:
    for bucket in of_type(settings.BUCKET).values():
        assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
        assert bucket["PublicAccessBlockConfiguration"] == dict.fromkeys(FLAGS, True)
        (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        algorithm = rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"]
        assert algorithm == {"Fn::If": ["HasDataKey", "aws:kms", "AES256"]}
    sending = {name for name, bucket in of_type(settings.BUCKET).items() if "NotificationConfiguration" in bucket}
    (only,) = {each.only for each in settings.SETTINGS if each.only}
    assert sending == {only}
    (table,) = of_type(settings.TABLE).values()
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["DeletionProtectionEnabled"] == {"Ref": "DeletionProtection"}
    assert {rule.get("State", "ENABLED") for rule in of_type(settings.RULE).values()} == {"ENABLED"}


# Quotas and alarms


SPOT = "ml.g5.xlarge for spot training job usage"


def limits(functions: int, serverless: float, name: str = "Total concurrency of all serverless endpoints") -> Any:
    account: Answer = ("get_account_settings", {"AccountLimit": {"ConcurrentExecutions": functions}})
    listed = [{"QuotaName": name, "Value": serverless}, {"QuotaName": SPOT, "Value": 0.0}]
    defaults: Answer = ("list_aws_default_service_quotas", {"Quotas": listed[1:]})
    quotas: Answer = ("list_service_quotas", {"Quotas": listed})
    return {"lambda": [account], "service_quotas": [defaults, quotas]}


def test_quotas() -> None:
    def lacks(quota: str, has: int, needs: int) -> str:
        return f"the account's quota of {quota} is {has}, and this stack needs {needs}"

    spot = ("SageMaker", lacks(SPOT, 0, 1), "quotas")
    assert found(looks.quotas, **limits(15, 10)) == [spot]
    assert found(looks.quotas, **limits(10, 8)) == [
        ("Lambda", lacks("concurrent executions", 10, 15), "quotas"),
        spot,
        ("SageMaker", lacks("total concurrency of serverless endpoints", 8, 10), "quotas"),
    ]
    assert found(looks.quotas, **limits(15, 0, "Domains")) == [spot]
    real = {"set": {"EndpointMode": "realtime", "MaximumInstances": "3"}}
    few = limits(15, 5, "ml.c7i.large for endpoint usage")
    assert found(looks.quotas, real, **few) == [
        spot,
        ("SageMaker", lacks("ml.c7i.large for endpoint usage", 5, 6), "quotas"),
    ]


ALARM = resources("AWS::CloudWatch::Alarm", CountQueueAgeAlarm="bintally-CountQueueAgeAlarm-1")


def alarms(state: str, since: datetime = NOW - timedelta(hours=2), actions: bool = True) -> Answer:
    one = {
        **{"AlarmName": "bintally-CountQueueAgeAlarm-1", "StateValue": state, "StateUpdatedTimestamp": since},
        **{"ActionsEnabled": actions, "Threshold": 900.0},
        "AlarmDescription": "A photograph has waited. Check the mapping. https://wiki/runbook#countqueueagealarm",
    }
    return "describe_alarms", {"MetricAlarms": [one]}


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        (alarms("OK"), []),
        (alarms("ALARM"), ["it has been firing since 2026-11-29 10:00 UTC"]),
        (alarms("INSUFFICIENT_DATA"), ["it has had no data for over an hour"]),
        (alarms("INSUFFICIENT_DATA", NOW), []),
        (alarms("OK", actions=False), ["it tells nobody: its actions are disabled"]),
    ],
)
def test_alarms(answer: Answer, wrong: list[str]) -> None:
    expected = [("CountQueueAgeAlarm", each, "countqueueagealarm") for each in wrong]
    assert found(looks.alarms, cloudformation=[ALARM], cloudwatch=[answer]) == expected


def test_a_firing_alarm_says_what_it_means() -> None:
    with Stubber(client("cloudformation")) as stack, Stubber(client("cloudwatch")) as cloudwatch:
        stack.add_response(*ALARM)
        cloudwatch.add_response(*alarms("ALARM"))
        (firing,) = looks.alarms(patient())
    assert firing.cure == "A photograph has waited. Check the mapping"


# The command


def run(monkeypatch: pytest.MonkeyPatch, *words: str, **told: Any) -> Result:
    monkeypatch.setattr(Local, "from_environment", lambda: type("Told", (Stack,), told)("bintally"))
    return CliRunner(mix_stderr=False).invoke(main, ["stack", "doctor", *words])


def finding(section: str) -> Callable[[Patient], Iterator[Finding]]:
    return lambda patient: iter([Finding("CountQueue", "70 wait", "Look", section)])


def refused(patient: Patient) -> Iterator[Finding]:
    with Stubber(client("sns")) as stub:
        stub.add_client_error("list_subscriptions_by_topic", "AuthorizationError")
        yield from looks.alerts(patient)


def test_it_says_line_by_line_what_is_wrong_and_what_it_could_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"queues": finding("countqueueagealarm"), "alerts": refused, "alarms": finding("countqueueagealarm")}
    monkeypatch.setattr(doctor, "LOOKS", table)
    shown = run(monkeypatch)
    assert (shown.exit_code, shown.stderr) == (1, "")
    assert shown.stdout.splitlines() == [
        "✗ CountQueue: 70 wait. Look (https://wiki/runbook#countqueueagealarm)",
        "- not examined: alerts: missing permission sns:ListSubscriptionsByTopic",
        "1 thing is wrong. Examined: queues, alarms",
    ]
    answer = json.loads(run(monkeypatch, "--json").stdout)
    assert (answer["well"], [each["section"] for each in answer["findings"]]) == (False, ["countqueueagealarm"])
    assert list(answer["not_examined"]) == ["alerts"]


def test_a_healthy_stack_exits_0_and_one_machine_has_no_quotas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LOOKS", {"deployment": looks.deployment, "quotas": looks.quotas})
    shown = run(monkeypatch, on_aws=False)
    assert (shown.exit_code, shown.stdout) == (0, "Nothing is wrong. Examined: deployment\n")


def test_a_look_that_fails_is_named_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(patient: Patient) -> Iterator[Finding]:
        raise ClientError({"Error": {"Code": "Throttling", "Message": "Rate exceeded"}}, "ListExecutions")

    monkeypatch.setattr(doctor, "LOOKS", {"runs": fails, "deployment": looks.deployment})
    shown = run(monkeypatch)
    assert shown.exit_code == 4
    assert "- not examined: runs: ListExecutions failed: Rate exceeded (Throttling)\n" in shown.stdout
    assert shown.stdout.endswith("Nothing wrong was found. Examined: deployment\n")
    assert json.loads(run(monkeypatch, "--json").stdout)["well"] is False


def test_a_stack_of_an_older_template_is_examined_as_far_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LOOKS", {"endpoint": looks.endpoint, "deployment": looks.deployment})
    shown = run(monkeypatch, describe=lambda self: {"StackStatus": "CREATE_COMPLETE"})
    assert shown.exit_code == 4
    lacks = "the stack is older than this command and has no EndpointName. Deploy it again"
    assert shown.stdout.splitlines()[0] == f"- not examined: endpoint: {lacks}"


def test_every_section_that_a_finding_names_is_in_the_runbook() -> None:
    sections = anchors(ROOT / "docs" / "runbook.md")
    assert set(doctor.LOOKS) - {"queues", "alarms"} <= sections
    watched = {f"{name.removesuffix('Queue')}Alarm" for name in of_type("AWS::SQS::Queue") if "DeadLetter" in name}
    watched |= {f"{name}AgeAlarm" for name in of_type("AWS::SQS::Queue") if "DeadLetter" not in name}
    assert watched <= set(of_type("AWS::CloudWatch::Alarm"))
    assert {name.lower() for name in of_type("AWS::CloudWatch::Alarm")} <= sections
