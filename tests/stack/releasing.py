"""Someone who releases models to a stack and looks at what came of it."""

import contextlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

from local.stack import Local

Description = dict[str, Any]
Files = dict[str, bytes]


def unpacked(package: bytes) -> Files:
    with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as tar:
        return {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]


def packed(files: Files) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def as_version(files: Files, version: str, change: Callable[[Files, Description], None] = lambda *_: None) -> bytes:
    """The package of these files as another version, and changed."""
    files, description = dict(files), json.loads(files["package.json"])
    description["model_version"] = version
    for golden in description["golden"]:
        golden["answer"]["model_version"] = version
    change(files, description)
    return packed(files | {"package.json": json.dumps(description).encode()})


class Releases:
    """Someone who releases models to the stack and looks at what came of it."""

    def __init__(self, stack: Local, user: Any, inbox: str) -> None:
        self.stack, self.user, self.inbox = stack, user, inbox
        self.outputs = stack.outputs()
        self.endpoint, self.bucket = self.outputs["EndpointName"], self.outputs["ArtifactsBucket"]
        self.states, self.sagemaker = stack.client("stepfunctions"), stack.client("sagemaker")
        self.runtime = stack.client("sagemaker-runtime", retries={"total_max_attempts": 1})
        self.files = unpacked(stack.package.read_bytes())

    def package(self, version: str, change: Callable[[Files, Description], None] = lambda *_: None) -> bytes:
        """The shipped package as another version, and changed."""
        return as_version(self.files, version, change)

    def upload(self, version: str, package: bytes) -> str:
        key = f"models/{version}/model.tar.gz"
        self.user.s3.put_object(Bucket=self.bucket, Key=key, Body=package)
        return f"s3://{self.bucket}/{key}"

    def start(self, version: str, url: str | None = None) -> str:
        """The execution that releases `version`, the shipped package under that name unless `url` is given."""
        url = url or self.upload(version, self.package(version))
        request = json.dumps({"model_version": version, "model_data_url": url})
        started = self.states.start_execution(stateMachineArn=self.outputs["ReleaseStateMachine"], input=request)
        return str(started["executionArn"])

    def register(self, version: str, approval: str = "Approved", package: bytes | None = None) -> str:
        """The shipped package as another version in the registry, or `package`; answers its ARN there."""
        url = self.upload(version, package or self.package(version))
        container = {"Image": "serve", "ModelDataUrl": url}
        types = {"SupportedContentTypes": ["image/jpeg"], "SupportedResponseMIMETypes": ["application/json"]}
        created = self.sagemaker.create_model_package(
            ModelPackageGroupName=self.stack.name,
            ModelApprovalStatus=approval,
            InferenceSpecification={"Containers": [container], **types},
            CustomerMetadataProperties={"model_version": version},
        )
        return str(created["ModelPackageArn"])

    def decide(self, package: str, approval: str) -> None:
        self.sagemaker.update_model_package(ModelPackageArn=package, ModelApprovalStatus=approval)

    def started_for(self, package: str) -> list[str]:
        """The executions that events about this package have started, the newest first."""
        machine = self.outputs["ReleaseStateMachine"]
        found = self.states.list_executions(stateMachineArn=machine, maxResults=50)["executions"]
        return [e["executionArn"] for e in found if package in self.describe(e["executionArn"])["input"]]

    def wait_started_for(self, package: str) -> str:
        """The newest of them once there is one."""
        return str(self.user.wait_for("an execution", lambda: self.started_for(package), 30)[0])

    def repeat(self, execution: str) -> str:
        """EventBridge delivers at least once: the execution that the same event starts another time."""
        machine, event = self.outputs["ReleaseStateMachine"], self.describe(execution)["input"]
        return str(self.states.start_execution(stateMachineArn=machine, input=event)["executionArn"])

    def outcome(self, execution: str) -> str:
        """Of an execution that succeeds."""
        found = self.wait(execution)
        assert found["status"] == "SUCCEEDED", found.get("cause")
        return str(json.loads(found["output"])["outcome"])

    def describe(self, execution: str) -> Description:
        return dict(self.states.describe_execution(executionArn=execution))

    def entered(self, execution: str) -> list[str]:
        """The states that the execution went through."""
        pages = self.states.get_paginator("get_execution_history").paginate(executionArn=execution)
        events = [event for page in pages for event in page["events"]]
        return [event["stateEnteredEventDetails"]["name"] for event in events if "stateEnteredEventDetails" in event]

    def wait_state(self, execution: str, name: str) -> None:
        self.user.wait_for(name, lambda: name in self.entered(execution), seconds=200)

    def wait(self, execution: str) -> Description:
        """The execution when it has ended, and what it told: one event and one message, both of it."""
        check = self.user.wait_for
        check("the release's end", lambda: self.describe(execution)["status"] != "RUNNING", seconds=400)
        return self.describe(execution)

    def run(self, version: str, url: str | None = None) -> Description:
        return self.wait(self.start(version, url))

    def told(self, execution: str) -> tuple[Description, str]:
        """The event's detail and the message's text about an execution."""
        found: dict[str, Any] = {}

        def receive() -> bool:
            answer = self.user.sqs.receive_message(QueueUrl=self.inbox, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            for message in answer.get("Messages", []):
                body = json.loads(message["Body"])
                if body.get("source") == "bintally" and body["detail"]["execution"] == execution:
                    found["event"] = body["detail"]
                elif body.get("Type") == "Notification" and body["Message"].endswith(execution):
                    found["message"] = body["Message"]
                self.user.sqs.delete_message(QueueUrl=self.inbox, ReceiptHandle=message["ReceiptHandle"])
            return found.keys() == {"event", "message"}

        self.user.wait_for(f"event and message of {execution}", receive, 200)
        return found["event"], found["message"]

    def live_version(self) -> str:
        image = next(content for name, content in self.files.items() if name.startswith("golden/"))
        answer = self.runtime.invoke_endpoint(EndpointName=self.endpoint, ContentType="image/png", Body=image)
        return str(json.load(answer["Body"])["model_version"])

    def config(self) -> str:
        return str(self.sagemaker.describe_endpoint(EndpointName=self.endpoint)["EndpointConfigName"])

    def endpoints(self) -> set[str]:
        """Those of this stack, without any on its way out."""
        found = self.sagemaker.list_endpoints()["Endpoints"]
        mine = (self.endpoint, f"{self.stack.name}-candidate-")
        going = "Deleting"
        return {e["EndpointName"] for e in found if e["EndpointName"].startswith(mine) and e["EndpointStatus"] != going}

    def made(self) -> tuple[set[str], set[str]]:
        """Endpoint configurations and models."""
        configs = self.sagemaker.list_endpoint_configs(NameContains=self.endpoint)["EndpointConfigs"]
        models = self.sagemaker.list_models(NameContains=self.endpoint)["Models"]
        return {c["EndpointConfigName"] for c in configs}, {m["ModelName"] for m in models}

    def lock(self) -> Description | None:
        found: Description = self.user.table.get_item(Key={"PK": "LOCK#release", "SK": "LOCK"}, ConsistentRead=True)
        return found.get("Item")

    def mapping(self) -> str:
        client = self.stack.client("lambda")
        return str(client.get_event_source_mapping(UUID=self.outputs["CountMapping"])["State"])

    def assert_as_before(self, version: str, config: str, made: tuple[set[str], set[str]]) -> None:
        """A release that failed leaves the live endpoint, and nothing of its own."""
        assert self.live_version() == version
        assert self.config() == config
        assert self.endpoints() == {self.endpoint}
        assert self.made() == made
        assert self.lock() is None
        assert self.mapping() == "Enabled"


def failed(releases: Releases, execution: str, error: str, reason: str) -> None:
    """The execution failed so, and said so everywhere."""
    found = releases.wait(execution)
    assert (found["status"], found.get("error")) == ("FAILED", error), found.get("cause")
    assert reason in found["cause"], found["cause"]
    event, message = releases.told(execution)
    assert (event["outcome"], event["error"], event["reason"]) == ("failed", error, found["cause"])
    assert found["cause"] in message


def overtake(releases: Releases, version: str) -> str:
    """A release whose package is replaced when the candidate has passed, so that the live endpoint fails."""
    other = releases.package("another")
    execution = releases.start(version)
    releases.wait_state(execution, "WaitForRemoval")
    releases.upload(version, other)
    return execution


@contextlib.contextmanager
def inbox_of(stack: Local, kind: str = "Release Finished", *more: str) -> Iterator[str]:
    """A queue that gets what is reported: the alerts topic's messages and the bus's events of these detail types."""
    name = kind.replace(" ", "-").lower()
    sqs, sns, events = stack.client("sqs"), stack.client("sns"), stack.client("events")
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allowed = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": arn}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
    topic = stack.outputs()["AlertsTopic"]
    subscription = sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)["SubscriptionArn"]
    pattern = json.dumps({"source": ["bintally"], "detail-type": [kind, *more]})
    events.put_rule(Name=name, EventPattern=pattern)
    events.put_targets(Rule=name, Targets=[{"Id": name, "Arn": arn}])
    yield queue
    sns.unsubscribe(SubscriptionArn=subscription)
    events.remove_targets(Rule=name, Ids=[name])
    events.delete_rule(Name=name)
    sqs.delete_queue(QueueUrl=queue)
