"""A SageMaker, a Step Functions and a clock for releases in this process; each call can be made to fail.

The state machine is the real one, read from its file: what is tested is machine and function together.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bintally.aws.table import Table
from bintally.releasing.advance_release import Services
from bintally.releasing.endpoints import Endpoints
from botocore.exceptions import ClientError
from botocore.response import StreamingBody

from tests.template.machine import Execution, TaskFailed

DEFINITION = json.loads((Path(__file__).parents[2] / "machines" / "release.asl.json").read_text())
STACK, ENDPOINT = "bintally", "bintally-serverless"
MACHINE = f"arn:aws:states:us-east-1:123456789012:execution:{STACK}-release"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/serve"
SUBSTITUTED = {"StackName": STACK, "EndpointName": ENDPOINT, "Partition": "aws", "CountsTable": "counts"}


class Killed(Exception):
    """The function's process ended, or its answer was lost."""


class Stopped(Exception):
    """Somebody stops the execution."""


def refusal(code: str, message: str, status: int = 400) -> ClientError:
    parsed: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(parsed, "AnOperation")


def package(version: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as tar:
        content = json.dumps({"model_version": version, "golden": []}).encode()
        member = tarfile.TarInfo("package.json")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


@dataclass
class Endpoint:
    config: str
    status: str
    until: float
    """When it reaches the status after this one."""
    after: str
    next_config: str = ""
    failure: str = ""


@dataclass
class Cloud:
    """SageMaker's endpoints, models and registry, and whatever else a release calls, with the account's state.

    `fault(number, name, is_done)` is called before and after each call, and may raise.
    """

    fault: Callable[[int, str, bool], None] = lambda *_: None
    now: float = 0.0
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    packages: dict[str, dict[str, Any]] = field(default_factory=dict)
    executions: dict[str, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=lambda: {"serve:1": "sha256:" + "1" * 64})
    """Digests by name and tag."""
    objects: dict[str, bytes] = field(default_factory=dict)
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    told: list[dict[str, Any]] = field(default_factory=list)
    counting: bool = False
    broken: set[str] = field(default_factory=set)
    """Model versions whose container does not start."""
    wrong: set[str] = field(default_factory=set)
    """Endpoints or versions that answer wrong."""
    limit: int = 100
    """Endpoints that the account's quota allows."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The operation `name` of any client."""
        do: Callable[..., Any] = object.__getattribute__(self, f"do_{name}")

        def call(**request: Any) -> Any:
            number = len(self.calls)
            self.calls.append((name, request))
            self.fault(number, name, False)
            answer = do(**request)
            self.fault(number, name, True)
            return answer

        return call

    def settle(self) -> None:
        for name, found in list(self.endpoints.items()):
            if found.status != found.after and self.now >= found.until:
                found.status = found.after
                if found.status == "gone":
                    del self.endpoints[name]
                elif found.next_config:
                    found.config, found.next_config = found.next_config, ""

    def version(self, config: str) -> str:
        url: str = self.models[self.configs[config]["ProductionVariants"][0]["ModelName"]]["PrimaryContainer"][
            "ModelDataUrl"
        ]
        return url.split("/")[4]

    def live(self) -> str:
        """The version that the endpoint serves; empty when it serves none."""
        self.settle()
        found = self.endpoints.get(ENDPOINT)
        return self.version(found.config) if found and found.status in ("InService", "Updating") else ""

    # SageMaker

    def get_paginator(self, name: str) -> Any:
        @dataclass
        class Pages:
            cloud: Cloud

            def paginate(self, **request: Any) -> Iterator[Any]:
                yield getattr(self.cloud, name)(**request)

        return Pages(self)

    def do_list_endpoints(self, NameContains: str) -> Any:
        self.settle()
        found = {name: e.status for name, e in self.endpoints.items() if NameContains in name}
        return {"Endpoints": [{"EndpointName": n, "EndpointStatus": status} for n, status in found.items()]}

    def found(self, name: str) -> Endpoint:
        self.settle()
        if name not in self.endpoints:
            raise refusal("ValidationException", f"Could not find endpoint {name}")
        return self.endpoints[name]

    def do_describe_endpoint(self, EndpointName: str) -> Any:
        found = self.found(EndpointName)
        answer: dict[str, Any] = {
            "EndpointArn": f"arn:aws:sagemaker:us-east-1:123456789012:endpoint/{EndpointName}",
            "EndpointStatus": found.status,
            "EndpointConfigName": found.config,
        }
        if found.next_config:
            answer["PendingDeploymentSummary"] = {"EndpointConfigName": found.next_config}
        return answer | ({"FailureReason": found.failure} if found.failure else {})

    def do_create_endpoint(self, EndpointName: str, EndpointConfigName: str, **_: Any) -> Any:
        self.settle()
        if EndpointName in self.endpoints:
            raise refusal("ValidationException", "Cannot create already existing endpoint")
        if EndpointConfigName not in self.configs:
            raise refusal("ValidationException", "Could not find the configuration")
        if len(self.endpoints) >= self.limit:
            raise refusal("ResourceLimitExceeded", f"The account-level service limit is {self.limit}")
        broken = self.version(EndpointConfigName) in self.broken
        after = "Failed" if broken else "InService"
        failure = "it does not start" if broken else ""
        self.endpoints[EndpointName] = Endpoint(EndpointConfigName, "Creating", self.now + 3, after, failure=failure)

    def do_add_tags(self, ResourceArn: str, Tags: Any) -> Any:
        self.found(ResourceArn.rpartition("/")[2])

    def do_update_endpoint(self, EndpointName: str, EndpointConfigName: str, **more: Any) -> Any:
        found = self.found(EndpointName)
        if found.status != "InService":
            raise refusal("ValidationException", "Cannot update in-progress endpoint")
        if len(self.endpoints) >= self.limit:
            raise refusal("ResourceLimitExceeded", f"The account-level service limit is {self.limit}")
        broken = self.version(EndpointConfigName) in self.broken
        found.status, found.until = "Updating", self.now + 5
        found.next_config, found.failure = ("", "an alarm") if broken else (EndpointConfigName, "")

    def do_delete_endpoint(self, EndpointName: str) -> Any:
        found = self.found(EndpointName)
        if found.status in ("Creating", "Updating"):
            raise refusal("ValidationException", "Cannot update in-progress endpoint")
        found.status, found.after, found.until = "Deleting", "gone", self.now + 2

    def do_create_model(self, ModelName: str, **request: Any) -> Any:
        if ModelName in self.models:
            raise refusal("ValidationException", "Cannot create already existing model")
        self.models[ModelName] = request

    def do_describe_model(self, ModelName: str) -> Any:
        return self.one(self.models, ModelName)

    def do_delete_model(self, ModelName: str) -> Any:
        self.one(self.models, ModelName)
        del self.models[ModelName]

    def do_create_endpoint_config(self, EndpointConfigName: str, **request: Any) -> Any:
        if EndpointConfigName in self.configs:
            raise refusal("ValidationException", "Cannot create already existing endpoint configuration")
        self.configs[EndpointConfigName] = request

    def do_describe_endpoint_config(self, EndpointConfigName: str) -> Any:
        return self.one(self.configs, EndpointConfigName)

    def do_delete_endpoint_config(self, EndpointConfigName: str) -> Any:
        self.one(self.configs, EndpointConfigName)
        del self.configs[EndpointConfigName]

    def one(self, kept: dict[str, Any], name: str) -> Any:
        if name not in kept:
            raise refusal("ValidationException", f"Could not find {name}")
        return kept[name]

    def do_list_endpoint_configs(self, NameContains: str, **_: Any) -> Any:
        names = [name for name in reversed(self.configs) if NameContains in name]
        return {"EndpointConfigs": [{"EndpointConfigName": name} for name in names]}

    def do_describe_model_package(self, ModelPackageName: str) -> Any:
        return self.one(self.packages, ModelPackageName)

    def do_list_model_packages(self, **_: Any) -> Any:
        approved = [arn for arn, found in self.packages.items() if found["ModelApprovalStatus"] == "Approved"]
        return {"ModelPackageSummaryList": [{"ModelPackageArn": arn} for arn in reversed(approved)]}

    # Step Functions, S3, Lambda, ECR

    def do_describe_execution(self, executionArn: str) -> Any:
        if executionArn not in self.executions:
            raise refusal("ExecutionDoesNotExist", executionArn)
        return {"status": self.executions[executionArn], "cause": "a person pressed stop"}

    def do_get_object(self, Bucket: str, Key: str) -> Any:
        if Key not in self.objects:
            raise refusal("NoSuchKey", "The specified key does not exist.", 404)
        content = self.objects[Key]
        return {"Body": StreamingBody(io.BytesIO(content), len(content)), "ContentLength": len(content)}

    def do_update_event_source_mapping(self, UUID: str, Enabled: bool) -> Any:
        self.counting = Enabled
        return {"State": "Enabling"}

    def do_describe_images(self, registryId: str, repositoryName: str, imageIds: list[dict[str, str]]) -> Any:
        name = f"{repositoryName}:{imageIds[0]['imageTag']}"
        if registryId != "123456789012" or name not in self.images:
            raise refusal("ImageNotFoundException", f"The image {name} does not exist")
        return {"imageDetails": [{"imageDigest": self.images[name]}]}

    # The table

    def do_get(self, key: Any) -> Any:
        found = self.items.get(key["PK"])
        return dict(found) if found else None

    def do_put(self, item: Any, only_if: str, values: Any) -> bool:
        found = self.items.get(item["PK"])
        owners = set(values.values())
        free = "attribute_not_exists" in only_if
        if (free and found is None) or (found is not None and found["owner"] in owners):
            self.items[item["PK"]] = dict(item)
            return True
        return False


@dataclass(frozen=True)
class InMemory(Table):
    """The table's methods that releases call. tests/stack has their conditions evaluated by a real table."""

    cloud: Any = None

    def get(self, key: Any, *, consistent: bool) -> Any:
        assert consistent
        return self.cloud.get(key=key)

    def put(self, item: Any, *, only_if: str = "", **words: Any) -> bool:
        return bool(self.cloud.put(item=item, only_if=only_if, values=words["values"]))


def services(cloud: Any) -> Services:
    return Services(
        table=InMemory("counts", cloud, cloud=cloud),
        s3=cloud,
        endpoints=Endpoints(cloud, STACK),
        states=cloud,
        lambda_=cloud,
        ecr=cloud,
    )


@dataclass
class Machine:
    """The state machine `release` over a cloud."""

    cloud: Cloud
    advance: Callable[[Any, Any], Any]
    number: int = 0

    def upload(self, version: str) -> dict[str, Any]:
        """The input of a release by hand of this version."""
        self.cloud.objects[f"models/{version}/model.tar.gz"] = package(version)
        return {"model_version": version, "model_data_url": f"s3://artifacts/models/{version}/model.tar.gz"}

    def register(self, version: str, approval: str = "Approved", **known: str) -> dict[str, Any]:
        """The registry's event about this version."""
        url = self.upload(version)["model_data_url"]
        arn = f"arn:aws:sagemaker:us-east-1:123456789012:model-package/{STACK}/{len(self.cloud.packages)}"
        self.cloud.packages[arn] = {
            "ModelApprovalStatus": approval,
            "InferenceSpecification": {"Containers": [{"ModelDataUrl": url}]},
            "CustomerMetadataProperties": {"model_version": version, **known},
        }
        return {"source": "aws.sagemaker", "detail": {"ModelPackageArn": arn}}

    def run(self, request: Any, *, arn: str = "") -> tuple[dict[str, Any], Execution]:
        """Runs an execution to its end; `stop` may end it first, and then Stopped is raised."""
        self.number += 1
        arn = arn or f"{MACHINE}:{self.number}"
        self.cloud.executions[arn] = "RUNNING"
        execution = Execution(DEFINITION["States"], SUBSTITUTED, arn, self.do, self.sleep)
        try:
            output = execution.run(DEFINITION["StartAt"], json.loads(json.dumps(request)))
        except Stopped:
            self.cloud.executions[arn] = "ABORTED"
            raise
        self.cloud.executions[arn] = "FAILED" if "Error" in output else "SUCCEEDED"
        return output, execution

    def stop_and_clean_up(self, request: Any) -> tuple[dict[str, Any], str]:
        """Runs an execution that somebody stops, then the one that cleans up after it, and answers that one's output
        and the stopped one's ARN."""
        try:
            self.run(request)
        except Stopped:
            arn = f"{MACHINE}:{self.number}"
            return self.run({"source": "aws.states", "detail": {"executionArn": arn, "status": "ABORTED"}})[0], arn
        raise AssertionError("nobody stopped it")

    def sleep(self, seconds: float) -> None:
        self.cloud.now += seconds

    def do(self, name: str, arguments: Any) -> Any:
        if name == "FreeLock":
            (owner,) = arguments["ExpressionAttributeValues"].values()
            if self.cloud.items.get("LOCK#release", {}).get("owner") == owner["S"]:
                del self.cloud.items["LOCK#release"]
            return {}
        if name == "PutEvent":
            self.cloud.told.append(json.loads(arguments["Entries"][0]["Detail"]))
            return {}
        if name == "Publish":
            assert arguments["Message"]
            return {}
        payload = arguments["Payload"]
        if arguments["FunctionName"] == "VerifyFunction":
            return {"Payload": self.verified(payload)}
        try:
            return {"Payload": json.loads(json.dumps(self.advance(payload, None)))}
        except Stopped:
            raise
        except Exception as error:
            raise TaskFailed(type(error).__name__, str(error)) from error

    def verified(self, payload: Any) -> Any:
        cloud = self.cloud
        cloud.settle()
        found = cloud.endpoints[payload["endpoint"]]
        assert found.status == "InService"
        version = cloud.version(found.config)
        if {payload["endpoint"], version} & cloud.wrong or version != payload["model_version"]:
            return {"ok": False, "reason": f"it answers as {version}"}
        return {"ok": True, "reason": "2 golden images answered as recorded"}
