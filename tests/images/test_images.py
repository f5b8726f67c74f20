"""The images of endpoint and jobs, built as they are and called as SageMaker calls them."""

import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from localsagemaker.ports import free_port

from local.stack import REPOSITORY
from model.package import Package, load, unpack
from model.serve import Counter
from tests.images.build import HARDENED, output_of, serving_image, training_image
from tools import synthetic
from training.dataset import layout

ROOT, NOBODY = "0:0", "65534:65534"
SHIPPED = REPOSITORY / "model" / "pretrained" / "model.tar.gz"

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def images() -> dict[str, str]:
    """Their names, by what `make sbom` calls them."""
    return {"serve": serving_image(), "train": training_image()}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The shipped package, unpacked where any user of a container may read it."""
    folder = tmp_path_factory.mktemp("package")
    folder.chmod(0o755)
    return unpack(SHIPPED, folder)


@pytest.fixture(scope="module", params=[ROOT, NOBODY], ids=["root", "nobody"])
def address(request: pytest.FixtureRequest, images: dict[str, str], package: Package) -> Iterator[str]:
    """The running container, with SageMaker's argument and its folder for the model; it can write nothing and has no
    capability."""
    port = free_port()
    container = output_of(
        *("docker", "run", "--detach", "--publish", f"127.0.0.1:{port}:8080", *HARDENED, "--user", request.param),
        *("--volume", f"{package.directory}:/opt/ml/model:ro", images["serve"], "serve"),
    )
    try:
        deadline = time.monotonic() + 120
        while not pings(port):
            logs = subprocess.run(["docker", "logs", container], capture_output=True, text=True)
            assert time.monotonic() < deadline, logs.stdout + logs.stderr
            time.sleep(0.25)
        yield f"http://127.0.0.1:{port}"
    finally:
        output_of("docker", "rm", "--force", container)


def pings(port: int) -> bool:
    with contextlib.suppress(OSError):
        return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).status == 200)
    return False


def test_the_image_counts_as_the_package_says(address: str, package: Package) -> None:
    """Each golden image gets its answer, within what another processor may change."""
    for golden in package.golden:
        request = urllib.request.Request(f"{address}/invocations", golden.data, {"Content-Type": "image/png"})
        answer = json.load(urllib.request.urlopen(request, timeout=60))
        assert golden.difference(answer) is None


def test_the_image_refuses_what_is_no_picture(address: str) -> None:
    request = urllib.request.Request(f"{address}/invocations", b"not a picture", {"Content-Type": "image/jpeg"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code == 400


def job(image: str, root: Path, words: str, *options: str) -> str:
    """The log of a job whose /opt/ml is `root`: no network, no capability, and nothing else to write but /tmp."""
    return output_of(
        *("docker", "run", "--rm", "--network", "none", *HARDENED, "--tmpfs", "/tmp"),
        *("--volume", f"{root}:/opt/ml", *options, image, *words.split()),
    )


def process(image: str, root: Path, user: str = ROOT) -> dict[str, bytes]:
    """Makes a dataset of 60 rendered photographs as the state machine's processing job does, but for folders in the
    place of addresses in S3. Returns its files by name."""
    lines, inputs, moment = [], root / "processing" / "input", "2026-01-01T00:00:00Z"
    for number in range(60):
        bin_, quantity = f"R-{number // 2}", number // 8
        key = f"incoming/DEMO/{bin_}/{number}.jpg"
        (inputs / key).parent.mkdir(parents=True, exist_ok=True)
        synthetic.render(number, quantity, (96, 80)).save(inputs / key, "JPEG", quality=90)
        photograph = {"bucket": "/opt/ml/processing/input", "key": key, "version_id": "1"}
        lines.append(
            {"id": f"{number:032x}", "image": photograph, "site": "DEMO", "bin": bin_, "quantity": quantity}
            | {"source": "record", "as_of": moment, "captured_at": moment, "logged_at": moment}
            | {"count": 1, "confidence": 0.5, "p_record": 0.5, "model_version": "2026-01-01-abcdef"}
        )
    (inputs / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (root / "config").mkdir()
    (root / "config" / "resourceconfig.json").write_text('{"current_host": "algo-1", "hosts": ["algo-1"]}')
    if user != ROOT:
        output_of("chown", "--recursive", user, root)
    outputs = "/opt/ml/processing/output"
    told = f"--dataset {outputs}/dataset --parts {outputs}/parts --shards {outputs}/datasets"
    words = f"-m training.process --manifest /opt/ml/processing/input/manifest.jsonl {told}"
    job(image, root, words, "--entrypoint", "python", "--user", user)
    made = root / "processing" / "output"
    return {str(path.relative_to(made)): path.read_bytes() for path in made.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def dataset(images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the processing job leaves: `dataset/`, and `datasets/` with a folder of shards for each split."""
    root = tmp_path_factory.mktemp("processing")
    process(images["train"], root)
    return root / "processing" / "output"


def test_a_processing_job_makes_a_dataset(dataset: Path) -> None:
    summary = layout.summary_of(dataset / "dataset")
    assert sum(summary["photographs"].values()) == summary["new"] == 60
    assert min(summary["photographs"].values()) > 0 and summary["unreadable"] == 0


def test_a_processing_job_needs_no_root(images: dict[str, str], dataset: Path, tmp_path: Path) -> None:
    """Another user gets the same files, byte by byte."""
    expected = {str(path.relative_to(dataset)): path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    assert process(images["train"], tmp_path, NOBODY) == expected


def test_a_training_job_makes_a_package_that_answers(images: dict[str, str], dataset: Path, tmp_path: Path) -> None:
    """From the champion to a quantised package. At so small a learning rate int8 has something to be faithful to."""
    (tmp_path / "input" / "config").mkdir(parents=True)
    given = {"sizes": "32", "batch-size": "16", "epochs": "1", "learning-rate": "1e-6", "package": "true"}
    given |= {"calibration-photographs": "8", "model-version": "2026-01-02-abc123", "parent": "before"}
    resources = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"}
    for name, content in (("hyperparameters", given), ("resourceconfig", resources)):
        (tmp_path / "input" / "config" / f"{name}.json").write_text(json.dumps(content))
    channels = tmp_path / "input" / "data"
    for place in ("dataset", "datasets/train", "datasets/validation"):
        shutil.copytree(dataset / place, channels / Path(place).name)
    (channels / "champion").mkdir()
    shutil.copy(SHIPPED, channels / "champion")

    log = job(images["train"], tmp_path, "train")
    assert "epoch 0 size 32 loss " in log
    made = load(tmp_path / "model")
    assert (made.model_version, made.description["parent"]) == ("2026-01-02-abc123", "before")
    assert made.description["training_data_digest"] == layout.summary_of(dataset / "dataset")["digest"]
    assert Counter(made, 1).faults() == []
    assert (tmp_path / "checkpoints" / "checkpoint.pt").stat().st_size > 1e8
    assert json.loads((tmp_path / "output" / "data" / "metrics.json").read_text())["run"]["epochs"] == 1
    assert not (tmp_path / "output" / "failure").exists()


def test_a_job_that_fails_leaves_its_reason(images: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="a channel dataset"):
        job(images["train"], tmp_path, "train")
    assert (tmp_path / "output" / "failure").read_text() == "neither --data nor a channel dataset"


def test_the_serving_image_contains_what_serves_and_no_more(images: dict[str, str]) -> None:
    """No torch, and of ours the serving modules alone."""
    assert not any(name.startswith(("torch", "boto")) for name in installed(images["serve"]))
    files = output_of("docker", "run", "--rm", "--entrypoint", "ls", images["serve"], "/opt/bintally/model").split()
    assert files == ["__init__.py", "answer.py", "package.py", "pixels.py", "preprocess.py", "serve.py"]


@pytest.mark.parametrize("name", ["serve", "train"])
def test_its_bill_of_materials_names_what_pip_finds_in_it(images: dict[str, str], name: str) -> None:
    output_of("make", "--directory", REPOSITORY, "sbom")
    bill = json.loads((REPOSITORY / ".runs" / "sbom" / f"{name}.cdx.json").read_text())
    named = {each["name"].lower(): each["version"] for each in bill["components"]}
    found = installed(images[name])
    assert named and named.items() <= found.items()
    assert found.keys() - named.keys() <= {"pip", "setuptools", "wheel"}, "what the base image brings"


def installed(image: str) -> dict[str, str]:
    """Versions of Python's packages, by name."""
    listed = json.loads(output_of("docker", "run", "--rm", "--entrypoint", "pip", image, "list", "--format", "json"))
    return {each["name"].lower().replace("_", "-"): each["version"] for each in listed}


@pytest.mark.parametrize(("name", "gigabytes"), [("serve", 0.6), ("train", 6.5)])
def test_it_is_no_larger_than_documented(images: dict[str, str], name: str, gigabytes: float) -> None:
    """Unpacked, the base among it (0.2 GB here; docs/operations.md has the sizes)."""
    size = int(output_of("docker", "image", "inspect", "--format", "{{.Size}}", images[name]))
    assert size < gigabytes * 1e9, f"{size / 1e9:.2f} GB"
