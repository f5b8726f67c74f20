"""Releases to a real-time endpoint: a share of the traffic tries the new model first, while alarms watch.

The stack's own: real-time, half of the traffic for 20 seconds, the alarm about low confidence by 15 seconds (300 as
deployed).
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from bench import redeploy
from local.stack import REPOSITORY, Local, package_version
from tests.stack.conftest import FEW_SNAPSHOTS
from tests.stack.releasing import Description, Files, Releases, inbox_of

pytestmark = [pytest.mark.xdist_group("canary"), pytest.mark.timeout(900)]

PARAMETERS = ("EndpointMode=realtime", "CanaryPercent=50", "CanaryWaitSeconds=20", "LowConfidenceShare=0.3")
SHIPPED = package_version(Local.package)


@pytest.fixture(scope="module")
def realtime(tmp_path_factory: pytest.TempPathFactory, a_port: Callable[[], int]) -> Iterator[Local]:
    stack = Local(
        home=tmp_path_factory.mktemp("realtime"), port=a_port(), parameters=PARAMETERS, variables=FEW_SNAPSHOTS
    )
    stack.up(print)
    try:
        yield stack
    finally:
        stack.down()


@pytest.fixture(scope="module")
def releases(realtime: Local, a_user: Callable[[Local], Any]) -> Iterator[Releases]:
    user = a_user(realtime)
    user.configure(RETRY_SECONDS="1")
    with inbox_of(realtime) as inbox:
        yield Releases(realtime, user, inbox)


@pytest.fixture(scope="module")
def quick_alarm(realtime: Local) -> str:
    return redeploy.quick_alarm(realtime)


def unsure(files: Files, description: Description) -> None:
    """A model that passes its golden images and is of use to nobody: it gives every count the same probability."""
    description["calibration"]["temperature"] = 1e6
    for golden in description["golden"]:
        same = {"probabilities": [1 / 7] * 7, "confidence": 1 / 7, "count": 3, "is_minimum": False}
        golden["answer"] |= same | {"expected_capped": 3.0}


@dataclass
class Steady:
    """Requests to the endpoint, ten a second, and photographs for the count function, three a second."""

    releases: Releases
    versions: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Steady":
        self._threads = [threading.Thread(target=self._ask), threading.Thread(target=self._upload)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._ended.wait(0.1):
            try:
                self.versions.append(self.releases.live_version())
            except (ClientError, BotoCoreError) as error:
                self.failures.append(str(error))

    def _upload(self) -> None:
        """Photographs that the shipped model is sure of (README)."""
        samples = sorted(Path(REPOSITORY / "samples").rglob("*.jpg"))
        while not self._ended.wait(0.33):
            number = len(self.keys)
            self.keys.append(f"incoming/CANARY/B{number}-{time.time_ns()}/1.jpg")
            self.releases.user.upload(self.keys[-1], samples[number % len(samples)].read_bytes())

    def assert_all_answered(self) -> None:
        assert self.failures == []
        assert len(self.versions) > 100
        items = self.releases.user.wait_counts(*self.keys, seconds=200)
        assert {item["status"] for item in items} == {"COUNTED"}
        assert self.releases.user.depth(self.releases.user.dead) == 0


def mixed(versions: list[str], old: str, new: str) -> list[str]:
    """The answers between the new model's first and the old one's last."""
    first, last = versions.index(new), len(versions) - versions[::-1].index(old)
    return versions[first:last]


def test_a_canary_then_all_without_a_failed_request(releases: Releases) -> None:
    with Steady(releases) as steady:
        package = releases.register("steady")
        execution = releases.wait_started_for(package)
        assert releases.outcome(execution) == "released"
        config = releases.config()
        time.sleep(1)
    steady.assert_all_answered()
    canary = mixed(steady.versions, SHIPPED, "steady")
    assert set(canary) == {SHIPPED, "steady"}
    assert 0.2 < canary.count("steady") / len(canary) < 0.8  # the count function asks in between
    assert len(canary) > 20  # of the 200 that come in 20 s on an idle machine
    assert steady.versions[-1] == "steady"
    found = releases.sagemaker.describe_endpoint(EndpointName=releases.endpoint)
    policy = found["LastDeploymentConfig"]["BlueGreenUpdatePolicy"]
    assert policy["TrafficRoutingConfiguration"]["Type"] == "CANARY"
    assert config == found["EndpointConfigName"]
    assert releases.endpoints() == {releases.endpoint}
    assert releases.lock() is None


def test_an_alarm_during_the_canary_brings_the_model_before_back(releases: Releases, quick_alarm: str) -> None:
    before = releases.live_version(), releases.config(), releases.made()
    with Steady(releases) as steady:
        package = releases.register("unsure", package=releases.package("unsure", unsure))
        first = releases.wait_started_for(package)
        releases.wait_state(first, "WaitForLive")
        second = releases.repeat(first)
        found = releases.wait(first)
        time.sleep(1)
    assert (found["status"], found["error"]) == ("FAILED", "RolledBack")
    assert quick_alarm in found["cause"]
    steady.assert_all_answered()
    assert "unsure" in steady.versions
    assert steady.versions[-1] == before[0]
    assert releases.outcome(second) == "superseded"  # and the event that came again does not try again
    event, message = releases.told(first)
    assert (event["outcome"], event["error"], event["reason"]) == ("failed", "RolledBack", found["cause"])
    assert found["cause"] in message
    releases.assert_as_before(*before)


def test_going_back_needs_no_quiet_alarm(releases: Releases, quick_alarm: str) -> None:
    """A model that is live and bad rings the very alarms that would end a canary to the good one."""
    good = releases.live_version()
    url = releases.upload("bad", releases.package("bad", unsure))
    machine = releases.outputs["ReleaseStateMachine"]
    request = {"model_version": "bad", "model_data_url": url, "at_once": True}
    started = releases.states.start_execution(stateMachineArn=machine, input=json.dumps(request))
    assert releases.outcome(started["executionArn"]) == "released"
    cloudwatch = releases.stack.client("cloudwatch")

    def rings() -> bool:
        found = cloudwatch.describe_alarms(AlarmNames=[quick_alarm])["MetricAlarms"]
        return bool(found[0]["StateValue"] == "ALARM")

    with Steady(releases):
        releases.user.wait_for("the alarm", rings, 60)
        found = releases.run("better")
        assert (found["status"], found["error"]) == ("FAILED", "RolledBack")
        assert rings()
        back = {"model_version": good, "model_data_url": f"s3://{releases.bucket}/models/{good}/model.tar.gz"}
        started = releases.states.start_execution(stateMachineArn=machine, input=json.dumps({**back, "at_once": True}))
        assert releases.outcome(started["executionArn"]) == "released"
    assert releases.live_version() == good
