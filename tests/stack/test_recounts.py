"""From a photograph that differs from its record to a corrected record, by people who may do nothing else."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.request import urlopen

import pytest
from bintally.labels import log

from local.stack import Local
from tests.stack.people import Person
from tests.stack.releasing import inbox_of

SITE = "RCT1"


def claimed(someone: Person, *words: str) -> Any:
    return json.loads(someone.does("recount", "claim", "--site", SITE, "--json", *words))


def enter(someone: Person, bin_: Any, *words: str) -> str:
    return someone.does(
        "recount", "enter", "--site", SITE, "--bin", bin_["bin"], "--seen", bin_["image_version"], *words
    )


@pytest.fixture
def differing(user: Any, photograph: Callable[..., bytes]) -> int:
    """A bin whose record differs from the model's count by 3; the count."""
    key = f"incoming/{SITE}/P-1/a.jpg"
    user.upload(key, photograph(57))
    (item,) = user.wait_counts(key)
    count = int(item["count"])
    record(user, count + 3)
    return count


def record(user: Any, quantity: int) -> None:
    user.s3.put_object(
        Bucket=user.bucket,
        Key=f"records/{SITE}/P-1.json",
        Body=json.dumps({"expected_quantity": quantity}).encode(),
    )


@pytest.fixture
def told(stack: Local) -> Iterator[Callable[[], list[Any]]]:
    """What a warehouse system has been told of the bin by now."""
    heard: dict[str, Any] = {}
    with inbox_of(stack, "Bin Discrepancy Detected", "Bin Discrepancy Resolved") as queue:

        def by_now() -> list[Any]:
            messages = stack.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
            for detail in (event for message in messages if "detail" in (event := json.loads(message["Body"]))):
                if (detail["detail"]["site"], detail["detail"]["bin"]) == (SITE, "P-1"):
                    heard[detail["detail"]["id"]] = detail
            return list(heard.values())

        yield by_now


def test_from_a_difference_to_a_corrected_record(
    person: Callable[..., Person],
    user: Any,
    stack: Local,
    told: Callable[[], list[Any]],
    differing: int,
) -> None:
    ana, ben = person("ana", "counter"), person("ben", "counter")
    max_ = person("max", "counter", "manager")

    def listed() -> Any:
        return json.loads(max_.does("recount", "list", "--site", SITE, "--why", "--json"))

    (waiting,) = user.wait_for("a review", lambda: listed() or None)
    assert waiting["recorded_quantity"] == differing + 3
    assert waiting["count"] == differing
    shown = json.loads(ana.does("recount", "list", "--site", SITE, "--json"))
    assert [each.keys() for each in shown] == [{"site", "bin", "captured_at", "image_version", "digest"}]
    ana.is_refused("recount", "list", "--site", SITE, "--why", permission="execute-api:Invoke")
    ana.is_refused("recount", "list", "--site", "OTHER", permission="execute-api:Invoke")
    ana.is_refused("recount", "export", "--site", SITE, permission="execute-api:Invoke")

    first = claimed(ana, "--save", "bin.jpg")
    assert (ana.folder / "bin.jpg").read_bytes().startswith(b"\xff\xd8")
    code, _, errors = ben.run("recount", "claim", "--site", SITE, "--bin", "P-1")
    assert (code, errors) == (1, "Error: another person is counting this bin\n")
    with urlopen(first["photograph"], timeout=30) as answer:
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert not [name for name in answer.headers if name.lower().startswith("x-amz-meta")]
    found = str(differing + 1)
    assert enter(ana, first, "--reason", "pick_error", "--note", "=2+3", found) == "Stored.\n"
    assert ana.does("recount", "undo", "--site", SITE, "--bin", "P-1").startswith("Taken back. Bin P-1 is yours again")
    assert enter(ana, first, "--reason", "pick_error", "--note", "=2+3", found) == "Stored.\n"
    assert enter(ben, claimed(ben), found) == "Stored.\n"
    assert listed() == []
    (row,) = csv.DictReader(io.StringIO(max_.does("recount", "export", "--site", SITE)))
    assert (row["bin"], row["counted_quantity"], row["difference"]) == ("P-1", found, "-2")
    assert (row["counted_by"], row["note"]) == ("user/ana; user/ben", "")
    (row,) = json.loads(max_.does("recount", "export", "--site", SITE, "--json"))
    assert (row["bin"], row["difference"]) == ("P-1", -2)
    assert max_.does("recount", "audit", "--site", SITE).startswith(f"0 bins of {SITE} were drawn at random")

    record(user, differing + 1)

    def review() -> Any:
        key = {"PK": f"BIN#{SITE}#P-1", "SK": "REVIEW"}
        return user.table.get_item(Key=key, ConsistentRead=True)["Item"]

    user.wait_for("the corrected record", lambda: review()["outcome"] == "RECORD_RIGHT")
    assert listed() == [], "the model still differs from the record, but people have counted"
    labels = [item for item in user.items() if item["SK"].startswith("RECOUNT#") and item["site"] == SITE]
    assert len(labels) == 3, "one was taken back"

    def learnt() -> list[Any]:
        logged = [
            each for _, few in log.read_log(user.s3, user.outputs["ArtifactsBucket"], datetime.now(UTC)) for each in few
        ]
        return [each for each in logged if (each["site"], each["bin"], each["source"]) == (SITE, "P-1", "person")]

    (label, *_) = user.wait_for("the label of the recount", learnt)
    assert (label["quantity"], label["image"]["version_id"]) == (differing + 1, first["image_version"])

    def heard() -> list[tuple[str, str | None]]:
        return [(each["detail-type"], each["detail"].get("outcome")) for each in told()]

    ended = ("Bin Discrepancy Resolved", "RECORD_RIGHT")
    assert user.wait_for("the events about the bin", lambda: ended in (now := heard()) and now) == [
        ("Bin Discrepancy Detected", None),
        ("Bin Discrepancy Resolved", "RECORD_WRONG"),
        ended,
    ]
