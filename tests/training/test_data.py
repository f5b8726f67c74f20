"""Splits never part a bin, and what training sees depends on the seed alone."""

import csv
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.preprocess import SIZE, BadImage, decode, normalise, to_array
from training.dataset import layout
from training.learning import data
from training.learning.vary import vary_one

PRETRAINED = Path(__file__).parents[2] / "model" / "pretrained"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """600 labels in groups of two; the pictures of the first eight."""
    (tmp_path / "images224").mkdir()
    random = np.random.default_rng(0)
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "quantity", "group", "original_width"])
        for number in range(600):
            writer.writerow([f"{number:05}", number % 9, f"g{number // 2}", "" if number % 3 else 400])
    for number in range(8):
        pixels = random.integers(0, 256, (224, 224, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images224" / f"{number:05}.jpg", quality=95)
    return tmp_path


def as_uploaded(folder: Path, labels: str, *names: str) -> Path:
    """A folder as `bintally upload` takes it: small pictures at these paths, and this labels.csv."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), "white").save(folder / name)
    (folder / "labels.csv").write_text(labels)
    return folder


def test_a_folder_as_upload_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("SEA1/P-4-B217/a.jpg", "SEA1/P-4-B217/b.PNG", "AUS2/P-1/c.webp", "AUS2/P-1/unnamed.jpg")
    sheet = "File;Qty\nSEA1/P-4-B217/a;4.0\nb.png;12\nAUS2\\P-1\\c.webp;0\nbroken.jpg;1\n"
    folder = as_uploaded(tmp_path, sheet, *names)
    (folder / "broken.jpg").write_bytes(b"no photograph")
    found = data.read(folder)
    assert [(p.id, p.quantity, p.group, p.population) for p in found] == [
        ("AUS2/P-1/c.webp", 0, "AUS2/P-1", "AUS2"),
        ("SEA1/P-4-B217/a.jpg", 4, "SEA1/P-4-B217", "SEA1"),
        ("SEA1/P-4-B217/b.PNG", 12, "SEA1/P-4-B217", "SEA1"),
    ]
    assert {p.split for p in found if p.population == "SEA1"} == {layout.split_of("SEA1", "P-4-B217")}
    assert data.pictures(found, 32).shape == (3, 32, 32, 3)
    assert capsys.readouterr().out.startswith("left out 1 without a label, 1 that cannot be read, first broken.jpg: ")


@pytest.mark.parametrize(
    ("names", "labels", "why"),
    [
        ((), "id,quantity\n", "there are no photographs in {folder}"),
        (("a.jpg",), "id,quantity\nb,3\n", "{folder} needs a labels.csv (columns id, quantity) that names its"),
        (("a.jpg",), "name,count\na,3\n", "labels.csv needs the columns id and quantity in its first line"),
        (("a.jpg",), "id,quantity\na,some\n", "labels.csv, line 2: quantity is 'some'"),
        (("images/a.jpg",), "id,quantity,group\na,many,g\n", "labels.csv: a needs a whole number as quantity, and a"),
    ],
)
def test_a_folder_that_cannot_be_trained_on_says_what_is_missing(
    names: tuple[str, ...], labels: str, why: str, tmp_path: Path
) -> None:
    with pytest.raises(data.BadFolder) as raised:
        data.read(as_uploaded(tmp_path, labels, *names))
    assert why.format(folder=tmp_path) in str(raised.value)
    with pytest.raises(data.BadFolder, match="there is no folder"):
        data.read(tmp_path / "absent")


def test_a_bin_is_on_one_side(folder: Path) -> None:
    photographs = data.read(folder)
    by_group: dict[str, set[str]] = {}
    for photograph in photographs:
        by_group.setdefault(photograph.group, set()).add(photograph.split)
    assert all(len(splits) == 1 for splits in by_group.values())
    sides = [p.split for p in photographs]
    # Runs of neighbours stay together, so the side changes far less often than it would photograph by photograph.
    assert sum(a != b for a, b in itertools.pairwise(sides)) <= 600 // data.BLOCK + 1


def test_a_split_does_not_depend_on_what_else_there_is(folder: Path) -> None:
    before = {p.id: p.split for p in data.read(folder)}
    rows = (folder / "labels.csv").read_text().splitlines()
    (folder / "labels.csv").write_text("\n".join([rows[0], *rows[201:]]) + "\n")
    assert all(before[p.id] == p.split for p in data.read(folder))


def rows_of(file: Path, **more: str) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return [{**row, "quantity": "3", **more} for row in csv.DictReader(lines)]


def test_photographs_that_were_held_out_before_stay_so() -> None:
    """Whatever has been added since: figures of later packages remain comparable."""
    before = {row["id"]: row["split"] for row in rows_of(PRETRAINED / "held_out_before.csv")}
    trained_on = rows_of(PRETRAINED / "training.csv")
    rows = rows_of(PRETRAINED / "predictions.csv") + trained_on
    rows += [
        {"id": str(n), "group": f"n{n}", "quantity": "1"} for n in range(600_000, 625_000)
    ]  # more than the data set has
    found = {p.id: p.split for p in data.of_rows(rows, Path())}
    assert Counter(before.values()) == {"validation": 752, "test": 1_097}
    assert {id_: found[id_] for id_ in before} == before
    assert {found[row["id"]] for row in trained_on} == {"train"}
    assert len(trained_on) >= 7_199


@pytest.fixture
def drawn(folder: Path) -> Path:
    """The folder, with 200 further photographs that were chosen for having one item or four."""
    rows = (folder / "labels.csv").read_text().splitlines()
    lines = [f"{rows[0]},drawn", *(f"{row},as it came" for row in rows[1:])]
    lines += [f"{number},{1 + 3 * (number % 2)},n{number},400,by class" for number in range(100_000, 112_800, 64)]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_photographs_chosen_by_their_count_are_for_training_alone(drawn: Path) -> None:
    photographs = data.read(drawn)
    chosen = [p for p in photographs if p.by_class]
    assert 100 < len(chosen) < 190  # the others are in blocks that validation or the test has
    assert {p.split for p in chosen} == {"train"}
    assert len(photographs) - len(chosen) == 600
    folds = [data.hold_out(photographs, fold) for fold in range(data.FOLDS)]
    assert not any(p.by_class for fold in folds for p in fold if p.split == "validation")
    assert sum(len([p for p in fold if p.split == "validation"]) for fold in folds) == 600
    left_out = {p.id for p in chosen} - {p.id for p in folds[0]}
    assert left_out == {p.id for p in chosen if data.fold_of(p) == 0}


def test_the_excess_of_photographs_chosen_by_their_count(drawn: Path) -> None:
    training = [p for p in data.read(drawn) if p.split == "train"]
    labels, came = ([p.label for p in some] for some in (training, [p for p in training if not p.by_class]))
    for k, found in enumerate(data.excess(training)):
        trained_on, natural = labels.count(k) / len(labels), came.count(k) / len(came)
        assert found == pytest.approx(np.log(trained_on / natural))
    assert data.excess(training)[1] > 0.3
    assert not data.excess([p for p in training if not p.by_class]).any()
    without = [p for p in training if p.label != 2]
    assert data.excess(without)[2] == 0
    assert np.isfinite(data.excess([p for p in training if p.by_class])).all()


def test_the_prior_is_of_photographs_that_came_and_never_0(drawn: Path) -> None:
    training = [p for p in data.read(drawn) if p.split == "train"]
    came = [p.label for p in training if not p.by_class]
    for k, share in enumerate(data.prior(training)):
        assert share == pytest.approx((came.count(k) + 1) / (len(came) + 7), rel=0.05)
    many = [p for p in training if p.label != 0] * 1000
    assert 0 < data.prior(many)[0] < 1e-4


def test_a_larger_share_holds_a_smaller_one(folder: Path) -> None:
    photographs = data.read(folder)
    shares = [data.share_of(photographs, share) for share in (0.1, 0.25, 0.5, 1)]
    assert [len(one) for one in shares] == [60, 150, 300, 600]
    for small, large in itertools.pairwise(shares):
        assert {p.id for p in small} < {p.id for p in large}
    assert shares[-1] == photographs
    # Whole blocks, but for one that is cut.
    left = {p.block for p in photographs} - {p.block for p in shares[2]}
    cut = {p.block for p in shares[2]} & {p.block for p in photographs if p not in shares[2]}
    assert left
    assert len(cut) <= 1


def test_labels_end_at_six_or_more(folder: Path) -> None:
    assert [p.label for p in data.read(folder)[:9]] == [0, 1, 2, 3, 4, 5, 6, 6, 6]


def test_the_digest_names_pictures_and_labels(folder: Path) -> None:
    few = data.read(folder)[:8]
    before = data.digest(few)
    assert before == data.digest(few[::-1])
    (folder / "images224" / f"{few[3].id}.jpg").write_bytes(few[4].read())
    assert before != data.digest(few)


def test_evaluation_sees_what_serving_sees(folder: Path) -> None:
    few = data.read(folder)[:4]
    served = [normalise(to_array(decode(p.read()))[None])[0] for p in few]
    assert np.array_equal(data.evaluation_batch(few, SIZE).numpy(), np.stack(served))


def test_training_pictures_follow_from_the_seed(folder: Path) -> None:
    few = data.read(folder)[:8]
    first, second, other = data.Training(few, 0), data.Training(few, 0), data.Training(few, 1)
    images, labels = first.batch([(3, 0, 5, 96), (3, 1, 2, 96)])
    assert images.shape == (2, 3, 96, 96)
    assert labels.tolist() == [5, 2]
    assert images.equal(second.batch([(3, 0, 5, 96), (3, 1, 2, 96)])[0])
    assert not images[0].equal(first.batch([(4, 0, 5, 96)])[0][0])
    assert not images[0].equal(other.batch([(3, 0, 5, 96)])[0][0])
    assert not images[0].equal(first.batch([(3, 1, 5, 96)])[0][0])  # again in one epoch, as a balanced sampler has it


def test_batches_come_in_order(folder: Path) -> None:
    training = data.Training(data.read(folder)[:8], 0)
    keys = [[(epoch, index, index, 32), (epoch, index + 1, index + 1, 32)] for epoch in range(5) for index in range(7)]
    made = list(training.batches(iter(keys)))
    assert len(made) == len(keys)
    assert all(images.equal(training.batch(one)[0]) for (images, _), one in zip(made, keys, strict=True))


def test_a_device_has_the_same_photographs(folder: Path) -> None:
    few = data.read(folder)[:8]
    by_pillow, there = data.Training(few, 0, 0.0), data.OnDevice(few, 0, 0.0, torch.device("cpu"))
    keys = [(3, place, index, 96) for place, index in enumerate((5, 2, 7))]
    (expected, labels), (images, found) = by_pillow.batch(keys), there.batch(keys)
    assert found.equal(labels)
    for own, one in enumerate(images):  # unvaried, but resampled, and mirrored or not, by numbers of their own
        distances = [min(float((one - o).abs().mean()) for o in (other, other.flip(2))) for other in expected]
        assert int(np.argmin(distances)) == own
    first, again = (data.OnDevice(few, 1, 1.0, torch.device("cpu")).batches(iter([keys] * 2)) for _ in range(2))
    assert all(one[0].equal(other[0]) for one, other in zip(first, again, strict=True))


def test_photographs_that_do_not_fit_a_gpu_stay_outside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = data.read(folder)[:8]
    needed = 8 * 3 * data.STORED_SIZE**2
    on_device: object = "on the device"
    monkeypatch.setattr(data, "OnDevice", lambda *_: on_device)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2 * needed, 4 * needed))
    assert isinstance(data.training_on(torch.device("cuda"), few, seed=0), data.Training)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2 * needed + 2, 4 * needed))
    assert data.training_on(torch.device("cuda"), few, seed=0) is on_device
    assert isinstance(data.training_on(torch.device("cpu"), few, seed=0), data.Training)


def test_augmentation_has_a_strength(folder: Path) -> None:
    picture = Image.fromarray(data.pictures(data.read(folder)[:1], data.STORED_SIZE)[0])

    def varied(strength: float) -> list[float]:
        """Without the mirroring, which has no strength: unlike the picture, or its mirror image, if that is nearer."""
        made = [vary_one(picture, data.STORED_SIZE, np.random.default_rng(seed), strength) for seed in range(20)]
        pixels = np.asarray(picture, dtype=float)
        return [min(np.abs(m - pixels).mean(), np.abs(m[:, ::-1] - pixels).mean()) for m in made]

    assert max(varied(0.0)) == 0
    assert 0 < np.mean(varied(0.3)) < np.mean(varied(1.0)) < np.mean(varied(1.5))


def test_an_unreadable_photograph_is_named(folder: Path) -> None:
    (folder / "images224" / "00003.jpg").write_bytes(b"no picture")
    with pytest.raises(BadImage, match="00003: not a JPEG"):
        data.Training(data.read(folder)[:8], 0)


def test_a_job_reads_the_shards_of_its_splits(rendered: Path) -> None:
    found = data.read_shards(rendered / "dataset", {split: rendered / split for split in ("train", "validation")})
    assert {p.split for p in found} == {"train", "validation"}
    assert len(found) == 50
    assert data.pictures(found[:3], 32).std() > 0
    for split in ("train", "validation"):
        ids = [p.id for p in found if p.split == split]
        assert ids == sorted(ids)
