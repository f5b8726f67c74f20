"""Training as a SageMaker job: in the documented folders, on several hosts, interrupted, and failing with a reason."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from localsagemaker.ports import free_port

from model import package
from model.serve import Counter
from training import container, train
from training.verdict import metrics

pytestmark = pytest.mark.timeout(1800)  # several trainings each
REPOSITORY = Path(__file__).parents[2]
SHIPPED = REPOSITORY / "model" / "pretrained" / "model.tar.gz"
PATIENCE = 900
"""Seconds for a job that takes 10 on an idle machine: a busy one fails no test by its time."""
SMALL = {"sizes": "32", "batch-size": "16", "epochs": "2", "calibration-photographs": "8"}
METRICS = {
    "train:loss": r"\bloss ([0-9.]+)",
    "validation:rps": r"validation_rps ([0-9.]+)",
    "validation:log_loss": r"validation_log_loss ([0-9.]+)",
    "validation:accuracy": r"validation_accuracy ([0-9.]+)",
    "train:waiting_share": r"waiting ([0-9.]+)",
    "train:images_per_second": r"images_per_second ([0-9.]+)",
}
"""As the state machine has them."""


class Job:
    """One host of a training job; `data` is a folder with the channels."""

    def __init__(self, root: Path, data: Path, host: str = "algo-1", hosts: int = 1, port: int = 0, **given: str):
        self.root = root
        resources = {"current_host": host, "hosts": [f"algo-{number + 1}" for number in range(hosts)]}
        hyperparameters = SMALL | {name.replace("_", "-"): value for name, value in given.items()}
        (root / "input" / "config").mkdir(parents=True)
        (root / "input" / "config" / "resourceconfig.json").write_text(json.dumps(resources))
        (root / "input" / "config" / "hyperparameters.json").write_text(json.dumps(hyperparameters))
        for channel in ("dataset", "train", "validation"):
            shutil.copytree(data / channel, root / "input" / "data" / channel)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("SM_")}
        self.environment |= {"SM_OPT_ML": str(root), "SM_MASTER_ADDR": "127.0.0.1", "SM_MASTER_PORT": str(port)}

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "training.train"]
        return subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self) -> tuple[int, str]:
        """Exit code and log."""
        process = self.start()
        log, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, log

    def reason(self) -> str | None:
        file = self.root / "output" / "failure"
        return file.read_text() if file.exists() else None


def lines(log: str, name: str) -> list[float]:
    return [float(found) for found in re.findall(METRICS[name], log)]


def test_from_the_champion_to_a_package_that_answers(rendered: Path, tmp_path: Path) -> None:
    # At a learning rate so small the champion stays what it is, so that int8 has something to be faithful to.
    job = Job(
        tmp_path, rendered, package="true", model_version="2026-01-02-abc123", parent="before", learning_rate="1e-6"
    )
    (tmp_path / "input" / "data" / "champion").mkdir()
    shutil.copy(SHIPPED, tmp_path / "input" / "data" / "champion")
    status, log = job.run()
    assert (status, job.reason()) == (0, None), log
    assert all(len(lines(log, name)) == 2 for name in METRICS), log
    assert re.search(r"(?m)^gpus 0$", log)

    made = package.load(tmp_path / "model")
    assert (made.model_version, made.description["parent"]) == ("2026-01-02-abc123", "before")
    digest = json.loads((rendered / "dataset" / "dataset.json").read_text())["digest"]
    assert made.description["training_data_digest"] == digest
    assert made.prior and sum(made.prior) == pytest.approx(1, abs=0.05)
    assert Counter(made, 1).faults() == []
    # The figures are of the served network, on validation photographs alone.
    output = tmp_path / "output" / "data"
    predictions = metrics.read_predictions(output / "predictions.csv")
    assert list(predictions) == ["validation"]
    report = metrics.report(predictions)
    assert report["temperature"] == made.temperature
    for view in ("as_shipped", "as_published"):
        assert made.description["metrics"][view] == pytest.approx(report["validation"][view])

    profile = json.loads((output / "profile" / "summary.json").read_text())
    assert 0 <= profile["waiting_share"] < 1
    assert profile["images_per_second"] > 0
    assert (output / "profile" / "trace.json.gz").stat().st_size > 1000


@pytest.mark.long
def test_two_hosts_train_as_one_does(rendered: Path, tmp_path: Path) -> None:
    status, alone = Job(tmp_path / "one", rendered).run()
    assert status == 0, alone
    port = free_port()
    hosts = [Job(tmp_path / host, rendered, host, 2, port, batch_size="8") for host in ("algo-1", "algo-2")]
    processes = [host.start() for host in hosts]
    together, other = (process.communicate(timeout=PATIENCE)[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0], together + other
    # bfloat16 adds up otherwise in halves of a batch; a loss of half the batch alone would be off by tenths.
    for name in ("train:loss", "validation:log_loss", "validation:rps"):
        assert lines(together, name) == pytest.approx(lines(alone, name), rel=0.02), name
    # The first host speaks for all.
    assert not lines(other, "train:loss")
    assert not (tmp_path / "algo-2" / "output" / "data" / "predictions.csv").exists()
    pairs = zip(*(metrics.read_predictions(tmp_path / name / "output/data/predictions.csv")["validation"].ids
                  for name in ("one", "algo-1")), strict=True)  # fmt: skip
    assert all(first == second for first, second in pairs)


def test_a_spot_job_ends_as_if_it_had_not_been_interrupted(
    rendered: Path, tmp_path: Path, uninterrupted: bytes
) -> None:
    """Asked to stop. A killed one goes on as well: test_train.py, and tests/stack/test_retrain.py in a whole run."""
    job = Job(tmp_path / "first", rendered, epochs="3")
    process = job.start()
    assert process.stdout is not None
    log = ""
    for line in process.stdout:
        log += line
        if line.startswith("epoch 0"):
            break
    process.send_signal(signal.SIGTERM)
    log += process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 143, log
    asked = re.search(r"asked to stop: checkpoint after epoch ([12]), step (\d)", log)
    assert asked, log
    assert job.reason() is None

    # A fresh host gets what SageMaker kept of the checkpoints.
    again = Job(tmp_path / "again", rendered, epochs="3")
    shutil.copytree(tmp_path / "first" / "checkpoints", tmp_path / "again" / "checkpoints")
    status, log = again.run()
    assert status == 0, log
    resumed = re.search(r"resumes with epoch ([12]), step (\d)", log)
    assert resumed
    assert (resumed[1], int(resumed[2])) == (asked[1], int(asked[2]) + 1)
    assert (tmp_path / "again" / "output" / "data" / "predictions.csv").read_bytes() == uninterrupted


@pytest.fixture(scope="module")
def uninterrupted(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The predictions of a whole run of three epochs."""
    root = tmp_path_factory.mktemp("whole")
    status, log = Job(root / "job", rendered, epochs="3").run()
    assert status == 0, log
    return (root / "job" / "output" / "data" / "predictions.csv").read_bytes()


def test_a_loss_that_is_not_finite_is_the_reason(rendered: Path, tmp_path: Path) -> None:
    job = Job(tmp_path, rendered, learning_rate="1e30", package="true")
    status, log = job.run()
    assert status == 1
    assert re.match(r"epoch \d, step \d: loss is (nan|inf): logits up to \S+, input up to ", job.reason() or ""), log
    assert not (tmp_path / "model" / "package.json").exists()


@pytest.mark.parametrize(
    ("given", "spoilt", "reason"),
    [
        ({"epochs": "many"}, "", "invalid int value: 'many'"),
        ({"learning_speed": "1"}, "", "unrecognized arguments: --learning-speed=1"),
        ({}, "validation", "neither --data nor a channel validation"),
        ({"batch_size": "64"}, "", "42 training photographs do not fill one batch of 64"),
        ({"champion": "absent.tar.gz"}, "", "cannot start from absent.tar.gz: absent.tar.gz cannot be unpacked"),
    ],
)
def test_what_cannot_be_trained_on_is_the_reason(
    rendered: Path,
    tmp_path: Path,
    given: dict[str, Any],
    spoilt: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In this process: the test above shows that a job of its own ends so."""
    job = Job(tmp_path, rendered, **given)
    if spoilt:
        shutil.rmtree(tmp_path / "input" / "data" / spoilt)
    monkeypatch.setenv("SM_OPT_ML", str(job.root))
    with pytest.raises(SystemExit) as ended, container.failure_told():
        train.main(train.flags.parse_args(container.hyperparameters()))
    assert not isinstance(ended.value.code, int)  # Python makes 1 of a text
    assert reason in (job.reason() or "")
