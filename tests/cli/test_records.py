"""records load and records status: what a file gave, row by row, from the record function itself."""

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from bintally.aws import items
from bintally.aws.table import Table
from bintally.common.arrivals import Arrival
from bintally.common.keys import TABLES
from bintally.records import columns, record_file
from click.testing import CliRunner, Result

from cli import records, records_load
from cli.main import main

OUTPUTS = {"ImagesBucket": "images", "CountsTable": "counts", "ArtifactsBucket": "artifacts"}


@pytest.fixture
def stack(aws: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stack whose record function reads each file as soon as it is sent; `aws.deaf` when it does not."""
    session: Any = boto3.Session("test", "test", region_name="us-east-1")
    aws.s3.create_bucket(Bucket="artifacts")
    monkeypatch.setattr(aws.stack, "outputs", lambda: OUTPUTS)
    table = Table("counts", session.client("dynamodb"))
    services = record_file.Services(aws.s3, table, session.client("events"), "artifacts", UTC)
    aws.deaf = False
    send = records.send

    def send_and_read(s3: Any, bucket: str, *arguments: Any, **options: Any) -> records.Sent:
        sent = send(s3, bucket, *arguments, **options)
        arrival = Arrival("e", datetime.now(UTC), bucket, sent.key, sent.version_id, "", "00")
        if not aws.deaf:
            record_file.record_file(services, arrival, lambda: True)
        return sent

    monkeypatch.setattr(records_load, "send", send_and_read)
    return aws


def run(*words: str | Path) -> Result:
    return CliRunner(mix_stderr=False, env={"COLUMNS": "200"}).invoke(main, ["records", *map(str, words)])


def stored(aws: SimpleNamespace) -> dict[str, int]:
    return {item["PK"]: int(item["expected_quantity"]) for item in aws.table.scan()["Items"] if item["SK"] == "RECORD"}


def test_load_shows_what_each_row_gave(stack: SimpleNamespace, tmp_path: Path) -> None:
    file = tmp_path / "Stock on hand.csv"
    file.write_bytes("Stock\r\nSite;Location;On Hand Qty;Note\r\nSEA1;A;4,0;für\r\nSEA1;B;2,5;\r\n".encode("cp1252"))
    shown = run("load", file)
    assert shown.exit_code == 0, shown.stderr
    assert [line.rstrip() for line in shown.stdout.splitlines()] == [
        f"{file}: 1 row kept for 1 bin, 1 refused",
        "Read as Windows-1252, separated by semicolons; columns not used: Note",
        "Line  Bin     Recorded  As of (UTC), or why not",
        "   1                    skipped: it is above the line that names the columns",
        f"   3  SEA1/A         4  {uploaded(stack)}",
        "   4                    refused: expected_quantity is '2,5'; a whole number from 0 to 999,999,999 is expected,"
        " such as 4",
    ]
    assert stored(stack) == {"BIN#SEA1#A": 4}


def uploaded(stack: SimpleNamespace) -> str:
    (item,) = (item for item in stack.table.scan()["Items"] if item["SK"] == "RECORD")
    return str(item["as_of"])[:19].replace("T", " ")


def test_a_dry_run_stores_nothing(stack: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("bin\tqty\nA\t4\n")
    shown = run("load", "--dry-run", tmp_path / "a.tsv")
    assert shown.exit_code == 0 and "1 row would be kept for 1 bin, 0 refused" in shown.stdout
    assert stored(stack) == {}


def test_columns_and_the_site_are_chosen(stack: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "lager.csv").write_text("Größe,Platz,Menge,Stand\n1,A,4,gestern\n")
    words = ("--map", "bin=Platz", "--map", "quantity=Größe", "--map", "as_of=", "--site", "Müller & Co")
    shown = run("load", tmp_path / "lager.csv", *words)
    assert shown.exit_code == 0, shown.output
    assert stored(stack) == {"BIN#MÜLLER & CO#A": 1} and "site Müller & Co" in shown.stdout


def test_a_json_file_is_the_record_of_its_bin(stack: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "P-4.json").write_text('{"expected_quantity": 4.0}')
    assert run("load", tmp_path / "P-4.json", "--site", "S").exit_code == 0
    assert stored(stack) == {"BIN#S#P-4": 4}


@pytest.mark.parametrize(
    ("sites", "text", "kept"),
    [
        ([], "bin,qty\nA,1\n", "BIN#default#A"),
        (["SEA1"], "bin,qty\nA,1\n", "BIN#SEA1#A"),
        (["SEA1", "AUS2"], "bin,qty\nA,1\n", None),
        (["SEA1", "AUS2"], "site,bin,qty\nAUS2,A,1\n", "BIN#AUS2#A"),
    ],
)
def test_a_site_is_optional_where_there_is_one(
    stack: SimpleNamespace, tmp_path: Path, sites: list[str], text: str, kept: str | None
) -> None:
    for site in sites:
        stack.s3.put_object(Bucket="images", Key=f"incoming/{site}/A/a.jpg", Body=b"x")
    (tmp_path / "a.csv").write_text(text)
    shown = run("load", tmp_path / "a.csv")
    assert list(stored(stack)) == ([kept] if kept else [])
    if kept is None:
        assert shown.exit_code == 1
        assert "no column names the site, and there are photographs of AUS2, SEA1. Add a column" in shown.stdout


def test_a_file_that_gives_nothing_exits_1(stack: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text("bin,qty\nA,1\n")
    (tmp_path / "bad.csv").write_text("bin,qty\nA,one\n")
    shown = run("load", tmp_path / "good.csv", tmp_path / "bad.csv")
    assert shown.exit_code == 1 and shown.stderr == "Error: of 1 of 2 files no row was kept\n"
    assert "good.csv: 1 row kept for 1 bin, 0 refused" in shown.stdout


def test_a_file_that_is_not_read_is_told(
    stack: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.deaf = True
    monkeypatch.setattr(records_load, "PATIENCE_SECONDS", 0.0)
    (tmp_path / "a.csv").write_text("bin,qty\nA,1\n")
    shown = run("load", tmp_path / "a.csv")
    assert shown.exit_code == 1
    assert shown.stderr == "Error: 1 of 1 files are not read yet. See: bintally records status\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["stock.xlsx"], "stock.xlsx is no table; save it as CSV UTF-8"),
        (["a.csv", "--map", "bin"], "bin is no NAME=COLUMN; names are site, bin"),
        (["a.csv", "--map", "shelf=x"], "shelf=x is no NAME=COLUMN"),
        (["a.csv", "--site", "a/b"], "a site cannot be empty or have a / in its name"),
        (["gone.csv"], "does not exist"),
    ],
)
def test_wrong_use_is_one_line(stack: SimpleNamespace, tmp_path: Path, words: list[str], line: str) -> None:
    for name in ("a.csv", "stock.xlsx"):
        (tmp_path / name).write_text("bin,qty\n")
    shown = run("load", tmp_path / words[0], *words[1:])
    assert shown.exit_code == 2 and line in shown.stderr and "Traceback" not in shown.output


def test_status_shows_the_newest_files_and_one_row_by_row(stack: SimpleNamespace, tmp_path: Path) -> None:
    assert "No files have been read yet. Load one with: bintally records load FILE" in run("status").stdout
    for name, quantity in (("mon.csv", "1"), ("tue.csv", "one")):
        (tmp_path / name).write_text(f"bin,qty\nA,{quantity}\n")
        run("load", tmp_path / name)
    shown = run("status").stdout
    assert "mon.csv" in shown and "0 rows kept for 0 bins, 1 refused: expected_quantity is 'one'" in " ".join(
        shown.split()
    )
    assert len(run("status", "--top", "1").stdout.splitlines()) == 2
    one = run("status", "tue").stdout
    assert one.startswith("records/tue.csv: 0 rows kept") and "   2                 refused: expected_quantity" in one
    found = json.loads(run("status", "--json").stdout)
    assert {each["file"]["key"] for each in found} == {"records/mon.csv", "records/tue.csv"}
    gone = run("status", "wed")
    assert gone.exit_code == 1 and "no file whose key contains wed has been read" in gone.stderr


def test_upload_says_where_a_table_goes(stack: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "stock.csv").write_text("bin,qty\n")
    shown = CliRunner(mix_stderr=False).invoke(main, ["upload", str(tmp_path / "stock.csv")])
    assert shown.exit_code == 2
    assert "stock.csv is a table, no photograph. Load it with: bintally records load " in shown.stderr


def test_bins_that_have_a_newer_record_are_said() -> None:
    summary = {"kept": 3, "bins": 2, "malformed": 0, "dry_run": False}
    assert records.outcome(summary) == "3 rows kept for 2 bins, 0 refused"
    said = records.outcome(summary | {"outdated": 1})
    assert said == "3 rows kept for 2 bins (1 has a newer record already), 0 refused"


def test_the_functions_own_words_are_these() -> None:
    """The command line cannot import the functions."""
    assert records.TABLES == TABLES and columns.TARGETS == records.TARGETS
    assert records.digest("b", "k", "v") == items.version_digest("b", "k", "v")
