"""What people read of bins over the API: page by page, in bounded reads, and blind where they count."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from bintally.answering.bins import sites
from bintally.answering.copies import THUMBNAIL
from bintally.answering.requests import person
from bintally.aws import clients, items
from bintally.aws.table import Table
from bintally.common.keys import Place, utc
from bintally.reviewing.changes import Services, review_batch
from bintally.reviewing.desk import Desk, Person
from bintally.reviewing.locked import LockedTrail
from PIL import Image

from tests.functions.conftest import BUCKET, table
from tests.functions.test_answer import Ask, ask, entry  # noqa: F401
from tests.functions.test_reviews import NOON, latest

VIEWER, COUNTER, MANAGER = (f"/machine/{role}/sites/SEA1/" for role in ("viewer", "counter", "manager"))
SECRETS = {
    *("status", "reason", "flags", "count", "is_minimum", "confidence", "probabilities", "recorded_quantity"),
    *("p_record", "discrepancy", "priority", "direction", "model_version", "record", "review", "trail", "order"),
}


def put_bin(
    bin_: str, *photographs: int, site: str = "SEA1", record: int | None = 3, **more: Any
) -> list[dict[str, Any]]:
    """A bin with a photograph for each of these hours, of which the last is LATEST."""
    table, made = Table.named("counts"), []
    for hour in photographs:
        item = latest(f"v{hour}") | more
        when = utc(datetime(2026, 11, 22, hour, tzinfo=UTC))
        place = Place(site, bin_, "")
        item |= {"PK": items.bin_key(place), "site": site, "bin": bin_, "captured_at": when, "order": f"{when}#v{hour}"}
        item["image"] = item["image"] | {"bucket": BUCKET, "key": f"incoming/{site}/{bin_}/{hour}.jpg"}
        item["image"] |= {"version_id": f"v{hour}", "digest": f"{hour:02}" * 32}
        if record is None:
            item = {name: value for name, value in item.items() if not name.startswith("recorded")}
        made.append(item | {"SK": f"COUNT#{when}#{hour:016}"})
        table.put(made[-1])
    table.put({**made[-1], "SK": "LATEST", "site_key": items.site_key(site)})
    return made


@pytest.fixture
def read(world: Any) -> Iterator[list[tuple[float, int]]]:
    """Capacity units and items of every read of the table."""
    seen: list[tuple[float, int]] = []

    def ask_for_units(params: Any, **_: Any) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"

    def note(parsed: Any, **_: Any) -> None:
        used = parsed.get("ConsumedCapacity", {})
        units = (
            used["CapacityUnits"] if isinstance(used, dict) and used else sum(u["CapacityUnits"] for u in used or [])
        )
        seen.append((units, len(parsed.get("Items", parsed.get("Responses", {}).get("counts", [])))))

    events = clients.dynamodb().meta.events
    for operation in ("Query", "BatchGetItem"):
        events.register(f"provide-client-params.dynamodb.{operation}", ask_for_units)
        events.register(f"after-call.dynamodb.{operation}", note)
    yield seen
    for operation in ("Query", "BatchGetItem"):
        events.unregister(f"provide-client-params.dynamodb.{operation}", ask_for_units)
        events.unregister(f"after-call.dynamodb.{operation}", note)


def pass_claim_length(bin_: str) -> None:
    """As if the bin's review had ended long ago."""
    table().update_item(
        Key={"PK": bin_, "SK": "REVIEW"},
        UpdateExpression="SET resolved_at = :at",
        ExpressionAttributeValues={":at": utc(NOON)},
    )


def names_in(said: Any) -> set[str]:
    """Every member's name, however deep."""
    if isinstance(said, dict):
        return said.keys() | {name for each in said.values() for name in names_in(each)}
    return {name for each in said for name in names_in(each)} if isinstance(said, list) else set()


def test_bins_come_page_by_page_and_by_prefix(ask: Ask) -> None:  # noqa: F811
    for bin_ in ("P-1", "P-2", "P-3", "Q#1", "Q%2"):
        put_bin(bin_, 9)
    put_bin("P-9", 9, site="SEA1#2")
    put_bin("P-8", 9, site="SEA")
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        status, said = ask(MANAGER + "bins", limit="2", **cursor)
        assert status == 200 and len(said["bins"]) <= 2
        seen += [each["bin"] for each in said["bins"]]
        if said["cursor"] is None:
            break
        cursor = {"cursor": said["cursor"]}
    assert seen == ["P-1", "P-2", "P-3", "Q#1", "Q%2"]
    assert [each["bin"] for each in ask(MANAGER + "bins", prefix="p-")[1]["bins"]] == ["P-1", "P-2", "P-3"]
    assert [each["bin"] for each in ask(MANAGER + "bins", prefix="q#")[1]["bins"]] == ["Q#1"]
    assert ask(MANAGER + "bins", prefix="Z") == (200, {"bins": [], "cursor": None})


@pytest.mark.parametrize("cursor", ["", "=", "ä", "Ly8", "A" * 4000, "____"])
@pytest.mark.parametrize("path", ["bins", "bins/P-1"])
def test_a_cursor_leads_nowhere_else(ask: Ask, path: str, cursor: str) -> None:  # noqa: F811
    put_bin("P-1", 9)
    put_bin("Z-1", 9, site="OTHER")
    status, said = ask(MANAGER + path, cursor=cursor)
    assert status in (200, 400)
    assert "Z-1" not in json.dumps(said)


def test_the_history_of_a_bin_comes_page_by_page(ask: Ask) -> None:  # noqa: F811
    put_bin("a bin/1", *range(1, 8))
    path = MANAGER + "bins/~YSBiaW4vMQ"
    first = ask(path, limit="5")[1]
    assert [each["captured_at"][11:13] for each in first["photographs"]] == ["07", "06", "05", "04", "03"]
    rest = ask(path, limit="5", cursor=first["cursor"])[1]
    assert [each["captured_at"][11:13] for each in rest["photographs"]] == ["02", "01"]
    assert rest["cursor"] is None
    assert first["photographs"][0]["count"] == 5 and first["photographs"][0]["recorded_quantity"] == 3
    assert ask(MANAGER + "bins/none")[1]["code"] == "UNKNOWN"


@pytest.mark.parametrize("role", ["viewer", "counter"])
def test_who_counts_is_told_of_a_bin_only_what_was_resolved(ask: Ask, role: str) -> None:  # noqa: F811
    """Neither before a review, nor in one, nor after it once the photograph or the record has changed."""
    put_bin("P-1", 8, 9)
    pk, table = items.bin_key(Place("SEA1", "P-1", "")), Table.named("counts")
    desk, page = Desk(table), f"/machine/{role}/sites/SEA1/bins/P-1"

    def blind() -> bool:
        status, said = ask(page)
        assert status == 200 and len(said["photographs"]) >= 2
        assert names_in(ask(f"/machine/{role}/sites/SEA1/bins")[1]) <= {
            "bins",
            "bin",
            "captured_at",
            "thumbnail",
            "cursor",
        }
        assert said["blind"] == (names_in(said) & SECRETS == set())
        return bool(said["blind"])

    assert blind()
    desk.follow(pk, NOON)
    assert blind()
    for name in ("ana", "ben"):
        desk.claim(pk, Person(f"user/{name}"), NOON)
        assert blind()
        claimed = table.get({"PK": pk, "SK": "REVIEW"}, consistent=True)
        assert claimed is not None
        said = {"bin": "P-1", "image_version": claimed["image"]["version_id"]}
        assert ask(COUNTER + "recounts", entry(said, 5, id=name), name)[0] == 200
        assert blind(), "it can be taken back"
        if name == "ben":
            pass_claim_length(pk)
        assert blind() == (name == "ana")
    resolved = ask(page)[1]
    assert resolved["trail"][0]["action"] == "OPENED" and resolved["review"]["outcome"] == "RECORD_WRONG"
    assert [each["count"] for each in resolved["photographs"]] == [5, 5]

    newer = put_bin("P-1", 10)  # not followed yet
    assert blind()
    table.put({**newer[0], "SK": "LATEST", "site_key": items.site_key("SEA1"), "recorded_quantity": 4})
    assert blind()


@pytest.mark.parametrize("outcome", ["CANNOT_COUNT", "RETAKE"])
def test_a_bin_that_nobody_could_count_is_not_told(ask: Ask, outcome: str) -> None:  # noqa: F811
    put_bin("P-1", 9)
    pk = items.bin_key(Place("SEA1", "P-1", ""))
    Desk(Table.named("counts")).follow(pk, NOON)
    assert ask(COUNTER + "claims", {"bin": "P-1"})[0] == 200
    said = {"id": "e", "bin": "P-1", "image_version": "v9", "outcome": outcome}
    assert ask(COUNTER + "recounts", said)[0] == 200
    pass_claim_length(pk)
    assert ask(COUNTER + "bins/P-1")[1]["blind"]


@pytest.mark.parametrize("another", [(), ("claims",), ("claims", "releases"), ("claims", "recounts")], ids="-".join)
def test_who_has_counted_cannot_find_out_whether_it_was_the_record(ask: Ask, another: tuple[str, ...]) -> None:  # noqa: F811
    """Whatever they ask, and whatever another person does meanwhile, the answers are the same: they could take their
    number back and try another."""

    def told(record: int, site: str) -> list[Any]:
        for bin_, quantity in (("P-1", record), ("P-2", 3)):
            put_bin(bin_, 9, site=site, recorded_quantity=quantity)
            Desk(Table.named("counts")).follow(items.bin_key(Place(site, bin_, "")), NOON)
        base = f"/machine/counter/sites/{site}/"
        seen = {"bin": "P-1", "image_version": "v9"}
        assert ask(base + "claims", {"bin": "P-1"})[0] == 200
        answers = [ask(base + "recounts", entry(seen, 3, id=site))]
        for path in another:
            said = entry(seen, 3, id=site + "ben") if path == "recounts" else {"bin": "P-1"}
            ask(base + path, said, "ben")
        for path in ("recounts", "overview", "bins", "bins/P-1"):
            answers.append(ask(base + path))
        for path, body in (
            ("claims", {"bin": "P-1"}),
            ("recounts", entry(seen, 4, id=site + "again")),
            ("releases", {"bin": "P-1"}),
            ("undos", {"bin": "P-1"}),
        ):
            answers.append(ask(base + path, body))
        return [json.loads(json.dumps(each).replace(site, "")) for each in answers]

    right, wrong = told(3, "SEA1"), told(4, "SEA2")
    assert right == wrong
    assert [each["bin"] for each in right[1][1]["recounts"]] == ["P-2"] and right[2][1]["waiting"] == 1
    assert right[-1] == [200, {"undone": True}]


def test_a_record_that_came_after_the_review_is_not_told(ask: Ask) -> None:  # noqa: F811
    put_bin("P-1", 9, recorded_order="2026#1")
    pk, table = items.bin_key(Place("SEA1", "P-1", "")), Table.named("counts")
    desk = Desk(table)
    desk.follow(pk, NOON)
    desk.claim(pk, Person("user/ana"), NOON)
    assert ask(COUNTER + "recounts", entry({"bin": "P-1", "image_version": "v9"}, 3))[0] == 200
    pass_claim_length(pk)
    assert not ask(COUNTER + "bins/P-1")[1]["blind"]
    table.put(
        {"PK": pk, "SK": "RECORD", "site": "SEA1", "bin": "P-1", "expected_quantity": 7, "order": "1"}
        | {"as_of": "2027-01-01T00:00:00.000000Z"}
    )
    assert ask(COUNTER + "bins/P-1")[1]["blind"]
    assert ask(MANAGER + "bins/P-1")[1]["record"]["expected_quantity"] == 7
    table.put({"PK": pk, "SK": "RECORD", "site": "SEA1", "bin": "P-1", "expected_quantity": "seven"})
    assert ask(COUNTER + "bins/P-1")[0] == 200, "a record that nobody can read is none"


def test_copies_and_thumbnails_are_made_once(ask: Ask, world: Any, photo: Callable[..., bytes]) -> None:  # noqa: F811
    (item,) = put_bin("P-1", 9)
    put = world.s3.put_object(Bucket=BUCKET, Key=item["image"]["key"], Body=photo(size=(2000, 1000)))
    for key in ({"SK": item["SK"]}, {"SK": "LATEST", "site_key": items.site_key("SEA1")}):
        Table.named("counts").put(item | key | {"image": item["image"] | {"version_id": put["VersionId"]}})
    name = f"display/{item['image']['digest']}"
    (shown,) = ask(COUNTER + "bins/P-1")[1]["photographs"]
    assert f"/{name}.jpg?" in shown["photograph"] and f"/{name}-{THUMBNAIL}.jpg?" in shown["thumbnail"]
    sizes = {}
    for size in ("", f"-{THUMBNAIL}"):
        stored = world.s3.get_object(Bucket="artifacts", Key=f"{name}{size}.jpg")
        assert stored["Metadata"] == {}
        sizes[size] = Image.open(stored["Body"]).size
    assert sizes == {"": (1600, 800), f"-{THUMBNAIL}": (240, 120)}
    world.s3.delete_object(Bucket=BUCKET, Key=item["image"]["key"], VersionId=put["VersionId"])
    assert ask(COUNTER + "bins")[1]["bins"][0]["thumbnail"].startswith("http")


def test_a_photograph_that_is_gone_does_not_hide_the_others(ask: Ask) -> None:  # noqa: F811
    put_bin("P-1", 8, 9)
    said = ask(COUNTER + "bins/P-1")[1]
    assert [each["photograph"] for each in said["photographs"]] == [None, None]


def test_the_sites_are_those_of_the_caller(ask: Ask, world: Any) -> None:  # noqa: F811
    records = [
        {"dynamodb": {"NewImage": items.wire(put_bin("P-1", 9, site=site)[0] | {"SK": "LATEST"})}}
        for site in ("SEA1", "sea1 ", "AUS2", "default")
    ]
    services = Services(Desk(Table.named("counts")), clients.events(), LockedTrail(clients.s3(), ""))
    for record in records * 2:  # one by one: moto's transactions copy the table that other threads write
        review_batch(services, [record])
    found = [each["site"] for each in ask("/machine/viewer/sites")[1]["sites"]]
    assert [site.strip().upper() for site in found] == ["AUS2", "DEFAULT", "SEA1"]


def test_a_site_of_ones_own_is_listed_before_its_first_photograph(world: Any) -> None:
    table = Table.named("counts")
    for site in ("SEA1", "AUS2"):
        table.put(items.site_item(site))
    groups = "[manager site:new2 site:sea1]"
    caller = person({"token_use": "id", "cognito:username": "ana", "cognito:groups": groups})
    assert [each["site"] for each in sites(table, caller)["sites"]] == ["new2", "SEA1"]


@pytest.mark.parametrize("path", ["bins", "bins/P-00001"])
def test_a_page_reads_the_same_whatever_the_number_of_bins(ask: Ask, read: Any, path: str) -> None:  # noqa: F811
    used = []
    for more in (range(30), range(30, 90)):
        for number in more:
            put_bin(f"P-{number:05}", 9)
        read.clear()
        assert ask(MANAGER + path)[0] == 200
        used.append(list(read))
    assert used[0] == used[1]
    assert max(items for _, items in used[0]) <= 26


def test_a_bin_of_many_photographs_reads_one_page(ask: Ask, read: Any) -> None:  # noqa: F811
    used = []
    for hours in (range(0, 12), range(12, 24)):
        put_bin("P-1", *hours)
        read.clear()
        ask(MANAGER + "bins/P-1")
        used.append([items for _, items in read])
    assert used[0] == used[1]
