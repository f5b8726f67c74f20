"""Uploading: which photographs, under which keys, with which records."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from cli import photographs
from cli.main import main
from cli.photographs import find
from local.stack import REPOSITORY, Stack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("SEA1/P-4-B217/a.jpg", "SEA1/P-4-B217/b.PNG", "P-9/c.webp", "d.jpeg", "SEA1/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "labels.csv").write_text("id,quantity\nSEA1/P-4-B217/a,4\nd,0\n")
    return tmp_path


def test_folders_name_site_and_bin(folder: Path) -> None:
    found = {photograph.key: photograph.recorded for photograph in find([folder], None, None)}
    assert found == {
        "incoming/SEA1/P-4-B217/a.jpg": 4,
        "incoming/SEA1/P-4-B217/b.PNG": None,
        "incoming/default/P-9/c.webp": None,
        "incoming/default/d/d.jpeg": 0,
    }


def test_site_and_bin_overrule(folder: Path) -> None:
    (only,) = find([folder / "SEA1/P-4-B217/a.jpg"], "AUS2", "B")
    assert (only.key, only.recorded) == ("incoming/AUS2/B/a.jpg", 4)


def test_a_single_file_is_its_own_bin_and_may_have_any_ending(folder: Path) -> None:
    (only,) = find([folder / "SEA1/notes.txt"], None, None)
    assert only.key == "incoming/default/notes/notes.txt"


def test_uploading_puts_every_photograph_with_its_record(aws: SimpleNamespace, folder: Path) -> None:
    result = CliRunner().invoke(main, ["upload", str(folder)])
    assert result.exit_code == 0, result.output
    assert "4 uploaded, 3 bins" in result.output
    stored = aws.s3.head_object(Bucket="images", Key="incoming/SEA1/P-4-B217/a.jpg")
    assert stored["Metadata"] == {"expected-quantity": "4"}
    assert stored["ContentType"] == "image/jpeg"
    assert aws.s3.head_object(Bucket="images", Key="incoming/SEA1/P-4-B217/b.PNG")["Metadata"] == {}
    body = aws.s3.get_object(Bucket="images", Key="incoming/default/P-9/c.webp")["Body"].read()
    assert body == b"P-9/c.webp"


def test_sending_tells_the_versions(aws: SimpleNamespace, folder: Path) -> None:
    ticks: list[int] = []
    sent = photographs.send(aws.s3, "images", find([folder], None, None), lambda: ticks.append(1))
    assert len(ticks) == 4
    for upload in sent:
        aws.s3.head_object(Bucket="images", Key=upload.photograph.key, VersionId=upload.version_id)


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["upload"], 2, "Missing argument 'PATH...'"),
        (["upload", "no-such-file"], 2, "'no-such-file' does not exist"),
        (["upload", "--site", "a/b", "."], 2, "a site or a bin cannot have a / in its name"),
    ],
)
def test_wrong_use_is_one_line(arguments: list[str], code: int, line: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code
    assert line in result.output
    assert "Traceback" not in result.output


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["upload", str(tmp_path)])
    assert result.exit_code == 2
    assert result.output == f"Error: no photographs in {tmp_path}\n"


def test_a_labels_file_without_the_columns_is_told(folder: Path) -> None:
    (folder / "labels.csv").write_text("name,count\na,4\n")
    photographs.labels.cache_clear()
    result = CliRunner().invoke(main, ["upload", str(folder)])
    assert result.exit_code == 2
    assert "labels.csv needs the columns id and quantity" in result.output


def test_a_missing_bucket_is_one_line(aws: SimpleNamespace, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws.stack, "outputs", lambda: {"ImagesBucket": "gone"})
    result = CliRunner().invoke(main, ["upload", str(folder)])
    assert result.exit_code == 1
    assert "Error: upload failed:" in result.output
    assert "NoSuchBucket" in result.output


def test_without_a_stack_it_says_how_to_start_one(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"picture")
    result = CliRunner(env={"BINTALLY_HOME": str(tmp_path)}).invoke(main, ["upload", str(tmp_path / "a.jpg")])
    assert result.exit_code == 3
    assert result.output == "Error: the stack is not running; start it with: bintally up\n"


def test_the_shipped_samples_all_have_bins_and_records() -> None:
    found = find([REPOSITORY / "samples"], None, None)
    assert len(found) == 16
    assert {photograph.site for photograph in found} == {"AUS2", "SEA1"}
    assert all(photograph.recorded is not None for photograph in found)
    assert Stack.from_environment is not None
