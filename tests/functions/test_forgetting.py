"""`bintally stack forget` on a table and buckets that the functions have filled: it leaves nothing of its scope, and
everything of others."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from bintally.aws.table import Table
from bintally.common.keys import utc
from bintally.reviewing.desk import Desk
from bintally.reviewing.tallies import waiting_key
from click.testing import CliRunner, Result

from cli import stack_forget
from deployed.forgetting import Forgetting, Scope
from tests.functions.conftest import BUCKET, World, table
from tests.functions.test_reviews import ANA, BEN, counted, latest

TODAY = datetime.now(UTC)
OLD = TODAY - timedelta(days=400)


@pytest.fixture
def stack(world: World, photo: Any) -> Any:
    """Two sites of two bins each, with an old and a new photograph, records, labels, copies and a model."""
    world.s3.create_bucket(Bucket="artifacts")
    world.s3.put_bucket_versioning(Bucket="artifacts", VersioningConfiguration={"Status": "Enabled"})
    quality, log = 50, []
    for site, bin_ in (("SEA1", "A-1"), ("sea1", "A–2"), ("SEA10", "A-1"), ("AUS2", "A-1")):
        for at in (OLD, TODAY - timedelta(minutes=1)):
            quality += 1
            key = f"incoming/{site}/{bin_}/{at:%Y%m%d}.jpg"
            assert world.deliver(world.put(key, photo(quality=quality), captured_at=utc(at))) == []
            label = {"site": site, "bin": bin_, "captured_at": utc(at), "quantity": 3}
            log.append(json.dumps(label) + "\n")
        world.put(f"records/{site}/{bin_}.json", b"{}")
    world.put("incoming/SEA1/A-1/not counted yet.jpg", photo())
    for count in world.items("COUNT#"):
        for size in ("", "-240"):
            world.s3.put_object(Bucket="artifacts", Key=f"display/{count['image']['digest']}{size}.jpg", Body=b"copy")
    world.s3.put_object(Bucket="artifacts", Key="labels/2026/11/29/a.jsonl", Body="".join(log).encode())
    for run, place in (("r1", ("AUS2", "train")), ("r2", ("SEA1", "test")), ("r3", ("sea1", "train"))):
        line = {"site": place[0], "bin": "A-2", "captured_at": utc(OLD), "split": place[1]}
        key = f"retrain/{run}/dataset/index.jsonl"
        world.s3.put_object(Bucket="artifacts", Key=key, Body=json.dumps(line).encode())
        item = {"PK": "RETRAIN", "SK": f"RUN#{run}", "run": run, "model_version": f"m-{run}", "concluded_at": run}
        table().put_item(Item=item)
    table().put_item(Item={"PK": "RETRAIN", "SK": "RUN#r4", "run": "r4", "model_version": "its files are gone"})
    outputs = {"ImagesBucket": BUCKET, "ArtifactsBucket": "artifacts"}
    return SimpleNamespace(
        name="bintally", outputs=lambda: outputs, counts_table=table, client=lambda name: boto3.client(name)
    )


def keys(bucket: str, prefix: str = "") -> list[str]:
    found = boto3.client("s3").list_object_versions(Bucket=bucket, Prefix=prefix)
    return sorted(one["Key"] for one in (*found.get("Versions", ()), *found.get("DeleteMarkers", ())))


def sites() -> set[str]:
    return {item["PK"].split("#")[1] for item in table().scan()["Items"] if item["PK"].startswith("BIN#")}


def forget(stack: Any, **scope: str) -> dict[str, Any]:
    return Forgetting(stack, Scope(**scope), dry_run=False).run()


def test_a_site_is_forgotten_however_it_is_spelled(stack: Any) -> None:
    before = table().scan()["Items"]
    planned = Forgetting(stack, Scope("Sea1"), dry_run=True).run()
    assert table().scan()["Items"] == before and len(keys(BUCKET)) == 13
    said = forget(stack, site="Sea1")
    assert (said["bins"], said["photographs"], said["labels"], said["models"]) == (2, 4, 4, ["m-r3"])
    # The objects of counted photographs are gone before those of folders are counted.
    assert {**planned, "objects": 0} == {**said, "objects": 0} and planned["objects"] == 7
    assert sites() == {"SEA10", "AUS2"}
    assert {key.split("/")[1] for key in keys(BUCKET)} == {"SEA10", "AUS2"}
    assert len(keys("artifacts", "display/")) == 2 * 4
    body = boto3.client("s3").get_object(Bucket="artifacts", Key="labels/2026/11/29/a.jsonl")["Body"].read()
    assert {json.loads(line)["site"] for line in body.splitlines()} == {"SEA10", "AUS2"}
    assert len(keys("artifacts", "labels/")) == 1, "the version before has the labels"
    assert not [item for item in table().scan()["Items"] if item["PK"] == "SITES" and item["SK"] == "SITE#SEA1"]
    markers = [item for item in table().scan()["Items"] if item["PK"].startswith("IMAGE#")]
    assert {item["count_pk"].split("#")[1] for item in markers} == {"SEA10", "AUS2"}
    (key,) = keys("artifacts", "forgotten/")
    line = json.loads(boto3.client("s3").get_object(Bucket="artifacts", Key=key)["Body"].read())
    assert (line["scope"]["site"], line["photographs"], line["by"].startswith("arn:aws")) == ("Sea1", 4, True)
    assert forget(stack, site="SEA1")["models"] == ["m-r3"], "a second time changes nothing"
    assert sites() == {"SEA10", "AUS2"}


def test_a_bin_is_forgotten_with_its_review(stack: Any) -> None:
    desk = Desk(Table.named("counts"))
    for bin_ in ("A-1", "A-2"):  # a review of each waits
        pk = f"BIN#SEA1#{bin_}"
        desk.table.put(latest(bin_=pk) | {"image": table().get_item(Key={"PK": pk, "SK": "LATEST"})["Item"]["image"]})
        desk.follow(pk, TODAY)

    def waiting() -> int:
        return sum(int(item.get("FIRST", 0)) for item in desk.table.between(waiting_key("SEA1"), "W", "X"))

    assert waiting() == 2
    forget(stack, site="SEA1", bin="a-2")
    assert waiting() == 1
    assert {item["PK"] for item in table().scan()["Items"] if "A-2" in item["PK"]} == set()
    assert {key for key in keys(BUCKET) if "sea1" in key} == set()
    assert len([key for key in keys(BUCKET) if "/SEA1/A-1/" in key]) == 3


def test_a_difference_leaves_the_export(stack: Any) -> None:
    desk = Desk(Table.named("counts"))
    for bin_ in ("BIN#SEA1#P-4", "BIN#SEA1#P-5"):
        desk.table.put(latest(bin_=bin_))
        desk.follow(bin_, TODAY)
    noon = datetime(2026, 11, 22, 12, tzinfo=UTC)
    counted(desk, ANA, 5)
    counted(desk, BEN, 5)
    assert len(desk.differences("SEA1", noon, noon)) == 1
    forget(stack, site="SEA1", bin="P-5")
    assert len(desk.differences("SEA1", noon, noon)) == 1, "another bin's"
    forget(stack, site="SEA1", bin="P-4")
    assert desk.differences("SEA1", noon, noon) == []


def test_what_is_older_is_forgotten_and_the_rest_stays(stack: Any) -> None:
    said = forget(stack, before=utc(TODAY - timedelta(days=365)))
    assert (said["bins"], said["photographs"], said["labels"]) == (4, 4, 4)
    assert said["models"] == ["m-r1", "m-r3"]
    assert sites() == {"SEA1", "SEA10", "AUS2"}
    assert {item["captured_at"][:4] for item in table().scan()["Items"] if item["SK"].startswith("COUNT#")} == {
        utc(TODAY)[:4]
    }
    assert len([key for key in keys(BUCKET, "incoming/") if f"/{OLD:%Y%m%d}" in key]) == 0
    assert len(keys(BUCKET, "incoming/")) == 5


def test_the_command_asks_and_says_what_it_did(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_forget, "chosen", lambda: stack)

    def run(*words: str) -> Result:
        return CliRunner().invoke(stack_forget.command, words)

    for words in ((), ("--bin", "A-1")):
        assert run(*words).exit_code == 2
    said = run("--site", "SEA1", "--dry-run")
    assert said.exit_code == 0 and "  4 photographs with a count" in said.output
    assert "Models that learned from these photographs: m-r3" in said.output
    said = run("--site", "SEA1")
    assert (said.exit_code, said.output.splitlines()[-1]) == (
        2,
        "Error: nothing was deleted. Without a terminal, say --yes",
    )
    assert "SEA1" in sites()
    said = run("--site", "SEA1", "--yes")
    assert said.output.startswith("Forgotten:\n  2 bins with items") and "SEA1" not in sites()
