"""Releases of the real model: the first one, the next while photographs are counted, one that does not load, and back.

On a stack of its own: beside the shared one's tests they take no time of it. What else may become of a release is
tests/stack/test_release.py's."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from deployed import deploying
from deployed.deploying import Wanted
from deployed.people import ALL_SITES, People
from deployed.shell import Shell
from deployed.target import Target
from local.stack import REGION, REPOSITORY, Local, digest_of, package_version, sources
from tests.stack.conftest import FEW_SNAPSHOTS
from tests.stack.people import Browser, Person, make_person
from tests.stack.releasing import Description, Files, Releases, failed, inbox_of, overtake

QUICK = {"SAM_CLI_POLL_DELAY": "0.5"}  # seconds between two looks; 5 unless told
# A release takes 10 s on an idle machine.
pytestmark = [pytest.mark.xdist_group("models"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, a_port: Callable[[], int]) -> Iterator[Local]:
    stack = Local(home=tmp_path_factory.mktemp("models"), port=a_port(), variables=FEW_SNAPSHOTS)
    stack.up(print)
    yield stack
    stack.down()


@pytest.fixture(scope="module")
def user(stack: Local, a_user: Callable[[Local], Any]) -> Any:
    user = a_user(stack)
    user.configure(RETRY_SECONDS="1")
    return user


@pytest.fixture
def bintally(stack: Local) -> Callable[..., str]:
    """bintally(word, …) runs the command and answers what it printed; it must exit 0."""

    def run(*words: str) -> str:
        command = [str(Path(sys.executable).with_name("bintally")), *words]
        environment = os.environ | {"BINTALLY_HOME": str(stack.home), "BINTALLY_PORT": str(stack.port)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=400)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def releases(stack: Local, user: Any) -> Iterator[Releases]:
    with inbox_of(stack) as inbox:
        yield Releases(stack, user, inbox)


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


def test_a_model_that_does_not_load_changes_nothing(releases: Releases) -> None:
    def break_(files: Files, description: Description) -> None:
        files["model.bin"] = b"not the weights"

    before = releases.live_version(), releases.config(), releases.made()
    url = releases.upload("broken", releases.package("broken", break_))
    failed(releases, releases.start("broken", url), "CandidateFailed", "model.bin is missing or not the file")
    releases.assert_as_before(*before)


def test_the_command_line_releases_approves_and_goes_back(releases: Releases, bintally: Callable[..., Any]) -> None:
    releases.register("2026-11-01-aaaaaa", "PendingManualApproval")
    states = {found["model_version"]: found["state"] for found in json.loads(bintally("model", "list", "--json"))}
    assert states["2026-11-01-aaaaaa"] == "pending"
    assert states[releases.live_version()] == "live"
    before = releases.live_version()
    assert "is being released" in bintally("model", "approve", "2026-11-01-aaaaaa")
    releases.user.wait_for("the approved one", lambda: releases.live_version() == "2026-11-01-aaaaaa", 200)
    releases.user.wait_for("the release's end", lambda: releases.lock() is None, 60)
    printed = bintally("model", "rollback")
    assert f"Rolling back from 2026-11-01-aaaaaa to {before}" in printed
    assert f"Model {before}: released." in printed
    assert releases.live_version() == before
    printed = bintally("model", "release", "2026-11-01-aaaaaa")
    assert "✓ The candidate answers the golden images" in printed
    assert releases.live_version() == "2026-11-01-aaaaaa"
    assert "is rejected" in bintally("model", "reject", "2026-11-01-aaaaaa", "--why", "a test")


def test_a_first_release_that_fails_leaves_no_endpoint(releases: Releases) -> None:
    releases.sagemaker.delete_endpoint(EndpointName=releases.endpoint)
    releases.user.wait_for("no endpoint", lambda: not releases.endpoints())
    execution = overtake(releases, "first-fails")
    failed(releases, execution, "LiveFailed", "the package was replaced after its release")
    with pytest.raises(ClientError):
        releases.sagemaker.describe_endpoint(EndpointName=releases.endpoint)
    assert releases.lock() is None
    shipped = package_version(releases.stack.package)
    releases.stack.release(shipped)
    assert releases.live_version() == shipped


@pytest.fixture(scope="module")
def deployer(stack: Local, tmp_path_factory: pytest.TempPathFactory) -> Person:
    """Someone with the policies of docs/deploying.md and no other right, for a stack `<stack>-two`."""
    second = dataclasses.replace(stack, name=f"{stack.name}-two")
    return make_person(second, tmp_path_factory, "deployer", "deploy", "destroy")


def test_a_stack_counts_from_its_first_release_on_and_takes_its_endpoint_along(
    releases: Releases, user: Any, photograph: Callable[..., bytes], deployer: Person
) -> None:
    """A second stack beside the first: photographs wait in it, then are counted; then it is destroyed amid a release
    and a job. `bintally stack deploy` ends after `sam deploy`, as if interrupted, and goes on in a second run."""
    second = dataclasses.replace(releases.stack, name=f"{releases.stack.name}-two")
    built = second.build_folder(digest_of(sources(second.template))) / "template.json"
    images = {"ServingImage": "bintally-serve:latest", "TrainingImage": "bintally-train:latest"}
    shell = Shell(REPOSITORY, deployer.folder, deployer.environment | QUICK)
    wanted = Wanted(REPOSITORY, "staging", built=built)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in deployer.environment.items():
            patch.setenv(name, value)
        deploying.sam_deploy(Target(second.name, region=REGION), wanted, images, shell)
    outputs = second.outputs()
    functions = second.client("lambda")
    assert functions.get_event_source_mapping(UUID=outputs["CountMapping"])["State"] == "Disabled"
    second.client("s3").put_object(Bucket=outputs["ImagesBucket"], Key="incoming/S/B/1.jpg", Body=photograph(8))
    queue = outputs["CountQueueUrl"]
    user.wait_for("a photograph that waits", lambda: user.depth(queue) == 1)
    time.sleep(2)
    assert user.depth(queue) == 1

    given = (
        "--serving-image",
        images["ServingImage"],
        "--training-image",
        images["TrainingImage"],
        "--built",
        str(built),
    )
    deployed = bintally_by(
        deployer, "stack", "deploy", "--environment", "staging", "--email", "ops@example.com", *given
    )
    assert re.search(r"DEPLOYED/SAMPLE +20260914T084000Z.jpg +1 +\d\d%", deployed.stdout), deployed.stdout
    done = re.findall(r"^✓ (.*) [\d.]+ s$", deployed.stderr, re.MULTILINE)
    assert [step.split()[0] for step in done] == ["Checking", "Deploying", "Subscribing", "Releasing", "Counting"]
    (package,) = second.packages()
    assert package["ModelApprovalStatus"] == "Approved"
    found = second.client("cloudformation").describe_stacks(StackName=second.name)["Stacks"][0]
    tag = {"Key": "bintally-stack", "Value": second.name}
    assert tag in found["Tags"]
    sagemaker = second.client("sagemaker")
    endpoint = sagemaker.describe_endpoint(EndpointName=outputs["EndpointName"])
    assert sagemaker.list_tags(ResourceArn=endpoint["EndpointArn"])["Tags"] == [tag]
    assert {"ParameterKey": "LogRetentionDays", "ParameterValue": "7"} in found["Parameters"]
    (subscription,) = second.client("sns").list_subscriptions_by_topic(TopicArn=outputs["AlertsTopic"])["Subscriptions"]
    assert subscription["Endpoint"] == "ops@example.com"
    table = second.session().resource("dynamodb", endpoint_url=second.endpoint_url).Table(outputs["CountsTable"])
    latest = {"PK": "BIN#S#B", "SK": "LATEST"}
    item = user.wait_for("its count", lambda: table.get_item(Key=latest).get("Item"))
    assert item["status"] == "COUNTED"

    release, job = start_a_release_and_a_job(second)
    assert job in processing_jobs(second, "InProgress")
    user.wait_for(
        "the candidate", lambda: sagemaker.list_endpoints(NameContains=f"{second.name}-candidate")["Endpoints"]
    )
    logs = f"/aws/sagemaker/Endpoints/{second.name}-candidate-0123abcd"  # as SageMaker makes them
    second.client("logs").create_log_group(logGroupName=logs)
    destroyed = bintally_by(deployer, "stack", "destroy", "--keep-data")
    assert f"Stopped {release}" in destroyed.stderr
    assert f"Stopped {job}" in destroyed.stderr
    user.wait_for("the job's end", lambda: job in processing_jobs(second, "Stopped"))
    assert not second.client("logs").describe_log_groups(logGroupNamePrefix=logs)["logGroups"]
    kept = destroyed.stdout.partition("Kept, and still costs:\n")[2]
    for name in ("ImagesBucket", "ArtifactsBucket", "CountsTable", "UserPool"):
        assert outputs[name] in kept
    left = second.client("sagemaker")
    names = {
        *(e["EndpointName"] for e in left.list_endpoints()["Endpoints"]),
        *(c["EndpointConfigName"] for c in left.list_endpoint_configs()["EndpointConfigs"]),
        *(m["ModelName"] for m in left.list_models()["Models"]),
    }
    assert not [name for name in names if name.startswith(f"{second.name}-")]
    assert releases.endpoint in names
    groups = {
        group["ModelPackageGroupName"] for group in left.list_model_package_groups()["ModelPackageGroupSummaryList"]
    }
    assert second.name not in groups
    assert releases.stack.name in groups

    left_lines = bintally_by(deployer, "stack", "destroy", "--delete-data").stdout.partition("still costs:\n")[2]
    assert [line.split(",")[0] for line in left_lines.splitlines()[:-1]] == [  # the emulator has no ECR
        "  repository bintally-serve",
        "  repository bintally-train",
    ]
    buckets = {bucket["Name"] for bucket in second.client("s3").list_buckets()["Buckets"]}
    assert not buckets & {outputs["ImagesBucket"], outputs["ArtifactsBucket"]}
    assert releases.bucket in buckets
    assert outputs["CountsTable"] not in second.client("dynamodb").list_tables()["TableNames"]


def start_a_release_and_a_job(stack: Local) -> tuple[str, str]:
    """Starts a release of the live version, and a job as a retraining names it, which would last for ten minutes.
    Returns both names."""
    outputs, sagemaker = stack.outputs(), stack.client("sagemaker")
    (package,) = stack.packages()
    url = package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
    request = {"model_version": package_version(stack.package), "model_data_url": url, "again": True}
    machine = outputs["ReleaseStateMachine"]
    started = stack.client("stepfunctions").start_execution(stateMachineArn=machine, input=json.dumps(request))
    job = f"{stack.name}-261122-0123ab-process"
    sagemaker.create_processing_job(
        ProcessingJobName=job,
        RoleArn=outputs["JobRole"],
        AppSpecification={"ImageUri": "bintally-train", "ContainerEntrypoint": ["sleep", "600"]},
        ProcessingResources={
            "ClusterConfig": {"InstanceType": "ml.c7i.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1}
        },
    )
    return started["executionArn"].rpartition(":")[2], job


def processing_jobs(stack: Local, status: str) -> list[str]:
    found = stack.client("sagemaker").list_processing_jobs(StatusEquals=status)["ProcessingJobSummaries"]
    return [job["ProcessingJobName"] for job in found]


def bintally_by(person: Person, *words: str) -> subprocess.CompletedProcess[str]:
    """What a command of this person printed; it must exit 0."""
    command = [str(Path(sys.executable).with_name("bintally")), *words]
    settings = person.environment | QUICK
    done = subprocess.run(command, cwd=person.folder, env=settings, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return done


def idle(answer: tuple[int, Any]) -> tuple[int, Any] | None:
    """None while another release runs, such as one that an approval has started."""
    return None if answer[0] == 409 and answer[1]["code"] == "RUNNING" else answer


def test_a_manager_of_all_sites_reads_and_decides_about_models(stack: Local, user: Any, releases: Releases) -> None:
    """With no other permissions than the answer function's role has."""
    mia, given = Browser(stack), People(stack).add("mia", "manager", [ALL_SITES])
    assert mia.session(name="mia", password=given, new_password="correct horse battery staple")[0] == 200

    def decide(path: str) -> tuple[int, Any]:
        return mia.ask("POST", path, {}, Authorization=f"Bearer {mia.token}")

    status, found = mia.get("/api/models")
    live = found["live"]
    assert status == 200 and live in [model["model_version"] for model in found["models"]]
    assert mia.get(f"/api/models/{live}")[0] == 200
    assert mia.get("/api/retrainings")[0] == 200
    assert decide(f"/api/models/{live}/approvals") == (
        200,
        {"model_version": live, "state": "approved", "release": "BEFORE"},
    )
    status, started = user.wait_for("no other release", lambda: idle(decide(f"/api/models/{live}/releases")))
    assert status == 202
    assert json.loads(releases.wait(started["execution"])["output"])["outcome"] == "already live"
    assert mia.get("/api/models")[1]["release"]["name"].startswith("by-hand-")
    status, started = decide("/api/rollbacks")
    if status == 409:  # where this test runs alone
        assert started["code"] == "NONE_BEFORE"
        return
    assert json.loads(releases.wait(started["execution"])["output"])["outcome"] == "released"
    assert mia.get("/api/models")[1]["live"] != live
