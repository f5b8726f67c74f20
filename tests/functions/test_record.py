"""The record function from its event to the table: it stores good rows, in any order, whatever the others contain."""

import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from bintally import record
from bintally.aws import clients, queues
from bintally.aws.table import Table
from bintally.records import files, record_file
from bintally.records.columns import Wanted
from bintally.records.files import Fault, Row, Setting, Sheet
from bintally.records.merge import merge
from bintally.records.values import Reading
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
KEY = "records/SEA1/2026-11-22.csv"
HEAD = "site,bin,expected_quantity,as_of\n"
UPLOADED = datetime(2026, 11, 22, 6, 0, 3, tzinfo=UTC)
LIMIT_MS = 900_000


class Inventory:
    """Someone who uploads files of records, and what they find afterwards."""

    def __init__(self, world: Any) -> None:
        self.world, self.s3 = world, world.s3
        self.told: list[dict[str, Any]] = []
        self.refused: list[dict[str, Any]] = []

    def put(self, key: str, data: str | bytes) -> dict[str, Any]:
        """Uploads a version; the event about it."""
        event: dict[str, Any] = self.world.put(key, data if isinstance(data, bytes) else data.encode())
        return event

    def deliver(self, *events: Any, tries: int = 1, remaining_ms: Callable[[], int] = lambda: LIMIT_MS) -> list[int]:
        """Hands events to the function; the places of those that go back to the queue."""
        sample = json.loads((ROOT / "events" / "record.json").read_bytes())["Records"][0]
        records = []
        for number, event in enumerate(events):
            body = event if isinstance(event, str) else json.dumps(event)
            again = {"ApproximateReceiveCount": str(tries)}
            changes = {"messageId": str(number), "body": body, "receiptHandle": f"receipt-{number}"}
            records.append(sample | changes | {"attributes": sample["attributes"] | again})
        context = SimpleNamespace(
            function_name="record",
            memory_limit_in_mb=1769,
            invoked_function_arn="arn:aws:lambda:us-east-1:000000000000:function:record",
            aws_request_id="a request",
            get_remaining_time_in_millis=remaining_ms,
        )
        answer = record.handler({"Records": records}, context)
        return [int(failure["itemIdentifier"]) for failure in answer["batchItemFailures"]]

    def read(self, data: str | bytes, key: str = KEY) -> dict[str, Any]:
        """Uploads a file and has it read; what the event says of it."""
        assert self.deliver(self.put(key, data)) == []
        return self.told[-1]

    def records(self) -> dict[str, int]:
        return {item["PK"]: int(item["expected_quantity"]) for item in self.world.items("RECORD")}

    def report(self, told: dict[str, Any]) -> dict[str, Any]:
        place = told["report"]
        found: dict[str, Any] = json.load(self.s3.get_object(Bucket=place["bucket"], Key=place["key"])["Body"])
        return found


@pytest.fixture
def inventory(world: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inventory]:
    monkeypatch.setenv("ARTIFACTS_BUCKET", "artifacts")
    monkeypatch.setenv("RECORD_QUEUE_URL", world.queue)
    world.s3.create_bucket(Bucket="artifacts")
    inventory = Inventory(world)
    sent: Callable[..., Any] = clients.events().put_events

    def put_events(*, Entries: list[dict[str, Any]]) -> Any:
        for entry in Entries:
            assert entry["Source"] == "bintally" and len(json.dumps(entry)) < 256 * 1024
            kinds = {"Records Read": inventory.told, "Records Refused": inventory.refused}
            kinds[entry["DetailType"]].append(json.loads(entry["Detail"]))
        return sent(Entries=Entries)

    monkeypatch.setattr(clients.events(), "put_events", put_events)
    yield inventory


# Files that are good


def test_keeps_what_a_json_file_says(inventory: Inventory) -> None:
    told = inventory.read(
        '{"expected_quantity": 4, "as_of": "2020-11-22T06:00:00+01:00"}', "records/SEA1/P-4-B217.json"
    )
    item = inventory.world.only("RECORD")
    source = item.pop("source")
    order = item.pop("order")
    assert item == {
        **{"PK": "BIN#SEA1#P-4-B217", "SK": "RECORD", "site": "SEA1", "bin": "P-4-B217", "expected_quantity": 4},
        "as_of": "2020-11-22T05:00:00.000000Z",
    }
    assert source == told["file"] | {"line": 1} and source["version_id"] in order
    assert (told["kept"], told["malformed"], told["faults"], "report" in told) == (1, 0, [], False)


def test_reads_the_public_data_sets_own_form(inventory: Inventory) -> None:
    goods = {"B00EMHUL10": {"asin": "B00EMHUL10", "name": "Motor Oil", "quantity": 2}}
    inventory.read(json.dumps({"BIN_FCSKU_DATA": goods, "EXPECTED_QUANTITY": 2}), "records/ABID/00927.json")
    uploaded = inventory.s3.head_object(Bucket="images", Key="records/ABID/00927.json")["LastModified"]
    item = inventory.world.only("RECORD")
    assert (item["PK"], item["expected_quantity"]) == ("BIN#ABID#00927", 2)
    assert datetime.fromisoformat(item["as_of"]) == uploaded


def test_keeps_the_rows_of_a_csv_file(inventory: Inventory) -> None:
    rows = HEAD + "SEA1,A,3,2020-11-22T06:00:00Z\nSEA1,B#1,0,\nAUS2,A,12,2020-11-21\n"
    told = inventory.read(rows)
    assert inventory.records() == {"BIN#SEA1#A": 3, "BIN#SEA1#B%231": 0, "BIN#AUS2#A": 12}
    assert (told["kept"], told["malformed"]) == (3, 0)


def test_spellings_of_one_bin_are_stored_as_one_record(inventory: Inventory) -> None:
    told = inventory.read("site,bin,expected_quantity,sku\nSEA1,A-1,3,x\nsea1,a-1,4,y\n")
    item = inventory.world.only("RECORD")
    assert (item["PK"], item["site"], item["bin"], item["expected_quantity"]) == ("BIN#SEA1#A-1", "SEA1", "A-1", 7)
    assert (told["kept"], told["bins"], told["malformed"]) == (2, 1, 0)
    told = inventory.read(HEAD + "SEA1,A 1,3,\nSEA1,A  1,5,\n")
    assert [fault["line"] for fault in told["faults"]] == [2, 3]
    assert inventory.records() == {"BIN#SEA1#A-1": 7}


def test_bins_that_have_a_newer_record_are_told(inventory: Inventory) -> None:
    event = inventory.put(KEY, HEAD + "SEA1,A,3,2020-11-22\nSEA1,B,3,2020-11-22\n")
    assert inventory.deliver(event) == inventory.deliver(event) == []
    assert [told["outdated"] for told in inventory.told] == [0, 0], "a retry outdates nothing"
    told = inventory.read(HEAD + "SEA1,A,4,2020-11-21\nSEA1,B,4,2020-11-23\nSEA1,C,4,2020-11-21\n")
    assert (told["kept"], told["bins"], told["outdated"]) == (3, 3, 1)
    assert inventory.records() == {"BIN#SEA1#A": 3, "BIN#SEA1#B": 4, "BIN#SEA1#C": 4}


def test_a_count_is_compared_with_the_record_as_of_then(inventory: Inventory, photo: Callable[..., bytes]) -> None:
    inventory.read(HEAD + "SEA1,A,3,2020-11-22T06:00:00Z\n")
    inventory.world.deliver(inventory.world.put("incoming/SEA1/A/a.jpg", photo()))
    count = inventory.world.only()
    assert (count["recorded_quantity"], count["recorded_from"]) == (3, "record")
    assert count["recorded_as_of"] == "2020-11-22T06:00:00.000000Z"


def test_reads_a_file_of_more_rows_than_are_looked_up_at_once(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[Any]] = []
    look_up = clients.dynamodb().batch_get_item

    def looking(**request: Any) -> Any:
        asked.append(request["RequestItems"]["counts"]["Keys"])
        return look_up(**request)

    monkeypatch.setattr(clients.dynamodb(), "batch_get_item", looking)
    told = inventory.read(HEAD + "".join(f"SEA1,{number},{number % 7},\n" for number in range(250)))
    assert told["kept"] == len(inventory.records()) == 250
    assert [len(keys) for keys in asked] == [100, 100, 50]
    assert all(key.keys() == {"PK", "SK"} for keys in asked for key in keys)


# Files that are not


def test_bad_rows_are_reported_and_good_rows_kept(inventory: Inventory) -> None:
    rows = ["SEA1,A,3,2020-11-22", "SEA1,B,-1,", 'SEA1,"C,4,', "SEA1,D", ",E,1,", "SEA1,F,1,2099-01-01", "SEA1,G,5,"]
    told = inventory.read(HEAD + "\n".join(rows))
    assert inventory.records() == {"BIN#SEA1#A": 3, "BIN#SEA1#G": 5}
    assert (told["kept"], told["malformed"]) == (2, 5)
    assert [fault["line"] for fault in told["faults"]] == [3, 4, 5, 6, 7]
    version = told["file"]["version_id"]
    assert told["report"] == {"bucket": "artifacts", "key": f"reports/records/{KEY}/{version}.json"}
    report = inventory.report(told)
    assert report["faults"] == told["faults"] and report["faults_left_out"] == 0


def test_a_bin_of_which_a_row_is_bad_is_not_stored(inventory: Inventory) -> None:
    told = inventory.read("site,bin,sku,qty\nSEA1,A,x,5\nSEA1,A,y,n/a\nSEA1,B,x,1\n")
    assert inventory.records() == {"BIN#SEA1#B": 1}
    assert (told["kept"], told["bins"], told["malformed"]) == (1, 1, 2)
    assert told["faults"][0] == {"line": 2, "reason": "bin 'A' was not stored: line 3 of it cannot be read"}
    assert told["faults"][1].keys() == {"line", "reason"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no line names a column for bin and expected_quantity; line 1 has no text"),
        ("Lagerplatz;Menge\nB;1\n", "line 1 has 'Lagerplatz', 'Menge'. Name the columns site, bin"),
        (
            b"site,bin,stueck\nS,B,1\n",
            "no line names a column for expected_quantity; line 1 has 'site', 'bin', 'stueck'",
        ),
        (b"SEA1,B,1\n", "line 1 has 'SEA1', 'B', '1'"),
        (b"site,bin,expected_quantity,site\nS,B,1,S\n", "site may be any of the columns 'site', 'site'; keep one"),
        (b"bin,qty,quantity\nB,1,1\n", "expected_quantity may be any of the columns 'qty', 'quantity'"),
        (b"PK\x03\x04...", "the file is an Excel workbook or another archive; save the table as CSV UTF-8"),
        (b"x" * 100_000, "no line names a column"),
        (HEAD, "the file has no rows"),
    ],
    ids=range(9),
)
def test_a_csv_file_without_its_columns_is_reported(inventory: Inventory, data: bytes, reason: str) -> None:
    told = inventory.read(data)
    assert (told["kept"], told["malformed"]) == (0, 1)
    assert reason in told["faults"][0]["reason"] and told["faults"][0]["line"] == 0


def test_a_file_of_which_nothing_is_kept_has_an_event_and_a_metric_of_its_own(
    inventory: Inventory, capsys: pytest.CaptureFixture[str]
) -> None:
    inventory.read(HEAD + "SEA1,A,3,\nSEA1,B,-1,\n")
    assert inventory.refused == [] and '"RecordFilesRefused":[0.0]' in capsys.readouterr().out
    told = inventory.read(HEAD + "SEA1,B,-1,\n")
    assert inventory.refused == [told] and '"RecordFilesRefused":[1.0]' in capsys.readouterr().out


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"3",
        b"\xff\xfe\xfd",
        b"[" * 100_000,
        b'{"expected_quantity": -3}',
        b'{"expected_quantity": 3.5}',
        b'{"expected_quantity": true}',
        b'{"expected_quantity": "three"}',
        b'{"expected_quantity": "1.000"}',
        b'{"expected_quantity": NaN}',
        b'{"expected_quantity": 3, "as_of": "yesterday"}',
        b'{"expected_quantity": 3, "as_of": 1795342503}',
        b'{"expected_quantity": ' + b"9" * 9000 + b"}",
        b'{"BIN_FCSKU_DATA": {}}',
    ],
    ids=range(15),
)
def test_a_json_file_that_says_no_quantity_is_reported(inventory: Inventory, data: bytes) -> None:
    told = inventory.read(data, "records/SEA1/A.json")
    assert (told["kept"], told["malformed"], inventory.records()) == (0, 1, {})
    reason = inventory.report(told)["faults"][0]["reason"]
    assert reason.startswith("not a record in JSON: ") or "which may be 1 or 1000" in reason


def test_a_folder_that_the_console_makes_is_no_file(inventory: Inventory) -> None:
    assert inventory.deliver(inventory.put("records/SEA1/", "")) == []
    assert (
        inventory.told == inventory.refused == []
        and inventory.world.s3.list_objects_v2(Bucket="artifacts")["KeyCount"] == 0
    )
    assert inventory.read("x", "records/SEA1/")["malformed"] == 1


@pytest.mark.parametrize(
    ("folder", "sites", "site"),
    [
        ("", [], "default"),
        ("", ["SEA1"], "SEA1"),
        ("", ["AUS2", "SEA1"], None),
        ("AUS2/", ["AUS2", "SEA1"], "AUS2"),
        ("sea1/", ["AUS2", "SEA1"], "SEA1"),
        ("", ["SEA1", "sea1"], "SEA1"),
        ("sea1/", ["SEA1", "sea1"], "SEA1"),
        ("NEW/", [], "NEW"),
        ("daily/", ["SEA1"], None),  # a site, or a folder for something else?
        ("2026/11/", ["SEA1"], "SEA1"),
        ("2026/11/", ["AUS2", "SEA1"], None),
    ],
)
def test_a_file_without_a_column_for_the_site(
    inventory: Inventory, folder: str, sites: list[str], site: str | None
) -> None:
    for name in sites:
        inventory.put(f"incoming/{name}/A/a.jpg", b"x")
    told = inventory.read("bin,qty\nA,1\n", f"records/{folder}a.csv")
    assert inventory.records() == ({f"BIN#{site}#A": 1} if site else {})
    assert [item["site"] for item in inventory.world.items("RECORD")] == ([site] if site else [])
    if site is None:
        assert "there are photographs of " in told["faults"][0]["reason"]


@pytest.mark.parametrize("key", ["records/A.json", "records/a/b/c.json", "records/SEA1/A.xlsx"])
def test_a_key_that_fits_no_pattern_is_reported(inventory: Inventory, key: str) -> None:
    told = inventory.read("{}", key)
    assert "expected records/<site>/<bin>.json or records/*.csv" in told["faults"][0]["reason"]


def test_a_report_of_the_longest_key_has_a_key(inventory: Inventory) -> None:
    told = inventory.read("{}", "records/" + "📦" * 254)
    assert told["report"]["key"].startswith("reports/records/sha256-")
    assert inventory.report(told)["malformed"] == 1


def test_a_file_that_is_too_large_is_not_read(inventory: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_file, "LARGEST", 100)
    monkeypatch.setattr(clients.s3(), "get_object", lambda **_: pytest.fail("downloaded"))
    told = inventory.read("x" * 101)
    assert told["faults"][0]["reason"] == "the file has 101 bytes; at most 100 are read"


def test_a_version_that_is_gone_is_reported(inventory: Inventory) -> None:
    event = inventory.put(KEY, HEAD)
    version = event["detail"]["object"]["version-id"]
    inventory.s3.delete_object(Bucket="images", Key=KEY, VersionId=version)
    assert inventory.deliver(event) == []
    assert "gone" in inventory.told[0]["faults"][0]["reason"]


def test_a_report_names_some_thousands_of_faults_and_counts_all(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_file, "MOST_FAULTS", 50)
    told = inventory.read(HEAD + "📦\n" * 60 + "SEA1,A,1,\n")
    assert (told["malformed"], told["kept"], len(told["faults"])) == (60, 1, 5)
    report = inventory.report(told)
    assert (len(report["faults"]), report["faults_left_out"]) == (50, 10)


# Rows, whatever is in them

plain = st.text(st.characters(exclude_characters='\r\n",\x1a', exclude_categories=["Cs"]), max_size=12)
ids = st.text(st.characters(categories=["L", "N"], include_characters="#%-"), min_size=1, max_size=12).filter(
    lambda text: text.strip("#") not in ("", "NV")  # what spreadsheets write for lost ids
)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2026, 11, 22)).map(lambda moment: moment.isoformat() + "Z")
good_rows = st.tuples(ids, ids, st.integers(0, 999_999_999).map(str), st.one_of(st.just(""), moments)).map(",".join)
bad_rows = st.one_of(
    st.tuples(ids, ids, st.integers(max_value=-1).map(str), st.just("")).map(",".join),
    st.tuples(ids, ids, st.floats().filter(lambda number: not number.is_integer()).map(str), st.just("")).map(",".join),
    st.tuples(ids, ids, st.just("1"), st.just("soon")).map(",".join),
    # A cell of an apostrophe alone is empty: Excel writes one before a text.
    st.tuples(ids, ids, st.just("1"), st.just(""), plain.filter(lambda text: text.strip(" '"))).map(",".join),
    ids.map(lambda text: f'"{text}'),
    st.just("x" * 9000),
)
some_rows = st.lists(st.one_of(good_rows.map(lambda row: (True, row)), bad_rows.map(lambda row: (False, row))))


SETTING = Setting(UPLOADED, UTC, lambda: "the only site")


def sheet(data: bytes, setting: Setting = SETTING) -> list[Row | Fault]:
    return list(Sheet(io.BytesIO(data), setting).rows())


def records(data: bytes | str, zone: tzinfo = UTC, **wanted: str) -> tuple[dict[str, int], list[tuple[int, str]]]:
    """The quantity of each bin, and line and reason of each fault."""
    names: Any = wanted
    setting = Setting(UPLOADED, zone, lambda: "the only site", Wanted(names))
    opened = Sheet(io.BytesIO(data.encode() if isinstance(data, str) else data), setting)
    found = list(merge(opened.rows(), setting, opened.conventions, comma_groups=opened.comma_groups))
    return (
        {one.bin: one.quantity for one in found if not isinstance(one, Fault)},
        sorted((one.line, one.reason) for one in found if isinstance(one, Fault)),
    )


@given(some_rows, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_every_row_is_kept_or_reported_under_its_line(
    rows: list[tuple[bool, str]], newline: str, with_mark: bool
) -> None:
    text = newline.join([HEAD.strip(), *(row for _, row in rows)])
    found = sheet(text.encode("utf-8-sig" if with_mark else "utf-8"))
    assert [isinstance(one, Row) for one in found] == [good for good, _ in rows]
    assert [one.line for one in found] == list(range(2, len(rows) + 2))


@given(st.binary(max_size=400))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    found = sheet(HEAD.encode() + data + b"\nSEA1,A,3,\n")
    assert isinstance(found[-1], Row) and (found[-1].bin, found[-1].quantity) == ("A", Reading(3, 3))


@given(st.permutations(["site", "bin", "expected_quantity", "as_of", "note", ""]))
def test_columns_stand_in_any_order_and_unknown_ones_are_named(names: list[str]) -> None:
    row = {"site": "SEA1", "bin": "A", "expected_quantity": "3", "as_of": "2020-01-01", "note": "x"}
    row[""] = "y" if names[-1] else ""  # what is beyond the last name may have moved there
    text = ",".join(name.upper() for name in names) + "\n" + ",".join(row[name] for name in names)
    opened = Sheet(io.BytesIO(text.encode()), SETTING)
    (found,) = opened.rows()
    assert isinstance(found, Row) and (found.line, found.site, found.bin, found.quantity) == (
        2,
        "SEA1",
        "A",
        Reading(3, 3),
    )
    assert found.as_of.first == datetime(2020, 1, 1, tzinfo=UTC)
    assert opened.columns.unused == ("NOTE",)


def test_a_record_may_be_a_little_ahead_of_the_upload() -> None:
    ahead = [(UPLOADED + timedelta(minutes=minutes)).isoformat() for minutes in (4, 6)]
    kept, faults = records(HEAD + "".join(f"S,B{number},1,{moment}\n" for number, moment in enumerate(ahead)))
    assert kept == {"B0": 1} and "later than the file's upload" in faults[0][1]


# Which record stands in the end

tellings = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=6)


@given(st.data(), tellings)
def test_any_order_and_repeats_give_one_record(data: Any, told: list[tuple[int, int]]) -> None:
    """`told`: files in the order of their uploads, each with the day that it is as of and its quantity."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.sleep", lambda _: None)
        standing: dict[str, Any] = {}

        class Dynamo:
            """One item, put as the condition says."""

            class exceptions:
                class ConditionalCheckFailedException(Exception):
                    pass

            def put_item(self, *, Item: Any, ExpressionAttributeValues: Any, **_: Any) -> None:
                as_of, order = (ExpressionAttributeValues[name]["S"] for name in (":as_of", ":o"))
                there = (standing["as_of"]["S"], standing["order"]["S"]) if standing else ("", "")
                if there >= (as_of, order):
                    raise self.exceptions.ConditionalCheckFailedException
                standing.update(Item)

        deliveries = data.draw(st.permutations(list(range(len(told))) * 2))
        for number in deliveries:
            day, quantity = told[number]
            item = {"PK": "BIN#S#B", "SK": "RECORD", "expected_quantity": quantity}
            item |= {"as_of": f"2026-11-2{day}T00:00:00.000000Z", "order": f"{number:03}"}
            Table("counts", Dynamo()).put_record(item)  # type: ignore[arg-type]
        last = max(range(len(told)), key=lambda number: (told[number][0], number))
        assert standing["expected_quantity"] == {"N": str(told[last][1])}


def test_an_older_record_replaces_no_newer_one_and_a_replay_changes_nothing(inventory: Inventory) -> None:
    newer = inventory.put(KEY, HEAD + "S,A,3,2020-11-22\n")
    older = inventory.put(KEY, HEAD + "S,A,9,2020-11-21\n")
    inventory.deliver(newer)
    item = inventory.world.only("RECORD")
    inventory.deliver(older, newer, older)
    assert inventory.world.only("RECORD") == item and item["expected_quantity"] == 3


def test_of_records_as_of_one_time_the_last_told_stands(inventory: Inventory) -> None:
    first = inventory.put(KEY, HEAD + "S,A,2,2020-11-22\n")
    assert inventory.deliver(first) == []
    assert inventory.records() == {"BIN#S#A": 2}
    second = inventory.put(KEY, HEAD + "S,A,7,2020-11-22\n")
    second["detail"]["object"]["sequencer"] = "01"
    inventory.deliver(second, first)
    assert inventory.records() == {"BIN#S#A": 7}


def test_a_record_put_by_hand_gives_way_to_one_as_of_later(inventory: Inventory) -> None:
    by_hand: dict[str, Any] = {"PK": "BIN#S#A", "SK": "RECORD", "expected_quantity": 4}
    hand = boto3.resource("dynamodb").Table("counts").put_item
    hand(Item=by_hand | {"as_of": "2020-11-22T00:00:00.000000Z"})
    inventory.read(HEAD + "S,A,1,2020-11-21\n")
    assert inventory.records() == {"BIN#S#A": 4}
    inventory.read(HEAD + "S,A,1,2020-11-23\n")
    assert inventory.records() == {"BIN#S#A": 1}
    hand(Item=by_hand)
    inventory.read(HEAD + "S,A,2,2020-11-20\n")
    assert inventory.records() == {"BIN#S#A": 2}


# Faults that pass


@pytest.mark.parametrize(
    ("client", "operation", "code", "status"),
    [
        (clients.s3, "HeadObject", "403", 403),
        (clients.s3, "GetObject", "SlowDown", 503),
        (clients.dynamodb, "BatchGetItem", "ProvisionedThroughputExceededException", 400),
        (clients.dynamodb, "PutItem", "InternalServerError", 500),
        (clients.dynamodb, "PutItem", "ProvisionedThroughputExceededException", 400),
        (clients.s3, "PutObject", "SlowDown", 503),
        (clients.events, "PutEvents", "InternalException", 500),
    ],
)
def test_what_may_pass_goes_back_to_the_queue(
    inventory: Inventory, refuse: Any, client: Any, operation: str, code: str, status: int
) -> None:
    event = inventory.put(KEY, HEAD + "SEA1,A,3,\nSEA1,B,-1,\n")
    recover = refuse(client(), operation, code, status)
    assert inventory.deliver(event) == [0]
    assert inventory.told == [] or operation == "PutEvents"
    recover()
    assert inventory.deliver(event, tries=2) == []
    assert inventory.records() == {"BIN#SEA1#A": 3} and inventory.told[-1]["malformed"] == 1


def test_an_event_that_the_bus_refused_is_sent_again(inventory: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    event = inventory.put(KEY, HEAD)
    with monkeypatch.context() as patch:
        refused = {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "ThrottlingException"}]}
        patch.setattr(clients.events(), "put_events", lambda **_: refused)
        assert inventory.deliver(event) == [0]
    assert inventory.deliver(event) == [] and len(inventory.told) == 1


@pytest.mark.slow
def test_a_file_that_runs_out_of_time_gets_further_with_every_try(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = inventory.put(KEY, HEAD + "".join(f"SEA1,{number},1,2020-11-22\n" for number in range(350)))
    put: list[str] = []
    put_item = clients.dynamodb().put_item

    def counting(**request: Any) -> Any:
        put.append(request["Item"]["PK"]["S"])
        return put_item(**request)

    monkeypatch.setattr(clients.dynamodb(), "put_item", counting)
    looks = iter([LIMIT_MS, LIMIT_MS, record.WORST_SECONDS * 1000])
    assert inventory.deliver(event, remaining_ms=lambda: next(looks)) == [0]
    assert len(inventory.records()) == len(put) == 200 and inventory.told == []
    assert inventory.deliver(event, tries=2) == []
    assert len(inventory.records()) == len(put) == 350 and inventory.told[0]["kept"] == 350


def test_waits_longer_after_every_try(inventory: Inventory, refuse: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(clients.sqs(), "change_message_visibility", lambda **request: asked.append(request))
    refuse(clients.s3(), "HeadObject", "503", 503)
    event = inventory.put(KEY, HEAD)
    for tries in (1, 3, 9):
        inventory.deliver(event, tries=tries)
    assert [request["VisibilityTimeout"] for request in asked] == [30, 120, queues.LONGEST_WAIT]
    assert asked[0] == {"QueueUrl": inventory.world.queue, "ReceiptHandle": "receipt-0", "VisibilityTimeout": 30}


@pytest.mark.parametrize("body", ["", "{}", "no JSON", '{"detail": {"object": {}}}'])
def test_what_is_no_event_about_a_file_ends_in_the_dead_letter_queue(inventory: Inventory, body: str) -> None:
    assert inventory.deliver(body) == [0]


def test_the_sample_event_is_understood(inventory: Inventory) -> None:
    sample = json.loads((ROOT / "events" / "record.json").read_bytes())["Records"][0]
    event = json.loads(sample["body"])
    stored = inventory.put(event["detail"]["object"]["key"], HEAD + "SEA1,A,3,\n")["detail"]["object"]
    event["detail"]["bucket"]["name"] = "images"
    event["detail"]["object"]["version-id"] = stored["version-id"]
    assert inventory.deliver(event) == [] and inventory.records() == {"BIN#SEA1#A": 3}


def test_the_largest_file_fits_the_memory() -> None:
    """A report holds at most MOST_FAULTS reasons, each bounded, whatever a row holds."""
    fault = sheet((HEAD + "S,B," + "9" * 8000 + ",\n").encode())[0]
    assert isinstance(fault, Fault) and len(fault.reason) < 200
    _, faults = records(
        "bin,sku,qty,as_of\n" + "".join(f"{'B' * 99},{'P' * 99}{n},{n},2026-01-0{n}\n" for n in range(1, 9))
    )
    assert len(faults) == 8 and all(len(reason) < 600 for _, reason in faults)
    assert record_file.MOST_FAULTS * 600 <= 6_000_000 and files.LARGEST_JSON <= record_file.LARGEST
