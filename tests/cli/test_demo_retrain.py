"""The retraining demo before it does anything; what it does is tests/stack/test_retrain.py's."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from rich.console import Console

from cli import demo_retrain
from cli.errors import CliError
from cli.main import main
from deployed.stack import Deployed

ROLE = "arn:aws:iam::123456789012:role/retrain"


def test_nothing_is_uploaded_while_a_run_is_under_way(
    aws: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    states = aws.stack.client("stepfunctions")
    machine = states.create_state_machine(name="retrain", definition="{}", roleArn=ROLE)["stateMachineArn"]
    states.start_execution(stateMachineArn=machine, name="by-hand-7")
    monkeypatch.setattr(aws.stack, "outputs", lambda: {"RetrainStateMachine": machine, "ImagesBucket": "images"})
    monkeypatch.setattr(aws.stack, "under_way", partial(Deployed.under_way, aws.stack), raising=False)
    python = tmp_path / ".venv-train" / "bin" / "python"  # this test needs no torch; that it is asked for, it does
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.setattr(demo_retrain, "REPOSITORY", tmp_path)
    result = CliRunner().invoke(main, ["demo-retrain"])
    assert result.exit_code == 1
    assert "retraining by-hand-7 is running" in result.output
    assert "Contents" not in aws.s3.list_objects_v2(Bucket="images")


def test_it_waits_for_the_labels_of_its_own_photographs(aws: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws.stack, "outputs", lambda: {"ArtifactsBucket": "images"})
    monkeypatch.setattr(demo_retrain, "LABELS_SECONDS", 0.1)

    def log(name: str, *versions: str) -> None:
        body = "".join(json.dumps({"image": {"version_id": version}}) + "\n" for version in versions)
        aws.s3.put_object(Bucket="images", Key=f"labels/{name}", Body=body.encode())

    told = {"a": "COUNTED", "b": "COUNTED", "gone": "REJECTED"}
    counts = [{"image": {"version_id": version}, "status": status} for version, status in told.items()]
    log("2026/11/22/1.jsonl", "an older one", "another", "a")
    log("aside/x.json", "b")
    with pytest.raises(CliError, match="1 photographs have no label yet"):
        demo_retrain.wait_labels(aws.stack, counts, Console())
    log("2026/11/23/2.jsonl", "b", "b")
    demo_retrain.wait_labels(aws.stack, counts, Console())


@pytest.mark.parametrize(
    ("outcome", "code", "said"), [("not better", 0, "The live model stays"), ("refused", 1, "Error")]
)
def test_a_verdict_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outcome: str, code: int, said: str
) -> None:
    python = tmp_path / ".venv-train" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.setattr(demo_retrain, "REPOSITORY", tmp_path)
    monkeypatch.setattr("cli.demo_retrain.signal.signal", lambda *_: None)
    for name in ("ready_stack", "wait_labels", "show_report"):
        monkeypatch.setattr(demo_retrain, name, lambda *_: None)
    for name in ("render", "count"):
        monkeypatch.setattr(demo_retrain, name, lambda *_: [{"count": 3, "recorded_quantity": 3}])
    monkeypatch.setattr(demo_retrain, "share_right", lambda _: 0.67)
    monkeypatch.setattr("cli.demo_retrain.retraining.running", lambda _: None)
    monkeypatch.setattr("cli.demo_retrain.retraining.start", lambda *_: "execution")
    monkeypatch.setattr("cli.demo_retrain.retraining.follow", lambda *_: {"run": "r", "outcome": outcome})
    ended = CliRunner().invoke(demo_retrain.command, [])
    assert (ended.exit_code, said in ended.output) == (code, True), ended.output
