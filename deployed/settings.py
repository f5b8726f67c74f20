"""Settings by which a stack keeps its data and starts its work: what the services say of them, against the template.

CloudFormation's drift detection is not asked for these: it reads every setting of a bucket or table, which takes many
more permissions.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from deployed.patient import Finding, Patient

UNSET = {"NoSuchPublicAccessBlockConfiguration", "ServerSideEncryptionConfigurationNotFoundError"}
"""Errors of S3 about a bucket that lacks the setting."""
DELETED = {"NoSuchBucket", "TableNotFoundException", "ResourceNotFoundException", "StateMachineDoesNotExist"}


class Setting(NamedTuple):
    """`read` takes a client of `service` and the resource's name. In `cure`, NAME is that name."""

    kind: str
    service: str
    name: str
    read: Callable[[Any, str], str]
    wanted: Callable[[Patient], str]
    cure: str
    is_local: bool = True
    """Whether one machine has it."""
    only: str = ""
    """The logical id of the one resource that has it; empty for all of the kind."""


def encryption(s3: Any, bucket: str) -> str:
    (rule,) = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    return str(rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"])


def blocked(s3: Any, bucket: str) -> str:
    flags = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values()
    return "on" if all(flags) and len(flags) == 4 else "partly off"


def protection(dynamodb: Any, table: str) -> str:
    return on(dynamodb.describe_table(TableName=table)["Table"].get("DeletionProtectionEnabled", False))


def billing(dynamodb: Any, table: str) -> str:
    found = dynamodb.describe_table(TableName=table)["Table"].get("BillingModeSummary", {})
    return "on demand" if found.get("BillingMode") == "PAY_PER_REQUEST" else "provisioned"


def on(value: bool) -> str:
    return "on" if value else "off"


def recovery(dynamodb: Any, table: str) -> str:
    found = dynamodb.describe_continuous_backups(TableName=table)["ContinuousBackupsDescription"]
    return str(found["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"])


def sends_events(s3: Any, bucket: str) -> str:
    return on("EventBridgeConfiguration" in s3.get_bucket_notification_configuration(Bucket=bucket))


BUCKET, TABLE, RULE, MACHINE = (
    *("AWS::S3::Bucket", "AWS::DynamoDB::Table"),
    *("AWS::Events::Rule", "AWS::StepFunctions::StateMachine"),
)
SETTINGS = (
    Setting(
        *(BUCKET, "s3", "versioning"),
        lambda s3, name: s3.get_bucket_versioning(Bucket=name).get("Status", "off"),
        lambda patient: "Enabled",
        "aws s3api put-bucket-versioning --bucket NAME --versioning-configuration Status=Enabled",
    ),
    Setting(
        *(BUCKET, "s3", "the block of public access"),
        blocked,
        lambda patient: "on",
        "aws s3api put-public-access-block --bucket NAME --public-access-block-configuration"
        " BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true",
    ),
    Setting(
        *(BUCKET, "s3", "encryption"),
        encryption,
        lambda patient: "aws:kms" if patient.parameters["DataKey"] else "AES256",
        "change it back in S3's console",
    ),
    Setting(
        *(BUCKET, "s3", "sending events to EventBridge"),
        sends_events,
        lambda patient: "on",
        "aws s3api put-bucket-notification-configuration --bucket NAME"
        " --notification-configuration EventBridgeConfiguration={}",
        only="ImagesBucket",
    ),
    Setting(
        *(TABLE, "dynamodb", "point-in-time recovery"),
        recovery,
        lambda patient: "ENABLED",
        "aws dynamodb update-continuous-backups --table-name NAME"
        " --point-in-time-recovery-specification PointInTimeRecoveryEnabled=true",
        is_local=False,
    ),
    Setting(
        *(TABLE, "dynamodb", "deletion protection"),
        protection,
        lambda patient: on(patient.parameters["DeletionProtection"] == "true"),
        "aws dynamodb update-table --table-name NAME, and --deletion-protection-enabled or its --no- form",
    ),
    Setting(
        *(TABLE, "dynamodb", "its capacity mode"),
        billing,
        lambda patient: "on demand" if patient.parameters.get("TableUnits", "0") == "0" else "provisioned",
        "deploy with another TableUnits, then with this one",
        is_local=False,
    ),
    Setting(
        *(RULE, "events", "its state"),
        lambda events, name: events.describe_rule(Name=name)["State"],
        lambda patient: "ENABLED",
        "aws events enable-rule --name NAME",
    ),
    Setting(
        *(MACHINE, "stepfunctions", "its status"),
        lambda states, arn: states.describe_state_machine(stateMachineArn=arn)["status"],
        lambda patient: "ACTIVE",
        "wait for its end, deploy without it, then with it",
    ),
)


def settings(patient: Patient) -> Iterator[Finding]:
    """Buckets, table, rules and state machines exist, and are set as the template says."""
    examined = [setting for setting in SETTINGS if setting.is_local or patient.stack.on_aws]
    for kind in dict.fromkeys(setting.kind for setting in examined):
        for about, name in patient.of_type(kind).items():
            for setting in (each for each in examined if each.kind == kind and each.only in ("", about)):
                found = value_of(setting, patient, name)
                if found is None:
                    yield Finding(about, "it was deleted by hand", "Deploy without it, then with it", "settings")
                    break
                if found != (wanted := setting.wanted(patient)):
                    wrong = f"{setting.name} is {found}, and the template says {wanted}"
                    yield Finding(about, wrong, f"Change it back: {setting.cure.replace('NAME', name)}", "settings")


def value_of(setting: Setting, patient: Patient, name: str) -> str | None:
    """None for what does not exist."""
    try:
        return setting.read(patient.client(setting.service), name)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code not in UNSET | DELETED:
            raise
        return "off" if code in UNSET else None
