"""Tables of records as spreadsheets and warehouse systems write them: what is unambiguous is read, the rest is refused
with what was found and an example."""

import io
import tracemalloc
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from bintally.common.errors import Rejected
from bintally.records.columns import Wanted
from bintally.records.files import Fault, Setting, Sheet
from bintally.records.merge import Record, merge
from bintally.records.values import LONGEST, Marks, date, number
from hypothesis import given
from hypothesis import strategies as st

UPLOADED = datetime(2026, 11, 28, 12, tzinfo=UTC)
TIME = "2026-01-05T06:00:00Z"


class Read:
    """A table that was read: `kept` by bin, `faults` by line, and its sheet."""

    def __init__(self, data: bytes | str, zone: tzinfo = UTC, wanted: str = "", encoding: str = "utf-8") -> None:
        file = io.BytesIO(data if isinstance(data, bytes) else data.encode(encoding))
        setting = Setting(UPLOADED, zone, lambda: "ONLY", Wanted.parse(wanted))
        self.sheet = Sheet(file, setting)
        rows = self.sheet.rows()
        found = list(merge(rows, setting, self.sheet.conventions, comma_groups=self.sheet.comma_groups))
        self.records = [one for one in found if isinstance(one, Record)]
        self.faults = {one.line: one.reason for one in found if isinstance(one, Fault)}

    @property
    def kept(self) -> dict[str, int]:
        return {one.bin: one.quantity for one in self.records}


# Encodings and delimiters

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_encoding_and_delimiter_are_found_out(encoding: str, delimiter: str, end: str) -> None:
    rows = [["Site", "Bin", "Expected Quantity", "Note"], ["S", "Küche-1", "4", "für"], ["S", "B", "5", ""]]
    text = "".join(delimiter.join(row) + end for row in rows)
    assert Read(text, encoding=encoding).kept == {"Küche-1": 4, "B": 5}


@pytest.mark.parametrize("said", ["sep=;", "SEP=;", '"sep=;"', "sep=,", "sep=|", "sep=\t"])
def test_excels_own_line_names_the_delimiter(said: str) -> None:
    delimiter = said.strip('"')[-1]
    assert Read(f"{said}\r\nbin{delimiter}qty\r\nA{delimiter}4\r\n").kept == {"A": 4}
    assert Read(f"{said}\r\nbin|qty\r\nA|4\r\n").kept == {"A": 4}


def test_each_cell_is_decoded_alone() -> None:
    """Two exports pasted together: one in UTF-8, one in Windows-1252; and a byte that neither has."""
    rows = b"bin,qty,note\n" + "Ä,1,x\n".encode() + "Ö,2,x\n".encode("cp1252") + b"U,3,\x81\n" + b"\x81,4,x\n"
    read = Read(rows)
    assert read.kept == {"Ä": 1, "Ö": 2, "U": 3}
    assert "bin cannot be decoded" in read.faults[5] and read.sheet.encoding == "Windows-1252"


@pytest.mark.parametrize(
    "cell",
    [
        '"USB cable\r\n2 m"',
        '"a\n\nb"',
        '24" screen',
        '"24" screen"',
        '"quoted ""twice"" and\nbroken"',
        '"a, b\nc, d, e"',
    ],
    ids=range(6),
)
@pytest.mark.parametrize("last", [True, False])
def test_a_description_that_nobody_reads_spoils_no_row(cell: str, last: bool) -> None:
    rows = [["bin", "qty", "text"], ["A", "1", cell], ["B", "2", "plain"]]
    shown = "".join(",".join(row if last else [row[2], *row[:2]]) + "\r\n" for row in rows)
    assert Read(shown).kept == {"A": 1, "B": 2}


@pytest.mark.parametrize("text", ["", "x", "x,y", 'x"y', '"'])
def test_an_open_quotation_mark_swallows_no_other_row(text: str) -> None:
    """Also where a later mark would close it."""
    read = Read(f'bin,qty,text\nA,1,"open {text}\nB,2,plain\nC,3,"open too\nD,4,\n')
    assert {name: read.kept.get(name) for name in "BCD"} == {"B": 2, "C": 3, "D": 4}
    assert "A" in read.kept or 2 in read.faults


def test_empty_cells_at_the_end_are_nothing_and_others_are_told() -> None:
    read = Read("site,bin,qty,note,,\nS,A,1,,,,\nS,B,2\nS,C,3,x,y\nS,D\n")
    assert read.kept == {"A": 1, "B": 2}
    assert read.faults[4].startswith("5 fields; the columns have 4 names") and 5 in read.faults


@pytest.mark.parametrize(
    ("rows", "kept"),
    [("A,1", "A"), ("B,1\nA,1", "A"), ("B,1,x\nA,1", None), ("B,1,x\nA,1\n", "A"), ("B,1,x\nA,1,", "A")],
)
def test_a_last_row_may_be_short_if_others_are(rows: str, kept: str | None) -> None:
    """Where the file ends in mid-row, a quantity may be cut off: 1 of 12."""
    read = Read(f"bin,qty,note\n{rows}")
    assert ("A" in read.kept) == bool(kept)
    if kept is None:
        assert read.faults == {3: "the file ends within this row: 2 fields; the rows above have 3"}


def test_more_cells_than_columns_may_have_moved_the_quantity() -> None:
    (reason,) = Read("site,bin,qty\nS,A,1,000\n").faults.values()
    assert reason.startswith("4 fields; the columns have 3 names. Put quotation marks around")


@pytest.mark.parametrize("row", ["A,X,1,250,", 'A,X," 1",250,', "A,Mug, red,5,", "A,X,1,250,,", "A,X,1,,x,"])
@pytest.mark.parametrize("alone", [True, False])
def test_an_empty_last_cell_hides_no_moved_quantity(row: str, alone: bool) -> None:
    """1,250 with an empty remark is not 1 with the remark 250."""
    read = Read(f"bin,sku,qty,remarks\n{row}\n" + ("" if alone else "B,X,1,\n"))
    assert read.kept == ({} if alone else {"B": 1})
    assert "fields; the columns have 4 names. Put quotation marks around" in read.faults[2]


def test_delimiters_with_which_every_row_ends_are_nothing() -> None:
    more = "".join(f"B{number},1,x,\n" for number in range(30))
    assert Read(f'bin,qty,note\nA,1,"a\nb",\n{more}').kept["A"] == 1
    assert Read("bin,qty,note,\nA,1,x,\n").kept == {"A": 1}
    assert Read("bin,qty\nA,1\nB,2,\nC,3,,\n").kept == {"A": 1, "B": 2, "C": 3}
    assert Read("bin\tqty\tmin\nA\t1\t250\t\nB\t2\t100\t\n").kept == {"A": 1, "B": 2}
    assert Read("bin,qty,min\nA,1,250,\nB,2,100,\n").kept == {}, "1,250 and 2,100 without a minimum?"
    assert Read("bin,qty,min\nA,1,250,\nB,2,,\nC,3,,\n").kept == {"A": 1, "B": 2, "C": 3}
    late = Read(f"bin,qty,note\n{more}A,1,250,,\n")
    assert "A" not in late.kept and late.kept["B29"] == 1 and list(late.faults) == [32]


# Names of columns


@pytest.mark.parametrize(
    "names",
    [
        "site,bin,expected_quantity,as_of",
        "Site,Bin,Expected Quantity,As Of",
        "WAREHOUSE,LOCATION,QTY ON HAND,LAST UPDATED",
        "Warehouse Code,Location Code,On-Hand Qty (EA),Last Updated (UTC)",
        "facilityId,binId,onHandQuantity,snapshotDate",
        "fc , Storage Bin , QOH , Updated At ",
        '"Whse","Bin\nLocation","On Hand\nQty","Date"',
        "plant,storage_location,Stock,timestamp",
    ],
    ids=range(8),
)
def test_common_names_are_known(names: str) -> None:
    (record,) = Read(f"{names}\nS,A,4,{TIME}\n").records
    assert (record.site, record.bin, record.quantity, record.as_of) == ("S", "A", 4, datetime.fromisoformat(TIME))


def test_a_documented_name_is_taken_before_a_common_one() -> None:
    read = Read("Location,bin,Qty,expected_quantity\nAisle 3,A,7,4\n")
    assert read.kept == {"A": 4} and read.sheet.columns.unused == ("Location", "Qty")


def test_columns_may_be_chosen() -> None:
    text = "Lagerplatz;Menge;Frei;Stand\nA;4;3;gestern\n"
    assert Read(text, wanted="bin=Lagerplatz&expected_quantity=menge&as_of=").kept == {"A": 4}
    assert Read("bin,qty,updated\nA,4,yesterday\n", wanted="as_of=").kept == {"A": 4}
    with pytest.raises(Rejected, match="the file has no column 'Datum'; it has 'bin', 'qty'"):
        Read("bin,qty\nA,4\n", wanted="as_of=Datum")
    with pytest.raises(Rejected, match="no line names a column for bin; line 1 has 'Platz', 'qty'"):
        Read("Platz,qty\nA,4\n", wanted="bin=Ort")
    with pytest.raises(Rejected, match="the metadata `columns` maps 'shelf'"):
        Wanted.parse("shelf=Location")


def test_lines_around_the_table_are_no_rows() -> None:
    head = 'Stock on hand\r\n"Printed: 28.11.2026",,\r\n\r\n'
    read = Read(f"{head}site,bin,qty\r\nS,A,1\r\nS,B,2\r\nsite,bin,qty\r\nS,C,3\r\nGrand Total,,6\r\n")
    assert read.kept == {"A": 1, "B": 2, "C": 3} and read.faults == {}
    assert [line.line for line in read.sheet.skipped] == [1, 2, 7, 9]


@pytest.mark.parametrize(("quantity", "kept"), [("3", False), ("4", True)])
def test_a_bin_may_be_called_total_unless_it_is_the_sum(quantity: str, kept: bool) -> None:
    assert ("Total" in Read(f"bin,qty\nA,1\nB,2\nTotal,{quantity}\n").kept) == kept


# Ids that a spreadsheet lost


@pytest.mark.parametrize("text", ["4.00638E+12", "4,00638e+12", "1E+05"])
@pytest.mark.parametrize("place", ["site", "bin", "sku"])
def test_ids_that_a_spreadsheet_rounded_are_refused(text: str, place: str) -> None:
    row = {"site": "S", "bin": "A", "sku": "X"} | {place: text}
    read = Read("site;bin;sku;qty\n" + 2 * (";".join(row.values()) + ";4\n") + "S;B;1E05;1\n")
    assert read.kept == {"B": 1} and list(read.faults) == [2, 3]
    name = "product" if place == "sku" else place
    assert read.faults[2].startswith(
        f"{name} is {text!r}, a number that a spreadsheet rounded: format the column as text"
    )


@pytest.mark.parametrize("text", ["#####", "#REF!", "#NAME?", "#VALUE!", "#N/A", "#DIV/0!", "#BEZUG!", "#ÜBERLAUF!"])
def test_what_a_spreadsheet_writes_for_a_lost_id_is_refused(text: str) -> None:
    read = Read(f"bin,sku,qty\n{text},X,4\nA,{text},4\nA,X,1\nB,#12,1\n#7,X,1\n1E12,A+B,1\n")
    assert read.kept == {"B": 1, "#7": 1, "1E12": 1}
    assert read.faults[2].startswith(f"bin is {text!r}, which a spreadsheet writes for a text that it lost")
    assert read.faults[3].startswith(f"product is {text!r}") and read.faults[4].endswith("line 3 of it cannot be read")


def test_one_lost_id_of_several_costs_no_row() -> None:
    rows = "A1,5.01235E+12,B-1,4\nA2,5.01235E+12,B-1,5\nA3,#N/A,B-2,6\nA4,5.01235E+12,B-3,1\nA4,5.01235E+12,B-3,1\n"
    read = Read(f"SKU,EAN,Bin,Qty\n{rows}")
    assert read.kept == {"B-1": 9, "B-2": 6}, "two of B-3 may be two lots"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Bin,Quantity,SKU\nB-1,4,10001,\nB-2,5,10002,\n", {"B-1": 4, "B-2": 5}),
        ("Bin,Quantity,Min,Note\nB-1,4,2,x,\nB-2,5,1,y,\n", {"B-1": 4, "B-2": 5}),
        ("Bin,Quantity,Unit\nB-1,4,EA,\nB-2,5,EA,\nBin,Quantity,Unit\nB-3,6,EA,\n", {"B-1": 4, "B-2": 5, "B-3": 6}),
        ("Bin,Quantity,Unit\nB-1,4,EA,\nB-2,5,EA,\nB-3,6\n", {"B-1": 4, "B-2": 5, "B-3": 6}),
        ("Bin;Quantity;Unit\nB-1;4;ST;\nB-2;5;ST;\nGesamt;9\n", {"B-1": 4, "B-2": 5}),
        ("item|bin|qty\nA1|B-1|4\nA2|B-2|5\n(2 rows)\n", {"B-1": 4, "B-2": 5}),
        ("item,bin,qty\nA1,B-1,4\nZone B\nA2,B-2,5\n\n2 rows selected.\n", {"B-1": 4, "B-2": 5}),
        (
            "Aisle,Bin,SKU,Qty\n1,B-1,A,4\n1,B-2,B,5\n1 Total,,,9\n2,B-3,A,1\n2,B-4,B,2\n2 Total,,,3\nTotal,,,12\n",
            {"B-1": 4, "B-2": 5, "B-3": 1, "B-4": 2},
        ),
    ],
)
def test_what_surrounds_the_rows_of_an_export_costs_no_bin(text: str, kept: dict[str, int]) -> None:
    assert Read(text).kept == kept


# Whole numbers


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        *[("4", 4), ("4.0", 4), ("4.", 4), ("+4", 4), ("007", 7), ("0.000", 0), ("4,0", 4), ("4,00", 4), (" 4 ", 4)],
        *[("1,234,567", 1234567), ("1,00,000", 100000), ("1 000", 1000), ("1\u00a0000", 1000)],
        *[("1\u202f000,0", 1000), ("1'000", 1000), ("1\u2019000.00", 1000), ("1.234,00", 1234), ("1,234.00", 1234)],
        *[("1.000.000", 1000000), ("1000.000", 1000), ("\uff14", 4), ('="4"', 4), ("'4", 4), ("999999999", 999999999)],
    ],
)
def test_whole_numbers_however_spelled(text: str, whole: int) -> None:
    assert Read(f"bin\tqty\nA\t{text}\n").kept == {"A": whole}


@pytest.mark.parametrize(
    "text",
    ["", "2.5", "2,5", "-1", "1e3", "NaN", "four", "1000000000", "1,0000,0", "0,123.5", "1.2.3", "9" * 80, "#N/A"],
)
def test_what_is_no_whole_number_is_told(text: str) -> None:
    (reason,) = Read(f"bin\tqty\nA\t{text}\n").faults.values()
    assert reason.startswith("expected_quantity is ") and "a whole number from 0 to 999,999,999 is expected" in reason


@pytest.mark.parametrize(
    ("delimiter", "others", "text", "whole"),
    [
        (",", [], "1.000", None),
        (",", ["3"], "1.000", None),
        (",", ["3.0"], "1.000", 1),  # the file writes decimals with a point
        (",", ["2.5"], "1.000", 1),
        (";", ["3,0"], "1.000", 1000),
        (",", ["1.000.000"], "1.000", 1000),
        (",", ["3.0", "1.000.000"], "1.000", None),  # it shows both
        (",", [], "1,000", 1000),
        (";", [], "1,000", None),
        *(("\t", [], "1,000", None), ("|", [], "1,000", None)),
        *(("\t", ["250"], "1,000", 1000), ("|", ["4"], "1,000", 1000), (";", ["250"], "1,000", None)),
        *(("\t", ["2,500.5"], "1,000", 1000), ("\t", ["2,5"], "1,000", 1), ("|", ["0,500"], "1,000", 1)),
        (";", ["3,0"], "1,000", 1),
        (";", ["3.0"], "1,000", 1000),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_what_may_be_two_numbers_is_decided_by_the_file(
    delimiter: str, others: list[str], text: str, whole: int | None, first: bool
) -> None:
    texts = [text, *others] if first else [*others, text]
    rows = "".join(f'"{each}"{delimiter}{"A" if each == text else f"X{each}"}\n' for each in texts)
    read = Read(f"qty{delimiter}bin\n{rows}")
    assert read.kept.get("A") == whole
    if whole is None:
        (reason,) = [reason for reason in read.faults.values() if "may be" in reason]
        assert "which may be 1" in reason and "such as 1000" in reason


# Times


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        *[
            ("2026-11-22", "2026-11-22T00:00Z"),
            ("2026-11-22 9:05", "2026-11-22T09:05Z"),
            ("20261122", "2026-11-22T00:00Z"),
        ],
        *[("2026-11-22T06:00:00+01:00", "2026-11-22T05:00Z"), ("2026-11-22 06:00:00 +0100", "2026-11-22T05:00Z")],
        *[("2026/11/22 06:00", "2026-11-22T06:00Z"), ("22.11.2026 06:00", "2026-11-22T06:00Z")],
        *[
            ("11/22/2026", "2026-11-22T00:00Z"),
            ("22/11/2026 18:30", "2026-11-22T18:30Z"),
            ("5/5/2026", "2026-05-05T00:00Z"),
        ],
        *[("11/22/2026 6:05:07 PM", "2026-11-22T18:05:07Z"), ("11/22/2026 12:00 am", "2026-11-22T00:00Z")],
        *[
            ("22-Nov-2026", "2026-11-22T00:00Z"),
            ("Nov 22, 2026", "2026-11-22T00:00Z"),
            ("22 November 2026", "2026-11-22T00:00Z"),
        ],
        *[("Sun, 22 Nov 2026 06:00:00 GMT", "2026-11-22T06:00Z"), ("2026-11-22 06:00:00 UTC", "2026-11-22T06:00Z")],
    ],
)
def test_times_however_spelled(text: str, utc: str) -> None:
    (record,) = Read(f"bin;qty;as of\nA;1;{text}\n").records
    assert record.as_of == datetime.fromisoformat(utc)


@pytest.mark.parametrize(
    "text", ["yesterday", "46354", "1795342503", "22/11/26", "31.02.2026", "2026-13-01", "6:00 PM", "x" * 99]
)
def test_what_is_no_time_is_told(text: str) -> None:
    (reason,) = Read(f"bin;qty;as of\nA;1;{text}\n").faults.values()
    assert reason.startswith("as_of is ") and reason.endswith("such as 2026-11-22T06:00:00+01:00")


@pytest.mark.parametrize(
    ("other", "day"),
    [
        (None, None),
        ("11/22/2026", "2026-05-06"),
        ("22/11/2026", "2026-06-05"),
        ("22.11.2026", None),
        ("2026-11-22", None),
    ],
)
def test_what_may_be_two_dates_is_decided_by_the_file(other: str | None, day: str | None) -> None:
    read = Read("bin;qty;as of\nA;1;05/06/2026\n" + (f"B;1;{other}\n" if other else ""))
    found = {record.bin: str(record.as_of.date()) for record in read.records}
    assert found.get("A") == day
    if day is None:
        assert "which may be 6 May 2026 or 5 June 2026; write the year first" in read.faults[2]


def test_times_without_a_zone_are_the_sites() -> None:
    rows = "bin,qty,as_of\nA,1,2026-11-28 20:59\n"
    assert Read(rows, ZoneInfo("Asia/Tokyo")).records[0].as_of == datetime(2026, 11, 28, 11, 59, tzinfo=UTC)
    (reason,) = Read(rows).faults.values()
    assert "later than the file's upload" in reason and "A time without a zone is in UTC (SiteTimezone)" in reason
    in_utc = Read("bin,qty,Last Updated (UTC)\nA,1,2026-11-28 10:00\n", ZoneInfo("Asia/Tokyo"))
    assert in_utc.records[0].as_of == datetime(2026, 11, 28, 10, tzinfo=UTC)


# Several rows of one bin

HEAD = "bin,sku,qty,as_of\n"


def test_rows_of_different_products_are_summed() -> None:
    read = Read(f"{HEAD}MIX,X,3,{TIME}\nONE,X,4,{TIME}\nMIX,Y,2,{TIME}\n")
    assert read.kept == {"MIX": 5, "ONE": 4}
    assert [(one.bin, one.line, one.rows) for one in read.records] == [("MIX", 4, 2), ("ONE", 3, 1)]


@pytest.mark.parametrize(
    "rows",
    [
        f"A,X,3,{TIME}\nA,X,2,{TIME}\n",
        f"A,X,3,{TIME}\nA,x,2,{TIME}\n",
        f"A,,3,{TIME}\nA,,2,{TIME}\n",
        f"A,X,3,{TIME}\nA,,2,{TIME}\n",
        f"A,X,3,{TIME}\nA,Y,2,{TIME}\nA,X,4,{TIME}\n",
    ],
)
def test_rows_that_contradict_each_other_are_told_and_none_is_taken(rows: str) -> None:
    read = Read(f"{HEAD}{rows}B,X,1,{TIME}\n")
    assert read.kept == {"B": 1}
    assert list(read.faults) == list(range(2, 2 + rows.count("\n")))
    assert all("bin 'A' has 3 (line 2) and 2 (line 3)" in reason for reason in read.faults.values())
    assert all("contradict each other" in reason for reason in read.faults.values())


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        *(("A,X,5,\nA,Y,n/a,\n", 3), ("A,X,,\nA,Y,5,\n", 2), ("A,X,5,\na,Y,2.5,\n", 3), ("A,X,5,\nA,Y,5,soon\n", 3)),
        *(("A,X,5,\nA,Y,5,2099-01-01\n", 3), ("A,X,5,\nA,Y,1.000,\n", 3), ("A,X,5,\nA,Y,1,000,x\n", 3)),
        ("A,X,5,2026-11-22\nA,Y,1,05/06/2026\n", 3),
        *(("A,X,5,\n,Y,7,\n", 3), ("A,X,5,\n,,7,\n", 3), ("A,X,5,\n,Y,,\n", 3), ("A,X,5,\nB,X,1,\nA,Y,x,\n", 4)),
        ("A,X,5,\n,Y,0,\n,Z,7,\n", 3),
    ],
)
def test_a_bin_with_a_row_that_cannot_be_read_is_not_stored(rows: str, line: int) -> None:
    """Its other rows would be stored as all that is in it."""
    read = Read(f"{HEAD}{rows}B,X,1,\nC,X,1,\n")
    assert "A" not in read.kept and read.kept["C"] == 1
    assert f"bin 'A' was not stored: line {line} of it cannot be read" in read.faults.values()


def test_rows_below_the_only_name_of_their_site_and_bin_are_of_it() -> None:
    read = Read("site,bin,sku,qty\nS,A,X,5\n,,Y,7\n,B,X,1\nT,A,X,2\nT,B,X,2\n")
    assert [(one.site, one.bin, one.quantity) for one in read.records] == [("T", "A", 2), ("T", "B", 2)]
    assert sorted(read.faults) == [2, 3, 4] and read.faults[2].endswith("line 3 of it cannot be read")


@pytest.mark.parametrize(
    "line", ["Total,,8,", ",Total,8,", ",,8,", ",,,note", ",,,", "x/y,X,1,", "Printed by N,,,", "D,X,n/a,\n,X,7,"]
)
def test_a_line_of_no_bin_costs_no_bin(line: str) -> None:
    assert Read(f"{HEAD}A,X,5,\nB,X,3,\n{line}\n").kept == {"A": 5, "B": 3}


def test_without_a_column_of_products_rows_contradict() -> None:
    read = Read("bin,qty,description\nA,3,red\nA,2,blue\n")
    assert read.kept == {} and "a column such as sku must name the products" in read.faults[2]


def test_equal_rows_are_one() -> None:
    assert Read(f"{HEAD}A,X,3,{TIME}\nA,X,3,{TIME}\nA,Y,1,{TIME}\n").kept == {"A": 4}
    assert Read("bin,qty\nA,3\nA,3\n").kept == {"A": 3}


@pytest.mark.parametrize(
    ("names", "one", "other"),
    [
        *(("description", "Red mug", "Blue mug"), ("sku,expiry", "X,2027-01", "X,2027-02"), ("stock status", "ok", "")),
        *(("sku,unit cost", "X,5", "X,6"), ("sku,n/a,note", "X,,?", "X,,!"), ("sku,a,b", "X,,y", "X,y,")),
        ("sku,,note", "X,1,", "X,2,"),
    ],
)
def test_rows_that_differ_in_a_column_that_is_not_read_are_not_equal(names: str, one: str, other: str) -> None:
    """Two lots of five, or one line of five twice: nobody can tell."""
    read = Read(f"bin,qty,{names}\nA,5,{one}\nA,5,{other}\nB,5,{one}\nB,5,{one}\n")
    assert read.kept == {"B": 5} and list(read.faults) == [2, 3]
    assert all("has 5 (line 2) and 5 (line 3)" in reason for reason in read.faults.values())
    assert all("differ in columns that are not read" in reason for reason in read.faults.values())


def test_two_lots_of_a_product_are_two_lines() -> None:
    assert Read("bin,sku,lot,qty\nA,X,1,3\nA,X,2,2\n").kept == {"A": 5}


def test_of_several_times_the_newest_counts_if_it_names_all_products() -> None:
    old, new = "2026-01-05", "2026-01-06"
    assert Read(f"{HEAD}A,X,3,{new}\nA,X,9,{old}\n").kept == {"A": 3}
    assert Read(f"{HEAD}A,X,9,{old}\nA,X,3,{new}\nA,Y,1,{new}\n").kept == {"A": 4}
    unclear = Read(f"{HEAD}A,X,3,{old}\nA,Y,1,{new}\nB,X,1,{new}\n")
    assert unclear.kept == {"B": 1}
    assert "has product 'x' at 2026-01-05T00:00:00.000000Z (line 2), but not among its newest rows" in unclear.faults[2]
    assert Read(f"{HEAD}A,X,3,{old}\nA,Y,1,{new}\n", wanted="as_of=").kept == {"A": 4}


def test_spellings_of_one_bin_are_one_bin() -> None:
    read = Read(f"site,{HEAD}s,A-1,X,3,{TIME}\nS,B,X,1,{TIME}\nS,a–1,Y,4,{TIME}\n")
    assert [(one.site, one.bin, one.quantity, one.line, one.rows) for one in read.records] == [
        ("s", "A-1", 7, 4, 2),
        ("S", "B", 1, 3, 1),
    ]
    assert Read(f"{HEAD}a,X,9,2026-01-05\nA,X,3,2026-01-06\n").kept == {"a": 3}
    contradicting = Read("bin,qty\nA 1,3\nA  1,5\nB,1\n")
    assert contradicting.kept == {"B": 1} and list(contradicting.faults) == [2, 3]


@given(
    st.lists(
        st.tuples(st.sampled_from("AB"), st.sampled_from("XYZ"), st.integers(0, 2), st.integers(5, 6)), max_size=6
    ).flatmap(lambda rows: st.tuples(st.just(rows), st.permutations(rows)))
)
def test_any_order_of_rows_gives_one_record(rows: Any) -> None:
    def read(told: list[tuple[str, str, int, int]]) -> tuple[dict[str, int], int]:
        found = Read(HEAD + "".join(f"{bin_},{sku},{quantity},2026-01-0{day}\n" for bin_, sku, quantity, day in told))
        return found.kept, len(found.faults)

    one, other = map(read, rows)
    assert one == other


# Whatever is in it


@given(st.binary(max_size=600))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    """It reads them or refuses them; nothing else."""
    for text in (data, b"bin,sku,qty,as_of\n" + data, b"\xff\xfe" + data, b"bin;qty\n" + data * 20):
        try:
            read = Read(text)
        except Rejected as error:
            assert len(str(error)) < 2000
        else:
            assert all(len(reason) < 1000 for reason in read.faults.values())
            assert all(one.bin.encode() and one.site.encode() for one in read.records)


@given(st.text("0123456789.,' +-eE\u00a0", max_size=LONGEST + 2))
def test_a_number_means_at_most_two(text: str) -> None:
    found = number(text, Marks())
    if found and found.first is not None and found.second is not None and not found.certain:
        assert {found.first, found.second} and any(mark in text for mark in ".,")


@given(st.datetimes(datetime(1971, 1, 1), datetime(2026, 1, 1)).map(lambda at: at.replace(microsecond=0)))
def test_a_date_is_among_its_meanings(at: datetime) -> None:
    for form in (
        "%Y-%m-%d %H:%M:%S",
        "%d.%m.%Y %H:%M:%S",
        "%m/%d/%Y %I:%M:%S %p",
        "%d/%m/%Y %H:%M:%S",
        "%d %b %Y %H:%M:%S",
    ):
        found = date(at.strftime(form), Marks(), UTC)
        assert found and at.replace(tzinfo=UTC) in (found.first, found.second)


@pytest.mark.slow
def test_memory_stays_flat() -> None:
    """The rows wait on disk: merge holds one bin's. Objects of 10,000 rows would take more than 5 MB."""
    file = io.BytesIO(b"bin,qty\n" + b"".join(b"B%d,1\n" % number for number in range(10_000)))
    setting = Setting(UPLOADED, UTC, lambda: "ONLY")
    tracemalloc.start()
    try:
        sheet = Sheet(file, setting)
        found = sum(1 for _ in merge(sheet.rows(), setting, sheet.conventions, comma_groups=True))
        assert found == 10_000 and tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


# The value of an item


def values(text: str, wanted: str = "") -> dict[str, str | None]:
    read = Read(text, wanted=wanted)
    assert read.faults == {}
    return {one.bin: None if one.value is None else f"{one.value:f}" for one in read.records}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        *(("Unit Cost", "12.50", "12.5"), ("value_per_item", "$1,234.50", "1234.5"), ("Price (EUR)", "€ 12,5", None)),
        *(("unit price", "3 USD", "3"), ("Cost", "n/a", None), ("Cost", "-3", None), ("Cost", "0", None)),
        *(("Cost", "", None), ("Cost", "9" * 50, None), ("Value", "4", None), ("Stock Value", "400", None)),
    ],
)
def test_the_value_of_an_item_is_read_and_costs_no_row(name: str, text: str, value: str | None) -> None:
    assert values(f'bin;qty;{name}\nA;4;"{text}"\n') == {"A": value}


def test_a_value_has_the_decimal_mark_that_its_file_shows() -> None:
    assert values("bin;qty;unit cost\nA;4;1.234\nB;1.000;2\nC;3,0;5\n") == {"A": "1234", "B": "2", "C": "5"}
    assert values("bin;qty;unit cost\nA;4;1.234\n") == {"A": None}, "one or a thousand"


def test_a_bin_of_several_products_has_the_mean_value_of_its_items() -> None:
    assert values("bin,qty,sku,unit cost\nA,3,x,2\nA,1,y,10\nB,1,x,2\nB,1,y,?\nC,0,x,2\nC,0,y,4\n") == {
        **{"A": "4", "B": None, "C": "3"}
    }


def test_a_column_that_may_be_the_value_of_all_items_is_taken_when_it_is_named() -> None:
    assert values("bin,qty,Value\nA,4,7\n", "value=Value") == {"A": "7"}
    assert values("bin,qty,cost,price\nA,4,7,9\n") == {"A": None}
    assert values("bin,qty,cost,price\nA,4,7,9\n", "value=price") == {"A": "9"}
