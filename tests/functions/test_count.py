"""The count function from its event to the table: every kind of bad input, and every failure around it."""

import gc
import hashlib
import io
import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import boto3
import pytest
from bintally import count
from bintally.aws import clients, objects, table, telemetry
from bintally.aws.items import assessment
from bintally.common.evidence import weigh
from bintally.counting import count_photograph, images, taken
from bintally.counting.settings import count_settings
from boto3.dynamodb.conditions import Key
from botocore.exceptions import ReadTimeoutError
from botocore.response import StreamingBody
from PIL import Image

PROBABILITIES = [0.04, 0.14, 0.21, 0.31, 0.16, 0.08, 0.06]
KEY = "incoming/SEA1/P-4-B217/2020-11-22T10:15:00Z.jpg"
Photo = Callable[..., bytes]


def test_counts_a_photograph(world: Any, photo: Photo) -> None:
    data = photo()
    event = world.put(KEY, data, expected_quantity="2")
    assert world.deliver(event) == []
    item = world.only()
    detail = event["detail"]["object"]
    assert item["PK"] == "BIN#SEA1#P-4-B217"
    name = "\0".join(("images", KEY, detail["version-id"]))
    assert item["SK"] == f"COUNT#2020-11-22T10:15:00.000000Z#{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    assert item["image"] == {
        "bucket": "images",
        "key": KEY,
        "version_id": detail["version-id"],
        "etag": detail["etag"],
        "sequencer": detail["sequencer"],
        "digest": hashlib.sha256(data).hexdigest(),
    }
    expected = {
        **{"site": "SEA1", "bin": "P-4-B217", "status": "COUNTED", "count": 3, "is_minimum": False},
        **{"expected_capped": Decimal("2.89"), "confidence": Decimal("0.31"), "model_version": "2026-11-22"},
        **{"captured_at": "2020-11-22T10:15:00.000000Z", "recorded_quantity": 2, "discrepancy": True},
        **{"recorded_from": "metadata", **assessment(weigh(PROBABILITIES, 2), 0.05, None)},
        **{"recorded_as_of": item["uploaded_at"]},
    }
    assert {name: item[name] for name in expected} == expected
    assert [float(p) for p in item["probabilities"]] == PROBABILITIES
    assert item["latency_ms"] >= 0 and item["counted_at"] > item["captured_at"] and "flags" not in item
    latest = world.only("LATEST")
    assert latest == item | {"SK": "LATEST", "site_key": "SITE#SEA1"}
    assert world.totals() == {"counted": 1, "rejected": 0}
    assert world.endpoint.asked == [data]


def test_the_index_site_lists_latest_items_only(world: Any, photo: Photo) -> None:
    world.deliver(*(world.put(f"incoming/SEA1/{bin_}/a.jpg", photo()) for bin_ in "aab"))
    found = (
        boto3.resource("dynamodb")
        .Table("counts")
        .query(
            IndexName="site",
            KeyConditionExpression="site_key = :site",
            ExpressionAttributeValues={":site": "SITE#SEA1"},
        )["Items"]
    )
    assert [(item["bin"], item["SK"]) for item in found] == [("a", "LATEST"), ("b", "LATEST")]


@pytest.mark.parametrize(
    ("recorded", "doubtful", "discrepancy", "direction"),
    [("0", True, True, "more"), ("3", False, False, "fewer"), ("40", True, True, "fewer")],
)
def test_compares_with_the_record(
    world: Any, photo: Photo, recorded: str, doubtful: bool, discrepancy: bool, direction: str
) -> None:
    world.deliver(world.put(KEY, photo(), expected_quantity=recorded))
    item = world.only()
    assert (item["evidence"] > 1, item["discrepancy"], item["direction"]) == (doubtful, discrepancy, direction)
    assert (item["p_record"] < Decimal("0.95")) is doubtful
    assert item["priority"] == pytest.approx(1 - item["p_record"], abs=Decimal("1e-6"))


def test_six_or_more_agrees_with_any_greater_record(world: Any, photo: Photo) -> None:
    many = {
        "count": 6,
        "is_minimum": True,
        "probabilities": [0, 0, 0, 0, 0, 0, 1],
        "confidence": 1,
        "expected_capped": 6,
    }
    world.endpoint.answer = json.dumps(many | {"model_version": "v"}).encode()
    world.deliver(world.put(KEY, photo(), expected_quantity="40"))
    item = world.only()
    assert not item["discrepancy"]
    assert item["p_record"] == pytest.approx(Decimal("0.95"), abs=Decimal("0.01")), "41 or 39 look the same"


def test_reads_the_record_item_unless_the_metadata_say(world: Any, photo: Photo) -> None:
    boto3.resource("dynamodb").Table("counts").put_item(
        Item={"PK": "BIN#SEA1#P-4-B217", "SK": "RECORD", "expected_quantity": 4}
    )
    world.deliver(world.put(KEY, photo()))
    assert world.only()["recorded_quantity"] == 4 and "recorded_as_of" not in world.only()
    world.deliver(world.put(KEY, photo(), expected_quantity="1"))
    assert sorted((item["recorded_quantity"], item["recorded_from"]) for item in world.items("COUNT#")) == [
        (1, "metadata"),
        (4, "record"),
    ]


@pytest.mark.parametrize(
    "record",
    [
        *({"expected_quantity": quantity} for quantity in ("four", None, -20, 10**37)),
        *({}, {"expected_quantity": 4, "value": "dear"}),
        *({"expected_quantity": 4, "as_of": as_of} for as_of in ("yesterday", 20261122)),
    ],
)
def test_a_record_that_nobody_can_read_is_none(
    world: Any, photo: Photo, caplog: pytest.LogCaptureFixture, record: dict[str, Any]
) -> None:
    boto3.resource("dynamodb").Table("counts").put_item(Item={"PK": "BIN#SEA1#P-4-B217", "SK": "RECORD", **record})
    assert world.deliver(world.put(KEY, photo())) == []
    assert world.only()["status"] == "COUNTED" and "recorded_quantity" not in world.only()
    assert [line.getMessage() for line in caplog.records].count("unreadable record") == 1


@pytest.mark.parametrize("text", ["three", "-1", "2.5", "", "9" * 30])
def test_flags_an_unreadable_record(world: Any, photo: Photo, text: str) -> None:
    world.deliver(world.put(KEY, photo(), expected_quantity=text))
    assert world.only()["flags"] == ["expected_quantity_unreadable"]
    assert "recorded_quantity" not in world.only()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lambda photo: b"", "empty"),
        (lambda photo: b"only text", "not a JPEG, PNG or WebP image"),
        (lambda photo: photo()[:-900], "truncated"),
        (lambda photo: photo("PNG").replace(b"IDAT", b"IDAT\0\0\0", 1), "PNG image is truncated or corrupt"),
    ],
)
def test_rejects_what_is_no_photograph(world: Any, photo: Photo, data: Any, reason: str) -> None:
    event = world.put(KEY, data(photo))
    assert world.deliver(event, event) == []
    item = world.only()
    assert item["status"] == "REJECTED" and reason in item["reason"]
    assert item["image"]["digest"] == hashlib.sha256(data(photo)).hexdigest()
    assert world.endpoint.asked == [] and world.items("LATEST") == []
    assert world.totals() == {"counted": 0, "rejected": 1}


def test_rejects_a_huge_object_without_a_download(world: Any, photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "LARGEST", 1000)
    monkeypatch.setattr(StreamingBody, "iter_chunks", lambda *_: pytest.fail("downloaded"))
    assert world.deliver(world.put(KEY, photo())) == []
    item = world.only()
    assert "at most 1,000 are read" in item["reason"] and "digest" not in item["image"]


@pytest.mark.parametrize(
    "key",
    [
        "incoming/s/b/a b+c%20%#.jpg",
        "incoming/s/📦/🏷️ 3+4.jpg",
        "incoming/s/b/" + "📦" * 220 + ".jpg",
        "incoming/s/" + "#" * 880 + "/a.jpg",
        "incoming/" + "%" * 440 + "/" + "#" * 440 + "/a.jpg",
        "incoming/a+b.jpg",
    ],
)
def test_counts_odd_keys(world: Any, photo: Photo, key: str) -> None:
    assert world.deliver(world.put(key, photo())) == []
    item = world.only()
    assert (item["status"], item["image"]["key"]) == ("COUNTED", key)
    place = key.split("/")
    assert [item["site"], item["bin"]] == (place[1:3] if len(place) == 4 else ["default", "a+b"])
    assert world.only("LATEST")["image"] == item["image"]


def test_never_two_bins_under_one_key(world: Any, photo: Photo) -> None:
    world.deliver(*(world.put(f"incoming/{ids}/x.jpg", photo()) for ids in ("a/b#c", "a#b/c", "a%23b/c", "a/b%23c")))
    assert len({item["PK"] for item in world.items("COUNT#")}) == 4


@pytest.mark.parametrize("key", ["incoming/no-ending", "incoming/a/b/c/d.jpg", "incoming//b/x.jpg"])
def test_rejects_a_key_that_fits_no_pattern(world: Any, photo: Photo, key: str) -> None:
    event = world.put(key, photo())
    assert world.deliver(event, event) == []
    item = world.only()
    assert item["PK"] == "BIN##" and item["status"] == "REJECTED"
    assert "expected incoming/<site>/<bin>/<name> or incoming/<bin>.<ext>" in item["reason"]
    assert world.totals() == {"counted": 0, "rejected": 1}


def test_without_lines_for_photographs_faults_and_metrics_are_still_logged(
    world: Any, photo: Photo, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_LOG_LEVEL", "INFO")  # Lambda's own, which Powertools would follow
    monkeypatch.setenv("COUNT_LOG_LEVEL", "WARN")
    count_settings.cache_clear()
    stream = io.StringIO()
    monkeypatch.setattr(telemetry.logger.registered_handler, "stream", stream)
    event = world.put("incoming/SEA1/P-1/a.jpg", photo())
    broken = world.put("incoming/SEA1/P-2/a.jpg", b"no photograph")
    folder = world.put("incoming/SEA1/", b"")
    capsys.readouterr()
    assert world.deliver(event, event, broken, folder) == []
    assert stream.getvalue() == ""
    assert json.loads(capsys.readouterr().out)["Counted"] == [1.0]
    assert world.deliver("nonsense") == [0]
    assert "postponed" in stream.getvalue()


def test_folder_markers_are_neither_counted_nor_rejected(world: Any) -> None:
    """The console's "Create folder" puts an empty object."""
    events = [world.put(key, b"") for key in ("incoming/SEA1/", "incoming/SEA1/P-1/", "incoming/SEA1_$folder$")]
    for event in events:
        event["detail"]["object"]["size"] = 0
    assert world.deliver(*events) == [] and world.items() == []
    event = world.put("incoming/SEA1/", b"something")
    assert world.deliver(event) == []
    assert world.only()["reason"].startswith("the key ends with a slash; expected incoming/")


@pytest.mark.parametrize(
    "other", ["sea1/p-4-b217", "ＳＥＡ１/Ｐ－４－Ｂ２１７", "SEA1 /P–4–B217", "SEA1/\u200bP-4-B217", "SЕА1/Р-4-В217"]
)
def test_ids_that_look_the_same_are_one_bin(world: Any, photo: Photo, other: str) -> None:
    boto3.resource("dynamodb").Table("counts").put_item(
        Item={"PK": "BIN#SEA1#P-4-B217", "SK": "RECORD", "expected_quantity": 4}
    )
    key = f"incoming/{other}/2020-11-22T10:16:00Z.jpg"
    assert world.deliver(world.put(KEY, photo()), world.put(key, photo())) == []
    assert {item["PK"] for item in world.items("COUNT#")} == {"BIN#SEA1#P-4-B217"}
    assert [item["recorded_quantity"] for item in world.items("COUNT#")] == [4, 4]
    latest = world.only("LATEST")
    assert (latest["image"]["key"], latest["site_key"]) == (key, "SITE#SEA1")
    assert [latest["site"], latest["bin"]] == other.split("/"), "shown as it was written"


def test_rejected_photographs_are_listed_in_the_index(world: Any, photo: Photo) -> None:
    index: Any = boto3.resource("dynamodb").Table("counts")
    for key in (KEY, "incoming/SEA1/P-5/a.jpg", "Incoming/SEA1/P-5/a.jpg"):
        world.deliver(world.put(key, b"text" if key != KEY else photo()))
    for site, listed in {"SEA1": ["incoming/SEA1/P-5/a.jpg"], "": ["Incoming/SEA1/P-5/a.jpg"]}.items():
        condition = Key("site_key").eq(f"REJECTED#{site}")
        found = index.query(IndexName="site", KeyConditionExpression=condition)["Items"]
        assert [item["image"]["key"] for item in found] == listed


def test_a_jpeg_without_its_end_mark_is_counted_and_flagged(world: Any, photo: Photo) -> None:
    world.deliver(world.put(KEY, photo()[:-2]))
    assert (world.only()["status"], world.only()["flags"]) == ("COUNTED", ["end_mark_missing"])


def test_the_time_of_the_photograph_itself_is_the_sites(
    world: Any, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SITE_TIMEZONE", "Asia/Tokyo")
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2020:11:22 10:15:00"
    world.deliver(world.put("incoming/SEA1/P-1/a.jpg", photo(exif=exif)), world.put("incoming/SEA1/P-2/a.jpg", b"no"))
    item, other = sorted(world.items("COUNT#"), key=lambda item: str(item["bin"]))
    assert (item["captured_at"], item["captured_from"]) == ("2020-11-22T01:15:00.000000Z", "exif")
    assert (other["captured_at"], other["captured_from"]) == (other["uploaded_at"], "upload")


def test_a_recorded_quantity_may_be_written_wide(world: Any, photo: Photo) -> None:
    world.s3.put_object(Bucket="images", Key=KEY, Body=photo(), Metadata={"expected_quantity": " 4 "})
    version = world.s3.head_object(Bucket="images", Key=KEY)["VersionId"]
    world.deliver(world.event(KEY, version))
    assert world.only()["recorded_quantity"] == 4


def test_the_same_event_five_times(world: Any, photo: Photo) -> None:
    event = world.put(KEY, photo())
    assert world.deliver(event, event) == [] and world.deliver(event, event, event) == []
    assert len(world.items("COUNT#")) == 1
    assert world.totals() == {"counted": 1, "rejected": 0}


def test_two_versions_in_reverse_order(world: Any, photo: Photo) -> None:
    key = "incoming/SEA1/P-4-B217/front.jpg"
    older = world.put(key, photo(), captured_at="2020-01-01T00:00:00Z")
    newer = world.put(key, photo(), captured_at="2020-01-02T00:00:00Z")
    assert world.deliver(newer, older) == []
    assert len(world.items("COUNT#")) == 2
    assert world.only("LATEST")["image"]["version_id"] == newer["detail"]["object"]["version-id"]


def test_the_sequencer_decides_between_equal_times(world: Any, photo: Photo) -> None:
    key = "incoming/SEA1/P-4-B217/front.jpg"
    times: set[Any] = set()
    while len(times) != 1:  # S3 tells whole seconds: upload again until both fall into one
        versions = [world.put(key, photo(), captured_at="2020-01-01T00:00:00Z") for _ in range(2)]
        ids = [version["detail"]["object"]["version-id"] for version in versions]
        times = {world.s3.head_object(Bucket="images", Key=key, VersionId=id_)["LastModified"] for id_ in ids}
    versions[0]["detail"]["object"]["sequencer"] = "0A1"  # right-padded with zeros it is the greater
    versions[1]["detail"]["object"]["sequencer"] = "0A0FF"
    world.deliver(*versions)
    assert world.only("LATEST")["image"]["version_id"] == ids[0]


def test_a_rejected_photograph_never_replaces_latest(world: Any, photo: Photo) -> None:
    good = world.put("incoming/SEA1/P-4-B217/a.jpg", photo(), captured_at="2020-01-01T00:00:00Z")
    bad = world.put("incoming/SEA1/P-4-B217/b.jpg", b"text", captured_at="2020-01-02T00:00:00Z")
    world.deliver(good, bad)
    assert world.only("LATEST")["image"]["version_id"] == good["detail"]["object"]["version-id"]


def test_the_same_bytes_twice_are_two_counts(world: Any, photo: Photo) -> None:
    world.deliver(world.put(KEY, photo()), world.put(KEY, photo()))
    items = world.items("COUNT#")
    assert len(items) == 2 and len({item["image"]["digest"] for item in items}) == 1


@pytest.mark.parametrize(
    ("text", "flag"), [("2099-01-01T00:00:00Z", "captured_at_after_upload"), ("soon", "captured_at_unreadable")]
)
def test_flags_what_captured_at_cannot_be(world: Any, photo: Photo, text: str, flag: str) -> None:
    world.deliver(world.put(KEY, photo(), captured_at=text))
    item = world.only()
    assert item["flags"] == [flag]
    assert (item["captured_at"], item["captured_from"]) == ("2020-11-22T10:15:00.000000Z", "name"), "the next is used"


def test_counts_behind_a_delete_marker(world: Any, photo: Photo) -> None:
    event = world.put(KEY, photo())
    world.s3.delete_object(Bucket="images", Key=KEY)
    assert world.deliver(event) == []
    assert world.only()["status"] == "COUNTED"


@pytest.mark.parametrize("key", [KEY, "incoming/SEA1/P-4-B217/front.jpg"])
def test_rejects_a_version_that_is_gone(world: Any, photo: Photo, key: str) -> None:
    event = world.put(key, photo())
    world.s3.delete_object(Bucket="images", Key=key, VersionId=event["detail"]["object"]["version-id"])
    assert world.deliver(event, event) == []
    item = world.only()
    assert item["status"] == "REJECTED" and "gone" in item["reason"] and "digest" not in item["image"]


@pytest.mark.parametrize("key", [KEY, "incoming/SEA1/P-4-B217/front.jpg"])
def test_a_counted_version_that_goes_later_stays_one_count(world: Any, photo: Photo, key: str) -> None:
    event = world.put(key, photo(), captured_at="2020-11-01T00:00:00Z")
    world.deliver(event)
    world.s3.delete_object(Bucket="images", Key=key, VersionId=event["detail"]["object"]["version-id"])
    assert world.deliver(event) == []
    assert world.only()["status"] == "COUNTED"
    assert world.totals() == {"counted": 1, "rejected": 0}


def test_a_missing_permission_is_not_taken_for_gone(world: Any, photo: Photo, refuse: Any) -> None:
    event = world.put(KEY, photo())
    refuse(clients.s3(), "GetObject", "AccessDenied", 403)
    assert world.deliver(event) == [0]
    assert world.items() == []


@pytest.mark.parametrize("message", ["not JSON", "{}", "[]", json.dumps({"detail": {"object": None}})])
def test_what_is_no_event_goes_back_and_stops_nothing(world: Any, photo: Photo, message: str) -> None:
    assert world.deliver(message, world.put(KEY, photo())) == [0]
    assert world.only()["status"] == "COUNTED"


@pytest.mark.parametrize(
    "failures",
    [
        *([(400, {"__type": "ValidationError", "message": "Endpoint bintally-serverless not found."})],),
        *([(status, {"message": "no"})] * 3 for status in (500, 503, 429)),
        *([(424, {"__type": "ModelError", "OriginalStatusCode": 503})] * 3,),
        *([(200, {"count": "many"})], [(200, {})]),
    ],
)
def test_waits_for_the_endpoint_and_counts_then(world: Any, photo: Photo, respond: Any, failures: Any) -> None:
    world.endpoint.script = [respond(status, json.dumps(body).encode()) for status, body in failures]
    event = world.put(KEY, photo())
    assert world.deliver(event) == [0]
    assert world.items() == [] and world.endpoint.script == []
    assert world.deliver(event, tries=2) == []
    assert world.only()["status"] == "COUNTED"


def test_waits_for_an_endpoint_that_times_out(world: Any, photo: Photo) -> None:
    world.endpoint.script = [ReadTimeoutError(endpoint_url="e") for _ in range(3)]
    event = world.put(KEY, photo())
    assert world.deliver(event) == [0]
    assert world.deliver(event) == []


@pytest.mark.parametrize(("tries", "seconds"), [(1, 30), (2, 60), (4, 240), (7, 900), (1000, 900)])
def test_waits_longer_after_every_try(
    world: Any, photo: Photo, monkeypatch: pytest.MonkeyPatch, tries: int, seconds: int
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(clients.sqs(), "change_message_visibility", lambda **request: asked.append(request))
    world.deliver("not JSON", world.put(KEY, photo()), tries=tries)
    assert asked == [{"QueueUrl": world.queue, "ReceiptHandle": "receipt-0", "VisibilityTimeout": seconds}]


def test_begins_nothing_that_may_not_end_in_time(world: Any, photo: Photo) -> None:
    assert world.deliver(world.put(KEY, photo()), remaining_ms=119_000) == [0]
    assert world.items() == [] and world.endpoint.asked == []


def test_a_rejected_photograph_leaves_no_memory_to_the_collector(world: Any, photo: Photo) -> None:
    """A decoded picture may take 200 MB: five in a batch that wait for a collection would be too many."""
    decoded: list[weakref.ref[Any]] = []
    load = images._load

    def noting(image: Any, target: tuple[int, int]) -> Any:
        decoded.append(weakref.ref(image))
        return load(image, target)

    event = world.put(KEY, photo()[:-200])
    gc.collect()
    gc.disable()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(images, "_load", noting)
            assert world.deliver(event) == []
        assert decoded and not any(each() for each in decoded)
    finally:
        gc.enable()
    assert world.only()["status"] == "REJECTED"


@pytest.mark.parametrize("operation", ["TransactWriteItems", "BatchGetItem"])
@pytest.mark.parametrize(
    "code", ["ProvisionedThroughputExceededException", "ThrottlingException", "InternalServerError"]
)
def test_table_throttling_counts_once_in_the_end(
    world: Any, photo: Photo, refuse: Any, operation: str, code: str
) -> None:
    accept = refuse(clients.dynamodb(), operation, code)
    event = world.put(KEY, photo())
    assert world.deliver(event) == [0]
    accept()
    assert world.deliver(event, tries=2) == []
    assert world.only()["image"] == world.only("LATEST")["image"]
    assert world.totals() == {"counted": 1, "rejected": 0}


@pytest.mark.parametrize("key", [KEY, "incoming/SEA1/P-4-B217/front.jpg", "incoming/a/b/c/d.jpg", "incoming/front"])
@pytest.mark.parametrize("deleted", [False, True])
def test_told_twice_with_two_times_it_is_one_item(world: Any, photo: Photo, key: str, deleted: bool) -> None:
    event = world.put(key, photo())
    if deleted:
        world.s3.delete_object(Bucket="images", Key=key, VersionId=event["detail"]["object"]["version-id"])
    later = event | {"time": "2026-11-23T11:00:00Z", "id": "another"}
    assert world.deliver(event, later) == world.deliver(later) == []
    assert len(world.items("COUNT#")) == sum(world.totals().values()) == 1


def test_deleted_between_two_deliveries_it_is_one_item(world: Any, photo: Photo) -> None:
    """The time in its metadata can no longer be read, so its second item would have another key."""
    event = world.put(KEY, photo(), captured_at="2019-01-01T00:00:00Z")
    assert world.deliver(event) == []
    world.s3.delete_object(Bucket="images", Key=KEY, VersionId=event["detail"]["object"]["version-id"])
    assert world.deliver(event) == []
    assert world.only()["status"] == "COUNTED" and world.totals() == {"counted": 1, "rejected": 0}


def dated_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The function reads capture times as nine hours later from now on."""

    def read(*given: Any) -> taken.Taken:
        found = taken.taken_at(*given)
        return replace(found, at=found.at + timedelta(hours=9))

    monkeypatch.setattr(count_photograph, "taken_at", read)


def test_two_functions_that_date_it_differently_store_one_item(
    world: Any, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them runs an older release, or other settings. LATEST is the item that was stored first."""
    event = world.put(KEY, photo())
    assert world.deliver(event) == []
    dated_later(monkeypatch)
    assert world.deliver(event) == []
    assert world.only("LATEST")["order"] == world.only()["order"]
    assert world.totals() == {"counted": 1, "rejected": 0}


@pytest.mark.parametrize("moves", [False, True])
def test_a_count_that_someone_removed_is_counted_again(
    world: Any, photo: Photo, moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = world.put(KEY, photo())
    world.deliver(event)
    before = world.only()
    boto3.resource("dynamodb").Table("counts").delete_item(Key={"PK": before["PK"], "SK": before["SK"]})
    if moves:
        dated_later(monkeypatch)
    assert world.deliver(event, event) == []
    assert (world.only()["SK"] == before["SK"]) is not moves


def test_transactions_in_conflict_are_tried_again(world: Any, photo: Photo, refuse: Any) -> None:
    reasons = [{"Code": "None"}, {"Code": "None"}, {"Code": "TransactionConflict"}, {"Code": "None"}]
    refuse(
        *(clients.dynamodb(), "TransactWriteItems", "TransactionCanceledException"),
        times=table.TRIES - 1,
        CancellationReasons=reasons,
    )
    assert world.deliver(world.put(KEY, photo())) == []
    assert world.totals() == {"counted": 1, "rejected": 0}


def test_an_older_photograph_leaves_latest(world: Any, photo: Photo, calls: list[str]) -> None:
    world.deliver(world.put(KEY, photo(), captured_at="2020-11-22T10:00:00Z"))
    event = world.put(KEY, photo(), captured_at="2020-11-22T09:00:00Z")
    newest = world.only("LATEST")
    calls.clear()
    assert world.deliver(event) == []
    assert calls.count("TransactWriteItems") == 2, "with LATEST, and without"
    assert world.only("LATEST") == newest and len(world.items("COUNT#")) == 2
    assert world.totals() == {"counted": 2, "rejected": 0}


def test_an_older_photograph_in_conflict_is_counted(world: Any, photo: Photo, refuse: Any) -> None:
    world.deliver(world.put(KEY, photo(), captured_at="2020-11-22T10:00:00Z"))
    newest = world.only("LATEST")
    codes = ("None", "None", "TransactionConflict", "ConditionalCheckFailed")
    refuse(
        *(clients.dynamodb(), "TransactWriteItems", "TransactionCanceledException"),
        times=1,
        CancellationReasons=[{"Code": code} for code in codes],
    )
    assert world.deliver(world.put(KEY, photo(), captured_at="2020-11-22T09:00:00Z")) == []
    assert world.only("LATEST") == newest
    assert world.totals() == {"counted": 2, "rejected": 0}


def test_a_count_and_latest_are_written_together(world: Any, photo: Photo, refuse: Any) -> None:
    event = world.put(KEY, photo())
    refuse(clients.dynamodb(), "TransactWriteItems", "InternalServerError", times=1)
    assert world.deliver(event) == [0]
    assert world.items("COUNT#") == world.items("LATEST") == []
    assert world.deliver(event, tries=2) == []
    assert {**world.only(), "SK": "LATEST", "site_key": "SITE#SEA1"} == world.only("LATEST")


def test_a_latest_that_an_older_version_left_out_is_made_up(world: Any, photo: Photo) -> None:
    """0.1.0 wrote it after the count, and may have died in between. What was counted first stands."""
    event = world.put(KEY, photo())
    world.deliver(event)
    boto3.resource("dynamodb").Table("counts").delete_item(
        Key={name: world.only("LATEST")[name] for name in ("PK", "SK")}
    )
    world.endpoint.answer = json.dumps(json.loads(world.endpoint.answer) | {"model_version": "newer"}).encode()
    assert world.deliver(event, tries=2) == []
    assert world.only("LATEST")["model_version"] == world.only()["model_version"] == "2026-11-22"
    assert world.totals() == {"counted": 1, "rejected": 0}


def test_one_bad_message_spoils_no_batch(world: Any, photo: Photo, respond: Any) -> None:
    files = [photo(), b"text", photo(quality=50), photo()]
    events = [world.put(f"incoming/SEA1/b/{n}.jpg", data) for n, data in enumerate(files)]
    world.endpoint.about[files[2]] = respond(400, b'{"__type": "ValidationError"}')
    assert world.deliver(*events, "nonsense") == [2, 4]
    assert world.totals() == {"counted": 2, "rejected": 1}


def test_a_whole_batch_may_go_back(world: Any) -> None:
    assert world.deliver("one", "two") == [0, 1]


def emitted(printed: str) -> dict[str, Any]:
    """The embedded metrics of one invocation."""
    (line,) = [line for line in printed.splitlines() if '"_aws"' in line]
    found: dict[str, Any] = json.loads(line)
    return found


def test_tells_alarms_of_low_confidence_and_disagreement(
    world: Any, photo: Photo, respond: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(telemetry.metrics.provider, "service", "count")
    answer = json.loads(world.endpoint.answer)
    low = count.LOW_CONFIDENCE
    files = [photo(quality=quality) for quality in (70, 80, 90)]
    for data, confidence in zip(files, (low - 0.01, low, 0.9), strict=True):
        world.endpoint.about[data] = respond(200, json.dumps(answer | {"confidence": confidence}).encode())
    agrees, differs = str(answer["count"]), str(answer["count"] + 1)
    photographs = [
        world.put("incoming/SEA1/b/0.jpg", files[0], expected_quantity=agrees),
        world.put("incoming/SEA1/b/1.jpg", files[1], expected_quantity=differs),
        world.put("incoming/SEA1/b/2.jpg", files[2]),
        world.put("incoming/SEA1/b/3.jpg", b"text", expected_quantity="1"),
    ]
    assert world.deliver(*photographs) == []
    found = emitted(capsys.readouterr().out)
    assert (found["LowConfidence"], found["Disagreement"]) == ([1, 0, 0], [0, 1])
    assert (found["LowConfidenceExcess"], found["DisagreementExcess"]) == ([0.5, -0.5, -0.5], [-0.75, 0.25])
    (directive,) = found["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"]) == ("Bintally", [["service"]])
    assert found["service"] == "count"
    for name in ("LowConfidence", "LowConfidenceExcess", "Disagreement", "DisagreementExcess"):
        assert {"Name": name, "Unit": "Count"} in directive["Metrics"]


def test_a_repeated_photograph_is_measured_once(world: Any, photo: Photo, capsys: pytest.CaptureFixture[str]) -> None:
    event = world.put(KEY, photo(), expected_quantity="2")
    world.deliver(event)
    assert "LowConfidence" in emitted(capsys.readouterr().out)
    world.deliver(event)
    assert not {"LowConfidence", "Disagreement"} & emitted(capsys.readouterr().out).keys()
