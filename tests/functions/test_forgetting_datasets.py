"""`bintally stack forget` on datasets that the processing job wrote: its next run still works, and no byte is left."""

import importlib
import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from botocore.exceptions import ClientError
from PIL import Image

from deployed import forgetting_datasets
from tests.functions.conftest import BUCKET, World, table
from tests.functions.test_forgetting import bare, forget, keys, trail  # noqa: F401
from training.dataset import layout
from training.dataset.store import client, store

pytestmark = pytest.mark.slow
process: Any = importlib.import_module("training.process")  # else mypy follows it to torch, which is not here
EARLY, LATE = "2026-05-01T08:00:00.000000Z", "2026-06-01T08:00:00.000000Z"
BINS = 30


def picture(number: int) -> bytes:
    """Of its own for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


class Datasets:
    """The jobs of a stack's retrainings."""

    def __init__(self, s3: Any) -> None:
        self.s3 = s3

    def label(self, site: str, bin_: str, content: bytes, at: str = EARLY) -> bytes:
        key = f"incoming/{site}/{bin_}/{at[:10]}.jpg"
        version = self.s3.put_object(Bucket=BUCKET, Key=key, Body=content)["VersionId"]
        said = {
            "image": {"bucket": BUCKET, "key": key, "version_id": version},
            "site": site,
            "bin": bin_,
            "quantity": 3,
        }
        return json.dumps(said | {"source": "record", "as_of": at, "captured_at": at}).encode() + b"\n"

    def process(self, run: str, labels: list[bytes], folder: Path, previous: str | None = None) -> None:
        base = f"s3://artifacts/retrain/{run}"
        for name in ("manifest.jsonl", "slices/1.jsonl"):
            self.s3.put_object(Bucket="artifacts", Key=f"retrain/{run}/{name}", Body=b"".join(labels))
        folder.mkdir()
        process.run(
            process.Job(
                manifest=f"{base}/manifest.jsonl",
                previous=previous and f"s3://artifacts/retrain/{previous}/dataset/index.jsonl",
                reference=previous and f"s3://artifacts/retrain/{previous}/dataset/dataset.json",
                dataset=store(f"{base}/dataset"),
                parts=store(f"{base}/parts"),
                shards=store("s3://artifacts/datasets"),
                bad_share=0.2,
                patience=5,
                host=0,
                hosts=1,
            ),
            folder,
        )
        item = {"PK": "RETRAIN", "SK": f"RUN#{run}", "run": run, "model_version": f"m-{run}", "concluded_at": run}
        table().put_item(Item=item)

    def read(self, run: str, folder: Path) -> dict[tuple[str, str, str], bytes]:
        """The photographs of a dataset as training reads them, each split by its manifest."""
        for name in keys("artifacts", f"retrain/{run}/dataset/"):
            folder.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
            self.s3.download_file("artifacts", name, str(folder / name))
        for split in layout.SPLITS:
            (folder / "datasets" / split).mkdir(parents=True)
            _, *names = json.loads((folder / f"retrain/{run}/dataset/{split}.manifest").read_bytes())
            for name in names:
                self.s3.download_file("artifacts", f"datasets/{split}/{name}", str(folder / "datasets" / split / name))
        read = layout.read(
            folder / f"retrain/{run}/dataset", {split: folder / "datasets" / split for split in layout.SPLITS}
        )
        return {
            (one.line.site, one.line.bin, one.line.captured_at): one.read()
            for several in read.values()
            for one in several
        }


@pytest.fixture
def datasets(bare: Any, world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Datasets]:  # noqa: F811
    """Threads decode where the job has processes, which would have no S3."""
    monkeypatch.setattr(process, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(2))
    monkeypatch.setattr(process, "start_fork_server", lambda: None)
    client.cache_clear()
    yield Datasets(world.s3)
    client.cache_clear()


def everything() -> bytes:
    """All versions of all objects in the artifacts bucket but JSON: the trail, and numbers of each site."""
    s3 = boto3.client("s3")
    found = s3.list_object_versions(Bucket="artifacts")["Versions"]
    wanted = [one for one in found if not one["Key"].endswith(".json")]
    return b"".join(
        s3.get_object(Bucket="artifacts", Key=one["Key"], VersionId=one["VersionId"])["Body"].read() for one in wanted
    )


def test_datasets_lose_the_photographs_and_grow_on(bare: Any, datasets: Datasets, tmp_path: Path) -> None:  # noqa: F811
    def of(site: str, at: str = EARLY, first: int = 0) -> dict[str, bytes]:
        return {f"{site}-{at[5:7]}-{number}": picture(first + number) for number in range(BINS)}

    ours, others, later = of("SEA1"), of("AUS2", first=100), of("AUS2", LATE, first=200)
    twin = picture(100) + b"the same pixels"  # the newer one stays in the index, and both in their shards
    labels = [datasets.label("SEA1", bin_, content) for bin_, content in ours.items()]
    labels += [datasets.label("AUS2", bin_, content) for bin_, content in others.items()]
    labels.append(datasets.label("SEA1", "twin", twin, "2026-04-01T08:00:00.000000Z"))
    datasets.process("r1", labels, tmp_path / "r1")
    datasets.process("r2", [datasets.label("AUS2", "AUS2-06-x", picture(300), LATE)], tmp_path / "r2", "r1")
    datasets.s3.put_object(Bucket="artifacts", Key="checkpoints/r1/parts/left.jsonl", Body=b"SEA1")
    before = datasets.read("r2", tmp_path / "before")
    assert len(before) == 2 * BINS + 1 and twin in everything()

    said = forget(bare, site="sea1")
    assert (said["in_datasets"], said["models"]) == (BINS + 1, ["m-r1", "m-r2"])
    left = everything()
    assert not [bin_ for bin_, content in ours.items() if content in left] and twin not in left and b"SEA1" not in left
    after = {key: content for key, content in before.items() if key[0] != "SEA1"}
    assert datasets.read("r2", tmp_path / "after") == after
    assert len(datasets.read("r1", tmp_path / "after-r1")) == BINS

    datasets.process("r3", [datasets.label("AUS2", *one, LATE) for one in later.items()], tmp_path / "r3", "r2")
    assert len(datasets.read("r3", tmp_path / "grown").items() - after.items()) == BINS


def test_a_shard_that_has_expired_loses_the_photographs_and_stays_expired(
    bare: Any,  # noqa: F811
    datasets: Datasets,
    tmp_path: Path,
) -> None:
    """DatasetDays puts a delete marker on it; its versions stay, as OldVersionDays says."""
    bins = [f"SEA1-{number}" for number in range(2 * BINS)]
    labels = [datasets.label("SEA1", bin_, picture(number)) for number, bin_ in enumerate(bins)]
    datasets.process("r1", labels, tmp_path / "r1")
    for name in keys("artifacts", "datasets/"):
        datasets.s3.delete_object(Bucket="artifacts", Key=name)
    gone, left, *_ = (n for n, bin_ in enumerate(bins) if layout.split_of("SEA1", bin_) == "train")
    assert forget(bare, site="SEA1", bin=bins[gone])["in_datasets"] == 1
    assert picture(gone) not in everything() and picture(left) in everything()
    assert "Contents" not in datasets.s3.list_objects_v2(Bucket="artifacts", Prefix="datasets/")
    index = datasets.s3.get_object(Bucket="artifacts", Key="retrain/r1/dataset/index.jsonl")["Body"].read()
    lines = [layout.Line.of(line) for line in index.splitlines()]
    assert {line.bin for line in lines} == set(bins) - {bins[gone]}
    named = {one["Key"] for one in datasets.s3.list_object_versions(Bucket="artifacts", Prefix="datasets/")["Versions"]}
    assert named == {line.object for line in lines}


def test_a_shard_with_what_is_left_of_an_expired_one_stays(bare: Any, datasets: Datasets, tmp_path: Path) -> None:  # noqa: F811
    """Its name follows from its bytes, so a later run may have stored the rest of an expired shard again."""
    bins = [f"SEA1-{number}" for number in range(2 * BINS)]
    labels = [datasets.label("SEA1", bin_, picture(number)) for number, bin_ in enumerate(bins)]
    datasets.process("r1", labels, tmp_path / "r1")
    for name in keys("artifacts", "datasets/"):
        datasets.s3.delete_object(Bucket="artifacts", Key=name)
    gone = next(n for n, bin_ in enumerate(bins) if layout.split_of("SEA1", bin_) == "train")
    datasets.process("r2", [label for n, label in enumerate(labels) if n != gone], tmp_path / "r2")
    forget(bare, site="SEA1", bin=bins[gone])
    assert len(datasets.read("r2", tmp_path / "after")) == 2 * BINS - 1
    assert picture(gone) not in everything()


def test_what_a_failure_left_goes_the_next_time(
    bare: Any,  # noqa: F811
    datasets: Datasets,
    tmp_path: Path,
    refuse: Callable[..., Callable[[], None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s3 = boto3.client("s3")
    monkeypatch.setattr(bare, "client", lambda name: s3 if name == "s3" else boto3.client(name))
    labels = [datasets.label("SEA1", f"SEA1-{number}", picture(number)) for number in range(2 * BINS)]
    datasets.process("r1", labels, tmp_path / "r1")
    gone = next(number for number in range(2 * BINS) if layout.split_of("SEA1", f"SEA1-{number}") == "train")
    rewrite, mends = forgetting_datasets.Datasets.rewrite, []

    def rewrite_alone(datasets: Any) -> None:
        rewrite(datasets)
        mends.append(refuse(s3, "DeleteObjects", "SlowDown", 503))

    with monkeypatch.context() as patch, pytest.raises(ClientError, match="SlowDown"):
        patch.setattr(forgetting_datasets.Datasets, "rewrite", rewrite_alone)
        forget(bare, site="SEA1", bin=f"SEA1-{gone}")
    assert picture(gone) in everything(), "the old shard could not be deleted"
    assert len(datasets.read("r1", tmp_path / "between")) == 2 * BINS - 1, "but no index names it"
    mends[0]()
    said = forget(bare, site="SEA1", bin=f"SEA1-{gone}")
    assert picture(gone) not in everything() and said["models"] == ["m-r1"]
    assert len(datasets.read("r1", tmp_path / "after")) == 2 * BINS - 1
