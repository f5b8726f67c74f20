"""retrain runs, report and stop, over what runs leave in the table and the bucket."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from deployed.errors import Denied
from deployed.stack import Deployed

ROLE = "arn:aws:iam::123456789012:role/retrain"
LOST = {
    "outcome": "not better",
    "reason": "not shown to be better: ranked probability score +0.0010",
    "model_version": "2026-11-22-bbbbbb",
    "concluded_at": "2026-11-22T05:00:00Z",
}
RUNS = {
    "261101-aaaaaa": {"outcome": "nothing to do", "reason": "3 photographs have new labels, a run takes 1000"},
    "261122-bbbbbb": LOST,
    "261129-cccccc": {"outcome": "running"},
}


@pytest.fixture
def retrained(aws: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    states = aws.stack.client("stepfunctions")
    machine = states.create_state_machine(name="retrain", definition="{}", roleArn=ROLE)["stateMachineArn"]
    outputs = {"RetrainStateMachine": machine, "ArtifactsBucket": "images", "CountsTable": "counts"}
    monkeypatch.setattr(aws.stack, "outputs", lambda: outputs)
    monkeypatch.setattr(aws.stack, "under_way", partial(Deployed.under_way, aws.stack), raising=False)
    for run, known in RUNS.items():
        started = {"run": run, "execution": f"{machine}:{run}", "started_at": f"2026-11-{run[4:6]}T03:00:00Z"}
        aws.table.put_item(Item={"PK": "RETRAIN", "SK": f"RUN#{run}", **started, **known})
    aws.table.put_item(Item={"PK": "RETRAIN", "SK": "STATE", "run": "261122-bbbbbb"})
    aws.s3.put_object(Bucket="images", Key="retrain/261122-bbbbbb/evaluation/report.html", Body=b"<html>the page")
    return SimpleNamespace(machine=machine, states=states)


def run(*words: str, columns: int = 200) -> Result:
    return CliRunner().invoke(main, ["retrain", *words], env={"COLUMNS": str(columns)})


def test_runs_are_listed_the_newest_first(retrained: SimpleNamespace) -> None:
    shown = run("runs").output.splitlines()
    assert [line.split()[0] for line in shown] == ["Run", "261129-cccccc", "261122-bbbbbb", "261101-aaaaaa"]
    assert "2026-11-22 03:00" in shown[2]
    assert "not better" in shown[2]
    assert "not shown to be better: ranked" in shown[2]
    narrow = run("runs", columns=80).output.splitlines()
    assert len(narrow) == 4, "a reason is cut and takes no second line"
    assert all(len(line.rstrip()) <= 80 for line in narrow)
    (newest,) = json.loads(run("runs", "--top", "1", "--json").output)
    assert (newest["run"], newest["outcome"]) == ("261129-cccccc", "running")


@pytest.mark.usefixtures("aws")
def test_a_new_stack_has_no_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("runs").output == "No retrainings yet. Start one with: bintally retrain start --force\n"
    assert run("report").output == "Error: there is no retraining that trained a model. See: bintally retrain runs\n"


@pytest.mark.parametrize("which", [[], ["261122-bbbbbb"], ["2026-11-22-bbbbbb"]])
def test_the_report_of_one_that_did_not_win(
    retrained: SimpleNamespace, which: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default the newest that trained a model; else by its name or its model's."""
    monkeypatch.chdir(tmp_path)
    shown = run("report", *which)
    assert shown.exit_code == 0, shown.output
    assert "Run 261122-bbbbbb: not better. not shown to be better" in shown.output
    assert (tmp_path / "report-261122-bbbbbb.html").read_bytes() == b"<html>the page"
    assert run("report", *which, "--output", str(tmp_path / "a" / "b.html")).exit_code == 1


@pytest.mark.parametrize(
    ("which", "why"),
    [
        ("261129-cccccc", "run 261129-cccccc has no report: it still runs"),
        ("261101-aaaaaa", "run 261101-aaaaaa has no report: 3 photographs have new labels, a run takes 1000"),
        ("261130-dddddd", "there is no retraining 261130-dddddd. See: bintally retrain runs"),
    ],
)
def test_a_run_without_a_report_says_why(retrained: SimpleNamespace, which: str, why: str) -> None:
    shown = run("report", which)
    assert (shown.exit_code, shown.output) == (1, f"Error: {why}\n")


def test_stop_stops_what_runs(retrained: SimpleNamespace) -> None:
    assert run("stop").output == "Error: no retraining runs. See: bintally retrain runs\n"
    started = retrained.states.start_execution(stateMachineArn=retrained.machine, name="by-hand-7")["executionArn"]
    shown = run("stop", "--why", "wrong labels")
    assert shown.exit_code == 0, shown.output
    assert f"Stopped {started}." in shown.output
    assert retrained.states.describe_execution(executionArn=started)["status"] == "ABORTED"


def test_who_stops_watching_learns_that_the_run_goes_on(
    retrained: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.retraining.time", SimpleNamespace(sleep=pressed, time=lambda: 0.0))
    shown = run("start", "--watch")
    assert (shown.exit_code, shown.output.splitlines()[-1]) == (
        130,
        "Error: the retraining goes on. Stop it with: bintally retrain stop",
    )


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["epoch=3"], "no such settings: epoch; there are epochs,"),
        (["instance_type=ml.g5.huge"], "Instance types are parameters of the stack, such as TrainingInstanceType"),
        (["epochs=many"], "epochs is a whole number from 1 to 1000, not 'many'"),
        (["epochs=0"], "epochs is a whole number from 1 to 1000, not '0'"),
        (["trials=2.5"], "trials is a whole number from 0 to 100, not '2.5'"),
        (["instances=21"], "instances is a whole number from 1 to 20"),
        (["batch_size="], "batch_size is a whole number from 0 to 1024, not ''"),
        (["sizes=96x128"], "sizes are from 32 to 512 pixels with commas between"),
        (["sizes=16"], "sizes are from 32 to 512 pixels"),
        (["start=zero"], "start is champion or scratch, not 'zero'"),
        (["learning_rate=fast"], "learning_rate is a number above 0, at most 1, not 'fast'"),
        (["epochs"], "--set takes NAME=VALUE, not epochs"),
        (["epochs=3", "epochs=4"], "--set epochs is given twice, as 3 and 4"),
    ],
)
def test_wrong_settings_are_wrong_use_and_start_nothing(retrained: SimpleNamespace, given: list[str], why: str) -> None:
    shown = run("start", *(word for each in given for word in ("--set", each)))
    assert shown.exit_code == 2, shown.output
    assert why in " ".join(shown.output.split())
    assert not retrained.states.list_executions(stateMachineArn=retrained.machine)["executions"]


def test_settings_are_sent_as_the_run_reads_them(retrained: SimpleNamespace) -> None:
    shown = run("start", "--set", "epochs=3", "--set", "sizes=128", "--set", "learning_rate=1e-3", "--force")
    assert shown.exit_code == 0, shown.output
    (execution,) = retrained.states.list_executions(stateMachineArn=retrained.machine)["executions"]
    sent = json.loads(retrained.states.describe_execution(executionArn=execution["executionArn"])["input"])
    assert sent["settings"] == {"epochs": 3, "sizes": "128", "learning_rate": "1e-3"}


def test_a_second_run_by_hand_is_not_started(retrained: SimpleNamespace) -> None:
    retrained.states.start_execution(stateMachineArn=retrained.machine, name="by-hand-7")
    shown = run("start")
    said = "Error: a retraining runs already: by-hand-7. Stop it with: bintally retrain stop\n"
    assert (shown.exit_code, shown.output) == (1, said)
    assert len(retrained.states.list_executions(stateMachineArn=retrained.machine)["executions"]) == 1


def test_who_may_start_one_need_not_see_the_others(retrained: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(stack: object) -> str:
        raise Denied("states:ListExecutions")

    monkeypatch.setattr("cli.retrain_start.running", refused)
    assert run("start").output.startswith("Started arn:")
