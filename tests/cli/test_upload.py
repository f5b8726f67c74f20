"""Uploading: which photographs, under which keys, with which records."""

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from cli import photographs
from cli import upload as verb
from cli.main import main
from cli.photographs import Photograph, Uploaded, find
from local.stack import REPOSITORY, Local
from training.dataset import labels


@pytest.fixture(autouse=True)
def no_labels_of_others() -> None:
    labels.labels.cache_clear()


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
    modified = datetime(2026, 11, 20, 8, 30, tzinfo=UTC).timestamp()
    os.utime(folder / "SEA1/P-4-B217/a.jpg", (modified, modified))
    result = CliRunner().invoke(main, ["upload", str(folder)])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        "4 uploaded, 2 with a record, 1 left out (TXT)",
        '2 have no folder for their site, which is "default" then: give it with --site',
        "See their counts with: bintally counts",
    ]
    stored = aws.s3.head_object(Bucket="images", Key="incoming/SEA1/P-4-B217/a.jpg")
    assert stored["Metadata"] == {"expected-quantity": "4", "modified-at": "2026-11-20T08:30:00Z"}
    assert stored["ContentType"] == "image/jpeg"
    assert aws.s3.head_object(Bucket="images", Key="incoming/SEA1/P-4-B217/b.PNG")["Metadata"].keys() == {"modified-at"}
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
        (["upload", "--site", "a/b", "."], 2, "a site or a bin cannot have a / or \\ in its name"),
        (["upload", "--bin", "a\\b", "."], 2, "a site or a bin cannot have a / or \\ in its name"),
        (["upload", "--bin", " ", "."], 2, "nor be blank, . or .."),
        (["upload", "--site", "..", "."], 2, "nor be blank, . or .."),
    ],
)
def test_wrong_use_is_one_line(arguments: list[str], code: int, line: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code
    assert line in result.output
    assert "Traceback" not in result.output


def test_what_is_left_out_is_named_by_its_ending(folder: Path) -> None:
    for name in ("SEA1/a.HEIC", "SEA1/b.heic", "SEA1/.DS_Store", "noend"):
        (folder / name).write_bytes(b"x")
    found = photographs.left_out([folder, folder / "d.jpeg"])
    assert photographs.kinds(found) == "2 HEIC, 1 TXT, 1 no ending"
    assert photographs.kinds([folder / "a.heic"] * 3) == "HEIC"


def test_a_folder_of_other_files_alone_names_them(tmp_path: Path) -> None:
    (tmp_path / "a.heic").touch()
    result = CliRunner().invoke(main, ["upload", str(tmp_path)])
    assert result.exit_code == 2
    assert result.output.startswith(f"Error: no photographs in {tmp_path}; 1 left out (HEIC). Send HEIC as JPEG: on an")


@pytest.fixture
def counting(aws: SimpleNamespace, count_item: Any, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Counts what is uploaded at once, all but the names in `counting.missing`; rejects those in `rejected`."""
    aws.missing, aws.rejected = set(), set()

    def send_and_count(s3: Any, bucket: str, found: list[Photograph], tick: Any) -> list[Uploaded]:
        uploads = photographs.send(s3, bucket, found, tick)
        for number, upload in enumerate(uploads):
            shown = upload.photograph
            image = {"bucket": bucket, "key": shown.key, "version_id": upload.version_id}
            refused = {"status": "REJECTED", "reason": "the file is empty"} if shown.path.name in aws.rejected else {}
            if shown.path.name not in aws.missing:
                aws.table.put_item(Item=count_item(shown.site, shown.bin, SK=f"COUNT#{number}", image=image, **refused))
        return uploads

    monkeypatch.setattr(verb, "send", send_and_count)
    monkeypatch.setattr(verb, "PATIENCE_SECONDS", 0.5)
    return aws


def test_waiting_ends_with_what_was_counted_and_rejected(counting: SimpleNamespace, folder: Path) -> None:
    counting.rejected = {"b.PNG"}
    result = CliRunner(env={"COLUMNS": "80"}).invoke(main, ["upload", "--wait", str(folder)])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-4:] == [
        "4 uploaded, 2 with a record, 1 left out (TXT)",
        '2 have no folder for their site, which is "default" then: give it with --site',
        "3 counted, 1 rejected",
        "incoming/SEA1/P-4-B217/b.PNG: the file is empty",
    ]


def test_waiting_for_what_never_comes_exits_1(counting: SimpleNamespace, folder: Path) -> None:
    counting.missing = {"c.webp"}
    result = CliRunner().invoke(main, ["upload", "--wait", str(folder)])
    assert result.exit_code == 1
    assert "3 counted, 0 rejected" in result.output
    assert "Error: 1 of 4 are not counted yet. Check that a model is live: bintally status" in result.output


def test_a_file_that_cannot_be_read_says_how_far_it_came(aws: SimpleNamespace, folder: Path) -> None:
    (folder / "d.jpeg").unlink()
    (folder / "d.jpeg").symlink_to("gone.jpeg")
    result = CliRunner().invoke(main, ["upload", str(folder)])
    assert result.exit_code == 1
    assert re.search(r"Error: cannot read .*d.jpeg: No such file or directory. \d of 4 are uploaded", result.output)


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["upload", str(tmp_path)])
    assert result.exit_code == 2
    assert result.output == f"Error: no photographs in {tmp_path}\n"


def test_a_labels_file_without_the_columns_is_told(folder: Path) -> None:
    (folder / "labels.csv").write_text("name,count\na,4\n")
    labels.labels.cache_clear()
    result = CliRunner().invoke(main, ["upload", str(folder)])
    assert result.exit_code == 2
    assert "labels.csv needs the columns id and quantity" in result.output


def test_a_missing_bucket_is_one_line(aws: SimpleNamespace, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws.stack, "outputs", lambda: {"ImagesBucket": "gone"})
    result = CliRunner().invoke(main, ["upload", str(folder)])
    assert result.exit_code == 1
    assert "Error: PutObject failed:" in result.output
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
    assert Local.from_environment is not None


def test_a_nas_and_a_mac_keep_files_that_are_nobodys(aws: SimpleNamespace, tmp_path: Path) -> None:
    """Some are folders that have the name of a photograph."""
    systems = ("@eaDir/shot1.jpg/SYNOPHOTO_THUMB.jpg", "._shot1.jpg", ".DS_Store", "Thumbs.db", ".AppleDouble/a.jpg")
    for name in ("shot1.jpg", *systems, "../../#recycle/S/b.jpg", "../../lost+found/c.jpg"):
        file = (tmp_path / "SEA1" / "P-1" / name).resolve()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    result = CliRunner().invoke(main, ["upload", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("1 uploaded, 0 with a record, 7 system files skipped\n")
    stored = aws.s3.list_objects_v2(Bucket="images")["Contents"]
    assert [found["Key"] for found in stored] == ["incoming/SEA1/P-1/shot1.jpg"]


def test_every_ending_of_the_accepted_formats_is_uploaded(tmp_path: Path) -> None:
    for ending in ("jfif", "JPE", "avif", "gif", "apng", "mpo"):
        (tmp_path / f"a.{ending}").write_bytes(b"x")
    assert len(find([tmp_path], None, None)) == 6
    assert photographs.left_out([tmp_path]) == []


def test_what_phones_call_a_photograph_is_said_with_what_to_do(aws: SimpleNamespace, folder: Path) -> None:
    (folder / "IMG_2.HEIC").write_bytes(b"x")
    result = CliRunner().invoke(main, ["upload", str(folder)])
    assert "2 left out (1 HEIC, 1 TXT)" in result.output
    assert "on an iPhone choose Settings > Camera > Formats > Most Compatible" in result.output


def test_a_folder_that_is_no_site_is_named(aws: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "S\\1" / "P-1").mkdir(parents=True)
    (tmp_path / "S\\1" / "P-1" / "a.jpg").write_bytes(b"x")
    result = CliRunner().invoke(main, ["upload", str(tmp_path)])
    assert result.exit_code == 2 and "gives no site and bin" in result.output
    assert (
        "KeyCount" not in aws.s3.list_objects_v2(Bucket="images")
        or not aws.s3.list_objects_v2(Bucket="images")["KeyCount"]
    )


SHEETS = {
    "BOM": b"\xef\xbb\xbfid,quantity\r\nshot1,5\r\n",
    "semicolons": b"id;quantity\r\nshot1;5\r\n",
    "sep": b"sep=;\r\nid;quantity\r\nshot1;5\r\n",
    "tabs in UTF-16": "id\tquantity\r\nshot1\t5\r\n".encode("utf-16"),
    "Windows-1252": "id;Bezeichnung;quantity\r\nshot1;Größe;5\r\n".encode("cp1252"),
    "old Mac": b"id,quantity\rshot1,5\r",
    "ending": b"id,quantity\nshot1.jpg,5\n",
    "another ending": b"id,quantity\nSHOT1.JPG,5\n",
    "path": b"id,quantity\nSEA1/P-1/shot1.jpg,5\n",
    "path of Windows": b"id,quantity\nSEA1\\P-1\\shot1.jpg,5\n",
    "headers": b"File Name,On Hand,Expected Quantity\nshot1,1,5\n",
    "quoted": b'"id","quantity"\n"shot1","5"\n',
    "other columns": b'bin,id,note,quantity,\nP-1,shot1,"a, b",5,,\n',
    "4.0": b"id,quantity\nshot1,5.0\n",
    "gaps": b"id,quantity\n\nshot0,\nshot1,5\n,\n",
    "spaces": b" ID , Quantity \n shot1 , 5 \n",
    "blank lines first": b"\n,,\nid,quantity\nshot1,5\n",
}


@pytest.mark.parametrize("name", SHEETS)
def test_labels_as_spreadsheets_save_them(tmp_path: Path, name: str) -> None:
    file = tmp_path / "SEA1" / "P-1" / "shot1.jpg"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    (tmp_path / "Labels.CSV").write_bytes(SHEETS[name])
    (only,) = find([tmp_path], None, None)
    assert only.recorded == 5
    assert labels.unknown([tmp_path], [file]) == []


@pytest.mark.parametrize(
    ("text", "quantity"),
    [("4", 4), ("4.0", 4), ("4,00", 4), ("1,000", 1000), ("1 000", 1000), ("４", 4), ("4.000", None), ("4.5", None),
     ("-1", None), ("four", None), ("", None), ("1,00,000", None), ("9" * 10, None)],
)  # fmt: skip
def test_whole_numbers(text: str, quantity: int | None) -> None:
    assert labels.whole(text) == quantity


@pytest.mark.parametrize("delimiter", ["\t", ";"])
def test_a_comma_may_be_decimal_where_none_separates_cells(tmp_path: Path, delimiter: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(f"id{delimiter}quantity\na{delimiter}4,00\nb{delimiter}1,234,567\n")
    assert labels.read(file) == {"a": 4, "b": 1234567}
    file.write_text(f"id{delimiter}quantity\na{delimiter}4,000\n")
    with pytest.raises(ValueError, match="line 2: quantity is '4,000'; a whole number from 0 is expected"):
        labels.read(file)
    file.write_text('id,quantity\na,"4,000"\n')
    assert labels.read(file) == {"a": 4000}


def test_a_quantity_that_is_none_is_named_with_its_line(folder: Path) -> None:
    (folder / "labels.csv").write_text("id,quantity\na,4\nd,about 5\n")
    result = CliRunner().invoke(main, ["upload", str(folder)])
    assert result.exit_code == 2
    assert "labels.csv, line 3: quantity is 'about 5'; a whole number from 0 is expected" in result.output


def test_labels_in_a_spreadsheet_are_not_passed_over(folder: Path) -> None:
    (folder / "labels.csv").rename(folder / "labels.xlsx")
    result = CliRunner().invoke(main, ["upload", str(folder)])
    assert result.exit_code == 2
    assert "labels.xlsx is a spreadsheet. Save it as CSV, named labels.csv" in result.output


def test_ids_that_name_no_photograph_are_said(aws: SimpleNamespace, folder: Path) -> None:
    (folder / "labels.csv").write_text("id,quantity\nd,0\ngone,3\n")
    result = CliRunner().invoke(main, ["upload", str(folder)])
    assert "Ids of labels.csv that name none of them (1): gone\n" in result.output
    labels.labels.cache_clear()
    assert "labels.csv" not in CliRunner().invoke(main, ["upload", str(folder / "d.jpeg")]).output, (
        "it is of others too"
    )


def test_a_name_that_is_no_utf_8_is_told_before_anything_is_sent(aws: SimpleNamespace, tmp_path: Path) -> None:
    """As disks of an old NAS have them."""
    folder = tmp_path / "SEA1" / "P-1"
    folder.mkdir(parents=True)
    for name in (b"a.jpg", b"Regal\xfc.jpg", b"z.jpg"):
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(b"x")  # noqa: PTH118 - of bytes
    result = CliRunner().invoke(main, ["upload", str(tmp_path)])
    assert (result.exit_code, "Contents" in aws.s3.list_objects_v2(Bucket="images")) == (2, False)
    assert "Regal\\xfc.jpg' is not UTF-8" in result.output
