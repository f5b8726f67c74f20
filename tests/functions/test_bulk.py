"""Files of records over the API: stored once, read by `record`, and answered row by row."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from bintally.answering import bulk
from bintally.aws import clients
from bintally.aws.table import Table
from bintally.common.arrivals import Arrival
from bintally.common.zone import site_zone
from bintally.records.record_file import Services, record_file

from deployed.api import encode_id
from tests.functions.conftest import BUCKET, World
from tests.functions.test_answer import Ask, ask  # noqa: F401

MANAGER = "/machine/manager/sites/SEA1/records"
ROWS = "bin,expected_quantity\nP-1,4\nP-2,x\nP-3,0\n"
Reader = Callable[[], int]


@pytest.fixture
def reads(world: World, ask: Ask) -> Reader:  # noqa: F811
    """Reads the files that nobody has read; how many these were."""
    seen: set[str] = set()
    services = Services(clients.s3(), Table.named("counts"), clients.events(), "artifacts", site_zone())

    def read() -> int:
        """The sequencers follow the calls: two uploads of one second would have no order."""
        versions = world.s3.list_object_versions(Bucket=BUCKET, Prefix="records/").get("Versions", [])
        new = [version for version in versions if version["VersionId"] not in seen]
        for version in new:
            seen.add(version["VersionId"])
            when = version["LastModified"]
            record_file(
                services,
                Arrival("", when, BUCKET, version["Key"], version["VersionId"], "", f"{len(seen):04}"),
                lambda: True,
            )
        return len(new)

    return read


@pytest.fixture
def at_work(reads: Reader, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """The record function reads while the answer waits."""
    monkeypatch.setattr("time.sleep", lambda _: reads())
    return reads


@pytest.mark.usefixtures("at_work")
def test_each_row_is_answered_and_a_replay_adds_nothing(ask: Ask, world: World) -> None:  # noqa: F811
    status, said = ask(MANAGER, ROWS, id="one")
    assert status == 200
    assert (said["kept"], said["bins"], said["malformed"]) == (2, 2, 1)
    assert [(row["line"], row["bin"], row["quantity"]) for row in said["records"]] == [(2, "P-1", 4), (4, "P-3", 0)]
    assert [fault["line"] for fault in said["faults"]] == [3] and "'x'" in said["faults"][0]["reason"]
    records = world.items("RECORD")
    assert {item["bin"]: int(item["expected_quantity"]) for item in records} == {"P-1": 4, "P-3": 0}
    assert {item["site"] for item in records} == {"SEA1"}
    assert ask(MANAGER, ROWS, id="one") == (200, said)
    assert ask(MANAGER + "/one") == (200, said)
    assert world.items("RECORD") == records
    assert len(world.s3.list_object_versions(Bucket=BUCKET, Prefix="records/")["Versions"]) == 1
    status, other = ask(MANAGER, ROWS + "P-4,1\n", id="one")
    assert (status, other["code"]) == (409, "ID_TAKEN")


@pytest.mark.usefixtures("at_work")
@pytest.mark.parametrize("id_", [{}, {"id": "one"}])
def test_a_dry_run_or_other_columns_are_no_repeat(ask: Ask, world: World, id_: dict[str, str]) -> None:  # noqa: F811
    """Without an id they are other files; under one id, another is refused and never passes for stored."""
    rows = "a,b\nP-1,4\n"
    columns = "bin=a&expected_quantity=b"
    assert ask(MANAGER, rows, dry_run="true", columns=columns, **id_)[1]["dry_run"] is True
    for other in ({}, {"columns": columns}):
        status, said = ask(MANAGER, rows, **other, **id_)
        assert (status, said.get("code")) == ((409, "ID_TAKEN") if id_ else (200, None))
    assert len(world.items("RECORD")) == (0 if id_ else 1)
    assert ask(MANAGER, rows, dry_run="true", columns=columns, **id_)[1]["dry_run"] is True
    if not id_:
        assert said["kept"] == 1 and ask(MANAGER, rows, dry_run="false", columns=columns)[1] == said


@pytest.mark.usefixtures("at_work")
def test_an_older_identical_file_hides_no_newer_one(
    ask: Ask,  # noqa: F811
    world: World,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def send(quantity: int) -> int:
        assert ask(MANAGER, f"bin,expected_quantity\nP-1,{quantity}\n")[0] == 200
        return int(world.only("RECORD")["expected_quantity"])

    assert (send(4), send(6)) == (4, 6)
    assert send(4) == 6, "a retry of the first, whose client heard nothing"
    monkeypatch.setattr(bulk, "RETRY_TIME", timedelta(seconds=-1))
    assert send(4) == 4
    assert len(world.s3.list_object_versions(Bucket=BUCKET, Prefix="records/")["Versions"]) == 3


@pytest.mark.usefixtures("at_work")
def test_a_file_says_nothing_about_other_sites(ask: Ask, world: World) -> None:  # noqa: F811
    said = ask(MANAGER, "site,bin,expected_quantity\nSEA1,P-1,4\nAUS2,P-1,5\nsea1,P-2,6\n")[1]
    assert (said["kept"], [fault["line"] for fault in said["faults"]]) == (2, [3])
    assert "AUS2" in said["faults"][0]["reason"]
    assert {item["PK"] for item in world.items("RECORD")} == {"BIN#SEA1#P-1", "BIN#SEA1#P-2"}


def test_a_file_that_nobody_has_read_yet_is_not_lost(
    ask: Ask,  # noqa: F811
    reads: Reader,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bulk, "PATIENCE_SECONDS", 0.0)
    assert ask(MANAGER, ROWS, id="slow") == (202, {"id": "slow", "state": "WAITING"})
    assert ask(MANAGER + "/slow")[0] == 202
    assert reads() == 1
    assert ask(MANAGER + "/slow")[1]["kept"] == 2
    assert ask(MANAGER + "/other")[1]["code"] == "UNKNOWN"
    assert ask("/machine/manager/sites/AUS2/records/slow")[1]["code"] == "UNKNOWN"


@pytest.mark.usefixtures("at_work")
@pytest.mark.parametrize("name", ["Zürich/1", "a b", "SEA#1", "..", "日本", "x" * 300])
def test_any_site_can_be_told_about(ask: Ask, world: World, name: str) -> None:  # noqa: F811
    status, said = ask(f"/machine/manager/sites/{encode_id(name)}/records", ROWS)
    assert status == 200
    if "/" in name:
        assert (said["kept"], "no photograph's key" in said["faults"][0]["reason"]) == (0, True)
    else:
        assert {item["site"] for item in world.items("RECORD")} == {name}


@pytest.mark.usefixtures("at_work")
def test_many_faults_are_all_told(ask: Ask) -> None:  # noqa: F811
    said = ask(MANAGER, "bin,expected_quantity\n" + "".join(f"P-{n},x\n" for n in range(300)))[1]
    assert (said["kept"], said["malformed"], len(said["faults"]), said["faults_left_out"]) == (0, 300, 300, 0)


@pytest.mark.usefixtures("at_work")
def test_columns_may_be_chosen_and_a_dry_run_stores_nothing(ask: Ask, world: World) -> None:  # noqa: F811
    said = ask(MANAGER, "a,b\nP-1,4\n", columns="bin=a&expected_quantity=b", dry_run="true")[1]
    assert (said["kept"], said["dry_run"], world.items("RECORD")) == (1, True, [])


@pytest.mark.parametrize(
    ("path", "body", "query", "status", "code"),
    [
        (MANAGER, "", {}, 400, "WRONG_REQUEST"),
        (MANAGER, "x" * (bulk.LARGEST + 1), {}, 413, "TOO_LARGE"),
        (MANAGER, "ä" * (bulk.LARGEST // 2 + 1), {}, 413, "TOO_LARGE"),
        (MANAGER, ROWS, {"id": "../x"}, 400, "WRONG_REQUEST"),
        (MANAGER, ROWS, {"id": ""}, 400, "WRONG_REQUEST"),
        (MANAGER, ROWS, {"dry_run": "maybe"}, 400, "WRONG_REQUEST"),
        (MANAGER, ROWS, {"columns": "ä"}, 400, "WRONG_REQUEST"),
        (MANAGER.replace("manager", "counter"), ROWS, {}, 403, "FORBIDDEN"),
        (MANAGER.replace("manager", "viewer") + "/one", None, {}, 403, "FORBIDDEN"),
    ],
)
def test_what_is_no_file_is_refused(
    ask: Ask,  # noqa: F811
    world: World,
    path: str,
    body: Any,
    query: Any,
    status: int,
    code: str,
) -> None:
    found, said = ask(path, body, **query)
    assert (found, said["code"]) == (status, code)
    assert "Versions" not in world.s3.list_object_versions(Bucket=BUCKET, Prefix="records/")
    assert json.dumps(said)
