"""What a dataset's files say, and reading photographs back out of them."""

import io
import json
from pathlib import Path

import pytest

from training.dataset import layout
from training.dataset.layout import BadDataset, Line, Shard


def line(id_: str, split: str, object_: str, **other: object) -> Line:
    values: dict[str, object] = {
        "site": "AUS2", "bin": "P-1", "quantity": 3, "source": "record", "as_of": "2026-01-01T00:00:00Z",
        "captured_at": "2026-01-01T00:00:00Z", "pixels": "00", "brightness": 0.5, "blur": 100.0, "width": 4,
        "height": 3, "count": 3, "confidence": 0.5, "p_record": 0.5, "model_version": "v",
    }  # fmt: skip
    return Line(**{**values, "id": id_, "split": split, "object": object_, "member": f"{id_}.jpg", **other})  # type: ignore[arg-type]


def shard(photographs: dict[str, bytes]) -> tuple[str, bytes]:
    file = io.BytesIO()
    made = Shard(file)
    for member, data in photographs.items():
        made.add(member, data)
    return made.close(), file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset of two train shards, a test photograph, and one photograph in a shard that the index leaves out."""
    lines = []
    (tmp_path / "datasets" / "train").mkdir(parents=True)
    (tmp_path / "datasets" / "test").mkdir()
    for photographs in ({"b.jpg": b"bbb", "a.jpg": b"a"}, {"c.jpg": bytes(2000), "left-out.jpg": b"x"}):
        name, data = shard(photographs)
        (tmp_path / "datasets" / "train" / f"{name}.tar").write_bytes(data)
        lines += [line(m[:-4], "train", f"datasets/train/{name}.tar") for m in photographs if m != "left-out.jpg"]
    (tmp_path / "datasets" / "test" / "t.jpg").write_bytes(b"test")
    lines.append(line("t", "test", "datasets/test/t.jpg"))
    text = "".join(each.json() + "\n" for each in sorted(lines, key=lambda each: each.id))
    (tmp_path / "index.jsonl").write_text(text)
    return tmp_path


def test_reads_the_bytes_of_each_photograph(folder: Path) -> None:
    found = layout.read(folder, {split: folder / "datasets" / split for split in ("train", "test")})
    assert {split: [e.line.id for e in examples] for split, examples in found.items()} == {
        "train": ["a", "b", "c"],
        "test": ["t"],
    }
    assert [example.read() for example in found["train"]] == [b"a", b"bbb", bytes(2000)]
    assert found["test"][0].read() == b"test"


def test_reads_only_the_splits_that_are_given(folder: Path) -> None:
    assert list(layout.read(folder, {"train": folder / "datasets" / "train"})) == ["train"]


def test_a_missing_shard_is_named(folder: Path) -> None:
    for path in (folder / "datasets" / "train").iterdir():
        path.unlink()
    with pytest.raises(BadDataset, match=r"a\.jpg of datasets/train/.*tar is not in"):
        layout.read(folder, {"train": folder / "datasets" / "train"})


def test_a_broken_shard_is_named(folder: Path) -> None:
    (folder / "datasets" / "train" / "0.tar").write_bytes(b"no tar")
    with pytest.raises(BadDataset, match=r"0\.tar is not a shard"):
        layout.read(folder, {"train": folder / "datasets" / "train"})


def test_lines_survive_writing() -> None:
    one = line("a", "train", "datasets/train/0.tar", count=None, confidence=None, bin='P "1"\n')
    assert Line.of(one.json()) == one
    assert "\n" not in one.json()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"id": "a"}', '{"surprise": 1}'])
def test_what_is_no_line_is_refused(text: str) -> None:
    with pytest.raises(BadDataset, match="not a line of an index"):
        Line.of(text)


@pytest.mark.parametrize(("quantity", "label"), [(0, 0), (5, 5), (6, 6), (120, 6)])
def test_the_label_is_six_or_more_at_most(quantity: int, label: int) -> None:
    assert line("a", "train", "", quantity=quantity).label == label


def test_a_shard_is_named_by_its_bytes() -> None:
    once, again, other = (shard({"a.jpg": b"1", "b.jpg": last}) for last in (b"2", b"2", b"3"))
    assert once == again
    assert once[0] != other[0]


def test_splits_have_their_shares() -> None:
    splits = [layout.split_of("AUS2", f"P-{n}") for n in range(20_000)]
    shares = {split: splits.count(split) / len(splits) for split in layout.SPLITS}
    assert shares == pytest.approx({"train": 0.80, "validation": 0.08, "test": 0.12}, abs=0.01)
    found = [layout.split_of("AUS2", bin_) for bin_ in ("P-1-A108", "P-7", "P-13")]
    assert found == ["train", "test", "validation"]  # for ever


def test_the_digest_knows_labels_and_pixels() -> None:
    lines = [line("a", "train", "datasets/train/0.tar"), line("b", "test", "datasets/test/b.jpg")]
    digests = {
        layout.digest(lines),
        layout.digest(lines[:1]),
        layout.digest([line("a", "train", "", quantity=4), lines[1]]),
        layout.digest([line("a", "train", "", pixels="01"), lines[1]]),
    }
    assert len(digests) == 4
    repacked = [line("a", "train", "datasets/train/1.tar", confidence=0.1), lines[1]]
    assert layout.digest(repacked) == layout.digest(lines)


def test_manifests_have_sagemakers_form() -> None:
    found = json.loads(layout.manifest("s3://bucket/datasets/train/", ["a.tar", "b.tar"]))
    assert found == [{"prefix": "s3://bucket/datasets/train/"}, "a.tar", "b.tar"]
