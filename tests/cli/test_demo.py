"""The demo: its uploads, its output, and its errors when counts are missing."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli import demo
from cli.main import main
from cli.photographs import Photograph, Uploaded, send


@pytest.fixture
def counting(pool: SimpleNamespace, count_item: Any, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Counts each photograph as soon as it is uploaded, as many as `counting.limit` says."""
    aws = pool
    aws.limit = 1000

    def send_and_count(s3: Any, bucket: str, photographs: list[Photograph], tick: Any) -> list[Uploaded]:
        uploads = send(s3, bucket, photographs, tick)
        for number, upload in enumerate(uploads[: aws.limit]):
            shown = upload.photograph
            image = {"bucket": bucket, "key": shown.key, "version_id": upload.version_id}
            item = count_item(
                shown.site, shown.bin, SK=f"COUNT#{number}", image=image, recorded_quantity=shown.recorded
            )
            aws.table.put_item(Item=item)
        return uploads

    monkeypatch.setattr(demo, "send", send_and_count)
    monkeypatch.setattr(demo, "PATIENCE_SECONDS", 0.5)
    return aws


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner(env={"COLUMNS": "160", **environment}).invoke(main, ["demo", *arguments])


def test_every_sample_is_in_the_table_likeliest_wrong_record_first(counting: SimpleNamespace) -> None:
    result = run()
    assert result.exit_code == 0, result.output
    rows = [line for line in result.output.splitlines() if "Z.jpg" in line and "P-" in line and "aws" not in line]
    assert len(rows) == 16
    shares = [int(row.split()[-1].rstrip("%")) for row in rows]
    assert shares == sorted(shares)
    with (demo.SAMPLES / "labels.csv").open(newline="") as sheet:
        shown = {f"{row['id'].rsplit('/', 1)[1]}.jpg": row["shown"] for row in csv.DictReader(sheet)}
    assert {row.split()[1]: row.split()[2] for row in rows} == shown
    wrong = [line for line, row in enumerate(rows, 1) if row.split()[2] != row.split()[5]]
    right = sum(row.split()[3] == row.split()[2] for row in rows)
    assert len(wrong) == 2
    assert (
        f"2 of 16 records are wrong, and the list has them in lines {wrong[0]} and {wrong[1]}; {right} of the counts"
        in result.output
    )
    assert "Took" not in result.output
    for hint in ('eval "$(bintally env)"', "aws s3 cp bin.jpg s3://$IMAGES_BUCKET/", "make down", "make wipe"):
        assert hint in result.output
    assert result.output.endswith("See the page: bintally open\n")


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        (
            [(5, 0, 0), (3, 3, 2)],
            "1 of 2 records are wrong, and the list has them in line 1; 1 of the counts are right.",
        ),
        ([(7, 7, 6), (3, 3, 3)], "none of 2 records is wrong; 2 of the counts are right."),  # 6 means 6 or more
        ([(1, 2, 2), (3, 3, 3), (4, 4, 4), (0, 1, 1), (2, 0, 1)], "lines 1, 4 and 5; 4 of the counts are right."),
    ],
)
def test_one_sentence_says_what_the_list_has_found(counts: list[tuple[int, int, int]], sentence: str) -> None:
    listed = [{"recorded_quantity": recorded, "really": really, "count": count} for recorded, really, count in counts]
    assert demo.what_was_found([*listed, {"status": "REJECTED"}]).endswith(sentence)


def test_the_demo_people_keep_their_passwords(counting: SimpleNamespace) -> None:
    assert run().exit_code == 0
    file = counting.stack.home / "people.json"
    passwords = json.loads(file.read_text())
    assert passwords.keys() == {"viewer", "counter", "manager"} and len(set(passwords.values())) == 3
    assert file.stat().st_mode & 0o777 == 0o600
    assert run().exit_code == 0
    assert json.loads(file.read_text()) == passwords
    for name in passwords:
        user = counting.cognito.admin_get_user(UserPoolId=counting.pool, Username=name)
        assert user["UserStatus"] == "CONFIRMED"
    shown = CliRunner().invoke(main, ["open", "--print"]).output
    assert shown.startswith("http://a1.execute-api.localhost:4566/\n")
    assert all(f"{name:<8} {password}" in shown for name, password in passwords.items())


def test_real_photographs_come_from_a_folder(counting: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "originals").mkdir()
    (tmp_path / "originals/00010.jpg").write_bytes(b"picture")
    (tmp_path / "labels.csv").write_text("id,quantity,group\n00010,4,g1\n10,9,g2\n")
    result = run(ABID=str(tmp_path))
    assert result.exit_code == 0, result.output
    stored = counting.s3.head_object(Bucket="images", Key="incoming/ABID/00010/00010.jpg")
    assert stored["Metadata"]["expected-quantity"] == "4"
    assert "Took" in result.output
    assert "Really" not in result.output
    assert "are right." not in result.output


def test_a_folder_without_photographs_is_one_line(tmp_path: Path) -> None:
    result = run("--abid", str(tmp_path))
    assert result.exit_code == 1
    assert (
        "has no labels.csv with a folder originals or images; download one with: bintally fetch-abid" in result.output
    )


def test_photographs_without_a_count_fail_the_demo_but_show_the_others(counting: SimpleNamespace) -> None:
    counting.limit = 15
    result = run()
    assert result.exit_code == 1
    assert "Error: 1 of 16 photographs have no count yet (see emulator.log)" in result.output
    assert result.output.count("61%") >= 15


def test_a_stack_that_does_not_run_is_started(counting: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(counting.stack, "running", lambda: bool(told))

    def up(say: Callable[[str], None]) -> None:
        say("Starting AWS on this machine")
        told.append("up")

    counting.stack.up = up
    result = run()
    assert result.exit_code == 0, result.output
    assert told == ["up"]
    assert "✓ Starting AWS on this machine" in result.output
