"""`bintally recount`: each verb and option before the real API, in process; tests/stack/test_recounts.py runs them with
the gateway and people's policies."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
import pytest
from bintally import answer
from bintally.aws.table import Table
from bintally.reviewing.desk import Desk
from click.testing import CliRunner

import deployed.api
from cli import readings, recount_claim, recount_export, recount_list
from cli.main import main
from cli.recounts import kept
from deployed.api import Api
from deployed.errors import ApiRefused, Denied, StackError
from local.stack import Local
from tests.functions.conftest import BUCKET, ROOT, answering_account
from tests.functions.test_answer import CONTEXT
from tests.functions.test_reviews import NOON, latest

SAMPLE = next((ROOT / "samples").rglob("*.jpg"))
FORMULAS = ("=2+3", "+2", "-2", "@SUM(A1)", "\t=2", "\n=2")


class Gateway:
    """Answers in place of HTTP: as API Gateway does where `answers` has something, else with the function's answer to
    `person`, whom the gateway would have authorized."""

    def __init__(self) -> None:
        self.person = "ana"
        self.answers: list[tuple[int, str]] = []
        self.desk = Desk(Table.named("counts"))

    def __call__(self, **_: Any) -> "Gateway":
        return self

    def send(self, request: Any) -> SimpleNamespace:
        if self.answers:
            status, text = self.answers.pop(0)
            return SimpleNamespace(status_code=status, text=text)
        parts = urlsplit(request.url)
        event = json.loads((ROOT / "events" / "answer.json").read_bytes()) | {"rawPath": parts.path}
        event |= {"queryStringParameters": {name: values[-1] for name, values in parse_qs(parts.query).items()}}
        event["body"] = request.body.decode() if request.body else None
        event["requestContext"]["http"] |= {"method": request.method, "path": parts.path}
        event["requestContext"]["authorizer"]["iam"]["userArn"] = f"arn:aws:iam::123456789012:user/{self.person}"
        answered = answer.handler(event, CONTEXT)
        return SimpleNamespace(status_code=answered["statusCode"], text=answered["body"])

    def add(self, bin_: str, **more: Any) -> None:
        """A bin whose photograph is there, shows 5 items, and speaks against its record of 3."""
        item = latest(bin_=f"BIN#SEA1#{bin_}")
        key = f"incoming/SEA1/{bin_}/a.jpg"
        put = boto3.client("s3").put_object(Bucket=BUCKET, Key=key, Body=SAMPLE.read_bytes())
        item["image"] = {"bucket": BUCKET, "key": key, "version_id": put["VersionId"], "digest": bin_.encode().hex()}
        self.desk.table.put(item | more)
        self.desk.follow(item["PK"], NOON)


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    with answering_account(monkeypatch):
        made = Gateway()
        monkeypatch.setattr(Local, "from_environment", stack_of)
        monkeypatch.setattr(deployed.api, "URLLib3Session", made)
        yield made


def stack_of() -> Any:
    outputs = {"ApiUrl": "http://a1.execute-api.localhost:4566"}
    return SimpleNamespace(outputs=lambda: outputs, session=boto3.Session)


def run(*words: str, code: int = 0) -> str:
    result = CliRunner(env={"COLUMNS": "160"}).invoke(main, ["recount", words[0], "--site", "SEA1", *words[1:]])
    assert result.exit_code == code, result.output
    return result.output


def claim(*words: str) -> Any:
    return json.loads(run("claim", "--json", *words))


def enter(bin_: Any, *words: str) -> str:
    return run("enter", "--bin", bin_["bin"], "--seen", bin_["image_version"], *words)


def told(gateway: Gateway, bin_: str) -> Any:
    return gateway.desk.table.get({"PK": f"BIN#SEA1#{bin_}", "SK": "REVIEW"}, consistent=True)


def test_a_promise_is_compared_once_there_are_recounts() -> None:
    found = {"expected_wrong": 11.7, "found_wrong": 11, "recounted": 31}
    assert kept(found) == "So far: 12 wrong records expected, 11 found, in 31 recounts."
    assert kept({name: 0 for name in found}) == "No recount has ended yet."


def test_a_photograph_is_saved_and_a_skipped_bin_is_left_out(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(link: str, timeout: float) -> io.BytesIO:
        key = unquote(urlsplit(link).path).removeprefix("/")
        return io.BytesIO(boto3.client("s3").get_object(Bucket="artifacts", Key=key)["Body"].read())

    monkeypatch.setattr(recount_claim, "urlopen", fetched)
    for name in ("P-1", "P-2"):
        gateway.add(name)
    said = run("claim", "--skip", "P-1", "--save", str(tmp_path / "bin.jpg"))
    assert "Bin P-2 is yours until" in said and str(tmp_path / "bin.jpg") in said
    assert (tmp_path / "bin.jpg").read_bytes()[:2] == b"\xff\xd8"
    seen = told(gateway, "P-2")["image"]["version_id"]
    assert f"Then: bintally recount enter --site SEA1 --bin P-2 --seen {seen} QUANTITY\n" in said
    assert "Error: no bin of this site needs a recount by you now\n" in run(
        "claim", "--skip", "P-1", "--skip", "P-2", code=1
    )


@pytest.mark.parametrize(("option", "outcome"), [("--cannot-count", "CANNOT_COUNT"), ("--retake", "RETAKE")])
def test_what_is_no_number_ends_the_review(gateway: Gateway, option: str, outcome: str) -> None:
    gateway.add("P-1")
    bin_ = claim()
    assert enter(bin_, option, "--reason", "dark", "--note", "too dark") == "Stored.\n"
    review = told(gateway, "P-1")
    assert (review["stage"], review["outcome"]) == ("RESOLVED", outcome)
    assert (review["entries"][0]["reason"], review["entries"][0]["note"]) == ("DARK", "too dark")
    for words in (("3", option), ()):
        refused = run("enter", "--bin", "P-1", "--seen", "v", *words, code=2)
        assert "give one of QUANTITY, --cannot-count and --retake" in refused


def test_an_entry_is_taken_back_and_entered_again(gateway: Gateway) -> None:
    gateway.add("P-1")
    bin_ = claim()
    enter(bin_, "--id", "e1", "4")
    assert enter(bin_, "--id", "e1", "4") == "Stored.\n", "sent again"
    assert [entry["quantity"] for entry in told(gateway, "P-1")["entries"]] == [4]
    assert run("undo", "--bin", "P-1") == "Taken back. Bin P-1 is yours again: enter what you counted.\n"
    review = told(gateway, "P-1")
    assert (review["entries"], review["stage"], review["claim"]["person"]) == ([], "FIRST", "user/ana")
    assert "Error: " in run("undo", "--bin", "P-1", code=1)
    enter(bin_, "3")
    assert told(gateway, "P-1")["outcome"] == "RECORD_RIGHT"
    gateway.person = "ben"
    assert enter(bin_, "6").startswith("Stored. It came after the recount of this photograph had ended")


def test_a_manager_decides_and_the_difference_is_exported(gateway: Gateway) -> None:
    gateway.add("P-1")
    for gateway.person, number in (("ana", "4"), ("ben", "2")):
        enter(claim("--bin", "P-1"), number)
    listed = json.loads(run("list", "--why", "--json"))
    assert [(each["bin"], each["stage"]) for each in listed] == [("P-1", "MANAGER")]
    gateway.person = "max"
    assert "Error: " in run("claim", "--bin", "P-1", code=1), "who is no manager does not decide"
    said = run("claim", "--bin", "P-1", "--manager")
    assert "bintally recount enter --manager --site SEA1 --bin P-1" in said
    enter(claim("--bin", "P-1", "--manager"), "--manager", "--reason", "pick_error", "--note", "=2+3", "5")
    run("undo", "--bin", "P-1", "--manager")
    enter(claim("--bin", "P-1", "--manager"), "--manager", "--reason", "pick_error", "--note", "=2+3", "5")
    (row,) = csv.DictReader(io.StringIO(run("export")))
    assert (row["bin"], row["difference"], row["note"]) == ("P-1", "2", "'=2+3")
    (row,) = json.loads(run("export", "--json"))
    assert (row["bin"], row["difference"], row["note"]) == ("P-1", 2, "=2+3"), "JSON is for programs"
    assert row["counted_by"] == ["user/ana", "user/ben", "user/max"]
    assert json.loads(run("export", "--json", "--first", "2026-11-01", "--last", "2026-11-02")) == []


def test_a_manager_sees_how_far_a_wrong_record_is_probably_off(gateway: Gateway) -> None:
    gateway.add("P-1")
    said = run("list", "--why")
    assert re.search(r"P-1 .* FIRST +3 +5 +\d+% +about 2 more *$", said, re.MULTILINE), said
    assert "more" not in run("list")
    assert recount_list.if_wrong({"bin": "P-1"}) == "-"


def test_the_audit_is_shown_with_its_intervals(gateway: Gateway) -> None:
    assert "Records that are wrong:  none yet" in run("audit")
    audited = {"audited": 240, "audited_wrong": 10, "audited_expected": 11, "audited_model_right": 100}
    gateway.desk.table.put({"PK": "SCORE#SEA1", "SK": "2026-11#00"} | audited)
    said = run("audit")
    assert said.startswith("240 bins of SEA1 were drawn at random and recounted in the last 12 months.\n")
    assert "Records that are wrong:  4.2% (95 % interval 2.3% to 7.5%)\n" in said
    assert "Counts that are right:   41.7% (95 % interval 35.6% to 48.0%)\n" in said
    found = json.loads(run("audit", "--json"))
    assert (found["recounted"], found["records_wrong"]["found"], found["wrong_share"]) == (240, 10, 0.0429)


# A person's note, a bin and a site are text that a spreadsheet must not run


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_of_a_person_becomes_a_formula(text: str) -> None:
    assert recount_export.cell(text) == f"'{text}"
    assert recount_export.cell([text, "user/ben"]) == f"'{text}; user/ben"
    assert (recount_export.cell(-2), recount_export.cell("a=b")) == (-2, "a=b")


@pytest.mark.parametrize("text", FORMULAS)
def test_exports_neutralise_notes_bins_and_sites(gateway: Gateway, text: str, count_item: Any) -> None:
    row = {"site": text, "bin": text, "note": text, "difference": -2, "counted_by": [text], "resolved_at": "2026"}
    gateway.answers.append((200, json.dumps({"differences": [row]})))
    (found,) = csv.DictReader(io.StringIO(run("export"), newline=""))
    safe = dict.fromkeys(("site", "bin", "note", "counted_by"), f"'{text}")
    assert {name: found[name] for name in safe} == safe and found["difference"] == "-2"
    shown = readings.csv_row(count_item(text, text))
    assert (shown["site"], shown["bin"]) == (f"'{text}", f"'{text}")


@pytest.mark.parametrize("before", ["", "two behind the box"])
@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_a_carriage_return_begins_no_row(gateway: Gateway, before: str, end: str, count_item: Any) -> None:
    """csv puts it into quotes only since Python 3.13, and a spreadsheet begins a row at each."""
    row = {"bin": "P-1", "note": f"{before}{end}=2+3"}
    gateway.answers.append((200, json.dumps({"differences": [row]})))
    written = run("export")
    (found,) = csv.DictReader(io.StringIO(written, newline=""))
    assert "\r" not in written and found["note"] == ("" if before else "'") + f"{before}\n=2+3"
    assert "\r" not in readings.csv_row(count_item(bin_=f"P{end}=2"))["bin"]


# What the API and the gateway before it answer


def ask(path: str = "recounts") -> dict[str, Any]:
    return Api(stack_of(), "counter", "SEA1").ask(path)


def test_a_problem_of_ours_has_a_code_and_a_detail(gateway: Gateway) -> None:
    with pytest.raises(ApiRefused, match="this needs the role manager") as caught:
        ask("audit")
    assert caught.value.code == "FORBIDDEN"


def test_the_gateways_own_errors_have_a_message_alone(gateway: Gateway) -> None:
    gateway.answers += [(403, '{"message": "Forbidden"}'), (403, '{"message": "Forbidden"}')]
    with pytest.raises(Denied, match=r"execute-api:Invoke on counter of site SEA1"):
        ask()
    assert run("list", code=1).startswith("Error: access denied. Missing permission: execute-api:Invoke")
    gateway.answers.append((404, '{"message": "Not Found"}'))
    with pytest.raises(StackError, match=re.escape("the HTTP API answered 404: Not Found")):
        ask()
    gateway.answers.append((413, "<html>"))
    with pytest.raises(StackError, match="the HTTP API answered 413: <html>"):
        ask()


def test_a_busy_gateway_is_asked_again(gateway: Gateway) -> None:
    gateway.answers += [(429, '{"message": "Too Many Requests"}'), (503, '{"message": "Service Unavailable"}')]
    assert ask() == {"recounts": [], "cursor": None}
    gateway.answers += [(503, '{"message": "Service Unavailable"}')] * 4
    with pytest.raises(StackError, match="answered 503: Service Unavailable"):
        ask()
