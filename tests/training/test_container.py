"""The layout that SageMaker documents for a job's container, read from a folder that has it."""

import json
from pathlib import Path

import pytest

from training import container


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SM_OPT_ML", str(tmp_path))
    (tmp_path / "input" / "config").mkdir(parents=True)
    return tmp_path


def configure(root: Path, name: str, content: object) -> None:
    (root / "input" / "config" / f"{name}.json").write_text(json.dumps(content))


def test_the_root_is_opt_ml_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SM_OPT_ML", raising=False)
    assert container.root() == Path("/opt/ml")
    assert container.processing("input/dataset") == Path("/opt/ml/processing/input/dataset")


def test_hyperparameters_are_arguments(root: Path) -> None:
    given = {"batch-size": '"32"', "learning-rate": "1e-3", "sizes": "64,96", "parent": "-"}
    configure(root, "hyperparameters", given | {"_tuning_objective_metric": "x", "sagemaker_program": "y"})
    assert container.hyperparameters() == ["--batch-size=32", "--learning-rate=1e-3", "--sizes=64,96", "--parent=-"]


def test_a_job_without_hyperparameters_has_no_arguments(root: Path) -> None:
    assert container.hyperparameters() == []


def test_channels_are_folders(root: Path) -> None:
    (root / "input" / "data" / "train").mkdir(parents=True)
    assert container.channel("train") == root / "input" / "data" / "train"
    assert container.channel("champion") is None


@pytest.mark.parametrize("folder", ["input/config", "config"])
def test_hosts_of_both_kinds_of_job(root: Path, folder: str) -> None:
    (root / folder).mkdir(exist_ok=True)
    (root / folder / "resourceconfig.json").write_text('{"current_host": "algo-2", "hosts": ["algo-2", "algo-1"]}')
    found = container.hosts()
    assert (found.names, found.index) == (["algo-1", "algo-2"], 1)


def test_outside_of_a_job_there_is_one_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SM_OPT_ML", str(tmp_path / "absent"))
    assert container.hosts() == container.Hosts(["localhost"], "localhost")
    with pytest.raises(SystemExit), container.failure_told():
        raise SystemExit("not kept anywhere")
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SystemExit("no photographs\nin train"), "no photographs in train"),
        (ValueError("7 is not a class"), "ValueError: 7 is not a class"),
    ],
)
def test_the_reason_of_a_failure_is_one_line(root: Path, error: BaseException, reason: str) -> None:
    with pytest.raises(type(error)), container.failure_told():
        raise error
    assert (root / "output" / "failure").read_text() == (root / "output" / "message").read_text() == reason


def test_the_first_reason_is_kept_and_an_exit_code_is_none(root: Path) -> None:
    for number in (0, 143):
        with pytest.raises(SystemExit), container.failure_told():
            raise SystemExit(number)
    assert not (root / "output").exists()
    for reason in ("first", "second"):
        with pytest.raises(SystemExit), container.failure_told():
            raise SystemExit(reason)
    assert (root / "output" / "failure").read_text() == "first"


def test_a_wrong_argument_is_a_reason(root: Path) -> None:
    parser = container.Arguments(prog="train")
    parser.add_argument("--epochs", type=int)
    with pytest.raises(SystemExit), container.failure_told():
        parser.parse_args(["--epochs=many"])
    assert "invalid int value: 'many'" in (root / "output" / "failure").read_text()
