"""tools.launch as a person calls it: the real entry points on small pictures, on the local stack."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.images.build import training_image
from tools import launch
from training.dataset.layout import split_of

pytestmark = pytest.mark.timeout(1800)  # the first waits for the stack, a dataset and a training
REPOSITORY = Path(__file__).parents[2]
SMALL = ["--set", "epochs=1", "--set", "sizes=32", "--set", "batch-size=8", "--set", "package=false"]
NEEDED = {"train": 64, "validation": 8, "test": 2}  # a batch of the greatest size that is tuned


@pytest.fixture(scope="module")
def ask(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Calls launch as somebody with a profile of their own; exit code and what it printed, errors last."""
    config = tmp_path_factory.mktemp("aws") / "config"
    config.write_text("[profile own]\nregion = eu-west-1\naws_access_key_id = a\naws_secret_access_key = b\n")
    settings = stack.environment()  # what `bintally env` prints
    settings |= {"AWS_PROFILE": "own", "AWS_CONFIG_FILE": str(config)}

    def call(*words: str, **variables: str) -> tuple[int, list[str]]:
        done = subprocess.run(
            [sys.executable, "-m", "tools.launch", *words],
            cwd=REPOSITORY, env=os.environ | settings | variables, capture_output=True, text=True, timeout=800,
        )  # fmt: skip
        return done.returncode, [*done.stdout.splitlines(), *done.stderr.splitlines()]

    return call


@pytest.fixture(scope="module")
def dataset(ask: Any, environment: dict[str, str], session: Any) -> str:
    """Made by a processing job out of a few pictures of noise: its S3 URI."""
    s3, random = session.boto_session.client("s3"), np.random.default_rng(0)
    left, lines, number = dict(NEEDED), [], 0
    while any(left.values()):
        number += 1
        bin_, key = f"B-{number}", f"incoming/SITE/B-{number}/1.png"
        if not left[split_of("SITE", bin_)]:
            continue
        left[split_of("SITE", bin_)] -= 1
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(file, "PNG")
        put = s3.put_object(Bucket=environment["ImagesBucket"], Key=key, Body=file.getvalue())
        image = {"bucket": environment["ImagesBucket"], "key": key, "version_id": put["VersionId"]}
        moment = "2026-01-01T00:00:00Z"
        lines.append(
            {"id": f"{number:032x}", "image": image, "site": "SITE", "bin": bin_, "quantity": number % 7}
            | {"source": "record", "as_of": moment, "captured_at": moment, "logged_at": moment}
            | {"count": 1, "confidence": 0.5, "p_record": 0.5, "model_version": "2026-01-01-abcdef"}
        )
    manifest = "".join(json.dumps(line) + "\n" for line in lines).encode()
    bucket = environment["ArtifactsBucket"]
    s3.put_object(Bucket=bucket, Key="retrain/1/manifest.jsonl", Body=manifest)
    run, shards = f"s3://{bucket}/retrain/1", f"s3://{bucket}/datasets"
    words = ["--manifest", f"{run}/manifest.jsonl", "--dataset", f"{run}/dataset", "--parts", f"{run}/parts"]
    code, said = ask("processing", "--", *words, "--shards", shards)
    assert code == 0, said[-1]
    assert any(re.fullmatch(r"by-hand-[0-9-]+: Completed", line) for line in said)
    return f"{run}/dataset"


def test_a_training_job_by_hand(ask: Any, dataset: str, objects: Any) -> None:
    code, said = ask("training", "--data", dataset, "--spot", *SMALL)
    assert code == 0, said[-1]
    text = "\n".join(said)
    assert re.search(r"^validation:rps +\d\.\d+$", text, re.M) and re.search(r"^train:loss +\d\.\d+$", text, re.M)
    (made,) = re.findall(r"^made: (s3://.*/model.tar.gz)$", text, re.M)
    assert objects.get(made)
    with tarfile.open(fileobj=io.BytesIO(objects.get(made.replace("model.tar.gz", "output.tar.gz")))) as tar:
        assert "metrics.json" in " ".join(tar.getnames())


@pytest.fixture(scope="module")
def folders(dataset: str, session: Any, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset on this machine."""
    made = tmp_path_factory.mktemp("folders")
    bucket = session.boto_session.resource("s3").Bucket(environment["ArtifactsBucket"])
    for prefix in ("retrain/1/dataset", "datasets/train", "datasets/validation"):
        for one in bucket.objects.filter(Prefix=f"{prefix}/"):
            file = made / Path(prefix).name / Path(one.key).name
            file.parent.mkdir(exist_ok=True)
            bucket.download_file(one.key, str(file))
    return made


def test_a_tuning_job_by_hand_on_folders_of_this_machine(ask: Any, folders: Path, tmp_path: Path) -> None:
    code, said = ask("tuning", "--data", str(tmp_path))
    assert code == 1
    assert said[-1].startswith(f"there is no folder {tmp_path / 'dataset'}: a processing job makes it.")
    code, said = ask("tuning", "--data", str(folders), "--trials", "2", *SMALL, "--set", "epochs=4")
    assert code == 0, said[-1]
    text = "\n".join(said)
    (best,) = re.findall(r"^best: (.*)$", text, re.M)
    assert json.loads(best).keys() == launch.RANGES.keys()
    assert re.search(r"^validation:rps +\d\.\d+$", text, re.M)


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """Of training/Dockerfile. At the end goes what Compose leaves: a container that has ended, and its network."""
    if not shutil.which("docker-compose"):
        pytest.skip("needs docker-compose")
    name = training_image()
    yield name
    for file in (REPOSITORY / ".runs").glob("by-hand-*/docker-compose.yaml"):
        subprocess.run(["docker-compose", "--file", file, "down"], check=True, capture_output=True)
        shutil.rmtree(file.parent)


def test_a_training_job_in_a_container(ask: Any, folders: Path, image: str) -> None:
    """Its own, by the SDK's local mode and Compose; a failure is one line."""
    words = ["training", "--on", "container", "--image", image, "--data", str(folders), *SMALL]
    code, said = ask(*words, "--set", "batch-size=64")
    assert code == 0, said[-1]
    (made,) = [line.removeprefix("made: ") for line in said if line.startswith("made: ")]
    with tarfile.open(Path(made).with_name("output.tar.gz")) as tar:
        metrics = json.load(tar.extractfile("data/metrics.json"))  # type: ignore[arg-type]
    assert metrics["run"]["photographs"] == NEEDED["train"]
    code, said = ask(*words, "--set", "epochs=many")
    assert code == 1 and any("invalid int value: 'many'" in line for line in said)
    assert "Process exited with code: 1" in said[-1]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["training", "--data", "s3://absent/dataset"], "absent"),
        (["training"], "a training job needs --data"),
        (["training", "--data", "s3://b/d", "--set", "epochs"], "--set epochs is not NAME=VALUE"),
        (["training", "--stack", "other", "--data", "s3://b/d"], "other"),
        (["tuning", "--on", "container", "--data", "s3://b/d"], "not in a container"),
        (["processing", "--", "--manifest", "s3://absent/m"], "arguments are required"),
    ],
)
def test_what_goes_wrong_is_one_line(ask: Any, words: list[str], reason: str) -> None:
    code, said = ask(*words)
    assert code == 1 and reason in said[-1]
    assert not any("Traceback" in line for line in said)


def test_without_docker_a_container_is_refused_in_one_line(ask: Any, tmp_path: Path) -> None:
    for name in ("dataset", "train", "validation"):
        (tmp_path / name).mkdir()
    code, said = ask("training", "--on", "container", "--data", str(tmp_path), *SMALL, PATH=str(tmp_path))
    assert code == 1 and "docker" in said[-1]


def test_a_stack_that_does_not_answer_is_said_to(ask: Any) -> None:
    code, said = ask("training", "--data", "s3://b/d", AWS_ENDPOINT_URL="http://127.0.0.1:1", AWS_MAX_ATTEMPTS="1")
    assert code == 1 and said[-1].startswith("Could not connect to the endpoint URL")


def test_metrics_and_ranges_are_those_of_the_state_machine() -> None:
    tune = json.loads((REPOSITORY / "machines" / "retrain.asl.json").read_text())["States"]["Tune"]["Arguments"]
    continuous = {
        name: tuple(tune.split(f"'Name': '{name}'")[1].split("'")[position] for position in (3, 7, 11))
        for name in ("learning-rate", "weight-decay", "augmentation")
    }
    ours = {
        name: (str(one.min_value), str(one.max_value), one.scaling_type)
        for name, one in launch.RANGES.items()
        if name != "batch-size"
    }
    assert ours == continuous
    assert f"'Values': {launch.RANGES['batch-size'].values}" in tune
    assert "validation:rps" in [one["Name"] for one in launch.metrics()]
