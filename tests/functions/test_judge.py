"""The verdict on a challenger: the rule, and the function around it."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from bintally import judge as function
from bintally.aws import clients
from bintally.judge import BadEvaluation, NoEvaluation
from bintally.retraining.judging import judge
from bintally.retraining.settings import Margins, margins
from botocore.exceptions import ClientError
from moto import mock_aws

ROOT = Path(__file__).parents[2]
EVENT = json.loads((ROOT / "events" / "judge.json").read_text())
BUCKET = "bintally-artifactsbucket"
MARGINS = Margins(superiority=0.01, noninferiority=0.1, least_bins=50)


def group(name: str, bins: int, difference: float | None, low: float | None, high: float | None) -> dict[str, Any]:
    return {
        "name": name, "photographs": 2 * bins, "bins": bins, "difference": difference, "lower_bound": low,
        "upper_bound": high,
    }  # fmt: skip


BETTER: dict[str, Any] = {
    "format": 1,
    "test_set": {"digest": "t" * 64, "photographs": 900, "bins": 450},
    "dataset_digest": "d" * 64,
    "champion": {"model_version": "2026-11-22", "as_shipped": {"rps": 0.67}},
    "challenger": {"model_version": EVENT["model_version"], "as_shipped": {"rps": 0.63}},
    "paired": {"rps": {"difference": 0.04, "interval": [0.01, 0.07], "lower_bound": 0.015}},
    "groups": [
        group("0", 50, 0.01, -0.05, 0.07),
        group("1-2", 100, 0.03, -0.04, 0.10),
        group("3-5", 180, 0.05, 0.02, 0.08),
        group("6 or more", 120, 0.04, -0.01, 0.09),
    ],
    "golden": {"asked": 6, "faults": [], "package_digest": "p" * 64},
}


def changed(path: str, value: object) -> dict[str, Any]:
    """BETTER with another value at a path like groups.0.bins."""
    evaluation = copy.deepcopy(BETTER)
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    at: Any = evaluation
    for step in way:
        at = at[step]
    at[last] = value
    return evaluation


def without(path: str) -> dict[str, Any]:
    evaluation = copy.deepcopy(BETTER)
    *way, last = path.split(".")
    at: Any = evaluation
    for step in way:
        at = at[step]
    del at[last]
    return evaluation


def test_a_better_challenger_is_promoted() -> None:
    answer = judge(BETTER, MARGINS)
    assert answer["promote"] is True
    assert answer["reasons"] == [answer["reason"]]
    assert "0.0400" in answer["reason"] and "0.0150" in answer["reason"]
    assert answer["figures"]["dataset_digest"] == "d" * 64 and answer["figures"]["test_set_digest"] == "t" * 64
    assert answer["figures"]["package_digest"] == "p" * 64


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        (changed("paired.rps.lower_bound", 0.01), "not shown to be better"),  # on the margin is not above it
        (changed("paired.rps.lower_bound", -0.2), "not shown to be better"),
        (changed("groups.1.lower_bound", -0.1), "bins of 1-2"),
        (changed("groups.3.lower_bound", -0.3), "bins of 6 or more"),
        (changed("golden.faults", ["golden/0.png: count is 3, recorded is 2"]), "golden/0.png"),
        (changed("golden.asked", 0), "no golden images"),
        (changed("groups.0", group("0", 12, -0.5, -0.7, -0.3)), "shown to be worse"),
        (changed("groups.2.bins", 49), "too few photographs"),
        (changed("groups", []), "too few photographs"),
    ],
)
def test_one_reason_against_is_enough(evaluation: dict[str, Any], words: str) -> None:
    answer = judge(evaluation, MARGINS)
    assert answer["promote"] is False
    (reason,) = answer["reasons"]
    assert words in reason and answer["reason"] == reason and "\n" not in reason


def test_every_reason_is_told() -> None:
    evaluation = changed("paired.rps.lower_bound", -0.1)
    evaluation["groups"][1]["lower_bound"] = -0.2
    evaluation["golden"]["faults"] = ["a\nb"]
    answer = judge(evaluation, MARGINS)
    assert len(answer["reasons"]) == 3 and answer["reason"].count("; ") == 2 and "\n" not in answer["reason"]


@pytest.mark.parametrize(
    "few",
    [
        group("0", 0, None, None, None),  # a site without empty bins
        group("0", 3, -0.9, None, None),  # so few that nothing is known
        group("0", 49, -0.02, -0.15, 0.11),  # too few to show that it is no worse
    ],
)
def test_a_small_group_does_not_stop_it(few: dict[str, Any]) -> None:
    assert judge(changed("groups.0", few), MARGINS)["promote"] is True
    big = few | {"bins": 50, "difference": -0.02, "lower_bound": -0.15}
    assert judge(changed("groups.0", big), MARGINS)["promote"] is False


def test_small_groups_may_not_be_most_of_the_test_set() -> None:
    evaluation = changed("groups.0", group("0", 49, 0.0, -0.05, 0.05))
    assert judge(evaluation, MARGINS)["promote"] is True  # 98 of 898 photographs
    evaluation["groups"][1] = group("1-2", 49, 0.0, -0.05, 0.05)
    answer = judge(evaluation, MARGINS)  # 196 of 796
    assert not answer["promote"] and "196 of 796" in answer["reason"]


# ---- The function ----


class Bucket:
    def __init__(self) -> None:
        self.client = boto3.client("s3")
        self.client.create_bucket(Bucket=BUCKET)

    def put(self, content: object) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.client.put_object(Bucket=BUCKET, Key="retrain/261124-1a2b3c/evaluation/evaluation.json", Body=body)

    def verdict(self) -> dict[str, Any] | None:
        listed = self.client.list_objects_v2(Bucket=BUCKET, Prefix="retrain/261124-1a2b3c/verdict.json")
        if not listed["KeyCount"]:
            return None
        found: dict[str, Any] = json.loads(
            self.client.get_object(Bucket=BUCKET, Key="retrain/261124-1a2b3c/verdict.json")["Body"].read()
        )
        return found


@pytest.fixture
def bucket(environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name, value in (("SUPERIORITY_MARGIN", "0"), ("NONINFERIORITY_MARGIN", "0.1"), ("LEAST_BINS", "50")):
        monkeypatch.setenv(name, value)
    with mock_aws():
        yield Bucket()


def test_the_verdict_is_stored_as_answered(bucket: Bucket) -> None:
    bucket.put(BETTER)
    answer = function.handler(EVENT, None)
    assert set(answer) == {"promote", "reason", "reasons", "figures"} and answer["promote"] is True
    verdict = bucket.verdict()
    assert verdict is not None and {name: verdict[name] for name in answer} == answer
    assert verdict["margins"] == {"superiority": 0.0, "noninferiority": 0.1, "least_bins": 50}
    assert (verdict["run"], verdict["model_version"], verdict["champion"]) == (
        "261124-1a2b3c",
        "2026-11-24-1a2b3c",
        "2026-11-22",
    )


def test_the_report_says_the_verdict(bucket: Bucket) -> None:
    """The page is made before there is one; a second delivery writes it once."""
    page = f"{EVENT['evaluation'].rpartition('/')[0].removeprefix(f's3://{BUCKET}/')}/report.html"
    template = (ROOT / "training" / "verdict" / "report.html.jinja").read_text()
    assert function.PLACE_OF_VERDICT.decode() in template
    clients.s3().put_object(Bucket=BUCKET, Key=page, Body=b"<main>" + function.PLACE_OF_VERDICT + b"</main>")
    bucket.put(changed("golden.faults", ["golden/0.png: count is <3>"]))
    for _ in range(2):
        function.handler(EVENT, None)
    found = clients.s3().get_object(Bucket=BUCKET, Key=page)["Body"].read().decode()
    assert found.count("Verdict: The champion stays.") == 1
    assert "first golden/0.png: count is &lt;3&gt;" in found


def test_a_refusal_is_an_answer(bucket: Bucket) -> None:
    bucket.put(changed("paired.rps.lower_bound", -0.01))
    answer = function.handler(EVENT, None)
    verdict = bucket.verdict()
    assert answer["promote"] is False and verdict is not None and verdict["promote"] is False


def test_the_margins_are_the_environments(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put(BETTER)
    monkeypatch.setenv("SUPERIORITY_MARGIN", "0.02")
    assert function.handler(EVENT, None)["promote"] is False
    margins.cache_clear()
    monkeypatch.delenv("LEAST_BINS")
    with pytest.raises(KeyError, match="LEAST_BINS"):
        function.handler(EVENT, None)


def test_no_evaluation(bucket: Bucket) -> None:
    with pytest.raises(NoEvaluation, match=r"evaluation\.json"):
        function.handler(EVENT, None)
    assert bucket.verdict() is None


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff",
        [],
        changed("format", 2),
        changed("challenger.model_version", "2026-01-01-ffffff"),
        without("paired"),
        without("golden.faults"),
        without("challenger"),
        without("dataset_digest"),
        changed("paired.rps.lower_bound", None),
        changed("paired.rps.lower_bound", "0.5"),
        changed("paired.rps.lower_bound", float("nan")),
        changed("groups.0.lower_bound", True),
        changed("groups", {"0": 1}),
        changed("golden.asked", "six"),
    ],
)
def test_a_bad_evaluation_gives_no_verdict(bucket: Bucket, content: object) -> None:
    bucket.put(content)
    with pytest.raises(BadEvaluation):
        function.handler(EVENT, None)
    assert bucket.verdict() is None


def test_what_s3_refuses_is_not_taken_for_a_missing_evaluation(
    bucket: Bucket, refuse: Callable[..., Callable[[], None]]
) -> None:
    bucket.put(BETTER)
    refuse(clients.s3(), "GetObject", "AccessDenied", 403)
    with pytest.raises(ClientError):
        function.handler(EVENT, None)
