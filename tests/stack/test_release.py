"""Releases on the running stack: into service, refused, undone, stopped half way; and what each leaves behind."""

import dataclasses
import io
import json
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.stack import Stack, package_version

pytestmark = pytest.mark.timeout(900)  # a release takes 10 s on an idle machine, minutes on a busy one

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


class Releases:
    """Someone who releases models to the stack and looks at what came of it."""

    def __init__(self, stack: Stack, user: Any, inbox: str) -> None:
        self.stack, self.user, self.inbox = stack, user, inbox
        self.outputs = stack.outputs()
        self.endpoint, self.bucket = self.outputs["EndpointName"], self.outputs["ArtifactsBucket"]
        self.states, self.sagemaker = stack.client("stepfunctions"), stack.client("sagemaker")
        self.files = unpacked(stack.package.read_bytes())

    def package(self, version: str, change: Callable[[Files, Description], None] = lambda *_: None) -> bytes:
        """The shipped package as another version, and changed."""
        files, description = dict(self.files), json.loads(self.files["package.json"])
        description["model_version"] = version
        for golden in description["golden"]:
            golden["answer"]["model_version"] = version
        change(files, description)
        return packed(files | {"package.json": json.dumps(description).encode()})

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

        self.user.wait_for(f"event and message of {execution}", receive, 20)
        return found["event"], found["message"]

    def live_version(self) -> str:
        runtime = self.stack.client("sagemaker-runtime")
        image = next(content for name, content in self.files.items() if name.startswith("golden/"))
        answer = runtime.invoke_endpoint(EndpointName=self.endpoint, ContentType="image/png", Body=image)
        return str(json.load(answer["Body"])["model_version"])

    def config(self) -> str:
        return str(self.sagemaker.describe_endpoint(EndpointName=self.endpoint)["EndpointConfigName"])

    def endpoints(self) -> set[str]:
        """Those of this stack, without any on its way out."""
        found = self.sagemaker.list_endpoints()["Endpoints"]
        mine = (f"{self.stack.name}-serverless", f"{self.stack.name}-candidate-")
        going = "Deleting"
        return {e["EndpointName"] for e in found if e["EndpointName"].startswith(mine) and e["EndpointStatus"] != going}

    def made(self) -> tuple[set[str], set[str]]:
        """Endpoint configurations and models."""
        configs = self.sagemaker.list_endpoint_configs(NameContains=self.endpoint)["EndpointConfigs"]
        models = self.sagemaker.list_models(NameContains=self.endpoint)["Models"]
        return {c["EndpointConfigName"] for c in configs}, {m["ModelName"] for m in models}

    def lock(self) -> Description | None:
        found = self.user.table.get_item(Key={"PK": "LOCK#release", "SK": "LOCK"}, ConsistentRead=True)
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


@pytest.fixture(scope="module")
def inbox(stack: Stack) -> Iterator[str]:
    """A queue that hears what releases tell: the alerts topic's messages and the bus's events."""
    sqs, sns, events = stack.client("sqs"), stack.client("sns"), stack.client("events")
    queue = sqs.create_queue(QueueName="told")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allowed = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": arn}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
    topic = stack.outputs()["AlertsTopic"]
    subscription = sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)["SubscriptionArn"]
    pattern = json.dumps({"source": ["bintally"], "detail-type": ["Release Finished"]})
    events.put_rule(Name="told", EventPattern=pattern)
    events.put_targets(Rule="told", Targets=[{"Id": "told", "Arn": arn}])
    yield queue
    sns.unsubscribe(SubscriptionArn=subscription)
    events.remove_targets(Rule="told", Ids=["told"])
    events.delete_rule(Name="told")
    sqs.delete_queue(QueueUrl=queue)


@pytest.fixture(scope="module")
def releases(stack: Stack, user: Any, inbox: str) -> Iterator[Releases]:
    """The shipped model is live again when the module ends."""
    releases = Releases(stack, user, inbox)
    yield releases
    stack.release(package_version(stack.package))


def test_the_model_changes_while_counting_goes_on(
    releases: Releases, user: Any, photograph: Callable[..., bytes]
) -> None:
    before = releases.config()
    ended = threading.Event()
    keys: list[str] = []

    def keep_uploading() -> None:
        while not ended.is_set():
            keys.append(f"incoming/REL/B{len(keys)}/{len(keys)}.jpg")
            user.upload(keys[-1], photograph(len(keys)))
            time.sleep(0.5)

    uploads = threading.Thread(target=keep_uploading)
    uploads.start()
    try:
        execution = releases.start("next")
        found = releases.wait(execution)
        time.sleep(1)
    finally:
        ended.set()
        uploads.join()
    assert found["status"] == "SUCCEEDED", found.get("cause")
    assert json.loads(found["output"]) == {
        "outcome": "released",
        "reason": "version next is live",
        "model_version": "next",
        "endpoint": releases.endpoint,
    }
    assert releases.live_version() == "next"
    assert releases.config() != before
    assert releases.endpoints() == {releases.endpoint}
    assert releases.lock() is None
    items = user.wait_counts(*keys, seconds=200)
    assert len(items) == len(keys)
    assert all(item["status"] == "COUNTED" for item in items)
    versions = {item["model_version"] for item in items}
    assert "next" in versions
    assert len(versions) == 2
    assert user.depth(user.dead) == 0
    event, message = releases.told(execution)
    assert event == {
        "stack": releases.stack.name,
        "endpoint": releases.endpoint,
        "model_version": "next",
        "model_data_url": f"s3://{releases.bucket}/models/next/model.tar.gz",
        "outcome": "released",
        "error": "",
        "reason": "version next is live",
        "execution": execution,
    }
    assert message.startswith(f"Release of model next to {releases.endpoint}: released.")


def test_a_live_version_is_not_released_again_but_counting_is_resumed(releases: Releases, user: Any) -> None:
    version, config, made = releases.live_version(), releases.config(), releases.made()
    user.switch_mapping(enabled=False)
    execution = releases.start(version, f"s3://{releases.bucket}/models/{version}/model.tar.gz")
    found = releases.wait(execution)
    assert found["status"] == "SUCCEEDED"
    assert json.loads(found["output"])["outcome"] == "already live"
    assert "CreateModel" not in releases.entered(execution)
    releases.assert_as_before(version, config, made)
    assert releases.told(execution)[0]["outcome"] == "already live"


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"model_version": "1"},
        {"model_version": "1", "model_data_url": "s3://elsewhere/models/1/model.tar.gz"},
        {"model_version": "1", "model_data_url": 5},
    ],
)
def test_a_release_of_nothing_is_refused(releases: Releases, request_: Description) -> None:
    machine = releases.outputs["ReleaseStateMachine"]
    started = releases.states.start_execution(stateMachineArn=machine, input=json.dumps(request_))
    found = releases.wait(started["executionArn"])
    assert (found["status"], found["error"]) == ("FAILED", "InvalidInput")
    assert "model_data_url" in found["cause"]
    assert releases.told(started["executionArn"])[0]["outcome"] == "refused"


def failed(releases: Releases, execution: str, error: str, reason: str) -> None:
    """The execution failed so, and said so everywhere."""
    found = releases.wait(execution)
    assert (found["status"], found.get("error")) == ("FAILED", error), found.get("cause")
    assert reason in found["cause"]
    event, message = releases.told(execution)
    assert (event["outcome"], event["error"], event["reason"]) == ("failed", error, found["cause"])
    assert found["cause"] in message


def test_a_missing_package_changes_nothing(releases: Releases) -> None:
    before = releases.live_version(), releases.config(), releases.made()
    execution = releases.start("missing", f"s3://{releases.bucket}/models/missing/model.tar.gz")
    failed(releases, execution, "SageMaker.SageMakerException", "Could not access model data")
    releases.assert_as_before(*before)


def test_a_model_that_does_not_load_changes_nothing(releases: Releases) -> None:
    def break_(files: Files, description: Description) -> None:
        files["model.bin"] = b"not the weights"

    before = releases.live_version(), releases.config(), releases.made()
    url = releases.upload("broken", releases.package("broken", break_))
    failed(releases, releases.start("broken", url), "CandidateFailed", "model.bin is missing or not the file")
    releases.assert_as_before(*before)


def test_a_package_of_another_version_changes_nothing(releases: Releases) -> None:
    before = releases.live_version(), releases.config(), releases.made()
    url = releases.upload("odd", releases.package("even"))
    failed(releases, releases.start("odd", url), "CandidateWrong", "the package is version even, not odd")
    releases.assert_as_before(*before)


def test_wrong_golden_answers_change_nothing(releases: Releases) -> None:
    """The candidate has fetched a sound package when another one, with other answers, takes its place: else the
    serving app itself would refuse."""

    def answer_otherwise(files: Files, description: Description) -> None:
        for golden in description["golden"]:
            golden["answer"]["count"] = (golden["answer"]["count"] + 1) % 6
            golden["answer"]["is_minimum"] = False

    before = releases.live_version(), releases.config(), releases.made()
    url = releases.upload("wrong", releases.package("wrong"))
    wrong = releases.package("wrong", answer_otherwise)
    execution = releases.start("wrong", url)
    candidates = f"{releases.stack.name}-candidate-*/model/package.json"
    releases.user.wait_for("the candidate's package", lambda: list(releases.stack.home.rglob(candidates)), 200)
    releases.upload("wrong", wrong)
    failed(releases, execution, "CandidateWrong", "count is")
    releases.assert_as_before(*before)


def overtake(releases: Releases, version: str) -> str:
    """A release whose package is replaced when the candidate has passed, so that the live endpoint fails."""
    other = releases.package("another")
    execution = releases.start(version)
    releases.wait_state(execution, "WaitForNew")
    releases.upload(version, other)
    return execution


def test_a_live_endpoint_that_answers_wrong_gets_its_previous_configuration_back(releases: Releases) -> None:
    before = releases.live_version(), releases.config(), releases.made()
    execution = overtake(releases, "overtaken")
    failed(releases, execution, "LiveWrong", "the package is version another")
    assert "RestorePrevious" in releases.entered(execution)
    releases.assert_as_before(*before)


def test_one_release_at_a_time(releases: Releases) -> None:
    first = releases.start("first")
    releases.wait_state(first, "CreateCandidate")
    second = releases.start("second")
    found = releases.wait(second)
    assert (found["status"], found["error"]) == ("FAILED", "ReleaseRunning")
    assert found["cause"] == f"another release runs: {first}"
    lock = releases.lock()
    assert lock
    assert lock["owner"] == first  # the second one did not free what is not its own
    assert releases.told(second)[0]["outcome"] == "refused"
    assert releases.wait(first)["status"] == "SUCCEEDED"
    assert releases.live_version() == "first"
    assert releases.lock() is None


def stop_at(releases: Releases, version: str, state: str) -> str:
    execution = releases.start(version)
    releases.wait_state(execution, state)
    releases.states.stop_execution(executionArn=execution, cause="a person pressed stop")
    lock = releases.lock()
    assert lock
    assert lock["owner"] == execution
    return execution


def test_what_stopped_releases_leave_is_taken_over(releases: Releases) -> None:
    """A candidate, then an endpoint in mid-update, and each time the lock."""
    stop_at(releases, "stopped-with-candidate", "DescribeCandidate")
    assert len(releases.endpoints()) == 2
    stop_at(releases, "stopped-in-update", "WaitForNew")
    assert releases.endpoints() == {releases.endpoint}
    execution = releases.start("third")
    found = releases.wait(execution)
    assert found["status"] == "SUCCEEDED", found["cause"]
    assert "TakeOverLock" in releases.entered(execution)
    assert releases.live_version() == "third"
    assert releases.endpoints() == {releases.endpoint}
    assert releases.lock() is None


def test_the_last_three_are_kept(releases: Releases) -> None:
    while len(releases.made()[0]) < 3:
        assert releases.run(f"number-{len(releases.made()[0])}")["status"] == "SUCCEEDED"
    previous = releases.config()
    assert releases.run("one-more")["status"] == "SUCCEEDED"
    configs, models = releases.made()
    assert {releases.config(), previous} < configs
    assert len(configs) == 3
    assert models == configs


def test_a_change_of_the_mapping_does_not_switch_counting_off(
    releases: Releases, user: Any, photograph: Callable[..., bytes]
) -> None:
    functions, mapping = releases.stack.client("lambda"), releases.outputs["CountMapping"]
    cloudformation = releases.stack.client("cloudformation")
    previous = cloudformation.describe_stacks(StackName=releases.stack.name)["Stacks"][0]["Parameters"]
    try:
        for concurrency in ("3", "10"):
            cloudformation.update_stack(
                StackName=releases.stack.name,
                UsePreviousTemplate=True,
                Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
                Parameters=[
                    {"ParameterKey": p["ParameterKey"], "UsePreviousValue": True}
                    if p["ParameterKey"] != "CountConcurrency"
                    else {"ParameterKey": "CountConcurrency", "ParameterValue": concurrency}
                    for p in previous
                ],
            )
            cloudformation.get_waiter("stack_update_complete").wait(
                StackName=releases.stack.name, WaiterConfig={"Delay": 1}
            )
            found = functions.get_event_source_mapping(UUID=mapping)
            assert found["ScalingConfig"]["MaximumConcurrency"] == int(concurrency)
            assert found["State"] == "Enabled"
    finally:
        user.configure(RETRY_SECONDS="1")  # as the other tests have it
    user.upload("incoming/REL/AFTER/1.jpg", photograph(7))
    user.wait_counts("incoming/REL/AFTER/1.jpg")


def test_a_first_release_that_fails_leaves_no_endpoint(releases: Releases) -> None:
    releases.sagemaker.delete_endpoint(EndpointName=releases.endpoint)
    releases.user.wait_for("no endpoint", lambda: not releases.endpoints())
    execution = overtake(releases, "first-fails")
    failed(releases, execution, "LiveWrong", "the package is version another")
    assert {"CreateLive", "RemoveNew"} < set(releases.entered(execution))
    with pytest.raises(ClientError):
        releases.sagemaker.describe_endpoint(EndpointName=releases.endpoint)
    assert releases.lock() is None
    shipped = package_version(releases.stack.package)
    releases.stack.release(shipped)
    assert releases.live_version() == shipped


def test_a_stack_counts_from_its_first_release_on_and_takes_its_endpoint_along(
    releases: Releases, user: Any, photograph: Callable[..., bytes]
) -> None:
    """A second stack beside the first: photographs wait in it, then are counted; then it is deleted."""
    second = dataclasses.replace(releases.stack, name=f"{releases.stack.name}-two")
    second.deploy()
    outputs = second.outputs()
    functions = second.client("lambda")
    assert functions.get_event_source_mapping(UUID=outputs["CountMapping"])["State"] == "Disabled"
    second.client("s3").put_object(Bucket=outputs["ImagesBucket"], Key="incoming/S/B/1.jpg", Body=photograph(8))
    queue = outputs["CountQueueUrl"]
    user.wait_for("a photograph that waits", lambda: user.depth(queue) == 1)
    time.sleep(2)
    assert user.depth(queue) == 1

    second.release(package_version(second.package))
    table = second.session().resource("dynamodb", endpoint_url=second.endpoint_url).Table(outputs["CountsTable"])
    latest = {"PK": "BIN#S#B", "SK": "LATEST"}
    item = user.wait_for("its count", lambda: table.get_item(Key=latest).get("Item"))
    assert item["status"] == "COUNTED"

    for bucket in (outputs["ImagesBucket"], outputs["ArtifactsBucket"]):
        second.session().resource("s3", endpoint_url=second.endpoint_url).Bucket(bucket).object_versions.delete()
    cloudformation = second.client("cloudformation")
    cloudformation.delete_stack(StackName=second.name)
    cloudformation.get_waiter("stack_delete_complete").wait(
        StackName=second.name, WaiterConfig={"Delay": 1, "MaxAttempts": 90}
    )
    left = second.client("sagemaker")
    names = {
        *(e["EndpointName"] for e in left.list_endpoints()["Endpoints"]),
        *(c["EndpointConfigName"] for c in left.list_endpoint_configs()["EndpointConfigs"]),
        *(m["ModelName"] for m in left.list_models()["Models"]),
    }
    assert not [name for name in names if name.startswith(f"{second.name}-")]
    assert releases.endpoint in names
