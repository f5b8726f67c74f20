"""counts with as many bins as warehouses have: exports, memory, narrow terminals, and empty results."""

import csv
import io
import json
import tracemalloc
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from cli.counts import HISTORY_NAMES, LATEST_NAMES, command
from cli.main import main
from cli.readings import CSV_FIELDS, csv_row, table_of

PAGE = 200  # items of about 2.5 KB; a page of a Query ends at 1 MB


def run(*arguments: str, columns: str = "80") -> Result:
    return CliRunner(mix_stderr=False, env={"COLUMNS": columns}).invoke(main, ["counts", *arguments])


@pytest.fixture
def put(aws: SimpleNamespace, count_item: Any) -> Any:
    """put(site, bin, …) stores the newest count of a bin, whose photograph was uploaded."""

    def store(site: str, bin_: str, **attributes: Any) -> None:
        key = {"PK": f"BIN#{site}#{bin_}", "SK": "LATEST", "site_key": f"SITE#{site}"}
        aws.table.put_item(Item=count_item(site, bin_, **(key | attributes)))
        aws.s3.put_object(Bucket="images", Key=f"incoming/{site}/{bin_}/front.jpg", Body=b"")

    return store


# CSV and --top


def test_csv_has_a_row_for_each_bin_with_the_photographs_address(put: Any) -> None:
    put("SEA1", "B", priority=Decimal("0.39"), discrepancy=False)
    put("AUS2", "A", p_record=None, recorded_quantity=None)
    shown = run("--csv", "-")
    assert (shown.exit_code, shown.stderr) == (0, "")
    first, second = csv.DictReader(io.StringIO(shown.stdout))
    assert tuple(first) == CSV_FIELDS
    assert [first["site"], second["site"]] == ["AUS2", "SEA1"]
    assert (first["recorded_quantity"], first["p_record"]) == ("", "")
    assert (second["count"], second["is_minimum"], second["p_record"], second["priority"]) == (
        "3",
        "false",
        "0.61",
        "0.39",
    )
    assert second["photograph"] == "s3://images/incoming/SEA1/B/front.jpg"


def test_csv_into_a_file_says_how_many(put: Any, tmp_path: Path) -> None:
    for bin_ in "ABC":
        put("SEA1", bin_)
    path = tmp_path / "counts.csv"
    assert run("--csv", str(path)).stdout == f"3 counts written to {path}\n"
    assert len(path.read_text().splitlines()) == 4
    assert run("--csv", str(path), "--top", "2").stdout == f"2 counts written to {path}\n"
    assert len(path.read_text().splitlines()) == 3


def test_a_csv_that_cannot_be_written_is_one_line(put: Any, tmp_path: Path) -> None:
    put("SEA1", "A")
    shown = run("--csv", str(tmp_path / "none" / "counts.csv"))
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert shown.stderr.startswith(f"Error: cannot write {tmp_path}/none/counts.csv: No such file")


def test_no_cell_is_a_formula(count_item: Any) -> None:
    row = csv_row(count_item("=cmd|' /C calc'!A0", "-1+1", reason="@SUM(A1)"))
    assert (row["site"], row["bin"], row["reason"]) == ("'=cmd|' /C calc'!A0", "'-1+1", "'@SUM(A1)")


def test_top_takes_the_first_of_each_order(put: Any) -> None:
    for number, (bin_, priority) in enumerate((("a", "0.2"), ("b", "0.9"), ("c", "0.5"))):
        put("SEA1", bin_, priority=Decimal(priority), captured_at=f"2026-11-2{number}T10:15:00.000000Z")

    def bins(*arguments: str) -> list[str]:
        return [count["bin"] for count in json.loads(run("--json", *arguments).stdout)]

    assert bins() == ["a", "b", "c"]
    assert bins("--top", "2") == ["c", "b"]
    assert bins("--recount") == ["b", "c", "a"]
    assert bins("--recount", "--top", "1") == ["b"]
    assert json.loads(run("--json", "--top", "1").stdout)[0]["photograph"] == "s3://images/incoming/SEA1/c/front.jpg"


def test_a_table_says_how_many_bins_it_leaves_out(put: Any) -> None:
    for bin_ in "abc":
        put("SEA1", bin_)
    assert "2 of 3 bins. Show more with --top N, or all with --csv FILE." in run("--top", "2").stdout
    assert "of 3 bins" not in run("--top", "3").stdout


def test_a_long_history_says_that_it_goes_on(aws: SimpleNamespace, count_item: Any) -> None:
    for number in range(3):
        aws.table.put_item(Item=count_item(SK=f"COUNT#2026#{number}"))
    shown = run("--site", "SEA1", "--bin", "P-4-B217", "--top", "2").stdout
    assert "The newest 2. Show more with --top N, or all with --csv FILE." in shown
    rows = csv.DictReader(io.StringIO(run("--site", "SEA1", "--bin", "P-4-B217", "--csv", "-").stdout))
    assert len(list(rows)) == 3


# Memory


class Pages:
    """A table of `bins` bins that makes each page when it is asked for it."""

    def __init__(self, bins: int, item: dict[str, Any]) -> None:
        self.bins, self.item, self.read = bins, item, 0

    def query(self, **query: Any) -> dict[str, Any]:
        if "IndexName" not in query:
            return {"Items": []}  # reviews and scores
        start = int(query.get("ExclusiveStartKey", 0))
        end = min(self.bins, start + PAGE)
        self.read += 1
        items = [
            self.item
            | {
                "bin": f"{n:06}",
                "captured_at": f"2026-11-22T10:15:00.{n:06}Z",
                "priority": Decimal(n % 997),
                "padding": f"{n:02000}",
            }
            for n in range(start, end)
        ]
        return {"Items": items} | ({"LastEvaluatedKey": end} if end < self.bins else {})


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("--csv", "FILE"), ("--json",), ("--top", "20"), ("--recount", "--top", "20")])
def test_memory_does_not_grow_with_the_bins(
    aws: SimpleNamespace,
    count_item: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
) -> None:
    """The peak at 4,000 bins is less than 1 MB above that at 400; all items at once would be some 10 MB."""
    words = [str(tmp_path / "counts.csv") if word == "FILE" else word for word in arguments]
    item = count_item()
    monkeypatch.setattr("cli.counts.click.get_text_stream", lambda name: (tmp_path / "counts.json").open("w"))
    peaks = {}
    for bins in (400, 400, 4_000):  # the first one loads what is loaded once
        pages = Pages(bins, item)
        monkeypatch.setattr(aws.stack, "counts_table", lambda pages=pages: pages)
        tracemalloc.start()
        command.main(["--site", "SEA1", *words], standalone_mode=False)
        peaks[bins] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert pages.read == bins // PAGE
    assert peaks[4_000] < peaks[400] + 1_000_000


# Narrow terminals


@pytest.mark.parametrize("names", [LATEST_NAMES, HISTORY_NAMES])
def test_a_table_fits_80_columns_and_cuts_words_alone(count_item: Any, names: tuple[str, ...]) -> None:
    image = {"bucket": "b", "key": f"incoming/{'s' * 60}/{'b' * 90}/{'name ' * 20}.jpg", "version_id": "v"}
    count = count_item("s" * 60, "b" * 90, image=image, recorded_quantity=123456789, count=6, is_minimum=True)
    console = Console(width=80, file=io.StringIO(), highlight=False)
    console.print(table_of([count, count], "Title", names))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert all(len(line.rstrip()) <= 80 for line in lines)
    rows = [line for line in lines if "2026-11-22 10:15" in line]
    assert len(rows) == 2, "one line a row"
    for figure in ("6+", "61%", "123456789"):
        assert figure in rows[0].split()
    assert "…" in rows[0]


def test_a_wide_terminal_shows_the_address(put: Any) -> None:
    put("SEA1", "A")
    assert "s3://images/incoming/SEA1/A/front.jpg" in run(columns="140").stdout
    assert "s3://" not in run(columns="139").stdout


# Nothing


@pytest.fixture
def two_sites(put: Any) -> Iterator[None]:
    put("SEA1", "A")
    put("AUS2", "B")
    yield


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["--site", "SEA"], 1, "Error: site SEA does not exist. Sites with photographs: AUS2, SEA1"),
        (["--site", "SEA", "--json"], 1, "Error: site SEA does not exist. Sites with photographs: AUS2, SEA1"),
        (["--bin", "A"], 1, "Error: site default has no count of bin A. Sites with photographs: AUS2, SEA1"),
        (
            ["--site", "SEA1", "--bin", "Z"],
            1,
            "Error: site SEA1 has no count of bin Z. See its bins: bintally counts --site SEA1",
        ),
        (["--recount"], 0, "None of the 2 counts has a record. Load records: bintally records load FILE"),
    ],
)
def test_never_no_counts_yet_when_there_are_some(two_sites: None, arguments: list[str], code: int, line: str) -> None:
    shown = run(*arguments)
    assert shown.exit_code == code
    assert (shown.stdout if code == 0 else shown.stderr) == f"{line}\n"


def test_photographs_that_wait_are_told_from_none(aws: SimpleNamespace) -> None:
    assert run().stdout == "No counts yet. Upload photographs with: bintally upload PATH\n"
    aws.s3.put_object(Bucket="images", Key="incoming/SEA1/b/a.jpg", Body=b"")
    assert run().stdout.startswith("Photographs of 1 sites are uploaded, but none is counted yet. See: bintally status")
    assert run("--site", "SEA1").stdout.startswith("Photographs of site SEA1 are uploaded, but none is counted yet.")


def test_an_empty_csv_keeps_its_header_and_says_why(aws: SimpleNamespace) -> None:
    shown = run("--csv", "-")
    assert shown.stdout == ",".join(CSV_FIELDS) + "\n"
    assert shown.stderr.startswith("No counts yet.")
