"""model compare, over what retrainings leave in the bucket and the table, and over two real packages."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cli.main import main
from model.package import build, pack, unpack
from training.dataset.layout import Line
from training.verdict import comparison
from training.verdict.comparison import Answered

SHIPPED = Path(__file__).parents[2] / "model" / "pretrained" / "model.tar.gz"
SAMPLES = Path(__file__).parents[2] / "samples"
OLD, NEW, NEWER, LOST = "2026-11-01-aaaaaa", "2026-11-08-bbbbbb", "2026-11-15-cccccc", "2026-11-22-dddddd"


def answers(quality: float, seed: int = 0, photographs: int = 300) -> Any:
    """Probabilities [N, 7] that are the better the greater `quality` is; quantities are 0 to 8 in turn."""
    truth = np.minimum(np.arange(photographs) % 9, 6)
    logits = np.random.default_rng(seed).normal(0, 1, (photographs, 7)) + quality * np.eye(7)[truth]
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def seen(champion: float, challenger: float, photographs: int = 300) -> Answered:
    numbers = np.arange(photographs)
    return Answered(
        ids=np.array([f"{number:04d}" for number in numbers]),
        sites=np.array(["SEA1"] * photographs),
        bins=np.array([f"P-{number // 2}" for number in numbers]),
        quantities=numbers % 9,
        champion=answers(champion, 1, photographs),
        challenger=answers(challenger, 2, photographs),
    )


@pytest.fixture
def retrained(aws: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """retrained(run, champion, challenger, answers, digest) leaves what a retraining with a verdict leaves."""
    outputs = {"ArtifactsBucket": "images", "CountsTable": "counts"}
    monkeypatch.setattr(aws.stack, "outputs", lambda: outputs)
    monkeypatch.setattr(aws.stack, "packages", lambda: iter(()), raising=False)
    monkeypatch.setattr(aws.stack, "live_model_data", lambda outputs: None, raising=False)

    def leave(run: str, champion: str, challenger: str, found: Answered | None, digest: str = "digest") -> None:
        item = {"PK": "RETRAIN", "SK": f"RUN#{run}", "run": run, "execution": "e", "outcome": "not better"}
        more = {"model_version": challenger, "champion": {"model_version": champion}, "started_at": f"20{run}"}
        aws.table.put_item(Item=item | more)
        if found is None:
            return
        file, folder = tmp_path / "predictions.csv", f"retrain/{run}/evaluation"
        comparison.write(file, found)
        aws.s3.put_object(Bucket="images", Key=f"{folder}/predictions.csv", Body=file.read_bytes())
        body = json.dumps({"test_set": {"digest": digest}}).encode()
        aws.s3.put_object(Bucket="images", Key=f"{folder}/evaluation.json", Body=body)

    return leave


def run(*words: str) -> Result:
    return CliRunner(mix_stderr=False).invoke(main, ["model", "compare", *words], env={"COLUMNS": "120"})


def test_what_one_retraining_compared_is_read_from_it(retrained: Callable[..., None]) -> None:
    retrained("261108-bbbbbb", OLD, NEW, seen(1.0, 2.0))
    shown = run(OLD, NEW)
    assert shown.exit_code == 0, shown.stderr
    assert "the test photographs of run 261108-bbbbbb, as both answered them in that run" in shown.stdout
    assert "300 photographs of 150 bins" in shown.stdout
    assert "B is better: ranked probability score +0." in shown.stdout
    narrow = CliRunner().invoke(main, ["model", "compare", OLD, NEW], env={"COLUMNS": "80"}).output
    assert "…" not in narrow and "within one, of 0 to 5 " in narrow
    expected = comparison.compare(seen(1.0, 2.0), OLD, NEW)
    found = json.loads(run(OLD, NEW, "--json").stdout)
    assert found["paired"] == expected["paired"]
    assert found["groups"] == expected["groups"]
    assert found["b"] == expected["challenger"]
    # The other way round everything changes its sign, and nothing else.
    turned = json.loads(run(NEW, OLD, "--json").stdout)
    assert turned["paired"]["rps"]["difference"] == pytest.approx(-found["paired"]["rps"]["difference"])
    assert (turned["a"]["model_version"], turned["b"]["model_version"]) == (NEW, OLD)
    assert "A is better" in run(NEW, OLD).stdout


def test_two_retrainings_on_one_test_set_are_compared(retrained: Callable[..., None]) -> None:
    retrained("261108-bbbbbb", OLD, NEW, seen(1.0, 2.0))
    retrained("261115-cccccc", OLD, NEWER, seen(1.0, 2.0))
    shown = run(NEW, NEWER)
    assert "the test photographs of runs 261108-bbbbbb and 261115-cccccc" in shown.stdout
    assert "Neither is shown to be better: ranked probability score +0.0000" in shown.stdout


def test_answers_to_a_part_of_a_test_set_are_not_paired_with_those_to_all_of_it(
    retrained: Callable[..., None],
) -> None:
    retrained("261108-bbbbbb", OLD, NEW, seen(1.0, 2.0))
    retrained("261115-cccccc", OLD, NEWER, seen(1.0, 2.0, photographs=200))
    assert run(NEW, NEWER).stderr.startswith("Error: no retraining has made a test set yet")


def test_stored_answers_to_other_photographs_are_not_compared(retrained: Callable[..., None]) -> None:
    retrained("261108-bbbbbb", OLD, NEW, seen(1.0, 2.0), digest="one")
    retrained("261115-cccccc", OLD, NEWER, seen(1.0, 2.0), digest="other")
    retrained("261122-dddddd", NEW, LOST, None)
    shown = run(NEW, NEWER)
    assert shown.exit_code == 1
    assert shown.stderr.startswith("Error: no retraining has made a test set yet. Give labelled photographs")


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        ((OLD, OLD), 2, "A and B are the same version"),
        ((OLD, NEW, "--photographs", "{tmp}/none"), 2, "does not exist"),
        ((OLD, NEW, "--photographs", "{tmp}"), 2, "has no photographs. It is read as `bintally upload` reads it"),
        ((OLD, NEW, "--photographs", str(SAMPLES)), 1, f"there is no package of model {OLD}. See: bintally model list"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    retrained: Callable[..., None], words: tuple[str, ...], code: int, why: str, tmp_path: Path
) -> None:
    shown = run(*(word.format(tmp=tmp_path) for word in words))
    assert shown.exit_code == code
    assert why in " ".join(shown.stderr.split())


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The shipped network as OLD, and as NEW one that is less sure; both answer their golden images."""
    found = {}
    for version, temperature in ((OLD, 1.0), (NEW, 3.0)):
        folder = tmp_path_factory.mktemp(version)
        source = unpack(SHIPPED, folder)
        made = build(folder, model_version=version, golden={}, temperature=temperature)
        archive = folder.with_suffix(".tar.gz")
        pack(made, archive)
        found[version] = archive.read_bytes()
        assert source.golden
    return found


def line(**members: Any) -> str:
    """A line of a dataset's index."""
    empty: dict[str, Any] = dict.fromkeys(Line.__slots__, "")
    return Line(**empty | {"site": "S"} | members).json()


@pytest.mark.slow
def test_two_packages_count_the_newest_test_set(
    retrained: Callable[..., None], aws: SimpleNamespace, packages: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.serve.Counter.faults", lambda self: [])
    for version, content in packages.items():
        aws.s3.put_object(Bucket="images", Key=f"models/{version}/bintally-train/output/model.tar.gz", Body=content)
    retrained("261108-bbbbbb", "other", NEWER, seen(1.0, 2.0))
    lines = []
    for number, photograph in enumerate(sorted(SAMPLES.rglob("*.jpg"))[:12]):
        key = f"datasets/test/{number}.jpg"
        aws.s3.put_object(Bucket="images", Key=key, Body=photograph.read_bytes() if number else b"no photograph")
        lines.append(line(id=str(number), object=key, split="test", bin=f"B{number}", quantity=number))
    lines.append(line(id="gone", object="datasets/test/gone.jpg", split="test", bin="B-gone", quantity=1))
    body = "\n".join([*lines, line(id="x", split="train")])
    aws.s3.put_object(Bucket="images", Key="retrain/261108-bbbbbb/dataset/index.jsonl", Body=body.encode())
    found = json.loads(run(OLD, NEW, "--json").stdout)
    assert found["source"] == "test photographs of run 261108-bbbbbb, counted here by both packages"
    assert found["test_set"] == {"photographs": 11, "bins": 11, "unread": 2}
    assert found["a"]["as_shipped"]["rps"] != found["b"]["as_shipped"]["rps"]


@pytest.mark.slow
def test_two_packages_count_a_folder(
    retrained: Callable[..., None], aws: SimpleNamespace, packages: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.serve.Counter.faults", lambda self: [])
    for version, content in packages.items():
        aws.s3.put_object(Bucket="images", Key=f"models/{version}/model.tar.gz", Body=content)
    shown = run(OLD, NEW, "--photographs", str(SAMPLES))
    assert shown.exit_code == 0, shown.stderr
    assert "16 photographs of 13 bins: the photographs of" in " ".join(shown.stdout.split())


def test_a_package_of_another_version_is_named(
    retrained: Callable[..., None], aws: SimpleNamespace, packages: dict[str, bytes]
) -> None:
    for version in (OLD, NEW):
        aws.s3.put_object(Bucket="images", Key=f"models/{version}/model.tar.gz", Body=packages[NEW])
    shown = run(OLD, NEW, "--photographs", str(SAMPLES))
    assert shown.stderr == f"Error: s3://images/models/{OLD}/model.tar.gz is version {NEW}, not {OLD}\n"
