"""What `bintally stack deploy` asks of AWS, docker, SAM and Git. tests/stack/test_release_model.py deploys with it."""

import dataclasses
import json
import os
import re
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import botocore.session
import click
import pytest
from botocore.loaders import create_loader
from botocore.model import OperationModel, ServiceModel
from botocore.validate import validate_parameters
from click.testing import CliRunner, Result
from moto import mock_aws
from samcli.cli.types import CfnParameterOverridesType
from samtranslator.yaml_helper import yaml_parse

import cli.stack_destroy
import cli.targets
import deployed.stack
from cli.main import main
from cli.targets import PACKAGE
from deployed import deploying, destroying, images, quotas, rehearsal
from deployed.deploying import Wanted, defaults, sections
from deployed.errors import DeployFailed, DestroyFailed
from deployed.images import IMAGES, SERVING, TRAINING
from deployed.kept import empty
from deployed.rehearsal import Rehearsal
from deployed.shell import Rehearsing, Shell
from deployed.shipping import package_version
from deployed.target import NAMES, Target
from deployed.version import RUNBOOK, page
from local.stack import REPOSITORY
from tests.stack.people import policy
from tests.template.test_template import source, translated

REGISTRY = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
GIVEN: dict[str, Any] = {"serving_image": "serve:1", "training_image": "train:1", "built": Path("built.yaml")}


MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Quiet(Shell):
    """Runs nothing, and remembers the commands."""

    def __init__(self, folder: Path = REPOSITORY) -> None:
        super().__init__(folder, folder)
        object.__setattr__(self, "ran", [])

    def run(self, *words: str, log: str, secret: str | None = None) -> None:
        self.ran.append(words)  # type: ignore[attr-defined]


LOADER = create_loader()  # one: a new session reads every service's model again


@pytest.fixture(scope="module", autouse=True)
def nobody() -> Iterator[None]:
    """No profile, region, keys or instance of whoever runs the tests."""

    def session(profile_name: str | None = None, region_name: str | None = None) -> boto3.Session:
        core = botocore.session.Session(profile=profile_name)
        core.register_component("data_loader", LOADER)
        return boto3.Session(botocore_session=core, region_name=region_name)

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name in ("CONFIG_FILE", "SHARED_CREDENTIALS_FILE"):
            patch.setenv(f"AWS_{name}", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setattr(deployed.stack, "boto3", SimpleNamespace(Session=session))
        yield


def run(*words: str, stack: str = "bins", region: str = "eu-central-1") -> Result:
    command = ["--stack", stack, "--region", region, "stack", *words]
    return CliRunner(mix_stderr=False).invoke(main, command, catch_exceptions=False)


# The dry run


@pytest.fixture(scope="module")
def rehearsed(nobody: None) -> SimpleNamespace:
    """The calls and the lines of a dry run in a new account, without credentials."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "git", lambda folder, *words: "" if words[0] == "status" else "a tree")
        made = Rehearsal(click.echo)
        patch.setattr(cli.targets, "Rehearsal", lambda say: made)
        shown = run("deploy", "--dry-run", "--email", "ops@example.com", "--environment", "staging")
    assert shown.exit_code == 0, shown.stderr
    return SimpleNamespace(calls=made.calls, lines=shown.stdout.splitlines())


def test_a_dry_run_has_every_step_in_order(rehearsed: SimpleNamespace) -> None:
    calls = [name for name, _ in rehearsed.calls]
    order = (
        *("sts:GetCallerIdentity", "ecr:CreateRepository", "sns:Subscribe", "sagemaker:CreateModelPackage"),
        "dynamodb:Query",
    )
    assert [calls.index(name) for name in order] == sorted(calls.index(name) for name in order)
    commands = [re.sub(r" .*", "", line.strip().replace(" ", "-", 1)) for line in rehearsed.lines]
    assert [word for word in commands if word.startswith(("docker-", "sam-"))] == [
        *("docker-version", "docker-buildx"),
        *("docker-login", "docker-buildx", "docker-push") * 2,
        *("sam-build", "sam-deploy"),
    ]
    assert rehearsed.lines[-1] == "Nothing was changed."


def test_a_dry_run_prints_every_call_with_its_parameters(rehearsed: SimpleNamespace) -> None:
    printed = "\n".join(rehearsed.lines)
    for name, parameters in rehearsed.calls:
        service, operation = name.split(":")
        assert f"  {service} {operation} {{" in printed
        assert all(f'"{key}"' in printed for key in parameters)


def test_the_printed_parameters_are_those_of_the_services_models(rehearsed: SimpleNamespace) -> None:
    for name, parameters in rehearsed.calls:
        if shape := operation_of(name).input_shape:
            validate_parameters(parameters, shape)


def operation_of(name: str) -> OperationModel:
    """Of `service:Operation`."""
    service, operation = name.split(":")
    model = ServiceModel(LOADER.load_service_model(service, "service-2"), service)
    return model.operation_model(operation)


def test_the_command_lines_name_environment_images_and_tags(rehearsed: SimpleNamespace) -> None:
    (line,) = (line for line in rehearsed.lines if line.startswith("  sam deploy "))
    for words in (
        *("--stack-name bins", "--region eu-central-1", "--config-env staging", "--s3-prefix bins"),
        *("--tags bintally-stack=bins", "DeletionProtection=false", f"ServingImage={REGISTRY}/bintally-serve:"),
    ):
        assert words in line, words
    (build,) = (line for line in rehearsed.lines if "--file model/Dockerfile" in line)
    assert "--platform linux/amd64 --provenance=false --output type=docker" in build


def test_a_new_stack_is_protected_once_it_is_there(nobody: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """CloudFormation could not take back a first deployment that fails."""
    monkeypatch.setattr(images, "git", lambda folder, *words: "" if words[0] == "status" else "a tree")
    shown = run("deploy", "--dry-run", "--environment", "production")
    said = re.findall(r"^  sam deploy .*DeletionProtection=(\w+)", shown.stdout, re.MULTILINE)
    assert said == ["false", "true"]
    for status, expected in (("UPDATE_COMPLETE", ["true"]), ("REVIEW_IN_PROGRESS", ["false", "true"])):
        shell = Quiet()
        deploying.deploy(account(StackStatus=status), Wanted(REPOSITORY, **GIVEN), shell, print, print)
        ran: list[tuple[str, ...]] = shell.ran  # type: ignore[attr-defined]
        assert [word.partition("=")[2] for words in ran for word in words if "Protection=" in word] == expected


def test_a_failed_stack_that_cannot_be_removed_ends_the_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploying, "delete_stack", lambda stack, found: "DELETE_FAILED")
    shell = Quiet()
    with pytest.raises(DeployFailed, match="bins is DELETE_FAILED"):
        deploying.deploy(account(StackStatus="ROLLBACK_FAILED"), Wanted(REPOSITORY, **GIVEN), shell, print, print)
    assert not any("deploy" in words for words in shell.ran)  # type: ignore[attr-defined]


# The runbook's address


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.example.com/ops/bintally.git", "https://github.example.com/ops/bintally"),
        # pragma: allowlist nextline secret
        ("https://someone:secret@github.example.com/ops/bintally", "https://github.example.com/ops/bintally"),
        ("https://gitlab.example.com:8443/a/b/bintally/", "https://gitlab.example.com:8443/a/b/bintally"),
        ("git@github.example.com:ops/bintally.git", "https://github.example.com/ops/bintally"),
        ("ssh://git@gitlab.example.com:2222/ops/bintally.git", "https://gitlab.example.com/ops/bintally"),
        ("https://git.example.com/ops/bintally.git", None),  # who knows what its pages are
        ("https://github.example.com", None),
        ("http://github.example.com/ops/bintally", None),
        ("/srv/github/bintally", None),
        ("../github:bintally", None),
        ("", None),
    ],
)
def test_the_page_of_a_file_at_the_host_of_the_remote(remote: str, address: str | None) -> None:
    wanted = address and f"{address}/blob/46a7e43/docs/runbook.md"
    assert page(remote, "46a7e43", "docs/runbook.md") == wanted


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository of one commit, with a remote that does not have it."""
    who = ("-c", "user.name=x", "-c", "user.email=x@example.com")
    for words in (
        ("init", "--quiet"),
        (*who, "commit", "--quiet", "--allow-empty", "--message", "first"),
        ("remote", "add", "origin", "git@github.example.com:ops/bintally.git"),
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


def deployed_runbook(folder: Path, *parameters: tuple[str, str]) -> str | None:
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters]
    return deploying.runbook_of(account(Parameters=given), Wanted(folder)).get("Runbook")


def test_alarms_link_the_page_of_the_commit_that_is_deployed(clone: Path) -> None:
    assert deployed_runbook(clone) is None, "nobody could read it"
    subprocess.run(["git", "update-ref", "refs/remotes/origin/main", "HEAD"], cwd=clone, check=True)
    commit = (clone / ".git" / "refs" / "remotes" / "origin" / "main").read_text().strip()
    address = f"https://github.example.com/ops/bintally/blob/{commit}/docs/runbook.md"
    assert deployed_runbook(clone) == address
    assert re.fullmatch(source()["Parameters"]["Runbook"]["AllowedPattern"], address)
    assert source()["Parameters"]["Runbook"]["Default"] == RUNBOOK
    assert deployed_runbook(clone, ("Runbook", "docs/runbook.md")) == address
    before = address.replace(commit, "0" * 40)
    assert deployed_runbook(clone, ("Runbook", before)) == address, "it moves with each deployment"
    for chosen in ("https://wiki.example.com/runbook", address.replace(commit, "main")):
        assert deployed_runbook(clone, ("Runbook", chosen)) is None, chosen


def test_no_repository_has_no_page(tmp_path: Path) -> None:
    assert deployed_runbook(tmp_path) is None


# What a dry run says of permissions

IAM = {
    "s3:ListObjectVersions": {"s3:ListBucketVersions"},
    "s3:ListMultipartUploads": {"s3:ListBucketMultipartUploads"},
    "s3:DeleteObjects": {"s3:DeleteObject", "s3:DeleteObjectVersion"},
}
"""Actions whose names differ from the operation's."""
BESIDES = {"states:DescribeExecution", "states:ListExecutions"}  # a dry run does not wait for a release
BESIDES |= {"ecr:TagResource", "iam:PassRole"}  # of CreateRepository's tags, and of --role
SAM = {f"cloudformation:{name}" for name in ("CreateChangeSet", "DescribeChangeSet", "ExecuteChangeSet")}
SAM |= {f"cloudformation:{name}" for name in ("DescribeStackEvents", "GetTemplateSummary")}
SAM |= {f"s3:{name}" for name in ("CreateBucket", "GetObject", "ListBucket", "PutBucketPolicy", "PutBucketTagging")}
SAM |= {f"s3:{name}" for name in ("PutBucketPublicAccessBlock", "PutBucketVersioning", "PutEncryptionConfiguration")}
DOCKER = {"ecr:InitiateLayerUpload", "ecr:UploadLayerPart", "ecr:CompleteLayerUpload", "ecr:PutImage"}
DOCKER |= {"ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"}


def allowed(name: str) -> set[str]:
    """The actions of a policy in docs/deploying.md."""
    found: set[str] = set()
    for statement in json.loads(policy(name, "bins"))["Statement"]:
        found |= {statement["Action"]} if isinstance(statement["Action"], str) else set(statement["Action"])
    return found


def asked(calls: list[tuple[str, Any]]) -> set[str]:
    """The IAM actions of calls; the caller's identity needs none."""
    found: set[str] = set()
    for name in {name for name, _ in calls}:
        action = f"{operation_of(name).service_model.signing_name}:{name.split(':')[1]}"
        found |= IAM.get(action, {action})
    return found - {"sts:GetCallerIdentity"}


def test_a_deployment_is_allowed_what_it_calls_and_no_more(rehearsed: SimpleNamespace) -> None:
    again = account(StackStatus="ROLLBACK_COMPLETE")
    deploying.deploy(again, Wanted(REPOSITORY, **GIVEN), Quiet(), print, print)
    calls = [*rehearsed.calls, *again.rehearsal.calls]
    assert asked(calls) | BESIDES | SAM | DOCKER == allowed("deploy")


@pytest.fixture(scope="module")
def removed(nobody: None) -> list[tuple[str, Any]]:
    """The calls of a removal with all data and images."""
    stack = account()
    found = destroying.find(stack)
    assert found is not None
    assert len(list(destroying.what_is_kept(stack, found))) == 5
    assert len(list(destroying.images_left(stack))) == 2
    destroying.destroy(stack, found, data=True, images=True, say=print, note=print)
    calls: list[tuple[str, Any]] = stack.rehearsal.calls
    return calls


def test_a_removal_is_allowed_what_it_calls_and_no_more(removed: list[tuple[str, Any]]) -> None:
    assert asked(removed) == allowed("destroy")
    for name, parameters in removed:
        if shape := operation_of(name).input_shape:
            validate_parameters(parameters, shape)


def test_the_role_of_cloudformation_may_use_every_service_of_the_template() -> None:
    kinds = {
        resource["Type"] for resource in yaml_parse((REPOSITORY / "template.yaml").read_text())["Resources"].values()
    }
    services = {"apigatewayv2": "apigateway", "stepfunctions": "states", "cognito": "cognito-idp"}
    services |= {"applicationautoscaling": "application-autoscaling"}
    names = {kind.split("::")[1].lower() for kind in kinds if kind.startswith("AWS::")} - {"serverless"}
    wanted = {services.get(name, name) for name in names} | {"lambda", "states"}
    assert {action.split(":")[0] for action in allowed("cloudformation")} == wanted | {"cloudformation"}


MANAGED: dict[str, tuple[str, str, str]] = {
    "ApiGatewayV2": ("apigateway:POST apigateway:PATCH apigateway:DELETE apigateway:TagResource", "", "/apis/x"),
    "ApplicationAutoScaling": ("application-autoscaling:RegisterScalableTarget", "", "scalable-target/x"),
    "Budgets": ("budgets:ModifyBudget budgets:ViewBudget", "", "budget/x"),
    "CloudWatch::Alarm": ("cloudwatch:PutMetricAlarm cloudwatch:TagResource", "", "alarm:bins-CountErrorsAlarm-X"),
    "CloudWatch::Dashboard": (
        *("cloudwatch:PutDashboard cloudwatch:GetDashboard cloudwatch:DeleteDashboards", "no region"),
        "dashboard/bins-us-east-1",
    ),
    "Cognito": ("cognito-idp:CreateUserPool cognito-idp:CreateGroup cognito-idp:TagResource", "", "userpool/x"),
    "DynamoDB": ("dynamodb:CreateTable dynamodb:TagResource", "", "table/bins-CountsTable-X"),
    "Events": ("events:PutRule events:PutTargets events:TagResource", "", "rule/bins-CountRule-X"),
    "IAM": ("iam:CreateRole iam:PutRolePolicy iam:PassRole iam:TagRole", "no region", "role/bins-CountRole-X"),
    "Lambda::EventSourceMapping": (
        *("lambda:CreateEventSourceMapping lambda:TagResource lambda:ListTags", ""),
        "event-source-mapping:7f0e",
    ),
    "Lambda": ("lambda:CreateFunction lambda:AddPermission lambda:TagResource", "", "function:bins-CountFunction-X"),
    "Logs::LogGroup": ("logs:CreateLogGroup logs:PutRetentionPolicy logs:TagResource", "", "log-group:{group}"),
    "Logs::QueryDefinition": (
        *("logs:PutQueryDefinition logs:DescribeQueryDefinitions logs:DeleteQueryDefinition", ""),
        "query-definition:x",
    ),
    "S3": (
        "s3:CreateBucket s3:PutBucketPolicy s3:PutLifecycleConfiguration s3:PutBucketTagging",
        "no account",
        "bins-x",
    ),
    "SNS": ("sns:CreateTopic sns:SetTopicAttributes sns:TagResource", "", "bins-AlertsTopic-X"),
    "SQS": ("sqs:CreateQueue sqs:SetQueueAttributes sqs:TagQueue", "", "bins-CountQueue-X"),
    "SageMaker": ("sagemaker:CreateModelPackageGroup sagemaker:AddTags", "", "model-package-group/bins"),
    "Scheduler": ("scheduler:CreateSchedule scheduler:DeleteSchedule", "", "schedule/default/bins-RetrainTimer-X"),
    "StepFunctions": ("states:CreateStateMachine states:TagResource", "", "stateMachine:bins-retrain"),
}
"""By the beginning of a resource's type: some of the actions by which CloudFormation makes it, and what it makes."""


def test_the_role_of_cloudformation_may_make_every_resource_of_the_template() -> None:
    statements = json.loads(policy("cloudformation", "bins"))["Statement"]

    def may(action: str, arn: str) -> bool:
        return any(
            any(fnmatchcase(action, each) for each in listed(statement["Action"]))
            and any(fnmatchcase(arn, each) for each in listed(statement["Resource"]))
            for statement in statements
        )

    for logical_id, resource in translated()["Resources"].items():
        kind = resource["Type"].removeprefix("AWS::")
        if kind.startswith("Custom::"):
            continue
        found = max((each for each in MANAGED if kind.startswith(each)), key=len)
        actions, without, name = MANAGED[found]
        group = resource.get("Properties", {}).get("LogGroupName", {"Fn::Sub": "${AWS::StackName}-Group-X"})
        name = name.format(group=str(group.get("Fn::Sub")).replace("${AWS::StackName}", "bins"))
        for action in actions.split():
            region = "" if without else "us-east-1"
            account = "" if without == "no account" else "000000000000"
            arn = f"arn:aws:{action.split(':')[0]}:{region}:{account}:{name}"
            assert may(action, arn), (logical_id, action, arn)


def test_the_role_of_cloudformation_may_make_the_roles_of_all_that_scales() -> None:
    """Application Auto Scaling makes one for each service, with the first target of an account."""
    resources = translated()["Resources"].values()
    scaled = {
        each["Properties"]["ServiceNamespace"]
        for each in resources
        if each["Type"] == "AWS::ApplicationAutoScaling::ScalableTarget"
    }
    (statement,) = (
        each
        for each in json.loads(policy("cloudformation", "bins"))["Statement"]
        if each["Action"] == "iam:CreateServiceLinkedRole"
    )
    roles = "arn:aws:iam::000000000000:role/aws-service-role/{}.application-autoscaling.amazonaws.com/*"
    assert statement["Resource"] == [roles.format(name) for name in sorted(scaled)]


def listed(found: str | list[str]) -> list[str]:
    return [found] if isinstance(found, str) else found


OUTPUTS = {name: Target("bins", region="eu-central-1").expected(name) for name in NAMES}
KEPT = {"ImagesBucket": "S3::Bucket", "ArtifactsBucket": "S3::Bucket", "CountsTable": "DynamoDB::Table"}
EXISTING: dict[str, Any] = {
    **rehearsal.NEW_ACCOUNT,
    "ecr:DescribeRepositories": {},
    "sagemaker:DescribeEndpoint": {"EndpointStatus": "InService", "EndpointConfigName": "bins-serverless-01234567"},
    "sagemaker:DescribeEndpointConfig": {"ProductionVariants": [{"ModelName": "bins-serverless-01234567"}]},
    "sagemaker:DescribeModel": {"PrimaryContainer": {"ModelDataUrl": "s3://artifacts/models/1/model.tar.gz"}},
    "sagemaker:ListModelPackages": {"ModelPackageSummaryList": [{"ModelPackageArn": "arn:aws:sagemaker:::bins/1"}]},
    "sagemaker:DescribeModelPackage": {
        "CustomerMetadataProperties": {"model_version": package_version(PACKAGE)},
        "ModelApprovalStatus": "Approved",
    },
    "lambda:GetEventSourceMapping": {"State": "Enabled"},
    "cloudformation:ListStacks": {
        "StackSummaries": [{"StackName": "bins", "StackId": "old"}, {"StackName": "bins-two", "StackId": "other"}]
    },
    "cloudformation:DescribeStackEvents": {
        "StackEvents": [
            {"EventId": "1", "ResourceStatus": "DELETE_SKIPPED", "ResourceType": "AWS::S3::Bucket"}
            | {"LogicalResourceId": "ImagesBucket", "PhysicalResourceId": "bins-old"}
        ]
    },
    "cloudformation:ListStackResources": {
        "StackResourceSummaries": [
            {"LogicalResourceId": name, "ResourceType": f"AWS::{kind}", "PhysicalResourceId": OUTPUTS[name]}
            for name, kind in {**KEPT, "ReleaseStateMachine": "StepFunctions::StateMachine"}.items()
        ]
        + [
            {
                "LogicalResourceId": "CountLogGroup",
                "ResourceType": "AWS::Logs::LogGroup",
                "PhysicalResourceId": "bins-x",
            }
        ]
        + [{"LogicalResourceId": "UserPool", "ResourceType": "AWS::Cognito::UserPool", "PhysicalResourceId": "eu_1"}]
        + [{"LogicalResourceId": "NeverMade", "ResourceType": "AWS::S3::Bucket"}]
    },
    "stepfunctions:ListExecutions": {"executions": [{"executionArn": "arn:aws:states:::execution:bins-release:1"}]},
    "logs:DescribeLogGroups": {
        "logGroups": [
            {"logGroupName": f"/aws/sagemaker/Endpoints/{name}"} for name in ("bins-realtime", "bins-two-realtime")
        ]
    },
    "logs:DescribeLogStreams": {
        "logStreams": [{"logStreamName": "bins-261122-0123ab-train/1"}, {"logStreamName": "x"}]
    },
    "s3:ListObjectVersions": {"Versions": [{"Key": "a", "VersionId": "1"}], "DeleteMarkers": []},
    "s3:ListMultipartUploads": {"Uploads": [{"Key": "a", "UploadId": "1"}]},
    "dynamodb:DescribeTable": {"Table": {"TableSizeBytes": 1_000_000}},
    "cognito-idp:DescribeUserPool": {"UserPool": {"EstimatedNumberOfUsers": 3}},
    "sagemaker:ListProcessingJobs": {"ProcessingJobSummaries": [{"ProcessingJobName": "bins-261122-0123ab-process"}]},
    "sagemaker:ListHyperParameterTuningJobs": {
        "HyperParameterTuningJobSummaries": [{"HyperParameterTuningJobName": "bins-261122-0123ab"}]
    },
    "sagemaker:ListTrainingJobs": {"TrainingJobSummaries": [{"TrainingJobName": "bins-261122-0123ab-train"}]},
    "sagemaker:ListTransformJobs": {"TransformJobSummaries": [{"TransformJobName": "bins-261122-0123ab-champion"}]},
    "sagemaker:ListEndpoints": {
        "Endpoints": [{"EndpointName": name} for name in ("bins-serverless", "bins-two-realtime")]
    },
    "sagemaker:ListEndpointConfigs": {"EndpointConfigs": [{"EndpointConfigName": "bins-serverless-01234567-89abcdef"}]},
    "sagemaker:ListModels": {
        "Models": [{"ModelName": f"{name}-01234567"} for name in ("bins-realtime", "bins-two-realtime")]
    },
    "sagemaker:DescribeModelPackageGroup": {},
}
"""The answers about a stack that is deployed, whose every list has something."""


def account(**stack: Any) -> Any:
    """A stack in a dry run, deployed before."""
    outputs = [{"OutputKey": name, "OutputValue": value} for name, value in OUTPUTS.items()]
    sam = [{"OutputKey": "SourceBucket", "OutputValue": "aws-sam-cli-managed-default-1"}]
    described = {"StackName": "bins", "StackId": "bins/1", "StackStatus": "UPDATE_COMPLETE", "Outputs": outputs + sam}
    answers = EXISTING | {"cloudformation:DescribeStacks": {"Stacks": [described | stack]}}
    return Target("bins", region="eu-central-1", package=PACKAGE, rehearsal=Rehearsal(print, answers=answers))


def test_a_removal_touches_nothing_of_a_stack_whose_name_begins_the_same(removed: list[tuple[str, Any]]) -> None:
    changed = [call for call in removed if not rehearsal.READS.match(call[0].split(":")[1])]
    assert len(changed) > 20
    assert not [call for call in changed if "bins-two" in json.dumps(call)]
    assert (
        "logs:DeleteLogStream",
        {"logGroupName": "/aws/sagemaker/TrainingJobs", "logStreamName": "x"},
    ) not in changed


def test_a_removal_keeps_data_and_images_unless_told() -> None:
    stack = account()
    found = destroying.find(stack)
    assert found is not None
    destroying.destroy(stack, found, data=False, images=False, say=print, note=print)
    deleted = {name for name, _ in stack.rehearsal.calls if ":Delete" in name}
    assert not deleted & {"s3:DeleteBucket", "dynamodb:DeleteTable", "cognito-idp:DeleteUserPool"}
    assert "ecr:DeleteRepository" not in deleted
    (objects,) = [parameters for name, parameters in stack.rehearsal.calls if name == "s3:DeleteObjects"]
    assert objects["Bucket"] == "aws-sam-cli-managed-default-1"


def test_a_removal_with_data_leaves_the_locked_trail_and_says_so() -> None:
    stack, said = account(), []  # type: ignore[var-annotated]
    found = destroying.find(stack)
    assert found is not None
    resources = found.resources | {destroying.LOCKED: ("AWS::S3::Bucket", "bins-trailbucket-1")}
    locked = dataclasses.replace(found, resources=resources)
    assert locked.kept() == found.kept()
    destroying.destroy(stack, locked, data=True, images=False, say=print, note=said.append)
    deleted = [parameters["Bucket"] for name, parameters in stack.rehearsal.calls if name == "s3:DeleteBucket"]
    assert len(deleted) > 1 and "bins-trailbucket-1" not in deleted
    assert any(line.startswith("bucket bins-trailbucket-1 stays") for line in said)


# What is asked before anything happens


@pytest.mark.parametrize(
    ("typed", "code", "says", "deletes"),
    [
        (None, 2, "say what becomes of photographs, counts and people: --keep-data or --delete-data", None),
        ("other\n", 1, "other is not bins. Nothing was removed", None),
        ("\n", 0, "", False),
        ("bins\n", 0, "", True),
    ],
    ids=["no terminal", "another name", "nothing", "the name"],
)
def test_photographs_go_only_when_the_name_is_typed(
    monkeypatch: pytest.MonkeyPatch, typed: str | None, code: int, says: str, deletes: bool | None
) -> None:
    stack = account()
    monkeypatch.setattr(cli.stack_destroy, "target", lambda dry_run: stack)
    if typed is not None:
        monkeypatch.setattr(cli.stack_destroy, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    words = ["--stack", "bins", "--region", "eu-central-1", "stack", "destroy"]
    shown = CliRunner(mix_stderr=False).invoke(main, words, input=typed)
    assert shown.exit_code == code, shown.output
    assert says in shown.stderr
    assert f"bucket {OUTPUTS['ImagesBucket']} (objects)" in shown.stdout
    asked_for = {name for name, _ in stack.rehearsal.calls}
    assert ("cloudformation:DeleteStack" in asked_for) is (deletes is not None)
    assert ("s3:DeleteBucket" in asked_for) is bool(deletes)


@pytest.mark.parametrize(
    ("stack", "region", "more", "code", "says"),
    [
        ("a-name-of-19-letters", "eu-central-1", [], 2, "has 20 characters. Retraining takes at most 18"),
        ("1bins", "eu-central-1", [], 2, "1bins is no name of a stack"),
        ("Bins", "eu-central-1", [], 2, "Bins is no name of a stack: lower-case letters"),
        ("bins", "mars-1", [], 1, "mars-1 is no region of AWS that has SageMaker and Cognito"),
        ("bins", "eu-central-1", ["--set", "Colour=red"], 1, "the template has no parameter Colour"),
        ("bins", "eu-central-1", ["--set", "Colour"], 2, "Colour is not Name=value"),
    ],
)
def test_a_deployment_that_cannot_work_is_one_line(
    stack: str, region: str, more: list[str], code: int, says: str
) -> None:
    shown = run("deploy", "--dry-run", *more, stack=stack, region=region)
    assert shown.exit_code == code
    assert says in shown.stderr
    assert "CreateRepository" not in shown.stdout


def test_without_a_stack_it_is_wrong_use() -> None:
    shown = CliRunner(mix_stderr=False, env={"BINTALLY_STACK": None}).invoke(main, ["stack", "destroy"])
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert shown.stderr.startswith("Error: this is for a stack on AWS. Name it: bintally --stack NAME")


def test_a_removal_needs_to_see_the_account() -> None:
    shown = run("destroy", "--dry-run")
    assert shown.exit_code == 1
    assert "without AWS credentials nobody knows what the account has" in shown.stderr


@pytest.mark.parametrize("status", ["UPDATE_IN_PROGRESS", "UPDATE_ROLLBACK_FAILED", "DELETE_FAILED"])
def test_a_stack_that_takes_no_change_is_told(status: str) -> None:
    with pytest.raises(DeployFailed, match=f"stack bins is {status}"):
        deploying.check(account(StackStatus=status), Wanted(REPOSITORY, **GIVEN), Quiet(), print)


def test_the_environments_set_parameters_of_the_template() -> None:
    for name in sections(REPOSITORY):
        assert Wanted(REPOSITORY, name).settings().keys() <= defaults(REPOSITORY).keys()
    wanted = Wanted(REPOSITORY, "staging", {"LogRetentionDays": "1", "CountConcurrency": "3"})
    assert wanted.settings()["LogRetentionDays"] == "1"
    assert wanted.settings()["RetrainScheduleState"] == "DISABLED"


def test_small_quotas_are_told_with_what_is_needed() -> None:
    quota = [
        {"QuotaName": "Maximum total concurrency that can be allocated across all serverless endpoints", "Value": 5.0},
        {"QuotaName": "ml.g5.xlarge for spot training job usage", "Value": 0.0},
        {"QuotaName": "ml.c7i.xlarge for processing job usage", "Value": 4.0},
    ]
    answers = rehearsal.NEW_ACCOUNT | {
        "service-quotas:ListAWSDefaultServiceQuotas": {"Quotas": [*quota[:2], quota[2] | {"Value": 0.0}]},
        "service-quotas:ListServiceQuotas": {"Quotas": quota[1:]},  # of the others nobody ever asked for more
        "lambda:GetAccountSettings": {"AccountLimit": {"ConcurrentExecutions": 10}},
    }
    stack = Target("bins", region="eu-central-1", rehearsal=Rehearsal(print, answers=answers))
    assert list(quotas.short(stack, defaults(REPOSITORY))) == [
        "Lambda's quota of concurrent executions is 10; this stack needs 15",
        "SageMaker's quota of ml.g5.xlarge for spot training job usage is 0; this stack needs 1",
        "SageMaker's quota of total concurrency of serverless endpoints is 5; this stack needs 10",
    ]


@pytest.mark.parametrize(("count", "maximum", "needs"), [(2, 0, 4), (2, 9, 18), (3, 2, 6)])
def test_a_release_needs_twice_the_instances_that_the_endpoint_may_have(count: int, maximum: int, needs: int) -> None:
    """It keeps the number that target tracking has come to."""
    instances = {"InstanceCount": str(count), "MaximumInstances": str(maximum)}
    wanted = quotas.needed(defaults(REPOSITORY) | {"EndpointMode": "realtime"} | instances)
    assert wanted["ml.c7i.large for endpoint usage"] == needs


def test_warm_instances_need_a_quota_of_their_own() -> None:
    wanted = quotas.needed(defaults(REPOSITORY) | {"ProvisionedConcurrency": "2"})
    assert wanted["total provisioned concurrency of serverless endpoints"] == 4
    sentence = "Total Provisioned Concurrency that can be allocated across all serverless endpoints"
    assert quotas.name_of(sentence) in wanted


def test_a_realtime_endpoint_is_large_enough_and_scales_once_it_is_there() -> None:
    noted: list[str] = []

    def check(now: dict[str, str], **given: str) -> None:
        deploying.check_endpoint(defaults(REPOSITORY) | {"EndpointMode": "realtime"} | given, now, noted.append)

    check({})
    check({}, EndpointMode="serverless", MaximumInstances="4", CountConcurrency="100")
    assert noted == []
    check({}, CountConcurrency="100")
    assert noted == [
        "CountConcurrency of 100 asks for up to 3,470 photographs a second, and 2 instances answer some 200. "
        "The rest waits in the queue: docs/scaling.md"
    ]
    for now in ({}, {"EndpointMode": "serverless"}):
        with pytest.raises(DeployFailed, match=r"Deploy with MaximumInstances=0, then set it"):
            check(now, MaximumInstances="4")
    check({"EndpointMode": "realtime"}, MaximumInstances="4")


def test_quotas_that_may_not_be_read_only_warn() -> None:
    refused = rehearsal.missing("AccessDeniedException")
    answers = rehearsal.NEW_ACCOUNT | dict.fromkeys(
        ("service-quotas:ListAWSDefaultServiceQuotas", "lambda:GetAccountSettings"), refused
    )
    stack = Target("bins", region="eu-central-1", rehearsal=Rehearsal(print, answers=answers))
    assert list(quotas.short(stack, defaults(REPOSITORY))) == [
        "Lambda's quotas are not checked: missing permission lambda:GetAccountSettings",
        "SageMaker's quotas are not checked: missing permission servicequotas:ListAWSDefaultServiceQuotas",
    ]


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On the path are git, sam, and then a docker without buildx."""
    for tool in ("git", "sam"):
        (tmp_path / tool).symlink_to("/bin/true")
    shell = Shell(tmp_path, tmp_path / "logs")
    monkeypatch.setattr(Shell, "environment", lambda self: {"PATH": str(tmp_path)})
    stack = Target("bins", region="eu-central-1")
    with pytest.raises(DeployFailed, match=r"^docker is missing here\. Install it, or give --serving-image and"):
        deploying.check_tools(stack, Wanted(REPOSITORY), shell, print)
    docker = '#!/bin/sh\n[ "$1" = version ] || { echo "docker: unknown command: docker $1"; exit 1; }\n'
    (tmp_path / "docker").write_text(docker)
    (tmp_path / "docker").chmod(0o755)
    with pytest.raises(
        DeployFailed, match=r"^docker buildx failed: docker: unknown command: .*Install buildx, or give"
    ):
        deploying.check_tools(stack, Wanted(REPOSITORY), shell, print)
    deploying.check_tools(stack, Wanted(REPOSITORY, **GIVEN), shell, print)


@pytest.mark.parametrize(
    ("words", "called"),
    [
        (["deploy", "EMAIL=a@example.com", "SET=A=1 B=2"], "stack deploy --email a@example.com --set A=1 --set B=2"),
        (["deploy", "ENVIRONMENT=staging", "ROLE=arn"], "stack deploy --environment staging --role arn"),
        (["deploy", "PROFILE=p", "DRY_RUN=1"], "--profile p stack deploy --dry-run"),
        (["destroy", "DATA=keep"], "stack destroy --keep-data"),
        (["destroy", "IMAGES=1"], "stack destroy --images"),
    ],
)
def test_make_calls_the_command(tmp_path: Path, words: list[str], called: str) -> None:
    (tmp_path / "bintally").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "bintally").chmod(0o755)
    command = ["make", "--no-print-directory", "--old-file=venv", f"bin={tmp_path}", *words]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run([*command, "STACK=bins", "REGION=r"], cwd=REPOSITORY, env=environment, capture_output=True)
    assert done.stdout.decode().split() == ["--stack", "bins", "--region", "r", *called.split()]
    done = subprocess.run([*command, "REGION=r"], cwd=REPOSITORY, env=environment, capture_output=True)
    assert f"STACK is missing: make {words[0]} STACK=… REGION=…" in done.stderr.decode()


# Images


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A Git repository with the sources of the serving image."""
    (tmp_path / "model").mkdir()
    for name in ("Dockerfile", "serve.py", "requirements.txt"):
        (tmp_path / "model" / name).write_text(name)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    commit(tmp_path)
    return tmp_path


def commit(folder: Path) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    for words in (["add", "--all"], [*who, "commit", "--quiet", "--message", "a"]):
        subprocess.run(["git", *words], cwd=folder, check=True)


def test_a_tag_follows_the_sources_and_nothing_else(checkout: Path) -> None:
    first = images.tag_of(SERVING, checkout)
    (checkout / "README.md").write_text("changed")
    commit(checkout)
    assert images.tag_of(SERVING, checkout) == first
    (checkout / "model" / "serve.py").write_text("changed")
    with pytest.raises(DeployFailed, match=r"model/serve\.py is changed and not committed"):
        images.tag_of(SERVING, checkout)
    commit(checkout)
    assert images.tag_of(SERVING, checkout) != first


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.repository)
def test_a_tag_covers_all_that_the_dockerfile_copies(image: images.Image) -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (REPOSITORY / image.dockerfile).read_text(), re.MULTILINE)
    assert copied
    covered = set(images.git(REPOSITORY, "ls-files", "--", *image.sources).splitlines())
    assert image.dockerfile in covered
    for word in " ".join(copied).split():
        path = f"{image.context}/{word}".removeprefix("./")
        files = images.git(REPOSITORY, "ls-files", "--", path).splitlines()
        assert files and set(files) <= covered, word


@pytest.fixture
def registry() -> Iterator[Any]:
    """ECR in moto, and a docker that pushes into it."""
    with mock_aws():
        ecr = boto3.client("ecr", region_name="eu-central-1")

        class Docker(Quiet):
            def run(self, *words: str, log: str, secret: str | None = None) -> None:
                super().run(*words, log=log)
                if words[:2] == ("docker", "push"):
                    name, tag = words[2].removeprefix(f"{REGISTRY}/").split(":")
                    manifest = {"schemaVersion": 2, "config": {"digest": f"sha256:{'0' * 64}"}, "layers": []}
                    ecr.put_image(
                        repositoryName=name,
                        imageTag=tag,
                        imageManifest=json.dumps(manifest),
                        imageManifestMediaType=MANIFEST,
                    )

        yield SimpleNamespace(ecr=ecr, docker=Docker)


def test_an_image_is_built_once_and_named_by_its_digest(registry: Any, checkout: Path) -> None:
    stack, docker = Target("bins", region="eu-central-1"), registry.docker(checkout)
    address = deploying.image(stack, SERVING, REGISTRY, docker, print)
    assert [words[:2] for words in docker.ran] == [("docker", "login"), ("docker", "buildx"), ("docker", "push")]
    (found,) = registry.ecr.describe_images(repositoryName="bintally-serve")["imageDetails"]
    assert address == f"{REGISTRY}/bintally-serve@{found['imageDigest']}"
    assert found["imageTags"] == [images.tag_of(SERVING, checkout)]
    assert deploying.image(stack, SERVING, REGISTRY, docker, print) == address
    assert len(docker.ran) == 3
    (made,) = registry.ecr.describe_repositories()["repositories"]
    assert made["imageTagMutability"] == "IMMUTABLE"
    assert made["imageScanningConfiguration"] == {"scanOnPush": True}


def test_a_dry_run_reads_an_account_and_changes_nothing(registry: Any, checkout: Path) -> None:
    said: list[str] = []
    stack = Target("bins", region="eu-central-1", rehearsal=Rehearsal(said.append))
    shell = Rehearsing(checkout, checkout, say=said.append)
    address = deploying.image(stack, SERVING, REGISTRY, shell, said.append)
    assert address == f"{REGISTRY}/bintally-serve:{images.tag_of(SERVING, checkout)}"
    assert any("CreateRepository" in line for line in said)
    assert registry.ecr.describe_repositories()["repositories"] == []


def test_the_training_image_knows_its_commit(checkout: Path) -> None:
    shell = Quiet(checkout)
    images.build_and_push(TRAINING, "train:1", shell)
    commit = images.git(checkout, "describe", "--always")
    assert f"CODE_VERSION={commit}" in shell.ran[0]  # type: ignore[attr-defined]


def test_a_repository_that_another_stack_uses_stays() -> None:
    parameter = {"ParameterKey": "ServingImage", "ParameterValue": f"{REGISTRY}/bintally-serve@sha256:0"}
    stack, said = account(), list[str]()
    stacks = [{"StackName": name, "Parameters": [parameter]} for name in ("bins", "other")]
    stack.rehearsal.answers = EXISTING | {"cloudformation:DescribeStacks": {"Stacks": stacks}}
    destroying.delete_images(stack, said.append)
    assert said == ["Stack other uses repository bintally-serve, which stays", "Deleted repository bintally-train"]
    assert stack.rehearsal.calls[-1] == ("ecr:DeleteRepository", {"repositoryName": "bintally-train", "force": True})


# Commands


def test_a_command_that_fails_says_its_last_line_and_its_log(tmp_path: Path) -> None:
    shell = Shell(tmp_path, tmp_path / "logs", {"WORD": "variable"})
    shell.run("bash", "-c", 'read line; test "$line $WORD" = "secret variable"', log="good", secret="secret\n")
    with pytest.raises(DeployFailed, match=rf"bash -c failed: no room \(see {tmp_path}/logs/bad.log\)"):
        shell.run("bash", "-c", "echo one; echo no room; exit 3", log="bad")


def test_the_first_resource_that_failed_is_named() -> None:
    events = [  # the newest first
        ("4", "CountFunction", "CREATE_FAILED", "Resource creation cancelled"),
        ("3", "UserPool", "CREATE_FAILED", "Access denied for cognito-idp:CreateUserPool"),
        ("2", "bins", "CREATE_IN_PROGRESS", "User Initiated"),
        ("1", "Other", "CREATE_FAILED", "of an earlier change"),
    ]
    names = ("EventId", "LogicalResourceId", "ResourceStatus", "ResourceStatusReason")
    stack = account()
    stack.rehearsal.answers |= {
        "cloudformation:DescribeStackEvents": {
            "StackEvents": [dict(zip(names, event, strict=True)) for event in events]
        }
    }
    reason = deploying.first_failure(stack, "1")
    assert reason == "UserPool failed: Access denied for cognito-idp:CreateUserPool"
    assert deploying.first_failure(stack, "4") is None, "nothing has happened since"


@pytest.mark.parametrize(
    "value", ["7", "96,128", "cron(0 3 ? * SUN *)", "", 'a "b" c', "ops@example.com", "Europe/Berlin"]
)
def test_sam_reads_a_parameter_as_it_is_meant(value: str) -> None:
    """By SAM's own reader."""
    assert CfnParameterOverridesType().convert((deploying.assigned("A", value),), None, None) == {"A": value}


# Alerts and buckets


def test_an_address_is_subscribed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with mock_aws():
        sns = boto3.client("sns", region_name="eu-central-1")
        topic = sns.create_topic(Name="alerts")["TopicArn"]
        monkeypatch.setattr(Target, "outputs", lambda self: {"AlertsTopic": topic})
        for _ in range(2):
            deploying.subscribe(Target("bins", region="eu-central-1"), "ops@example.com", print)
        (found,) = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
        assert (found["Protocol"], found["Endpoint"]) == ("email", "ops@example.com")


def test_a_versioned_bucket_is_emptied_in_batches() -> None:
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
        s3.create_bucket(Bucket="images")
        s3.put_bucket_versioning(Bucket="images", VersioningConfiguration={"Status": "Enabled"})
        for number in range(6):
            s3.put_object(Bucket="images", Key=f"one/{number % 2}", Body=b"x")
        s3.put_object(Bucket="images", Key="two/0", Body=b"x")
        s3.delete_object(Bucket="images", Key="one/0")
        s3.create_multipart_upload(Bucket="images", Key="one/unfinished")
        sent: list[int] = []
        s3.meta.events.register(
            "provide-client-params.s3.DeleteObjects", lambda params, **_: sent.append(len(params["Delete"]["Objects"]))
        )
        s3.meta.events.register("provide-client-params.s3.ListObjectVersions", by_threes)
        assert empty(s3, "images", "one/") == 7
        assert sent == [3, 3, 1]
        left = s3.list_object_versions(Bucket="images")
        assert [version["Key"] for version in left["Versions"]] == ["two/0"]
        assert "Uploads" not in s3.list_multipart_uploads(Bucket="images")


def by_threes(params: dict[str, Any], **_: object) -> None:
    params["MaxKeys"] = 3


def test_an_object_that_stays_is_named() -> None:
    answers = EXISTING | {"s3:ListObjectVersions": {"Versions": [{"Key": "a", "VersionId": "1"}]}}
    stack = Target("bins", region="eu-central-1", rehearsal=Rehearsal(print, answers=answers))
    error = {"Errors": [{"Key": "a", "Message": "it is locked"}]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rehearsal, "changed", lambda model, parameters: error)
        with pytest.raises(DestroyFailed, match="s3://images/a is not deleted: it is locked"):
            empty(stack.client("s3"), "images")
