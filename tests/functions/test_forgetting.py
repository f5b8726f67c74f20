"""`bintally stack forget` on a table and buckets that the functions have filled: it leaves nothing of its scope, and
everything of others."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from bintally.aws.table import Table
from bintally.common.keys import utc
from bintally.reviewing.desk import Desk
from bintally.reviewing.tallies import waiting_keys
from botocore.exceptions import ClientError
from click.testing import CliRunner, Result

from cli import stack_forget
from deployed.errors import ForgetFailed
from deployed.forgetting import Forgetting, Scope
from tests.functions.conftest import BUCKET, World, table
from tests.functions.test_reviews import ANA, BEN, BIN, NOON, counted, latest, shows

pytestmark = pytest.mark.slow
TODAY = datetime.now(UTC)
OLD = TODAY - timedelta(days=400)


def made() -> Any:
    outputs = {"ImagesBucket": BUCKET, "ArtifactsBucket": "artifacts", "RetrainStateMachine": "retrain"}
    packages = [  # the newest first; m-r5 has learned from the champion m-r3, and m-r6 from m-r5
        {"CustomerMetadataProperties": {"model_version": f"m-{run}", "parent": parent}}
        for run, parent in (("r6", "m-r5"), ("r5", "m-r3"), ("r3", "shipped"), ("r1", "none"))
    ]
    return SimpleNamespace(
        name="bintally",
        outputs=lambda: outputs,
        counts_table=table,
        client=lambda name: boto3.client(name),
        packages=lambda: iter(packages),
        under_way=lambda machine: None,
    )


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
    return made()


def keys(bucket: str, prefix: str = "") -> list[str]:
    found = boto3.client("s3").list_object_versions(Bucket=bucket, Prefix=prefix)
    return sorted(one["Key"] for one in (*found.get("Versions", ()), *found.get("DeleteMarkers", ())))


def sites() -> set[str]:
    return {item["PK"].split("#")[1] for item in table().scan()["Items"] if item["PK"].startswith("BIN#")}


def forget(stack: Any, **scope: str) -> dict[str, Any]:
    return Forgetting(stack, Scope(**scope), dry_run=False).run()


def trail() -> list[dict[str, Any]]:
    """The lines below forgotten/: the newest first."""
    s3, names = boto3.client("s3"), keys("artifacts", "forgotten/")
    lines = [json.loads(s3.get_object(Bucket="artifacts", Key=name)["Body"].read()) for name in names]
    return sorted(lines, key=lambda line: (line["began"], "ended" in line), reverse=True)


def test_a_site_is_forgotten_however_it_is_spelled(stack: Any) -> None:
    before = table().scan()["Items"]
    planned = Forgetting(stack, Scope("Sea1"), dry_run=True).run()
    assert table().scan()["Items"] == before and len(keys(BUCKET)) == 13
    said = forget(stack, site="Sea1")
    assert (said["bins"], said["photographs"], said["labels"], said["in_datasets"]) == (2, 4, 4, 0)
    assert (said["models"], said["unknown"]) == (["m-r3", "m-r5", "m-r6"], ["its files are gone"])
    assert planned == said and planned["objects"] == 7 + 8 + 1, "uploads and records, copies, labels"
    assert sites() == {"SEA10", "AUS2"}
    assert {key.split("/")[1] for key in keys(BUCKET)} == {"SEA10", "AUS2"}
    assert len(keys("artifacts", "display/")) == 2 * 4
    body = boto3.client("s3").get_object(Bucket="artifacts", Key="labels/2026/11/29/a.jsonl")["Body"].read()
    assert {json.loads(line)["site"] for line in body.splitlines()} == {"SEA10", "AUS2"}
    assert len(keys("artifacts", "labels/")) == 1, "the version before has the labels"
    markers = [item for item in table().scan()["Items"] if item["PK"].startswith("IMAGE#")]
    assert {item["count_pk"].split("#")[1] for item in markers} == {"SEA10", "AUS2"}
    ended, began = trail()
    assert (ended["scope"]["site"], ended["photographs"], ended["by"].startswith("arn:aws")) == ("Sea1", 4, True)
    assert (ended["outcome"], ended["began"], ended["models"]) == ("done", began["began"], began["models"])
    assert forget(stack, site="SEA1")["models"] == said["models"], "the datasets no longer show it, but the trail does"
    assert sites() == {"SEA10", "AUS2"}


def test_labels_that_have_expired_stay_so_and_lose_nothing_of_others(stack: Any) -> None:
    """LabelDays puts a delete marker on an object of the label log; its versions stay, as OldVersionDays says."""
    s3 = boto3.client("s3")
    s3.delete_object(Bucket="artifacts", Key="labels/2026/11/29/a.jsonl")
    assert Forgetting(stack, Scope("SEA1"), dry_run=True).run()["labels"] == 4
    assert forget(stack, site="SEA1")["labels"] == 4
    assert "Contents" not in s3.list_objects_v2(Bucket="artifacts", Prefix="labels/")
    (left,) = s3.list_object_versions(Bucket="artifacts", Prefix="labels/")["Versions"]
    body = s3.get_object(Bucket="artifacts", Key=left["Key"], VersionId=left["VersionId"])["Body"].read()
    assert [json.loads(line)["site"] for line in body.splitlines()] == ["SEA10", "SEA10", "AUS2", "AUS2"]


def test_a_bin_is_forgotten_with_its_review(stack: Any) -> None:
    desk = Desk(Table.named("counts"))
    for bin_ in ("A-1", "A-2"):  # a review of each waits
        pk = f"BIN#SEA1#{bin_}"
        desk.table.put(latest(bin_=pk) | {"image": table().get_item(Key={"PK": pk, "SK": "LATEST"})["Item"]["image"]})
        desk.follow(pk, TODAY)

    def waiting() -> int:
        return sum(int(item.get("FIRST", 0)) for item in desk.table.between(waiting_keys("SEA1", 1)[0], "W", "X"))

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
    assert said["models"] == ["m-r1", "m-r3", "m-r5", "m-r6"]
    assert sites() == {"SEA1", "SEA10", "AUS2"}
    assert {item["captured_at"][:4] for item in table().scan()["Items"] if item["SK"].startswith("COUNT#")} == {
        utc(TODAY)[:4]
    }
    assert len([key for key in keys(BUCKET, "incoming/") if f"/{OLD:%Y%m%d}" in key]) == 0
    assert len(keys(BUCKET, "incoming/")) == 5


@pytest.fixture
def bare(world: World) -> Any:
    """A stack without anything."""
    world.s3.create_bucket(Bucket="artifacts")
    world.s3.put_bucket_versioning(Bucket="artifacts", VersioningConfiguration={"Status": "Enabled"})
    return made()


@pytest.mark.parametrize(
    ("scope", "gone", "kept"),
    [
        (("SEA1", ""), "incoming/SEA1/A/1.jpg", "incoming/SEA1"),
        (("SEA1", ""), "incoming/SEA1/stray.jpg", "incoming/SEA10/A/1.jpg"),
        (("SEA1", ""), "incoming/sea1/A/1.jpg", "incoming/SEA1-EAST/A/1.jpg"),
        (("SEA1", ""), "records/SEA1/A.JSON", "records/SEA1/week.csv"),
        (("SEA1", "P-4"), "incoming/SEA1/p-4/1.jpg", "incoming/SEA1/P-4"),
        (("SEA1", "P-4"), "incoming/SEA1/P-4/deep/1.jpg", "incoming/SEA1/P-40/1.jpg"),
        (("SEA1", "P-4"), "records/SEA1/P-4.json", "records/SEA1/P-4.json.bak"),
        (("default", ""), "incoming/P-4.jpg", "incoming/SEA1/P-4/1.jpg"),
        (("default", "P-4"), "incoming/P-4.jpg", "incoming/P-40.jpg"),
    ],
)
def test_names_that_begin_alike_are_not_taken(
    bare: Any, world: World, scope: tuple[str, str], gone: str, kept: str
) -> None:
    for key in (gone, kept):
        world.put(key, b"x")
    world.s3.delete_object(Bucket=BUCKET, Key=gone)  # its version and its marker go, too
    forget(bare, site=scope[0], bin=scope[1])
    assert keys(BUCKET) == [kept]


class Failing:
    """A client or table of which one operation fails."""

    def __init__(self, real: Any, operation: str) -> None:
        self.real, self.operation = real, operation

    def __getattr__(self, name: str) -> Any:
        if name == self.operation:
            raise ConnectionError("the network is gone")
        return getattr(self.real, name)


def test_a_failure_loses_no_label_of_others(bare: Any, world: World) -> None:
    lines = [{"site": site, "bin": "A", "captured_at": utc(TODAY)} for site in ("SEA1", "AUS2")]
    body = "".join(json.dumps(line) + "\n" for line in lines) + "\n"
    world.s3.put_object(Bucket="artifacts", Key="labels/2026/11/29/a.jsonl", Body=body.encode())
    for operation in ("put_object", "delete_objects"):
        forgetting = Forgetting(bare, Scope("SEA1"), dry_run=False)
        forgetting.s3 = Failing(forgetting.s3, operation)
        with pytest.raises(ConnectionError):
            forgetting.run()
    assert len(keys("artifacts", "labels/")) == 2, "the one before still has the label"
    forget(bare, site="SEA1")
    assert len(keys("artifacts", "labels/")) == 1
    left = boto3.client("s3").get_object(Bucket="artifacts", Key="labels/2026/11/29/a.jsonl")["Body"].read()
    assert json.loads(left)["site"] == "AUS2"


def test_a_failure_leaves_nothing_that_a_second_run_does_not_find(bare: Any, world: World, photo: Any) -> None:
    for number in range(14):
        assert world.deliver(world.put(f"incoming/SEA1/A/{number}.jpg", photo(quality=40 + number))) == []
    forgetting = Forgetting(bare, Scope("SEA1"), dry_run=False)
    requests = iter((None, ConnectionError("the network is gone")))

    def fails(**_: Any) -> None:
        if error := next(requests):
            raise error

    events = forgetting.table.meta.client.meta.events
    events.register("before-call.dynamodb.BatchWriteItem", fails)
    try:
        with pytest.raises(ConnectionError):
            forgetting.run()
    finally:
        events.unregister("before-call.dynamodb.BatchWriteItem", fails)
    forget(bare, site="SEA1")
    assert not [item for item in table().scan()["Items"] if item["PK"].startswith(("BIN#", "IMAGE#"))]


def test_a_review_is_forgotten_by_the_age_of_its_photograph(bare: Any) -> None:
    desk = Desk(Table.named("counts"))
    shows(desk)  # photographed at 10, opened at noon
    counted(desk, ANA, 5)
    desk.undo(BIN, ANA, NOON)
    counted(desk, ANA, 3)
    forget(bare, before="2026-11-22T11:00:00.000000Z")
    assert not [item for item in table().scan()["Items"] if item["PK"] == BIN]
    again = {"captured_at": "2026-11-23T10:00:00.000000Z", "order": "2026-11-23T10:00:00.000000Z#v2"}
    desk.table.put(latest("v2") | again)
    desk.follow(BIN, NOON + timedelta(days=1))
    assert desk.queue("SEA1", 5), "a bin that was forgotten may have a review again"


def test_two_spellings_of_a_site_on_one_day(bare: Any) -> None:
    desk = Desk(Table.named("counts"))
    shows(desk)
    counted(desk, ANA, 5)
    counted(desk, BEN, 5)
    later = {"site": "sea1", "captured_at": "2026-11-22T11:00:00.000000Z", "order": "2026-11-22T11:00:00.000000Z#v2"}
    desk.table.put(latest("v2", count=6) | later)
    desk.follow(BIN, NOON)
    forget(bare, site="SEA1")
    assert not [item for item in table().scan()["Items"] if item["PK"] == BIN or item["SK"].startswith("DIFFERENCE#")]


def test_a_person_who_works_on_a_review_meanwhile_is_counted_once(bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(Table.named("counts"))
    shows(desk)
    forgetting = Forgetting(bare, Scope("SEA1"), dry_run=False)
    read = forgetting.table.get_item

    def read_late(**request: Any) -> Any:
        found = read(**request)
        if not calls:
            calls.append(desk.claim(BIN, ANA, NOON))
        return found

    calls: list[Any] = []
    monkeypatch.setattr(forgetting.table, "get_item", read_late)
    forgetting.run()
    assert calls and sum(int(i.get("FIRST", 0)) for i in desk.table.between(waiting_keys("SEA1", 1)[0], "W", "X")) == 0


def test_a_failure_leaves_a_line_of_what_was_deleted_by_then(
    stack: Any, refuse: Callable[..., Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = boto3.client("s3")
    monkeypatch.setattr(stack, "client", lambda name: s3 if name == "s3" else boto3.client(name))
    began: list[int] = []
    s3.meta.events.register("before-call.s3.DeleteObjects", lambda **_: began.append(len(trail())))
    forgetting = Forgetting(stack, Scope("SEA1"), dry_run=False)
    monkeypatch.setattr(forgetting, "forget_dataset", lambda: refuse(s3, "DeleteObjects", "SlowDown", 503))
    with pytest.raises(ClientError, match="SlowDown"):
        forgetting.run()
    assert began[0] == 1, "it says that it began before it deletes"
    ended, _ = trail()
    assert (ended["outcome"], ended["photographs"], ended["models"][0]) == ("failed", 4, "m-r3")


def test_nothing_is_forgotten_while_a_retraining_reads(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "under_way", {"retrain": "execution:1"}.get)
    with pytest.raises(ForgetFailed, match="Wait until it has ended, then run this again: execution:1"):
        forget(stack, site="SEA1")
    assert "SEA1" in sites() and not trail()


def test_changes_that_failed_and_keys_of_0_1_0_go_too(bare: Any, world: World) -> None:
    def change(pk: str, at: datetime = TODAY) -> Any:
        return {"dynamodb": {"Keys": {"PK": {"S": pk}}, "NewImage": {"captured_at": {"S": utc(at)}}}}

    def put(key: str, content: Any) -> None:
        world.s3.put_object(Bucket="artifacts", Key=key, Body=json.dumps(content).encode())

    put("labels/aside/x.json", {"record": change("BIN#SEA1#A-1")})
    put("labels/aside/y.json", {})
    put("aws/lambda/m/all", {"payload": json.dumps({"Records": [change("BIN#SEA1#A-1")]})})
    put("aws/lambda/m/some", {"payload": json.dumps({"Records": [change("BIN#SEA1#A-1"), change("BIN#AUS2#A", OLD)]})})
    put("aws/lambda/m/strange", {"payload": "no JSON"})
    old = {"SK": "LATEST", "site": "sea1", "bin": "a-1", "captured_at": utc(TODAY)}
    table().put_item(Item={"PK": "BIN#sea1#a-1", **old})
    forget(bare, site="SEA1")
    assert keys("artifacts", "labels/") == ["labels/aside/y.json"]
    assert keys("artifacts", "aws/") == ["aws/lambda/m/some", "aws/lambda/m/strange"], "one version of each"
    left = json.loads(world.s3.get_object(Bucket="artifacts", Key="aws/lambda/m/some")["Body"].read())
    assert json.loads(left["payload"]) == {"Records": [change("BIN#AUS2#A", OLD)]}
    assert not table().scan()["Items"]
    forget(bare, before=utc(TODAY - timedelta(days=1)))
    assert keys("artifacts", "aws/") == ["aws/lambda/m/strange"]
    world.s3.put_object(Bucket="artifacts", Key="labels/2026/11/29/a.jsonl", Body=b"no label\n")
    with pytest.raises(
        ForgetFailed, match=r"labels/2026/11/29/a.jsonl in the label log contains a line that is no label"
    ):
        forget(bare, site="SEA1")


def test_the_command_asks_and_says_what_it_did(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_forget, "chosen", lambda: stack)

    def run(*words: str) -> Result:
        return CliRunner().invoke(stack_forget.command, words)

    for words in ((), ("--bin", "A-1")):
        assert run(*words).exit_code == 2
    said = run("--site", "SEA1", "--dry-run")
    assert said.exit_code == 0 and "  4 photographs with a count" in said.output
    assert "Models that learned from these photographs: m-r3, m-r5, m-r6" in said.output
    assert "Models whose training data is gone, so nobody knows: its files are gone" in said.output
    said = run("--site", "SEA1")
    assert (said.exit_code, said.output.splitlines()[-1]) == (
        2,
        "Error: nothing was deleted. Without a terminal, say --yes",
    )
    assert "SEA1" in sites()
    said = run("--site", "SEA1", "--yes")
    assert said.output.startswith("Forgotten:\n  2 bins with items") and "SEA1" not in sites()


def test_the_command_says_which_lines_stay_locked(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_forget, "chosen", lambda: stack)
    words = ["--site", "AUS2", "--dry-run"]
    assert "trail" not in CliRunner().invoke(stack_forget.command, words).output
    stack.outputs()["TrailBucket"] = "bins-trail"
    said = CliRunner().invoke(stack_forget.command, words).output
    assert "Locked copies of their trail stay in bucket bins-trail until TrailLockDays have passed." in said
