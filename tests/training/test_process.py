"""What the processing job promises of every dataset, and what becomes of photographs that are none.

Most tests let threads decode where the job has processes, which take a second to start; the last ones run the job as
it is called.
"""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer
from PIL import Image

from local.processes import session_members
from model.preprocess import decode
from training import process
from training.dataset import layout
from training.dataset.catalogue import SHARD, id_of
from training.dataset.layout import Line
from training.dataset.store import LARGEST, store
from training.process import LEAST_JUDGED, Job

REPOSITORY = Path(__file__).parents[2]
MORNING = "2026-05-01T08:00:00.000Z"
LATER = "2026-05-02T08:00:00.000Z"


@pytest.fixture(scope="module", autouse=True)
def threads_decode() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(2))
        patch.setattr(process, "POLL_SECONDS", 0.01)
        yield


@cache
def jpeg(number: int, size: tuple[int, int] = (24, 16)) -> bytes:
    """A picture of its own for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


@dataclass(frozen=True)
class Photo:
    """A labelled photograph of a test: photographs of one `picture` are the same, pixel by pixel."""

    bin: str
    number: int
    picture: int
    quantity: int = 3
    source: str = "record"
    as_of: str = MORNING
    site: str = "AUS2"
    told: str = ""

    @property
    def key(self) -> str:
        return f"incoming/{self.site}/{self.bin}/{self.number}.jpg"


class Place:
    """Folders of a job, as the buckets of a stack would be."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def photograph(self, photo: Photo, data: bytes | None = None) -> Path:
        path = self.root / "images" / photo.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(photo.picture) if data is None else data)
        return path

    def id_of(self, photo: Photo) -> str:
        return id_of(str(self.root / "images"), photo.key, "1")

    def label(self, photo: Photo, **other: Any) -> dict[str, Any]:
        image = {"bucket": str(self.root / "images"), "key": photo.key, "version_id": "1"}
        shown = {name: getattr(photo, name) for name in ("site", "bin", "quantity", "source", "as_of", "told")}
        answer = {"count": 2, "confidence": 0.4, "p_record": 0.3, "model_version": "2026-01-01-abc"}
        return {"id": "0" * 32, "image": image, **shown, "captured_at": MORNING, "logged_at": LATER, **answer, **other}

    def manifest(self, name: str, photos: list[Photo]) -> Path:
        path = self.root / f"{name}.jsonl"
        path.write_text("".join(json.dumps(self.label(photo)) + "\n" for photo in photos))
        return path

    def job(self, name: str, manifest: Path, **other: Any) -> Job:
        root = self.root
        return Job(
            **{
                "manifest": str(manifest), "previous": None, "reference": None, "bad_share": 0.2, "patience": 5,
                "dataset": store(str(root / name / "dataset")), "parts": store(str(root / name / "parts")),
                "shards": store(str(root / "datasets")), "host": 0, "hosts": 1, **other,
            }
        )  # fmt: skip

    def process(self, name: str, photos: list[Photo], *, hosts: int = 1, **other: Any) -> Path:
        """The dataset's folder. Too few bins to have all three splits is no fault here."""
        job = self.job(name, self.manifest(name, photos), **other)
        for host in reversed(range(hosts)):
            run(replace(job, host=host, hosts=hosts))
        return self.root / name / "dataset"


def run(job: Job) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            process.run(job, Path(folder))
        except SystemExit as error:
            if "labels of more bins are needed" not in str(error):
                raise


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def index(folder: Path) -> list[Line]:
    return list(layout.read_index(folder / "index.jsonl"))


def listed(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def several(number: int, **other: Any) -> list[Photo]:
    return [Photo(f"P-{n}", 0, n, **other) for n in range(number)]


photos = st.lists(
    st.builds(
        Photo,
        bin=st.integers(0, 11).map("P-{}".format),
        number=st.integers(0, 2),
        picture=st.integers(0, 20),
        quantity=st.integers(0, 9),
        site=st.sampled_from(["AUS2", "SEA1"]),
        source=st.sampled_from(["record", "person"]),
    ),
    min_size=1,
    max_size=40,
    unique_by=lambda photo: photo.key,
)
some = settings(max_examples=25)


@given(photos)
@some
def test_no_bin_is_in_two_splits_and_no_picture_twice(photos: list[Photo]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        for photo in photos:
            place.photograph(photo)
        lines = index(place.process("a", photos))
        splits = defaultdict(set)
        for line in lines:
            splits[line.group].add(line.split)
            assert line.split == layout.split_of(line.site, line.bin)
        assert all(len(found) == 1 for found in splits.values())
        # Of the same picture one stays: a test photograph first, so that none is in two splits; then a person's count.
        by_id = {place.id_of(photo): photo for photo in photos}
        kept = {by_id[line.id].picture: line for line in lines}
        assert len(kept) == len(lines) == len({photo.picture for photo in photos})
        for id_, photo in by_id.items():
            order = ("test", "validation", "train").index
            mine = (order(layout.split_of(photo.site, photo.bin)), photo.source != "person", id_)
            one = kept[photo.picture]
            assert (order(one.split), one.source != "person", one.id) <= mine
        dropped = listed(place.root / "a" / "dataset", "duplicates.jsonl")
        assert {one["id"] for one in dropped} == by_id.keys() - {line.id for line in lines}
        assert all(by_id[one["id"]].picture == by_id[one["kept"]].picture for one in dropped)
        # Every line's bytes are where it says.
        read = layout.read(
            place.root / "a" / "dataset", {split: place.root / "datasets" / split for split in layout.SPLITS}
        )
        for example in (example for examples in read.values() for example in examples):
            assert example.read() == jpeg(by_id[example.line.id].picture)
            assert example.line.quantity == by_id[example.line.id].quantity


@given(photos, st.data())
@some
def test_adding_photographs_comes_to_the_same_as_having_had_them(photos: list[Photo], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(photos)))
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        for photo in photos:
            place.photograph(photo)
        before = place.process("before", photos[:first])
        after = place.process("after", photos[first:], previous=str(before / "index.jsonl"))
        at_once = place.process("at-once", photos)
        splits = {line.id: line.split for line in index(before)}
        assert all(line.split == splits.get(line.id, line.split) for line in index(after))
        assert [replace(line, object="") for line in index(after)] == [
            replace(line, object="") for line in index(at_once)
        ]
        summaries = [layout.summary_of(one) for one in (after, at_once)]
        for name in ("digest", "test_digest", "photographs", "classes", "profile"):
            assert summaries[0][name] == summaries[1][name]


@given(photos, st.randoms(use_true_random=False))
@some
def test_the_same_input_makes_the_same_files(photos: list[Photo], random: Any) -> None:
    """In any order, on any number of instances, and again after a restart."""
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        for photo in photos:
            place.photograph(photo)
        expected = contents(place.process("once", photos))
        objects = contents(place.root / "datasets")
        shuffled = random.sample(photos, len(photos))
        for hosts in (1, 2, 3):
            assert contents(place.process(f"shared-{hosts}", shuffled, hosts=hosts)) == expected
            assert contents(place.root / "datasets") == objects


def test_many_photographs_fill_several_shards(place: Place) -> None:
    photos = several(2 * SHARD + 100)
    for photo in photos:
        place.photograph(photo)
    folder = place.process("one", photos)
    shards = {line.object for line in index(folder) if line.split == "train"}
    assert len(shards) == 2  # 80 in a hundred of 612 are 490
    assert layout.summary_of(folder)["photographs"]["train"] > SHARD
    expected, objects = contents(folder), contents(place.root / "datasets")
    assert contents(place.process("three", photos, hosts=3)) == expected
    assert contents(place.root / "datasets") == objects
    for path in (place.root / "datasets" / "train").iterdir():
        assert path.stem == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    found = json.loads((folder / "train.manifest").read_text())
    assert found[0] == {"prefix": f"{place.root}/datasets/train/"}
    assert found[1:] == sorted(Path(name).name for name in shards)


def test_a_new_label_changes_the_index_and_reads_nothing(place: Place) -> None:
    photos = several(40)
    paths = [place.photograph(photo) for photo in photos]
    before = place.process("before", photos)
    for path in paths:
        path.unlink()
    objects = contents(place.root / "datasets")
    relabelled = replace(photos[0], quantity=5, as_of=LATER)
    outdated = replace(photos[1], quantity=5, as_of="2026-04-30T08:00:00.000Z")
    after = place.process("after", [relabelled, outdated], previous=str(before / "index.jsonl"))
    old, new = ({line.id: line for line in index(folder)} for folder in (before, after))
    assert new == old | {place.id_of(relabelled): replace(old[place.id_of(relabelled)], quantity=5, as_of=LATER)}
    assert contents(place.root / "datasets") == objects
    assert layout.summary_of(after)["digest"] != layout.summary_of(before)["digest"]
    assert layout.summary_of(after)["new"] == 0


@pytest.mark.parametrize("same_manifest", [True, False])
def test_a_persons_label_outranks_a_later_record(place: Place, same_manifest: bool) -> None:
    person = Photo("P-1", 0, 1, quantity=4, source="person", as_of=MORNING)
    record = replace(person, quantity=7, source="record", as_of=LATER)
    place.photograph(person)
    first = place.process("first", [record, person] if same_manifest else [person])
    last = place.process("last", [record], previous=str(first / "index.jsonl"))
    assert [(line.quantity, line.source) for line in index(last)] == [(4, "person")]


def test_of_two_records_as_of_the_same_time_the_one_told_later_counts(place: Place) -> None:
    """In whatever order they are learned from."""
    first = Photo("P-1", 0, 1, quantity=4, told="2026-01-01#1")
    correction = replace(first, quantity=7, told="2026-01-01#2")
    place.photograph(first)
    for name, one, other in (("a", first, correction), ("b", correction, first)):
        before = place.process(f"first-{name}", [one])
        last = place.process(f"last-{name}", [other], previous=str(before / "index.jsonl"))
        assert [line.quantity for line in index(last)] == [7]


def bomb() -> bytes:
    out = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the image is empty"),
        (jpeg(0, (400, 300))[:9000], "cannot be decoded"),
        (b"GIF89a" + bytes(40), "cannot be decoded"),
        (b"no photograph", "not a JPEG, PNG or WebP image"),
        (bomb(), "12000 x 12000 pixels are more than 50000000"),
        (bytes(LARGEST + 1), "too large: it has 31,457,281 bytes; at most 31,457,280 are read"),
        (None, "gone: there is no "),
    ],
    ids=["empty", "truncated", "gif", "text", "bomb", "large", "gone"],
)
@pytest.mark.parametrize("bin_", ["P-1", "P-7"])  # a train and a test bin
def test_what_cannot_be_read_is_listed(place: Place, bin_: str, data: bytes | None, reason: str) -> None:
    good, bad = Photo(bin_, 0, 0), Photo(bin_, 1, 1)
    place.photograph(good)
    if data is not None:
        place.photograph(bad, data)
    folder = place.process("a", [good, bad])
    assert [line.id for line in index(folder)] == [place.id_of(good)]
    (one,) = listed(folder, "unreadable.jsonl")
    assert one["image"]["key"] == bad.key
    assert (one["site"], one["bin"]) == ("AUS2", bin_)
    assert reason in one["reason"]
    assert layout.summary_of(folder)["unreadable"] == 1


@pytest.mark.parametrize(("number", "bad", "fails"), [(20, 4, False), (20, 5, True), (19, 19, False), (60, 13, True)])
def test_too_large_a_share_of_unreadable_ones_ends_the_job(place: Place, number: int, bad: int, fails: bool) -> None:
    assert LEAST_JUDGED == 20
    photos = several(number)
    for photo in photos:
        place.photograph(photo, b"" if photo.picture < bad else None)
    if not fails:
        assert layout.summary_of(place.process("a", photos))["unreadable"] == bad
        return
    with pytest.raises(SystemExit) as ended:
        place.process("a", photos)
    said = f"{bad} of {number} new photographs cannot be read, more than 20% (most often: the image is empty)"
    assert str(ended.value) == f"{said}; see {place.root}/a/dataset/unreadable.jsonl"
    folder = place.root / "a" / "dataset"
    assert len(listed(folder, "unreadable.jsonl")) == bad
    assert not (folder / "dataset.json").exists()


def test_only_the_new_ones_are_judged(place: Place) -> None:
    photos = several(100)
    for photo in photos:
        place.photograph(photo, b"" if photo.picture >= 90 else None)
    before = place.process("before", photos[:70])
    with pytest.raises(SystemExit, match="10 of 30 new photographs"):
        place.process("after", photos[70:], previous=str(before / "index.jsonl"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_keeps_the_bytes_and_shrinks_what_is_large(place: Place, kind: str) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (300, 4200, 3), dtype=np.uint8)
    saved = []
    for picture in (Image.fromarray(rows[:, :60]), Image.fromarray(rows)):
        out = io.BytesIO()
        picture.save(out, kind)
        saved.append(out.getvalue())
    photos = [Photo("P-7", number, 0) for number in (0, 1)]
    for photo, data in zip(photos, saved, strict=True):
        place.photograph(photo, data)
    folder = place.process("a", photos)
    read = {e.line.id: e for e in layout.read(folder, {"test": place.root / "datasets" / "test"})["test"]}
    small, large = (read[place.id_of(photo)] for photo in photos)
    assert small.read() == saved[0]
    assert small.line.member == f"{small.line.id}.{ {'JPEG': 'jpg', 'PNG': 'png', 'WEBP': 'webp'}[kind] }"
    assert large.line.member.endswith(".jpg")
    shrunk = decode(large.read(), size=4096)
    assert shrunk.size == (2100, 150)
    assert (large.line.width, large.line.height) == (4200, 300)


def test_brightness_and_blur_are_of_the_picture(place: Place) -> None:
    sharp = np.tile(np.array([[60, 180], [180, 60]], dtype=np.uint8), (150, 150))
    pictures = {0: Image.fromarray(sharp), 1: Image.fromarray(sharp).reduce(2), 2: Image.new("L", (300, 300), 255)}
    for number, picture in pictures.items():
        out = io.BytesIO()
        picture.resize((224, 224), Image.Resampling.NEAREST).save(out, "PNG")
        place.photograph(Photo("P-1", number, number), out.getvalue())
    photos = [Photo("P-1", number, number) for number in pictures]
    lines = {line.id: line for line in index(place.process("a", photos))}
    checked, flat, white = (lines[place.id_of(photo)] for photo in photos)
    assert checked.brightness == pytest.approx(120 / 255, abs=0.01)
    assert flat.brightness == pytest.approx(120 / 255, abs=0.01)
    assert white.brightness == 1.0
    assert checked.blur > 10_000
    assert flat.blur == white.blur == 0


def test_shards_are_written_once(place: Place) -> None:
    photos = several(30)
    for photo in photos:
        place.photograph(photo)
    place.process("a", photos)
    written = {path: path.stat().st_mtime_ns for path in (place.root / "datasets").rglob("*.*")}
    assert len(written) > 3
    place.process("b", photos)
    assert {path: path.stat().st_mtime_ns for path in (place.root / "datasets").rglob("*.*")} == written


def test_what_is_about_to_expire_is_left_out_and_stored_anew_with_a_new_label(place: Place) -> None:
    """On three instances, and again after a restart, though the run itself changes when objects were stored."""
    photos = several(60)
    for photo in photos:
        place.photograph(photo)
    photos[1] = replace(photos[1], quantity=7, source="person")
    before = place.process("before", photos[:40])
    now = datetime.now(UTC)
    for path in (place.root / "datasets").rglob("*.*"):
        os.utime(path, 2 * ((now - timedelta(days=80)).timestamp(),))
    fresh = place.process("fresh", photos[40:50], previous=str(before / "index.jsonl"))
    known = {line.id: line for line in index(fresh)}
    young = {place.id_of(photo) for photo in photos[40:50]}
    lasting = {line.object for id_, line in known.items() if id_ in young}
    old_test = next(photo for photo in photos[:40] if known[place.id_of(photo)].split == "test")
    labels = [replace(photo, quantity=5, as_of=LATER) for photo in (old_test, photos[0], photos[40])]
    labels += [replace(photos[1], quantity=9, source="record", as_of=LATER), *photos[50:]]
    between = (now - timedelta(days=76), datetime.now(UTC) + timedelta(seconds=0.01))
    time.sleep(0.02)
    made = place.process("made", labels, hosts=3, previous=str(fresh / "index.jsonl"), stored_between=between)
    found = index(made)
    renewed = {place.id_of(photo): 5 for photo in (old_test, photos[0])} | {place.id_of(photos[1]): 7}
    assert {line.id for line in found} == young | renewed.keys() | {place.id_of(photo) for photo in photos[50:]}
    assert {line.id: line.quantity for line in found if line.id in renewed} == renewed, "what a person counted stays"
    for line in found:
        stored_at = (place.root / line.object).stat().st_mtime
        assert line.object in lasting or stored_at > between[1].timestamp()
    assert layout.summary_of(made)["new"] == 13
    again = place.process("again", labels, previous=str(fresh / "index.jsonl"), stored_between=between)
    assert contents(again) == contents(made)


def test_an_instance_that_never_finishes_is_named(place: Place) -> None:
    photos = several(10)
    for photo in photos:
        place.photograph(photo)
    job = place.job("a", place.manifest("a", photos), hosts=2, patience=0.1)
    with pytest.raises(SystemExit, match=r"instance 2 of 2 did not finish within 0\.1 s"):
        run(job)


def test_a_part_that_is_not_whole_is_noticed(place: Place) -> None:
    photos = several(60)
    for photo in photos:
        place.photograph(photo)
    job = place.job("a", place.manifest("a", photos), hosts=2)
    run(replace(job, host=1))
    (part,) = (place.root / "a" / "parts").iterdir()
    lines = part.read_text().splitlines(keepends=True)
    assert len(lines) > 1
    part.write_text("".join(lines[1:]))
    with pytest.raises(SystemExit, match="left 1 photographs out"):
        run(job)


@pytest.mark.parametrize(
    ("line", "said"),
    [("{}", "KeyError 'image'"), ("no json", "JSONDecodeError"), ('{"image": 3}', "TypeError")],
)
def test_a_line_that_is_no_label_is_named(place: Place, line: str, said: str) -> None:
    manifest = place.manifest("a", several(2))
    manifest.write_text(manifest.read_text() + line)
    with pytest.raises(layout.BadDataset, match=f"line 3 of the manifest is no label: {said}"):
        run(place.job("a", manifest))


def test_drift_is_told_of_the_new_ones_against_the_reference(place: Place) -> None:
    photos = [Photo(f"P-{n}", 0, n, quantity=n % 4) for n in range(150)]
    for photo in photos:
        place.photograph(photo)
    champion = place.process("champion", photos[:70])
    assert json.loads((champion / "drift.json").read_text())["reference"] is None
    many = [replace(photo, quantity=20) for photo in photos[70:]]
    known: dict[str, Any] = {"previous": str(champion / "index.jsonl"), "reference": str(champion / "dataset.json")}
    found = json.loads((place.process("new", many, **known) / "drift.json").read_text())
    assert found["reference"] == layout.summary_of(champion)["digest"]
    site = found["sites"]["AUS2"]
    assert (site["photographs"], site["bins"], found["flagged"]) == (80, 80, ["", "AUS2"])
    assert site["flagged"] == ["label", "agreement"]  # the test's model always answers 2
    assert site["sentence"].startswith("AUS2: 80 new photographs of 80 bins differ from the reference: labels higher")


# From here on the job as it is called.


def called(place: Place, *arguments: str, opt_ml: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SM_", "AWS_"))}
    environment |= {"SM_OPT_ML": str(opt_ml or place.root / "opt" / "ml")}
    places = [f"--{name}={place.root / name}" for name in ("dataset", "parts")]
    return subprocess.Popen(
        [sys.executable, "-m", "training.process", *places, *arguments],
        cwd=REPOSITORY, env=kept | environment, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and the last line of standard error."""
    _, errors = process.communicate(timeout=120)
    return process.returncode, (errors.strip().splitlines() or [""])[-1]


def test_three_instances_make_one_dataset(place: Place) -> None:
    photos = several(60)
    for photo in photos:
        place.photograph(photo)
    expected = contents(place.process("expected", photos))
    arguments = ["--manifest", str(place.manifest("a", photos)), "--shards", str(place.root / "datasets")]
    running = []
    for host in ("algo-3", "algo-2", "algo-1"):
        config = place.root / host / "config"
        config.mkdir(parents=True)
        (config / "resourceconfig.json").write_text(
            json.dumps({"current_host": host, "hosts": ["algo-1", "algo-2", "algo-3"]})
        )
        running.append(called(place, *arguments, opt_ml=config.parent))
    assert [ended(process) for process in running] == [(0, "")] * 3
    assert contents(place.root / "dataset") == expected


def test_a_failed_job_says_why_in_one_line(place: Place) -> None:
    (place.root / "opt" / "ml").mkdir(parents=True)
    absent = place.root / "absent.jsonl"
    code, said = ended(called(place, "--manifest", str(absent), "--shards", str(place.root / "datasets")))
    assert (code, said) == (1, f"there is no {absent}")
    assert (place.root / "opt" / "ml" / "output" / "failure").read_text() == said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_job_leaves_no_process_and_can_be_run_again(place: Place, number: signal.Signals) -> None:
    photos = several(1500)
    for photo in photos:
        place.photograph(photo)
    arguments = ["--manifest", str(place.manifest("a", photos)), "--shards", str(place.root / "datasets")]
    process = called(place, *arguments)
    deadline = time.monotonic() + 60
    while not list(place.root.glob("datasets/*/*.*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None
    assert len(session_members(process.pid)) > 2
    process.send_signal(number)
    process.communicate(timeout=60)
    while session_members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert session_members(process.pid) == []
    assert not (place.root / "dataset" / "dataset.json").exists()
    assert ended(called(place, *arguments)) == (0, "")
    made = contents(place.root / "dataset")
    assert made == contents(place.process("whole", photos))


def test_reads_and_writes_s3(place: Place) -> None:
    """By version: a later version of the key is another photograph, a deleted version is gone."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    aws: dict[str, Any] = {
        "AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
    }  # fmt: skip
    s3 = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    try:
        for bucket in ("images", "artifacts"):
            s3.create_bucket(Bucket=bucket)
        s3.put_bucket_versioning(Bucket="images", VersioningConfiguration={"Status": "Enabled"})
        labels, pictures, gone = [], {}, ""
        for photo in several(30):
            version = s3.put_object(Bucket="images", Key=photo.key, Body=jpeg(photo.picture))["VersionId"]
            s3.put_object(Bucket="images", Key=photo.key, Body=jpeg(1000))
            image = {"bucket": "images", "key": photo.key, "version_id": version}
            labels.append(place.label(photo, image=image))
            pictures[id_of(**image)] = jpeg(photo.picture)
            if photo.picture == 3:
                gone = id_of(**image)
                s3.delete_object(Bucket="images", Key=photo.key, VersionId=version)
        manifest = "".join(json.dumps(label) + "\n" for label in labels)
        s3.put_object(Bucket="artifacts", Key="retrain/1/manifest.jsonl", Body=manifest.encode())
        run_1, run_2 = "s3://artifacts/retrain/1", "s3://artifacts/retrain/2"
        common = ["--manifest", f"{run_1}/manifest.jsonl", "--shards", "s3://artifacts/datasets"]
        first = ["--dataset", f"{run_1}/dataset", "--parts", f"{run_1}/parts"]
        second = ["--dataset", f"{run_2}/dataset", "--parts", f"{run_2}/parts"]
        second += ["--previous", f"{run_1}/dataset/index.jsonl", "--reference", f"{run_1}/dataset/dataset.json"]
        for arguments in (first, second):
            assert ended(called(place, *common, *arguments, **aws)) == (0, "")

        def body(key: str) -> bytes:
            return s3.get_object(Bucket="artifacts", Key=key)["Body"].read()

        found = [Line.of(line) for line in body("retrain/1/dataset/index.jsonl").splitlines()]
        assert {line.id for line in found} == pictures.keys() - {gone}
        for line in found:
            assert pictures[line.id] in body(line.object)
        (unreadable,) = (json.loads(x) for x in body("retrain/1/dataset/unreadable.jsonl").splitlines())
        assert (unreadable["id"], unreadable["reason"]) == (
            gone,
            "gone: there is no s3://images/incoming/AUS2/P-3/0.jpg",
        )
        assert json.loads(body("retrain/1/dataset/test.manifest"))[0] == {"prefix": "s3://artifacts/datasets/test/"}
        again = json.loads(body("retrain/2/dataset/dataset.json"))
        assert (again["new"], again["unreadable"]) == (0, 1)
        assert again["digest"] == json.loads(body("retrain/1/dataset/dataset.json"))["digest"]

        a, b, c = ("2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "2999-01-02T00:00:00Z")
        for run, between, numbers in (("3", (a, b), (0, 29)), ("4", (b, c), (29, 29))):
            name = f"s3://artifacts/retrain/{run}"
            third = ["--dataset", f"{name}/dataset", "--parts", f"{name}/parts", "--stored-between", *between]
            third += ["--previous", f"{run_1}/dataset/index.jsonl"]
            assert ended(called(place, *common, *third, **aws)) == (0, "")
            summary = json.loads(body(f"retrain/{run}/dataset/dataset.json"))
            assert (summary["new"], sum(summary["photographs"].values())) == numbers

        absent = ["--manifest", "s3://nowhere/manifest.jsonl", "--shards", "s3://artifacts/datasets"]
        assert ended(called(place, *absent, **aws)) == (1, "there is no s3://nowhere/manifest.jsonl")
    finally:
        server.stop()


def test_memory_does_not_grow_with_the_photographs(place: Place) -> None:
    """The 1,300 more have 100 MB: as bytes in a list they would show."""
    peaks = {}
    for number in (200, 1500):
        photos = several(number)
        for photo in photos:
            place.photograph(photo, jpeg.__wrapped__(photo.picture, (256, 256)) + bytes(40_000))
        arguments = ["--manifest", str(place.manifest("a", photos)), "--shards", str(place.root / f"{number}")]
        process = called(place, *arguments)
        peaks[number] = 0
        while process.poll() is None:
            peaks[number] = max(peaks[number], sum(map(resident_mb, session_members(process.pid))))
            time.sleep(0.02)
        assert ended(process) == (0, "")
    assert peaks[200] > 50
    assert peaks[1500] < peaks[200] + 40


def resident_mb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1000 for line in lines if line.startswith("VmRSS")), 0)
