"""Who is let in where, asked of every route as every kind of person; and that no answer to who counts blind says more
than it may. Routes come from the description, which another test compares with the handler's own."""

import json
from fnmatch import fnmatchcase
from typing import Any

import pytest
from bintally import answer
from bintally.answering import bulk
from bintally.aws import items
from bintally.aws.table import Table
from bintally.common.keys import Place
from bintally.common.parts import spread
from bintally.reviewing.desk import Desk, Person
from bintally.reviewing.rules import Entry, Reason
from bintally.reviewing.scores import score_key

from deployed.api import encode_id
from tests.functions.asking import CONTEXT, Claims, claims_of, event_of, example, operations, send, text_of
from tests.functions.conftest import BUCKET, ROOT
from tests.functions.test_answer import ask  # noqa: F401
from tests.functions.test_models import registry  # noqa: F401
from tests.functions.test_reviews import NOON, latest
from tests.stack.people import policy

ROLES = ("viewer", "counter", "manager")
OPERATIONS = [each for each in operations() if each[1].startswith("/api/")]
OF_SITE = [each for each in OPERATIONS if "{site}" in each[1]]


@pytest.fixture(autouse=True)
def stack(world: Any, ask: Any, registry: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Environment, buckets, registry; nobody reads records that are sent, so nobody waits for them."""
    monkeypatch.setattr(bulk, "PATIENCE_SECONDS", 0.0)


def asked(method: str, path: str, operation: Any, claims: Claims | None, site: str = "SEA1") -> tuple[int, str]:
    where, body, query = example(path, operation, site)
    answered = send(method, where, claims, body, query)
    said = json.loads(answered["body"])
    return answered["statusCode"], said.get("code", "")


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_do_what_its_role_may(role: str) -> None:
    refused = (403, "FORBIDDEN")
    for method, path, operation in OPERATIONS:
        allowed = ROLES.index(role) >= ROLES.index(operation["x-role"])
        here = asked(method, path, operation, claims_of(role, "SEA1"))
        everywhere = asked(method, path, operation, claims_of(role, "*"))
        assert (everywhere == refused) == (not allowed), (path, everywhere)
        assert (here == refused) == (not allowed or "x-all-sites" in operation), (path, here)
        assert everywhere[0] not in (401, 500), (path, everywhere)


@pytest.mark.parametrize("role", ROLES)
def test_nobody_is_let_into_another_site(role: str) -> None:
    for method, path, operation in OF_SITE:
        for site in ("AUS2", "~QVVTMg", "sea2"):
            assert asked(method, path, operation, claims_of(role, "SEA1"), site) == (403, "FORBIDDEN"), path
        assert asked(method, path, operation, claims_of(role), "SEA1") == (403, "FORBIDDEN"), (path, "of no site")


@pytest.mark.parametrize("role", ROLES)
def test_a_person_of_two_sites_is_let_into_both_and_into_no_third(role: str) -> None:
    claims = claims_of(role, "SEA1", "~QVVTMg")  # AUS2
    for method, path, operation in OF_SITE:
        allowed = ROLES.index(role) >= ROLES.index(operation["x-role"])
        for site in ("SEA1", "AUS2"):
            found = asked(method, path, operation, claims, site)
            assert (found == (403, "FORBIDDEN")) == (not allowed), (path, site, found)
        assert asked(method, path, operation, claims, "BER3") == (403, "FORBIDDEN"), path


def asked_by_machine(role: str, method: str, path: str, operation: Any, *, signed: bool = True) -> tuple[int, str]:
    where, body, query = example(path.replace("/api/", f"/machine/{role}/", 1), operation)
    event = event_of(method, where, None, body, query)
    event["requestContext"]["authorizer"] = {"iam": {"userArn": "arn:aws:iam::1:user/ana"}} if signed else None
    answered = answer.handler(event, CONTEXT)
    return answered["statusCode"], json.loads(answered["body"]).get("code", "")


@pytest.mark.parametrize("role", ROLES)
def test_each_machine_may_do_what_the_role_of_its_path_may(role: str) -> None:
    for method, path, operation in OPERATIONS:
        allowed = ROLES.index(role) >= ROLES.index(operation["x-role"])
        found = asked_by_machine(role, method, path, operation)
        assert (found == (403, "FORBIDDEN")) == (not allowed), (path, found)
        assert found[0] not in (401, 500), (path, found)
        assert asked_by_machine(role, method, path, operation, signed=False) == (401, "UNAUTHORIZED"), path
        assert asked_by_machine(f"{role}s", method, path, operation) == (404, "UNKNOWN"), path


@pytest.mark.parametrize(
    ("policy_of", "granted"),
    [("counter", {("GET", "viewer"), ("POST", "counter")}), ("manager", {("GET", "manager"), ("POST", "manager")})],
)
def test_the_policy_of_a_machine_lets_it_into_its_site_alone(policy_of: str, granted: set[tuple[str, str]]) -> None:
    """Which site a machine may ask about, IAM decides, by the path. The policies are those of docs/operations.md."""
    statements = json.loads(policy(policy_of, "bintally"))["Statement"]
    allowed = [
        pattern
        for statement in statements
        if statement["Action"] == "execute-api:Invoke"
        for pattern in ([statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"])
    ]
    entered = set()
    for method, path, operation in OPERATIONS:
        for role in ROLES:
            for site in ("RCT1", "RCT10", "AUS2", "*"):
                where, _, _ = example(path.replace("/api/", f"/machine/{role}/", 1), operation, site)
                arn = f"arn:aws:execute-api:us-east-1:000000000000:a1b2c3/$default/{method}{where}"
                if any(fnmatchcase(arn, pattern) for pattern in allowed):
                    assert site == "RCT1" and "{site}" in path and (method, role) in granted, arn
                    entered.add((method, role))
    assert entered == granted


def test_the_policy_of_an_inventory_person_of_a_site_reads_its_keys_alone() -> None:
    """The emulator does not check LeadingKeys. The keys are those that `bintally counts --site` asks for."""
    _, reads, _ = json.loads(policy("inventory-of-site", "bintally"))["Statement"]
    patterns = reads["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]
    assert {resource.rpartition("/")[2] for resource in reads["Resource"]} == {"bintally-CountsTable-*", "site"}

    def keys(site: str) -> list[str]:
        listed = [*spread(items.site_key(site), 2), items.rejected_key(site), score_key(site, "", "")["PK"]]
        return [items.bin_key(Place(site, "P-1", "")), *listed]

    assert all(any(fnmatchcase(key, pattern) for pattern in patterns) for key in keys("RCT1"))
    for site in ("RCT10", "RCT", "AUS2", "X#RCT1"):
        assert not [key for key in keys(site) for pattern in patterns if fnmatchcase(key, pattern)], site


@pytest.mark.parametrize(
    ("status", "strangers"),
    [
        (
            401,
            [
                None,
                {},
                {**claims_of("manager", "*"), "token_use": "access"},
                {**claims_of("manager", "*"), "token_use": "refresh"},
            ],
        ),
        (403, [claims_of(role, "*") for role in ("", "Manager", "managers", "site:manager", "manager,x")]),
    ],
)
def test_who_is_nobody_here(status: int, strangers: list[Claims | None]) -> None:
    for method, path, operation in OPERATIONS:
        for claims in strangers:
            assert asked(method, path, operation, claims)[0] == status, (path, claims)


@pytest.mark.parametrize("group", ["site:~!", "site:", "site:..", "site:~", "site:%2e", "site:~_w", "sites:AUS2"])
def test_a_malformed_group_gives_nothing_and_takes_nothing(group: str) -> None:
    claims = claims_of("counter", "SEA1")
    claims["cognito:groups"] = f"[counter {group} site:SEA1]"
    answered = send("GET", "/api/me", claims)
    assert json.loads(answered["body"]) == {"name": "ana", "role": "counter", "sites": ["SEA1"]}
    assert send("GET", "/api/sites/SEA1/recounts", claims)["statusCode"] == 200
    assert send("GET", "/api/sites/AUS2/recounts", claims)["statusCode"] == 403


@pytest.mark.parametrize(
    ("sites", "told"),
    [((), []), (("*",), None), (("w", "~w4Q"), ["w", "Ä"]), (("B", "*", "A"), None), (("b", "A"), ["A", "b"])],
)
def test_me(sites: tuple[str, ...], told: Any) -> None:
    assert json.loads(send("GET", "/api/me", claims_of("viewer", *sites))["body"])["sites"] == told


TRICKS = (
    *("/api", "/api/", "/api//me", "/api/../machine/manager/me", "/api/sites/../me", "/api/sites//recounts"),
    *("/api/sites/./recounts", "/api/sites/SEA1/../AUS2/recounts", "/api/sites/SEA1%2F..%2FAUS2/recounts"),
    *("/api/sites/~/recounts", "/api/sites/~../recounts", "/api/sites/SEA1/bins/..", "/api/sites/SEA1/nothing"),
    *("//api/me", "/api/machine/manager/sites/AUS2/recounts", "/api/api/sites/AUS2/recounts", "/api/session"),
    *("/api/sites/\x00/recounts", "/api/sites/<script>/recounts", "/api/sites/" + "x" * 5000 + "/recounts"),
)


def test_path_tricks_lead_nowhere() -> None:
    for path in TRICKS:
        answered = send("GET", path, claims_of("manager", "SEA1"))
        assert answered["statusCode"] in (400, 403, 404), (path, answered["body"])
        assert answered["headers"]["Content-Type"] == "application/problem+json"
        assert answered["headers"]["X-Content-Type-Options"] == "nosniff"


def test_other_methods_do_nothing() -> None:
    for method in ("PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"):
        assert send(method, "/api/sites/SEA1/recounts", claims_of("manager", "*"))["statusCode"] in (404, 405)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"bin": "' + "x" * 1_000_000 + '"}', 413),
        ("[]", 400),
        ("null", 400),
        ("[" * 50_000, 400),
        ('{"__proto__": 1}', 400),
        ("\ud800", 400),
        (r'{"bin": "\ud800"}', 400),
        (r'{"note": "half \ud83d"}', 400),
        ('{"bin": "=1+1", "site": "AUS2"}', 400),
    ],
)
def test_bodies_that_are_none(body: str, status: int) -> None:
    for method, path, operation in OPERATIONS:
        if "application/json" in operation.get("requestBody", {}).get("content", {}):
            where, _, _ = example(path, operation)
            assert send(method, where, claims_of("manager", "*"), body)["statusCode"] == status, path


# What counters are not told

SAID = ("471104", "581305", "ben-the-first", "13579", "note of ben", "HIDDEN", "SECOND", "2026-11-01-abc")
"""The recorded quantity, another's number, name, a probability, another's note and reason, the stage, and the version
of the model that counted. The priority and what it is made of are added as the stack reckons them."""
FORBIDDEN = {
    *("count", "is_minimum", "expected_capped", "confidence", "probabilities", "recorded_quantity", "recorded_from"),
    *(
        "p_record",
        "discrepancy",
        "priority",
        "direction",
        "likely_size",
        "record",
        "review",
        "trail",
        "entries",
        "stage",
    ),
    *("waiting_by_stage", "expected_wrong", "so_far", "quantity", "audits", "claim"),
}
MODELS = {"listed_models", "one_model", "retrainings"}
"""Of no bin."""


def keys_of(found: Any) -> set[str]:
    if isinstance(found, dict):
        return set(found) | {key for each in found.values() for key in keys_of(each)}
    return {key for each in found for key in keys_of(each)} if isinstance(found, list) else set()


@pytest.fixture
def secret(world: Any) -> list[str]:
    """P-4, of which ben has entered a number, so that it waits for a second person; P-5, which waits for a first."""
    table = Table.named("counts")
    desk = Desk(table)
    for bin_ in ("P-4", "P-5"):
        place = Place("SEA1", bin_, "")
        key = f"incoming/SEA1/{bin_}/a.jpg"
        photograph = (ROOT / "samples" / "AUS2" / "P-1-C204" / "20260914T081900Z.jpg").read_bytes()
        put = world.s3.put_object(Bucket=BUCKET, Key=key, Body=photograph, Metadata={"expected-quantity": "471104"})
        item = latest(put["VersionId"], bin_=items.bin_key(place), recorded=471104, priority=0.912345)
        item |= {"p_record": 0.0876543, "probabilities": [0.1357911, 0.1, 0.1, 0.1, 0.1, 0.3642089, 0.1]}
        item["image"] |= {"bucket": BUCKET, "key": key, "digest": bin_[-1] * 64}
        table.put(item | {"SK": f"COUNT#{item['captured_at']}#{bin_}", "status": "COUNTED"})
        table.put(item | {"site_key": items.site_key("SEA1"), "status": "COUNTED"})
        table.put({"PK": item["PK"], "SK": "RECORD", "site": "SEA1", "bin": bin_, "expected_quantity": 471104})
        desk.follow(item["PK"], NOON)
    ben = Person("ben-the-first")
    bin_ = items.bin_key(Place("SEA1", "P-4", ""))
    claimed = desk.claim(bin_, ben, NOON)
    entry = Entry("id-of-ben", ben.name, NOON, 581305, reason=Reason.HIDDEN, note="note of ben")
    assert not desk.enter(bin_, entry, ben, claimed["image"]["version_id"], NOON).late
    review = table.get({"PK": bin_, "SK": "REVIEW"}, consistent=True)
    assert review is not None and review["stage"] == "SECOND"
    reckoned = [str(review[name]).removeprefix("0.") for name in ("priority", "p_record")]
    assert all(len(digits) > 4 for digits in reckoned)
    return [*SAID, *reckoned]


@pytest.mark.parametrize("role", ["viewer", "counter"])
def test_no_answer_tells_a_counter_what_to_expect(secret: list[str], role: str) -> None:
    claims, told = claims_of(role, "SEA1"), []
    for method, path, operation in OPERATIONS:
        for bin_ in ("P-4", "P-5", "P-9"):
            where, body, query = (each.replace("P-4", bin_) if each else each for each in example(path, operation))
            told.append((operation["operationId"], send(method, where or "", claims, body, query or "")))
    read = {name for name, answered in told if answered["statusCode"] == 200}
    assert {"listed", "listed_bins", "one_bin", "overview", "sites", "me"} <= read
    assert role == "viewer" or {"claim", "release"} <= read
    for name, answered in told:
        if name not in MODELS:
            assert not [each for each in secret if each in text_of(answered)], (name, answered)
            assert not FORBIDDEN & keys_of(json.loads(answered["body"])), (name, answered)


def test_a_manager_is_told_so_the_test_above_can_fail(secret: list[str]) -> None:
    claims = claims_of("manager", "SEA1", name="max")
    told = ""
    for method, path, operation in OPERATIONS:
        if method == "GET" and operation["operationId"] not in MODELS:
            where, body, query = example(path, operation)
            told += text_of(send(method, where, claims, body, query))
    assert [each for each in secret if each not in told] == []


# Twenty sites, one stack

TWENTY = [f"DC{number:02d}" for number in range(19)] + ["Übersee 1"]
"""Nineteen plain names, and one that is encoded in paths and keys."""


@pytest.fixture
def twenty(world: Any) -> dict[str, str]:
    """What only a site itself knows, by site: a bin that waits for a recount bears it as its name, and a record."""
    table, marks = Table.named("counts"), {}
    for number, site in enumerate(TWENTY):
        marks[site] = f"ONLY-{number:02d}-KNOWS"
        bin_ = items.bin_key(Place(site, marks[site], ""))
        item = latest(f"v{number}", bin_=bin_, recorded=4, priority=0.9) | {"site": site, "bin": marks[site]}
        item["image"] |= {"bucket": BUCKET, "key": f"incoming/{site}/{marks[site]}/a.jpg", "digest": "d" * 64}
        table.put(item | {"site_key": items.site_key(site), "status": "COUNTED"})
        table.put({"PK": bin_, "SK": "RECORD", "site": site, "bin": marks[site], "expected_quantity": 4})
        table.put(items.site_item(site))
        Desk(table).follow(bin_, NOON)
    return marks


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
def test_of_twenty_sites_everybody_sees_their_own_alone(twenty: dict[str, str], role: str) -> None:
    for site, mark in twenty.items():
        seen, own = "", claims_of(role, encode_id(site))
        for method, path, operation in OPERATIONS:
            where, body, query = (
                each.replace("P-4", mark) if each else each for each in example(path, operation, encode_id(site))
            )
            seen += text_of(send(method, where or "", own, body, query or ""))
        assert {each for each in twenty.values() if each in seen} == {mark}, site
        for other in twenty.keys() - {site}:
            answered = send("GET", f"/api/sites/{encode_id(other)}/recounts", own)
            assert answered["statusCode"] == 403, (other, answered["body"])


@pytest.mark.slow
def test_of_twenty_sites_a_person_of_two_sees_these_two(twenty: dict[str, str]) -> None:
    pair, seen = (TWENTY[3], TWENTY[-1]), ""
    for site in TWENTY:
        for method, path, operation in OPERATIONS:
            if method == "GET" and operation["operationId"] not in MODELS:
                where, body, query = example(path, operation, encode_id(site))
                seen += text_of(send(method, where, claims_of("manager", *map(encode_id, pair)), body, query))
    assert {each for each in twenty.values() if each in seen} == {twenty[site] for site in pair}
