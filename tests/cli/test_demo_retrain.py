"""The retraining demo before it does anything; what it does is tests/stack/test_retrain.py's."""

from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from cli.main import main

ROLE = "arn:aws:iam::123456789012:role/retrain"


def test_nothing_is_uploaded_while_a_run_is_under_way(aws: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    states = aws.stack.client("stepfunctions")
    machine = states.create_state_machine(name="retrain", definition="{}", roleArn=ROLE)["stateMachineArn"]
    states.start_execution(stateMachineArn=machine, name="by-hand-7")
    monkeypatch.setattr(aws.stack, "outputs", lambda: {"RetrainStateMachine": machine, "ImagesBucket": "images"})
    result = CliRunner().invoke(main, ["demo-retrain"])
    assert result.exit_code == 1
    assert "retraining by-hand-7 is under way" in result.output
    assert "Contents" not in aws.s3.list_objects_v2(Bucket="images")
