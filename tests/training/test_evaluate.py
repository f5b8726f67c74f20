"""The evaluation job on folders as SageMaker lays them: what it writes, and what it says when something is amiss."""

import json
import re
import subprocess
import sys
from dataclasses import replace as replaced
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import openvino
import pytest
from openvino import opset13 as ops
from PIL import Image

from model import package, preprocess, serve
from model.answer import CLASSES, answer
from training import evaluate
from training.dataset import drift, layout
from training.dataset.layout import Line
from training.verdict import comparison, metrics
from training.verdict.metrics import softmax

ROOT = Path(__file__).parents[2]
CHAMPION, CHALLENGER = "2026-11-22-aaaaaa", "2026-11-24-bbbbbb"
PHOTOGRAPHS = 150


def save_package(folder: Path) -> None:
    """A counter that finds red pictures to hold one item, with one golden image."""
    work = folder / "work"
    (work / "golden").mkdir(parents=True)
    images = ops.parameter([-1, 3, preprocess.SIZE, preprocess.SIZE], np.float32, name="images")
    weights = np.zeros((3, len(CLASSES)), dtype=np.float32)
    weights[0, 1] = 3
    logits = ops.matmul(ops.reduce_mean(images, np.array([2, 3]), keep_dims=False), weights, False, False)
    network = openvino.Model([logits], [images], "red")
    network.inputs[0].get_tensor().set_names({"images"})
    network.outputs[0].get_tensor().set_names({"logits"})
    openvino.save_model(network, work / "model.xml", compress_to_fp16=False)
    Image.new("RGB", (64, 64), "red").save(work / "golden" / "0.png")
    counter = serve.Counter(package.build(work, model_version=CHALLENGER, golden={}), threads=1)
    golden = {"golden/0.png": counter.count((work / "golden" / "0.png").read_bytes())}
    package.pack(package.build(work, model_version=CHALLENGER, golden=golden), folder / "model.tar.gz")


def save_inputs(given: Path) -> None:
    """All inputs of the job; the challenger knows more than the champion."""
    random = np.random.default_rng(0)
    quantities = random.integers(0, 9, PHOTOGRAPHS)
    truth = np.eye(7)[np.minimum(quantities, 6)]
    lines = []
    for model in ("champion", "challenger"):
        (given / model / "datasets" / "test").mkdir(parents=True)
    for folder in ("dataset", "photographs", "package"):
        (given / folder).mkdir()
    for k, quantity in enumerate(quantities):
        line = Line(
            id=f"{k:016x}", site="AUS2" if k % 3 else "<b>4", bin=f"P-{k // 2}", quantity=int(quantity),
            source="record", as_of="2026-11-01T00:00:00Z", captured_at="2026-11-01T00:00:00Z",
            split="validation" if k % 10 == 9 else "test", object=f"datasets/test/{k:016x}.jpg",
            member=f"{k:016x}.jpg", pixels="0" * 32, brightness=0.5, blur=100.0, width=64, height=48, count=3,
            confidence=0.5, p_record=0.2, model_version=CHAMPION,
        )  # fmt: skip
        lines.append(line)
        if line.split != "test":
            continue
        name = Path(line.object).name
        Image.new("RGB", (64, 48), (int(25 * quantity), 90, 90)).save(given / "photographs" / name)
        for model, version, knows in (("champion", CHAMPION, 1.0), ("challenger", CHALLENGER, 2.5)):
            p = softmax(random.normal(size=(1, 7)) + knows * truth[k])[0]
            (given / model / "datasets" / "test" / f"{name}.out").write_text(json.dumps(answer(p, version)))
    (given / "dataset" / "index.jsonl").write_text("".join(line.json() + "\n" for line in lines))
    profile = drift.profile(lines, {"AUS2": 50, "<b>4": 25})
    described = {
        "format": 1, "digest": "d" * 64, "test_digest": "t" * 64, "edges": drift.EDGES, "profile": profile,
        "photographs": {"train": 0, "validation": 15, "test": 135},
    }  # fmt: skip
    (given / "dataset" / "dataset.json").write_text(json.dumps(described))
    brighter = [Line.of(json.dumps({**json.loads(line.json()), "brightness": 0.9})) for line in lines]
    moved = drift.report(drift.profile(brighter, {"AUS2": 50, "<b>4": 25}), described)
    (given / "dataset" / "drift.json").write_text(json.dumps(moved))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """/opt/ml of the job, inputs laid out, run once."""
    root = tmp_path_factory.mktemp("ml")
    save_inputs(root / "processing" / "input")
    save_package(root / "processing" / "input" / "package")
    done = subprocess.run(
        [sys.executable, "-m", "training.evaluate", "--champion-version", CHAMPION, "--challenger-version", CHALLENGER],
        env={"SM_OPT_ML": str(root), "BINTALLY_CODE_VERSION": "abc1234", "PATH": "/usr/bin:/bin"},
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "lower bound" in done.stdout and not (root / "output" / "failure").exists()
    return root


@pytest.fixture
def given(job: Path) -> Path:
    return job / "processing" / "input"


@pytest.fixture
def found(job: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((job / "processing/output/evaluation/evaluation.json").read_bytes())
    return result


def run(given: Path, out: Path) -> dict[str, Any]:
    return evaluate.evaluate(given, out, CHAMPION, CHALLENGER)


def test_it_says_what_was_compared(given: Path, found: dict[str, Any]) -> None:
    bins = {(k % 3 == 0, k // 2) for k in range(PHOTOGRAPHS) if k % 10 != 9}
    judged = {"judged_by": "records", "audited": 0}
    tests = [line for line in layout.read_index(given / "dataset" / "index.jsonl") if line.split == "test"]
    digest = layout.digest(tests)
    assert found["test_set"] == {"digest": digest, "photographs": 135, "bins": len(bins), **judged}
    assert found["dataset_digest"] == "d" * 64 and found["code_version"] == "abc1234"
    assert (found["champion"]["model_version"], found["challenger"]["model_version"]) == (CHAMPION, CHALLENGER)
    assert (found["golden"]["asked"], found["golden"]["faults"]) == (1, [])
    assert found["paired"]["rps"]["lower_bound"] > 0
    assert {change["site"] for change in found["drift"]["changed"]} == {"", "AUS2", "<b>4"}
    assert found["drift"]["sites"] == 2


def test_the_schema_holds_it_and_is_strict(found: dict[str, Any]) -> None:
    schema = json.loads(evaluate.SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(found, schema)
    for broken in (
        {**found, "verdict": True},
        {name: value for name, value in found.items() if name != "paired"},
        {**found, "groups": found["groups"][:3]},
        {**found, "champion": {**found["champion"], "as_shipped": {"rps": 0.5}}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)


def test_every_figure_follows_from_the_predictions(job: Path, found: dict[str, Any]) -> None:
    seen = comparison.read(job / "processing/output/evaluation/predictions.csv")
    again = comparison.compare(seen, CHAMPION, CHALLENGER)
    assert again == {name: found[name] for name in again}


def test_only_test_photographs_are_judged(job: Path, given: Path) -> None:
    seen = comparison.read(job / "processing/output/evaluation/predictions.csv")
    lines = {line.id: line for line in layout.read_index(given / "dataset" / "index.jsonl")}
    assert len(seen.ids) == 135 and {lines[id_].split for id_ in seen.ids} == {"test"}
    for k, id_ in enumerate(seen.ids):
        assert seen.quantities[k] == lines[id_].quantity and seen.groups[k] == lines[id_].group


# ---- The report ----


class Page(HTMLParser):
    """Tags and text of a page, and whether all that it opens it closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "br", "img", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def page(job: Path) -> Page:
    return Page((job / "processing/output/evaluation/report.html").read_text())


def test_the_report_needs_nothing_else(job: Path, page: Page) -> None:
    assert page.open == []
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe")
        for name in ("src", "href", "xlink:href"):
            address = attributes.get(name) or "#"
            assert address.startswith(("data:image/jpeg;base64,", "#")), address
    assert not re.search(r"url\((?!#)|@import", (job / "processing/output/evaluation/report.html").read_text())


def test_the_report_says_it_all(page: Page, found: dict[str, Any]) -> None:
    text = " ".join(page.text.split())
    for words in (CHAMPION, CHALLENGER, "d" * 64, found["test_set"]["digest"], "abc1234", "as recorded", "brighter"):
        assert words in text
    for group in found["groups"]:
        assert f"{group['difference']:+.4f}".replace("-", "−") in text
    for model in ("champion", "challenger"):
        assert f"{found[model]['as_shipped']['rps']:.3f}" in text
        assert f"{found[model]['calibration']['error']:.1%}" in text
    charts = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg"]
    assert len(charts) == 3


def test_both_confusion_matrices_hold_every_photograph(job: Path, found: dict[str, Any]) -> None:
    html = (job / "processing/output/evaluation/report.html").read_text()
    cells = [int(cell) for cell in re.findall(r"<td style=\"background[^>]*>(\d+)</td>", html)]
    assert len(cells) == 2 * 49
    assert np.array(cells[:49]).reshape(7, 7).tolist() == found["champion"]["confusion"]
    assert np.array(cells[49:]).reshape(7, 7).tolist() == found["challenger"]["confusion"]
    assert sum(cells) == 2 * 135


def test_the_worst_mistakes_are_shown_small(job: Path, page: Page) -> None:
    seen = comparison.read(job / "processing/output/evaluation/predictions.csv")
    shown = [attributes for tag, attributes in page.tags if tag == "img"]
    assert 12 < len(shown) <= 24 and all(len(str(attributes["src"])) < 20_000 for attributes in shown)
    scores = metrics.ranked_probability_score(seen.challenger, seen.labels)
    assert shown[0]["alt"] == f"Bin {seen.bins[scores.argmax()]}"
    assert f"recorded {seen.quantities[scores.argmax()]}" in page.text


def test_names_are_text_and_not_markup(page: Page) -> None:
    assert "<b>4" in page.text  # a site's name


# ---- What is amiss ----


@pytest.fixture
def broken(given: Path, tmp_path: Path) -> Path:
    """The inputs as links, so that a test may put something else in their place."""
    for path in given.rglob("*"):
        target = tmp_path / "input" / path.relative_to(given)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    return tmp_path / "input"


def replace(path: Path, content: str | bytes) -> None:
    path.unlink()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def outs(given: Path, model: str) -> list[Path]:
    return sorted((given / model).rglob("*.out"))


def test_missing_answers_are_counted_and_the_first_is_named(broken: Path, tmp_path: Path) -> None:
    for path in outs(broken, "challenger")[3:5]:
        path.unlink()
    with pytest.raises(SystemExit, match=r"the challenger's answers to 2 of 135 .* first 0{15}3\.jpg\.out"):
        run(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


GOOD = answer(np.full(7, 1 / 7), CHAMPION)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an answer"),
        (b"\xff\xfe", "not an answer"),
        (json.dumps([GOOD]), "not an answer"),
        (json.dumps({"error": {"code": "BadImage", "message": "no"}}), "probabilities"),
        (json.dumps({**GOOD, "probabilities": [0.5, 0.5]}), "2 numbers"),
        (json.dumps({**GOOD, "probabilities": [0.5] * 7}), "no distribution"),
        (json.dumps({**GOOD, "probabilities": [float("nan")] * 7}), "no distribution"),
        (json.dumps({**GOOD, "probabilities": [1.2, -0.2, 0, 0, 0, 0, 0]}), "no distribution"),
        (json.dumps({**GOOD, "model_version": CHALLENGER}), "answered by"),
    ],
)
def test_a_malformed_answer_ends_the_job(content: str | bytes, words: str, broken: Path, tmp_path: Path) -> None:
    first = outs(broken, "champion")[7]
    replace(first, content)
    with pytest.raises(SystemExit) as failure:
        run(broken, tmp_path / "out")
    reason = str(failure.value)
    assert reason.startswith("1 of the champion's 135 answers are malformed") and words in reason
    assert first.name in reason and "\n" not in reason


def test_a_failed_job_says_why_in_one_line(broken: Path, tmp_path: Path) -> None:
    outs(broken, "champion")[0].unlink()
    root = tmp_path / "ml"
    (root / "processing").mkdir(parents=True)
    broken.rename(root / "processing" / "input")
    done = subprocess.run(
        [sys.executable, "-m", "training.evaluate", "--champion-version", CHAMPION, "--challenger-version", CHALLENGER],
        env={"SM_OPT_ML": str(root), "PATH": "/usr/bin:/bin"}, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert (root / "output" / "failure").read_text().startswith("the champion's answers to 1 of 135")
    assert "Traceback" not in done.stderr


def test_golden_images_that_are_answered_otherwise_are_told(broken: Path, tmp_path: Path) -> None:
    work = tmp_path / "package"
    found = package.unpack(broken / "package" / "model.tar.gz", work)
    golden = {name.file: {**name.answer, "count": 5} for name in found.golden}
    other = package.build(work, model_version=CHALLENGER, golden=golden)  # type: ignore[arg-type]
    (broken / "package" / "model.tar.gz").unlink()
    package.pack(other, broken / "package" / "model.tar.gz")
    golden_ = run(broken, tmp_path / "out")["golden"]
    assert golden_["faults"][0].startswith("golden/0.png: count is")
    assert golden_["package_digest"] == package.sha256(work / package.NAME)  # which the registry gets


def test_a_damaged_package_ends_the_job(broken: Path, tmp_path: Path) -> None:
    replace(broken / "package" / "model.tar.gz", b"no archive")
    with pytest.raises(package.PackageError):
        run(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("lacking", "judged_by"), [(0, "audit"), (1, "records")])
def test_the_random_audit_alone_judges_once_it_has_enough_bins(
    broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: int, judged_by: str
) -> None:
    index = broken / "dataset" / "index.jsonl"
    lines = [replaced(Line.of(text), audit=number % 3 == 0) for number, text in enumerate(index.open())]
    replace(index, "".join(line.json() + "\n" for line in lines))
    tests = [line for line in lines if line.split == "test"]
    audited = [line for line in tests if line.audit]
    monkeypatch.setattr(evaluate, "AUDITED", len({line.group for line in audited}) + lacking)
    found = evaluate.evaluate(broken, tmp_path / "out", CHAMPION, CHALLENGER)
    photographs = len(audited if judged_by == "audit" else tests)
    # Only answers to the same photographs have one digest: `bintally model compare` pairs them by it.
    digest = layout.digest(audited if judged_by == "audit" else tests)
    told = {"digest": digest, "photographs": photographs, "judged_by": judged_by, "audited": len(audited)}
    assert told.items() <= found["test_set"].items()
    assert sum(map(sum, found["champion"]["confusion"])) == photographs
    assert ("drawn at random" in (tmp_path / "out" / "report.html").read_text()) == (judged_by == "audit")


def test_an_empty_test_set_ends_the_job(broken: Path, tmp_path: Path) -> None:
    replace(broken / "dataset" / "index.jsonl", "")
    with pytest.raises(SystemExit, match="no test photographs"):
        run(broken, tmp_path / "out")


def test_a_photograph_that_is_gone_costs_only_its_thumbnail(broken: Path, tmp_path: Path) -> None:
    for path in (broken / "photographs").iterdir():
        path.unlink()
    run(broken, tmp_path / "out")
    assert "no picture" in (tmp_path / "out" / "report.html").read_text()
