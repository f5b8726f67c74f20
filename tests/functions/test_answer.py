"""The HTTP API: what it answers, and what it never tells a counter."""

import base64
import io
import json
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from bintally import answer
from bintally.answering.problems import Problem
from bintally.answering.requests import caller
from bintally.aws import clients
from bintally.aws.items import bin_key
from bintally.aws.table import Table
from bintally.common.keys import Place
from bintally.reviewing.desk import Desk
from bintally.reviewing.stored import review_key
from PIL import Image

from tests.functions.conftest import BUCKET, ROOT
from tests.functions.test_reviews import NOON, latest

CONTEXT: Any = SimpleNamespace(
    function_name="answer",
    memory_limit_in_mb=1024,
    invoked_function_arn="arn:aws:lambda:us-east-1:000000000000:function:answer",
    aws_request_id="a request",
)
COUNTER, MANAGER = "/machine/counter/sites/SEA1/", "/machine/manager/sites/SEA1/"
Ask = Callable[..., tuple[int, Any]]


@pytest.fixture
def ask(world: Any, monkeypatch: pytest.MonkeyPatch) -> Ask:
    monkeypatch.setenv("ARTIFACTS_BUCKET", "artifacts")
    world.s3.create_bucket(Bucket="artifacts")

    def make(path: str, body: Any = None, person: str = "ana", **query: str) -> tuple[int, Any]:
        event = json.loads((ROOT / "events" / "answer.json").read_bytes())
        method = "GET" if body is None else "POST"
        event |= {"rawPath": path, "queryStringParameters": query}
        event["requestContext"]["http"] |= {"method": method, "path": path}
        event["requestContext"]["authorizer"]["iam"]["userArn"] = f"arn:aws:iam::123456789012:user/{person}"
        if body is not None:
            event["body"] = body if isinstance(body, str) else json.dumps(body)
        answered = answer.handler(event, CONTEXT)
        said = json.loads(answered["body"])
        if answered["statusCode"] >= 400:
            assert answered["headers"]["Content-Type"] == "application/problem+json"
            assert said["status"] == answered["statusCode"]
        return answered["statusCode"], said

    return make


@pytest.fixture
def photographed(world: Any, photo: Callable[..., bytes]) -> None:
    """A bin whose photograph tells what its record says, in its metadata and in its file."""
    exif = Image.Exif()
    exif[0x010E] = "expected 3"
    key = "incoming/SEA1/P-4/a.jpg"
    put = world.s3.put_object(Bucket=BUCKET, Key=key, Body=photo(exif=exif), Metadata={"expected-quantity": "3"})
    item = latest(put["VersionId"], priority=0.912345)
    item["image"] |= {"bucket": BUCKET, "key": key}
    table = Table.named("counts")
    table.put(item)
    Desk(table).follow(item["PK"], NOON)


def entry(claimed: Any, quantity: int, **more: Any) -> Any:
    return {
        "id": f"e{quantity}",
        "bin": claimed["bin"],
        "image_version": claimed["image_version"],
        "quantity": quantity,
    } | more


@pytest.mark.usefixtures("photographed")
def test_two_people_count_blind_and_a_manager_exports(ask: Ask, world: Any) -> None:
    for person in ("ana", "ben"):
        status, claimed = ask(COUNTER + "claims", {}, person)
        assert status == 200
        assert ask(COUNTER + "recounts", entry(claimed, 5, id=person, reason="PICK_ERROR"), person) == (
            200,
            {"id": person, "stored": True, "late": False},
        )
    assert ask(COUNTER + "claims", {}, "cyd")[1]["code"] == "NOTHING_LEFT"
    status, found = ask(MANAGER + "differences")
    (row,) = found["differences"]
    assert (row["bin"], row["recorded_quantity"], row["counted_quantity"], row["difference"]) == ("P-4", 3, 5, 2)
    assert row["counted_by"] == ["user/ana", "user/ben"]
    assert ask(MANAGER + "trail", bin="p-4")[1]["trail"][0]["action"] == "OPENED"


@pytest.mark.usefixtures("photographed")
def test_a_counter_is_told_nothing_before_the_review_is_resolved(ask: Ask, world: Any) -> None:
    told = [ask("/machine/viewer/sites/SEA1/recounts"), ask(COUNTER + "recounts")]
    told.append(ask(COUNTER + "claims", {}))
    claimed = told[-1][1]
    told.append(ask(COUNTER + "recounts", entry(claimed, 4)))
    told.append(ask(COUNTER + "undos", {"bin": "P-4"}))
    told.append(ask(COUNTER + "recounts", entry(claimed, 4, id="again")))
    told.append(ask(COUNTER + "claims", {}, "ben"))
    told.append(ask(COUNTER + "releases", {"bin": "P-4"}, "ben"))
    assert all(status == 200 for status, _ in told)
    known = {"site", "bin", "captured_at", "image_version", "digest", "claimed_until", "photograph"}
    known |= {"id", "stored", "late", "undone", "released"}
    for _, said in told:
        for each in said.get("recounts", [said]):
            assert each.keys() <= known
    text = json.dumps([{**said, "photograph": ""} for _, said in told])
    for secret in (
        "0.9123",
        "912345",
        "SECOND",
        "FIRST",
        "priority",
        "quantity",
        "user/ana",
        "probab",
        "evidence",
        "direction",
        "likely",
        "expected",
        "audit",
    ):
        assert secret not in text

    response = world.s3.get_object(Bucket="artifacts", Key=f"display/{'d' * 64}.jpg")
    copy = response["Body"].read()
    assert response["Metadata"] == {}
    assert b"expected" not in copy and not Image.open(io.BytesIO(copy)).getexif()
    assert f"/display/{'d' * 64}.jpg?" in claimed["photograph"]
    assert "X-Amz-Signature" in claimed["photograph"]


@pytest.mark.parametrize("way", [COUNTER, MANAGER])
def test_the_queue_page_by_page(ask: Ask, way: str) -> None:
    table = Table.named("counts")
    for number in range(7):
        item = latest(f"v{number}", bin_=f"BIN#SEA1#P-{number}", priority=0.5 + (number % 3) / 10)
        table.put(item)
        Desk(table).follow(item["PK"], NOON)
    whole = ask(way + "recounts")[1]
    assert len(whole["recounts"]) == 7 and whole["cursor"] is None
    found: list[Any] = []
    cursor: dict[str, str] = {}
    while True:
        status, page = ask(way + "recounts", limit="3", **cursor)
        assert status == 200
        found += page["recounts"]
        if page["cursor"] is None:
            break
        cursor = {"cursor": page["cursor"]}
        last = bin_key(Place("SEA1", found[-1]["bin"], ""))
        if len(found) == 3:  # what is resolved meanwhile neither repeats nor hides the others
            review = table.get(review_key(last), consistent=True)
            assert review is not None
            table.put({name: value for name, value in review.items() if name != "review_key"})
    assert found == whole["recounts"]
    for wrong in ("", "!", "x" * 2000, "_w"):
        assert ask(way + "recounts", cursor=wrong)[0] in (400, 404)


@pytest.mark.usefixtures("world")
def test_the_order_of_the_list_tells_managers_alone_what_matters_most(ask: Ask) -> None:
    table = Table.named("counts")
    for number in range(5):
        item = latest(f"v{number}", bin_=f"BIN#SEA1#P-{number}", priority=0.5 + number / 10)
        table.put(item)
        Desk(table).follow(item["PK"], NOON)
    bins = [f"P-{number}" for number in range(5)]
    for limit in ("1", "3", "50"):
        listed = [
            [each["bin"] for each in ask(way + "recounts", limit=limit)[1]["recounts"]] for way in (COUNTER, MANAGER)
        ]
        assert listed == [bins[: int(limit)], bins[::-1][: int(limit)]]


@pytest.mark.usefixtures("photographed")
def test_a_bin_whose_photograph_was_deleted_holds_nobody_up(ask: Ask, world: Any) -> None:
    for version in world.s3.list_object_versions(Bucket=BUCKET)["Versions"]:
        world.s3.delete_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])
    status, claimed = ask(COUNTER + "claims", {})
    assert (status, claimed["bin"], claimed["photograph"]) == (200, "P-4", None)
    said = {"id": "e", "bin": "P-4", "image_version": claimed["image_version"], "outcome": "CANNOT_COUNT"}
    assert ask(COUNTER + "recounts", said)[0] == 200
    assert ask(COUNTER + "claims", {})[1]["code"] == "NOTHING_LEFT"


@pytest.mark.usefixtures("photographed")
def test_a_manager_is_told_what_to_expect_and_what_was_found(ask: Ask) -> None:
    _, found = ask(MANAGER + "recounts")
    (review,) = found["recounts"]
    assert found["expected_wrong"] == round(1 - review["p_record"], 1)
    assert review["direction"] == "more" and review["likely_size"] > 1
    for person in ("ana", "ben"):
        ask(COUNTER + "recounts", entry(ask(COUNTER + "claims", {}, person)[1], 5, id=person), person)
    _, found = ask(MANAGER + "recounts")
    expected = round(1 - review["p_record"], 1)
    assert found["so_far"] == {"recounted": 1, "expected_wrong": expected, "found_wrong": 1}
    _, audit = ask(MANAGER + "audit")
    assert (audit["recounted"], audit["records_wrong"]["share"], audit["wrong_share"]) == (0, None, 0.05)


@pytest.mark.usefixtures("photographed")
@pytest.mark.parametrize("path", ["differences", "trail", "audit"])
def test_what_tells_more_needs_a_manager(ask: Ask, path: str) -> None:
    status, said = ask(COUNTER + path, bin="P-4")
    assert (status, said["code"]) == (403, "FORBIDDEN")


@pytest.mark.usefixtures("photographed")
@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("claims", "[", 400, "WRONG_REQUEST"),
        ("claims", "[]", 400, "WRONG_REQUEST"),
        ("claims", "[" * 60_000, 400, "WRONG_REQUEST"),
        ("claims", {"bin": 7}, 400, "WRONG_REQUEST"),
        ("claims", {"bin": ""}, 400, "WRONG_REQUEST"),
        ("claims", {"bin": "P-9"}, 404, "UNKNOWN"),
        ("claims", {"skip": "P-4"}, 400, "WRONG_REQUEST"),
        ("claims", {"bin": "x" * 1_000_000}, 413, "TOO_LARGE"),
        ("claims", {"site": "AUS2"}, 400, "WRONG_REQUEST"),
        ("releases", {"bin": "P-4"}, 409, "NOT_CLAIMED"),
        ("undos", {"bin": "P-4"}, 409, "NOTHING_TO_UNDO"),
        ("elsewhere", {}, 404, "UNKNOWN"),
    ],
)
def test_bad_requests_are_told_what_is_wrong(ask: Ask, path: str, body: Any, status: int, code: str) -> None:
    answered, said = ask(COUNTER + path, body)
    assert (answered, said["code"]) == (status, code)
    assert said["detail"]


NO_ENTRIES: list[Any] = [
    *({"quantity": -1}, {"quantity": 1.5}, {"quantity": "5"}, {"quantity": True}, {"quantity": None}),
    *({"quantity": 10**30}, {"quantity": []}, {"quantity": float("nan")}, {"id": ""}, {"id": 5}, {"id": "x" * 65}),
    *({"reason": "BORED"}, {"outcome": "RECORD_RIGHT", "quantity": None}, {"note": "x" * 501}, {"image_version": None}),
]


@pytest.mark.usefixtures("photographed")
@pytest.mark.parametrize("wrong", NO_ENTRIES)
def test_entries_that_are_none_change_nothing(ask: Ask, wrong: Any) -> None:
    claimed = ask(COUNTER + "claims", {})[1]
    status, said = ask(COUNTER + "recounts", entry(claimed, 5) | wrong)
    assert (status, said["code"]) in {(400, "WRONG_ENTRY"), (400, "WRONG_REQUEST")}
    assert ask(COUNTER + "recounts", entry(claimed, 5))[0] == 200


@pytest.mark.usefixtures("photographed")
def test_two_people_and_one_bin(ask: Ask) -> None:
    assert ask(COUNTER + "claims", {"bin": "P-4"})[0] == 200
    status, said = ask(COUNTER + "claims", {"bin": "P-4"}, "ben")
    assert (status, said["code"]) == (409, "CLAIMED")
    assert "ana" not in json.dumps(said)


@pytest.mark.usefixtures("photographed")
@pytest.mark.parametrize("site", ["SEA1", "~" + base64.urlsafe_b64encode(b"SEA1").decode(), "sea1"])
def test_a_site_is_named_as_it_is_or_in_base64url(ask: Ask, site: str) -> None:
    assert len(ask(f"/machine/viewer/sites/{site}/recounts")[1]["recounts"]) == 1


def test_people_have_the_role_and_the_sites_of_their_groups() -> None:
    claims = {"token_use": "id", "cognito:username": "ana", "cognito:groups": "[counter viewer site:sea1 site:~w6Q]"}
    event: dict[str, Any] = {
        "rawPath": "/api/sites/SEA1/recounts",
        "requestContext": {"authorizer": {"jwt": {"claims": claims}}},
    }
    ana = caller(event)
    assert (ana.person.name, ana.role, ana.person.manager) == ("ana", "counter", False)
    ana.check_site("SEA1")
    ana.check_site("Ä")
    for refused in (partial(ana.check_site, "RCT1"), partial(ana.check, "manager")):
        with pytest.raises(Problem, match=r"not your site|needs the role"):
            refused()
    claims["cognito:groups"] = "[manager site:*]"
    caller(event).check_site("RCT1")
    for wrong in ({"token_use": "access"}, {"cognito:groups": "[site:SEA1]"}):
        event["requestContext"] = {"authorizer": {"jwt": {"claims": claims | wrong}}}
        with pytest.raises(Problem):
            caller(event)


@pytest.mark.parametrize(
    "path",
    ["/machine/god/sites/SEA1/recounts", "/machine/viewer/sites/~!/recounts", "/machine/viewer/sites/../recounts"],
)
def test_no_other_role_and_no_path_tricks(ask: Ask, path: str) -> None:
    assert ask(path)[0] in (400, 404)


@pytest.mark.parametrize("code", ["ThrottlingException", "ProvisionedThroughputExceededException"])
def test_a_busy_table_asks_to_try_again(ask: Ask, refuse: Any, code: str) -> None:
    refuse(clients.dynamodb(), "Query", code)
    status, said = ask("/machine/viewer/sites/SEA1/recounts")
    assert (status, said["code"]) == (503, "TRY_AGAIN")
