"""Reading counts and printing them."""

import json
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from cli import readings
from cli.main import main
from cli.photographs import Photograph, Uploaded

OLD, NEW = "2026-11-21T10:15:00.000Z", "2026-11-22T10:15:00.000Z"


@pytest.fixture
def filled(aws: SimpleNamespace, count_item: Any) -> SimpleNamespace:
    """Two sites; one bin with a history that ends in a rejected photograph."""
    answered = (
        "count",
        "confidence",
        "probabilities",
        "is_minimum",
        "expected_capped",
        "p_record",
        "recorded_quantity",
    )
    rejected = dict.fromkeys(answered)
    items = [
        count_item(captured_at=OLD, count=6, is_minimum=True, recorded_quantity=9, p_record=Decimal("0.01")),
        count_item(captured_at=NEW, status="REJECTED", reason="the file is empty", **rejected),
        count_item(
            captured_at=OLD,
            SK="LATEST",
            site_key="SITE#SEA1",
            count=6,
            is_minimum=True,
            recorded_quantity=9,
            p_record=Decimal("0.01"),
        ),
        count_item("AUS2", "odd#bin", PK="BIN#AUS2#ODD%23BIN", captured_at=NEW),
        count_item("AUS2", "odd#bin", PK="BIN#AUS2#ODD%23BIN", captured_at=NEW, SK="LATEST", site_key="SITE#AUS2"),
    ]
    for item in items:
        aws.table.put_item(Item=item)
    for site in ("SEA1", "AUS2"):
        aws.s3.put_object(Bucket="images", Key=f"incoming/{site}/b/a.jpg", Body=b"")
    return aws


def run(*arguments: str) -> str:
    result = CliRunner(env={"COLUMNS": "120"}).invoke(main, ["counts", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_all_sites_newest_first(filled: SimpleNamespace) -> None:
    counts = json.loads(run("--json"))
    assert [(c["site"], c["bin"], c["SK"]) for c in counts] == [
        ("AUS2", "odd#bin", "LATEST"),
        ("SEA1", "P-4-B217", "LATEST"),
    ]
    assert counts[0]["probabilities"][3] == 0.61
    assert counts[0]["count"] == 3


def test_one_site(filled: SimpleNamespace) -> None:
    assert [c["site"] for c in json.loads(run("--site", "SEA1", "--json"))] == ["SEA1"]


def test_a_site_of_several_parts_is_listed_as_one(filled: SimpleNamespace, count_item: Any) -> None:
    for n, part in enumerate(("", "#1", "#2")):
        key = {"PK": f"BIN#BIG#B{2 - n}", "SK": "LATEST", "site_key": f"SITE#BIG{part}"}
        filled.table.put_item(Item=count_item("BIG", f"B{2 - n}", **key))
    outputs = filled.stack.outputs()
    filled.stack.outputs = lambda: outputs | {"SiteParts": "3"}
    assert [c["bin"] for c in json.loads(run("--site", "BIG", "--json"))] == ["B0", "B1", "B2"]


def test_what_people_have_settled_is_left_out_and_what_to_expect_is_said(
    filled: SimpleNamespace, count_item: Any
) -> None:
    for n in range(4):
        key = {"PK": f"BIN#SEA1#B{n}", "SK": "LATEST", "site_key": "SITE#SEA1", "order": "o", "recorded_quantity": 3}
        numbers = {"priority": Decimal("0.5") - n, "p_record": Decimal("0.5"), "evidence": Decimal(19)}
        filled.table.put_item(Item=count_item("SEA1", f"B{n}", **key, **numbers))
    settled = {"PK": "BIN#SEA1#B0", "SK": "REVIEW", "outcome": "RECORD_RIGHT", "photograph": "o"}
    filled.table.put_item(Item=settled | {"recorded_quantity": 3})
    filled.table.put_item(Item=settled | {"PK": "BIN#SEA1#B1", "recorded_quantity": 4})
    filled.table.put_item(Item=settled | {"PK": "BIN#SEA1#B3", "recorded_quantity": 3, "outcome": "CANNOT_COUNT"})
    assert "SEA1/B3" not in run("--site", "SEA1", "--recount", "--top", "4")
    shown = run("--site", "SEA1", "--recount", "--top", "2")
    assert "SEA1/B0" not in shown and "SEA1/B1" in shown and "SEA1/B2" in shown
    assert "Of these 2 records, about 1 are wrong." in shown and "No recount has ended yet." in shown
    score = {
        "PK": "SCORE#SEA1",
        "SK": "2026-11#03",
        "listed": 30,
        "listed_wrong": 11,
        "listed_expected": Decimal("12.4"),
    }
    filled.table.put_item(Item=score | {"audited": 400, "audited_wrong": 160})
    shown = run("--site", "SEA1", "--recount", "--top", "2")
    assert "Of these 2 records, about 2 are wrong." in shown, "the audit says that many are"
    assert "So far: 12 wrong records expected, 11 found, in 30 recounts." in shown


def test_what_to_recount_first(filled: SimpleNamespace, count_item: Any) -> None:
    for bin_, priority in (("likely", "0.2"), ("hardly", "0.95"), ("maybe", "0.6")):
        key = {"PK": f"BIN#SEA1#{bin_}", "SK": "LATEST", "site_key": "SITE#SEA1"}
        filled.table.put_item(Item=count_item("SEA1", bin_, **key, priority=Decimal(priority)))
    counts = json.loads(run("--recount", "--json"))
    assert [c["bin"] for c in counts if c["site"] == "SEA1"] == ["hardly", "maybe", "likely"], "others have no record"
    assert "All sites, bins to recount first" in run("--recount")
    result = CliRunner().invoke(main, ["counts", "--recount", "--bin", "hardly"])
    assert (result.exit_code, result.output) == (
        2,
        "Error: --recount sorts all bins and excludes --bin. Leave out one of them\n",
    )


def test_a_history_shows_rejected_photographs_with_their_reason(filled: SimpleNamespace) -> None:
    lines = run("--site", "SEA1", "--bin", "P-4-B217").splitlines()
    newer, older = [line for line in lines if "front.jpg" in line and "rejected" not in line]
    assert "2026-11-22 10:15" in newer
    assert newer.split()[-4:] == ["-", "-", "-", "-"]
    assert "front.jpg was rejected: the file is empty" in lines
    assert older.split()[-4:] == ["6+", "61%", "9", "1%"]


def test_keys_that_fit_no_pattern_have_an_empty_site_and_bin(aws: SimpleNamespace, count_item: Any) -> None:
    aws.table.put_item(Item=count_item("", "", status="REJECTED", reason="the key fits no pattern"))
    assert "front.jpg was rejected: the key fits no pattern" in run("--site", "", "--bin", "")


def test_rejected_photographs_of_all_sites(filled: SimpleNamespace, count_item: Any) -> None:
    reasons = {"": "the key contains a backslash", "SEA1": "the object is empty"}
    for number, (site, reason) in enumerate(reasons.items()):
        image = {"bucket": "images", "key": f"incoming/{site}\\x{number}.jpg", "version_id": str(number)}
        more = {"status": "REJECTED", "reason": reason, "image": image, "site_key": f"REJECTED#{site}"}
        filled.table.put_item(Item=count_item(site, "", SK=f"COUNT#{number}", **more))
    before = count_item("", "", status="REJECTED", reason="told by an older Bintally", PK="BIN##", SK="COUNT#1999")
    filled.table.put_item(Item=before)
    assert {c["reason"] for c in json.loads(run("--rejected", "--json"))} == {*reasons.values(), before["reason"]}
    shown = run("--rejected")
    assert "All sites, rejected" in shown and "the key contains a backslash" in shown and "incoming/\\x0.jpg" in shown
    assert [c["reason"] for c in json.loads(run("--rejected", "--site", "SEA1", "--json"))] == ["the object is empty"]
    assert run("--rejected", "--site", "AUS2") == "No photograph was rejected at site AUS2\n"
    (only,) = json.loads(run("--rejected", "--site", "SEA1", "--bin", "P-4-B217", "--json"))
    assert only["reason"] == "the file is empty"
    assert "reason" in run("--rejected", "--csv", "-").splitlines()[0]
    result = CliRunner().invoke(main, ["counts", "--recount", "--rejected"])
    assert result.exit_code == 2 and "exclude each other" in result.output


def test_bins_that_need_a_new_photograph_are_listed_with_the_reason(filled: SimpleNamespace, count_item: Any) -> None:
    assert run("--retake") == "None of the 2 counts needs a new photograph.\n"
    for bin_, flags in (("dim", ["captured_at_unreadable", "dark", "flat"]), ("odd", ["end_mark_missing"])):
        key = {"PK": f"BIN#SEA1#{bin_}", "SK": "LATEST", "site_key": "SITE#SEA1"}
        filled.table.put_item(Item=count_item(bin_=bin_, flags=flags, **key))
    assert [c["bin"] for c in json.loads(run("--retake", "--json"))] == ["dim"]
    shown = [line.rstrip() for line in run("--retake", "--site", "SEA1").splitlines()]
    assert shown[0] == "Site SEA1, bins that need a new photograph"
    assert shown[1].split() == ["Bin", "Taken", "(UTC)", "Count", "Confidence", "New", "photograph"]
    assert [line.split()[0] for line in shown[2:]] == ["SEA1/dim"] and shown[2].endswith("dark, flat")
    header, row = run("--retake", "--csv", "-").splitlines()
    assert dict(zip(header.split(","), row.split(","), strict=True))["flags"] == "captured_at_unreadable dark flat"
    for bin_, photograph, outcome in (("T", "o", "RETAKE"), ("C", "o", "CANNOT_COUNT"), ("old", "before", "RETAKE")):
        key = {"PK": f"BIN#SEA1#{bin_}", "SK": "LATEST", "site_key": "SITE#SEA1", "order": "o"}
        filled.table.put_item(Item=count_item(bin_=bin_, priority=Decimal(1), **key))
        review = {"SK": "REVIEW", "outcome": outcome, "photograph": photograph, "recorded_quantity": 3}
        filled.table.put_item(Item={"PK": key["PK"]} | review)
    asked = {c["bin"]: c["flags"] for c in json.loads(run("--retake", "--json")) if c["bin"] != "dim"}
    assert asked == {"T": ["asked for"], "C": ["asked for"]}, "what people say of another photograph is past"
    assert "asked for" in run("--retake", "--site", "SEA1")
    for other in (["--recount"], ["--rejected"], ["--bin", "dim"]):
        result = CliRunner().invoke(main, ["counts", "--retake", *other])
        assert result.exit_code == 2 and "exclude" in result.output


def test_one_site_of_several_that_look_the_same(aws: SimpleNamespace) -> None:
    for key in ("incoming/SEA1/b/a.jpg", "incoming/sea1/b/a.jpg", "incoming/Default/b/a.jpg", "incoming/b.jpg"):
        aws.s3.put_object(Bucket="images", Key=key, Body=b"")
    assert readings.sites(aws.s3, "images") == ["Default", "SEA1"]


def test_ids_with_a_hash_are_found(filled: SimpleNamespace) -> None:
    assert len(json.loads(run("--site", "AUS2", "--bin", "odd#bin", "--json"))) == 1


def test_a_photograph_without_a_site_is_of_the_default_one(aws: SimpleNamespace) -> None:
    aws.s3.put_object(Bucket="images", Key="incoming/P-4-B217.jpg", Body=b"")
    aws.s3.put_object(Bucket="images", Key="incoming/SEA1/b/a.jpg", Body=b"")
    aws.s3.put_object(Bucket="images", Key="records/AUS2/b.json", Body=b"")
    assert readings.sites(aws.s3, "images") == ["SEA1", "default"]


def test_nothing_yet(aws: SimpleNamespace) -> None:
    assert run() == "No counts yet. Upload photographs with: bintally upload PATH\n"


@pytest.mark.parametrize("flags", [["--watch", "--json"], ["--json", "--csv", "-"], ["--csv", "-", "--watch"]])
def test_one_form_at_a_time(flags: list[str]) -> None:
    result = CliRunner().invoke(main, ["counts", *flags])
    assert (result.exit_code, result.output) == (
        2,
        "Error: --csv, --json and --watch exclude each other. Give one of them\n",
    )


def test_watch_shows_what_comes_until_interrupted(filled: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[int] = []

    def sleep(seconds: float) -> None:
        rounds.append(1)
        if len(rounds) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("cli.counts.time.sleep", sleep)
    assert "odd#bin" in run("--watch")
    assert len(rounds) == 2


def test_a_table_that_cannot_be_read_is_one_line(aws: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws.stack, "outputs", lambda: {"ImagesBucket": "images", "CountsTable": "gone"})
    result = CliRunner().invoke(main, ["counts", "--site", "S"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: Query failed: ")
    assert result.output.count("\n") == 1


def test_markup_in_ids_is_shown_as_it_is(filled: SimpleNamespace, count_item: Any) -> None:
    filled.table.put_item(Item=count_item(bin_="[red]x", SK="LATEST", site_key="SITE#SEA1"))
    assert "[red]x" in run("--site", "SEA1")


def test_long_answers_are_read_to_the_end(aws: SimpleNamespace, count_item: Any) -> None:
    padding = "x" * 300_000  # a page of a Query ends at 1 MB
    for number in range(8):
        aws.table.put_item(Item=count_item(SK=f"COUNT#2026#{number}", padding=padding))
    assert len(readings.history(aws.table, "SEA1", "P-4-B217")) == 8


def test_waiting_gives_each_upload_its_own_count(aws: SimpleNamespace, count_item: Any) -> None:
    photograph = Photograph(Path("front.jpg"), "SEA1", "P-4-B217", 3)
    uploads = [Uploaded(photograph, version, 1000.0) for version in ("v1", "v2", "v3")]
    for number, version in enumerate(("v2", "v1")):
        image = {"bucket": "images", "key": photograph.key, "version_id": version}
        aws.table.put_item(Item=count_item(SK=f"COUNT#2026#{number}", image=image, count=number))
    found = {upload.version_id: count["count"] for upload, count in readings.counted(aws.table, uploads, patience=0.5)}
    assert found == {"v2": 0, "v1": 1}  # v3 never came, and waiting for it ended


def test_what_is_said_of_a_count(count_item: Any) -> None:
    upload = Uploaded(Photograph(Path("a.jpg"), "s", "b", None), "v", 1795342500.0)  # 2026-11-22T10:15:00Z
    assert readings.seconds_until_counted(upload, count_item()) == pytest.approx(2.5)
    assert readings.COLUMNS["Count"](count_item()) == "3"
    assert readings.COLUMNS["Count"](count_item(count=6, is_minimum=True)) == "6+"
    assert readings.COLUMNS["Record\nright"](count_item(p_record=None)) == "-"
    assert (
        readings.COLUMNS["Taken (UTC)"](count_item(captured_at="2026-11-22T12:15:00.000000+02:00"))
        == "2026-11-22 10:15"
    )
