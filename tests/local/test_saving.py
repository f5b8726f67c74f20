"""What a crash, a full disk and a stop in the middle of work leave of a stack: emulators that are killed, and a small
file system that is full."""

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from localsagemaker.ports import free_port

from local.errors import NotStored
from local.journal import RESERVED, Journal, encoded
from local.saving import Saver
from local.snapshots import Snapshots
from local.stack import Local

BUCKET, TABLE, QUEUE = "saved", "saved", "saved"
WAITS = {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 3600, "End": True}}}


def wait_until(met: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := met()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def make_resources(stack: Local) -> None:
    s3 = stack.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_notification_configuration(Bucket=BUCKET, NotificationConfiguration={"EventBridgeConfiguration": {}})
    stack.client("dynamodb").create_table(
        TableName=TABLE,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "PK", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "PK", "AttributeType": "S"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    url = stack.client("sqs").create_queue(QueueName=QUEUE)["QueueUrl"]
    queue = f"arn:aws:sqs:us-east-1:000000000000:{QUEUE}"
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue,
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    stack.client("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    events = stack.client("events")
    pattern = {"source": ["aws.s3", "aws.states"], "detail": {"status": ["ABORTED", {"exists": False}]}}
    events.put_rule(Name="to-queue", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="to-queue", Targets=[{"Id": "queue", "Arn": queue}])


def put_item(stack: Local, key: str) -> None:
    stack.client("dynamodb").put_item(TableName=TABLE, Item={"PK": {"S": key}})


def items(stack: Local) -> set[str]:
    pages = stack.client("dynamodb").get_paginator("scan").paginate(TableName=TABLE)
    return {item["PK"]["S"] for page in pages for item in page["Items"]}


def change_items(stack: Local) -> None:
    """In each way in which requests do; "LOCK#new" is about an execution."""
    dynamodb = stack.client("dynamodb")
    put_item(stack, "after")
    for _ in range(2):
        dynamodb.update_item(
            TableName=TABLE,
            Key={"PK": {"S": "changed"}},
            UpdateExpression="ADD times :one",
            ExpressionAttributeValues={":one": {"N": "1"}},
        )
    puts = [{"Put": {"TableName": TABLE, "Item": {"PK": {"S": key}}}} for key in ("with after", "LOCK#new")]
    removal = {"Delete": {"TableName": TABLE, "Key": {"PK": {"S": "removed"}}}}
    dynamodb.transact_write_items(TransactItems=[*puts, removal])
    dynamodb.batch_write_item(RequestItems={TABLE: [{"PutRequest": {"Item": {"PK": {"S": "again"}}}}]})
    dynamodb.delete_item(TableName=TABLE, Key={"PK": {"S": "again"}})
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        dynamodb.put_item(TableName=TABLE, Item={"PK": {"S": "refused"}}, ConditionExpression="attribute_exists(PK)")


def stream(stack: Local) -> list[tuple[str, str, Any]]:
    """Event id, kind and new image of what the table's stream has; none of executions' locks."""
    streams = stack.client("dynamodbstreams")
    arn = streams.list_streams(TableName=TABLE)["Streams"][0]["StreamArn"]
    shard = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"][0]["ShardId"]
    begin = streams.get_shard_iterator(StreamArn=arn, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    found = streams.get_records(ShardIterator=begin["ShardIterator"])["Records"]
    return [
        (change["eventID"], change["eventName"], change["dynamodb"].get("NewImage"))
        for change in found
        if not change["dynamodb"]["Keys"]["PK"]["S"].startswith("LOCK#")
    ]


def received(stack: Local) -> list[dict[str, Any]]:
    """The messages in the queue, hidden for half an hour from then on."""
    sqs = stack.client("sqs")
    url = sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]
    found = sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=1800, AttributeNames=["ApproximateReceiveCount"]
    )
    messages: list[dict[str, Any]] = found.get("Messages", [])
    return messages


def kill(stack: Local) -> None:
    pid = stack.emulator_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not stack.running())


def test_a_crash_costs_what_changed_after_the_last_snapshot_but_no_item(own: Local) -> None:
    own.start_emulator()
    make_resources(own)
    for key in ("before", "changed", "removed"):
        put_item(own, key)
    s3, changed = own.client("s3"), time.time()
    first = s3.put_object(Bucket=BUCKET, Key="incoming/a.jpg", Body=b"first")["VersionId"]

    def saved() -> bool:
        found = own.snapshots.newest()
        return found is not None and found.moment.timestamp() > changed

    wait_until(saved, 30)
    known = stream(own)
    change_items(own)
    changes = stream(own)[len(known) :]
    second = s3.put_object(Bucket=BUCKET, Key="incoming/a.jpg", Body=b"second", Metadata={"expected-quantity": "3"})
    kill(own)
    assert own.crashed()
    assert "It was not stopped in order: restored its tables, and the rest of its state of 20" in own.after_a_crash()
    since = own.snapshots.unreconciled()
    assert since is not None
    assert since.timestamp() < changed + 30  # what was uploaded later is looked for
    own.start_emulator()

    assert items(own) == {"before", "changed", "after", "with after"}
    changed = own.client("dynamodb").get_item(TableName=TABLE, Key={"PK": {"S": "changed"}})
    assert changed["Item"]["times"] == {"N": "2"}
    assert stream(own) == changes  # those before, which the snapshot has, no function is to read
    s3 = own.client("s3")
    found = s3.get_object(Bucket=BUCKET, Key="incoming/a.jpg")  # photographs are files, which a crash does not lose
    assert (found["Body"].read(), found["VersionId"]) == (b"second", second["VersionId"])
    assert found["Metadata"] == {"expected-quantity": "3"}
    assert s3.get_object(Bucket=BUCKET, Key="incoming/a.jpg", VersionId=first)["Body"].read() == b"first"
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    assert own.down()
    assert not own.crashed()


def test_no_snapshot_is_written_when_nothing_has_changed(own: Local) -> None:
    own.start_emulator()
    make_resources(own)
    own.save()
    before, moment = own.snapshots.numbers(), time.time()
    assert items(own) == set()
    own.client("s3").list_objects_v2(Bucket=BUCKET)
    own.save()
    found = own.snapshots.newest()
    assert own.snapshots.numbers() == before
    assert found is not None
    assert found.moment.timestamp() > moment  # it is the state of now, too
    put_item(own, "new")
    own.save()
    assert own.snapshots.numbers() != before


def test_what_was_in_flight_at_the_stop_is_visible_at_the_start(own: Local) -> None:
    own.start_emulator()
    make_resources(own)
    sqs = own.client("sqs")
    url = sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="in flight")
    sqs.send_message(QueueUrl=url, MessageBody="delayed", DelaySeconds=600)
    (message,) = received(own)
    assert received(own) == []
    own.down()
    own.start_emulator()
    (again,) = received(own)
    assert again["Body"] == message["Body"] == "in flight"
    assert again["Attributes"]["ApproximateReceiveCount"] == "1"  # the stop is not the consumer's failure


@pytest.mark.parametrize("end", ["down", "crash"])
def test_an_execution_that_the_stop_cut_off_is_aborted_with_its_event(
    own: Local, end: str, role: Callable[..., str]
) -> None:
    own.start_emulator()
    make_resources(own)
    states = own.client("stepfunctions")
    machine = states.create_state_machine(
        name="waits", definition=json.dumps(WAITS), roleArn=role(own, "waits", "states.amazonaws.com")
    )["stateMachineArn"]
    execution = states.start_execution(stateMachineArn=machine)["executionArn"]
    started = time.monotonic()
    if end == "down":
        own.down()
    else:
        own.save()
        kill(own)
    assert time.monotonic() - started < 30  # it does not wait for the execution
    own.start_emulator()
    (message,) = wait_until(lambda: received(own))
    assert json.loads(message["Body"])["detail"]["executionArn"] == execution
    found = own.client("stepfunctions").describe_execution(executionArn=execution)
    assert (found["status"], found["cause"]) == ("ABORTED", "The local stack stopped while the execution ran.")


@pytest.fixture
def small(own: Local, tmp_path: Path) -> Iterator[Local]:
    """A stack on a file system of 64 MB, which it has for itself."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "small", str(place)], check=True)
    stack = replace(own, home=place / "home", port=free_port())
    try:
        yield stack
    finally:
        stack.stop()
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(stack: Local) -> Path:
    """Takes all the room that is left."""
    filler = stack.home.parent / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    assert shutil.disk_usage(stack.home).free < 4096
    return filler


def test_a_full_disk_refuses_uploads_and_loses_nothing(small: Local) -> None:
    small.start_emulator()
    make_resources(small)
    once = {"total_max_attempts": 1}
    s3 = small.client("s3", retries=once)
    kept = s3.put_object(Bucket=BUCKET, Key="incoming/a.jpg", Body=b"kept")["VersionId"]
    (event,) = wait_until(lambda: received(small))
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="incoming/parts.jpg")["UploadId"]
    part = s3.upload_part(Bucket=BUCKET, Key="incoming/parts.jpg", UploadId=upload, PartNumber=1, Body=b"part")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    small.save()
    put_item(small, "since")
    filler = fill(small)

    writes: list[Callable[[], object]] = [
        lambda: s3.put_object(Bucket=BUCKET, Key="incoming/a.jpg", Body=b"lost"),
        lambda: s3.put_object(Bucket=BUCKET, Key="incoming/new/b.jpg", Body=b"lost"),
        lambda: s3.copy_object(
            Bucket=BUCKET, Key="incoming/c.jpg", CopySource={"Bucket": BUCKET, "Key": "incoming/a.jpg"}
        ),
        lambda: s3.complete_multipart_upload(
            Bucket=BUCKET, Key="incoming/parts.jpg", UploadId=upload, MultipartUpload=parts
        ),
    ]
    for write in writes:
        with pytest.raises(ClientError, match="not stored") as refused:
            write()
        assert refused.value.response["Error"]["Code"] == "InternalError"
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    versions = s3.list_object_versions(Bucket=BUCKET)["Versions"]
    assert [(version["Key"], version["VersionId"]) for version in versions] == [("incoming/a.jpg", kept)]
    assert s3.get_object(Bucket=BUCKET, Key="incoming/a.jpg")["Body"].read() == b"kept"
    with pytest.raises(ClientError, match="not stored"):
        s3.delete_object(Bucket=BUCKET, Key="incoming/a.jpg")  # its marker cannot be stored
    assert s3.get_object(Bucket=BUCKET, Key="incoming/a.jpg")["Body"].read() == b"kept"
    assert received(small) == []  # no event of a photograph that is not stored

    with pytest.raises(NotStored, match="could not be saved: No space left on device") as failed:
        small.down()
    assert "bintally down --discard" in str(failed.value)
    assert "not since: No space left on device" in small.saved()
    assert small.running()
    assert items(small) == {"since"}

    filler.unlink()
    s3.complete_multipart_upload(Bucket=BUCKET, Key="incoming/parts.jpg", UploadId=upload, MultipartUpload=parts)
    assert small.down()
    small.start_emulator()
    assert items(small) == {"since"}
    read = small.client("s3").get_object(Bucket=BUCKET, Key="incoming/parts.jpg")["Body"].read()
    assert read == b"part"
    assert event


def test_items_that_a_full_disk_has_no_room_for_are_refused_and_others_outlast_a_crash(small: Local) -> None:
    small.start_emulator()
    make_resources(small)
    small.save()
    filler = fill(small)
    dynamodb = small.client("dynamodb", retries={"total_max_attempts": 1})
    stored = set()
    with pytest.raises(ClientError, match="not stored: No space left on device") as refused:
        for number in range(1000):
            dynamodb.put_item(TableName=TABLE, Item={"PK": {"S": f"{number}"}, "large": {"S": "x" * 50_000}})
            stored.add(f"{number}")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500  # a client that retries does
    assert len(stored) > 50
    kill(small)
    filler.unlink()
    small.start_emulator()
    assert items(small) == stored


def test_a_damaged_snapshot_costs_no_item(own: Local) -> None:
    own.start_emulator()
    make_resources(own)
    for key in ("first", "second", "third"):
        put_item(own, key)
        own.save()
    put_item(own, "fourth")
    kill(own)
    newest = own.snapshots.last_written()
    assert newest
    (newest.folder / "dynamodb.json").write_bytes(b"")
    own.start_emulator()
    assert items(own) == {"first", "second", "third", "fourth"}


def test_a_crash_before_a_snapshot_is_whole_brings_nothing_old_back(own: Local) -> None:
    """Two starts from one snapshot: what was stored after the first is newer than the file that the lost snapshot
    began."""
    own.start_emulator()
    make_resources(own)
    own.save()
    dynamodb = own.client("dynamodb")

    def put(value: str) -> None:
        own.client("dynamodb").put_item(TableName=TABLE, Item={"PK": {"S": "x"}, "value": {"S": value}})

    put("old")
    own.save()
    put("of the lost snapshot")
    kill(own)
    newest = own.snapshots.last_written()
    assert newest
    shutil.rmtree(newest.folder)  # as if it had not got its name yet
    own.start_emulator()
    put("new")
    dynamodb.put_item(TableName=TABLE, Item={"PK": {"S": "forgotten"}})
    dynamodb.delete_item(TableName=TABLE, Key={"PK": {"S": "forgotten"}})
    for end in (lambda: kill(own), own.down, lambda: kill(own)):
        end()
        own.start_emulator()
        (item,) = own.client("dynamodb").scan(TableName=TABLE)["Items"]
        assert item["value"]["S"] == "new"


def test_a_change_that_had_no_room_is_written_before_any_request_is_answered(small: Local) -> None:
    """A transaction that is sent again is answered from memory, where it is done already."""
    small.start_emulator()
    make_resources(small)
    small.save()
    filler = fill(small)
    dynamodb = small.client("dynamodb", retries={"total_max_attempts": 1})
    item = {"PK": {"S": "large"}, "large": {"S": "x" * 380_000}}
    puts = [{"Put": {"TableName": TABLE, "Item": item | {"PK": {"S": f"large {n}"}}}} for n in range(8)]

    def store(token: str) -> None:
        dynamodb.transact_write_items(TransactItems=puts, ClientRequestToken=token)

    with pytest.raises(ClientError, match="not stored: No space left on device"):
        for attempt in range(4):
            store(f"first {attempt}")
    for request in (
        lambda: store(f"first {attempt}"),
        lambda: dynamodb.get_item(TableName=TABLE, Key=dict(PK={"S": "0"})),
    ):
        with pytest.raises(ClientError, match="not stored: No space left on device"):
            request()
    filler.unlink()
    store(f"first {attempt}")
    kill(small)
    small.start_emulator()
    assert items(small) == {f"large {n}" for n in range(8)}


def test_a_request_is_in_the_journal_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    def changes(*keys: str) -> list[Any]:
        return [["", "", TABLE, {"PK": {"S": key}}, False, None] for key in keys]

    def keys(found: Journal, number: int) -> str:
        return " ".join("".join(change[3]["PK"]["S"][0] for change in request) for request in found.since(number))

    journal = Journal(tmp_path)
    assert journal.begin() == 1
    for each in ("ab", "cd", "e"):
        journal.write(changes(*each))
    file = tmp_path / "journal" / "000000000001"
    whole = file.read_bytes()
    written = whole.rstrip(b"\0")
    assert len(written) < 1000 < len(whole)  # room for what comes
    assert keys(journal, 1) == "ab cd e"
    cut, lines = len(written) - 10, written.splitlines(keepends=True)
    after = Journal(tmp_path)
    for content, found in (
        (written[:cut] + bytes(99), "ab cd"),  # the machine lost power
        (lines[0] + bytes(len(lines[1])) + lines[2], "ab"),
        (lines[0] + b"damaged\n" + lines[2], "ab"),
    ):
        file.write_bytes(content)
        assert keys(after, 1) == found
    assert after.begin() == 2
    after.write(changes("f"))
    after.write(changes("x" * 2 * RESERVED))
    after.write(changes("g"))
    assert after.begin() == 3
    assert (tmp_path / "journal" / "000000000002").stat().st_size < 2 * RESERVED + 1000
    assert keys(Journal(tmp_path), 1) == "ab f x g" and keys(Journal(tmp_path), 2) == "f x g"
    after.remove_older(3)
    assert after.numbers() == [3]


def test_the_journal_takes_what_half_a_character_is_in(tmp_path: Path) -> None:
    """One request that cannot be written would hold up all later ones."""
    journal, item = Journal(tmp_path), {"PK": {"S": "a"}, "v": {"B": "\ud800"}}
    journal.begin()
    journal.write([("", "", TABLE, item, False, None)])
    journal.write([])
    ((change,),) = journal.since(1)
    assert change[3] == item


REPLAY = """
import asyncio, copy, json, os
from pathlib import Path
from local.journal import Journal, journal_before_acknowledging, replay
from ministack.services import dynamodb
journal = Journal(Path(os.environ["STATE_DIR"]))
journal.begin()
journal_before_acknowledging(journal, lambda: None)
def ask(operation, **request):
    target = {"x-amz-target": f"DynamoDB_20120810.{operation}"}
    return asyncio.run(dynamodb.handle_request("POST", "/", target, json.dumps(request).encode(), {}))[0]
def make(table, key):
    named = {"KeySchema": [{"AttributeName": key, "KeyType": "HASH"}]}
    named["AttributeDefinitions"] = [{"AttributeName": key, "AttributeType": "S"}]
    return ask("CreateTable", TableName=table, BillingMode="PAY_PER_REQUEST", **named)
print(make("same", "a"), make("changed", "a"))
snapshot = copy.deepcopy(dynamodb._tables._data)
print(ask("DeleteTable", TableName="changed"), make("changed", "b"))
print(*[ask("PutItem", TableName=table, Item={key: {"S": "1"}}) for table, key in (("changed", "b"), ("same", "a"))])
dynamodb._tables._data.clear()
dynamodb._tables._data.update(snapshot)
for changes in journal.since(1):
    replay(changes)
print({table["TableName"]: table["ItemCount"] for table in dynamodb._tables.values()})
"""


def test_items_of_a_table_that_was_made_anew_with_another_key_are_left_out(
    inside: Callable[[str, str], subprocess.CompletedProcess[str]],
) -> None:
    ran = inside(REPLAY, "ours")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-4:] == ["200 200", "200 200", "200 200", "{'same': 1, 'changed': 0}"]


def test_a_stop_is_not_in_order_when_no_process_can_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshots, ended = Snapshots(tmp_path), []
    snapshots.mark_running()
    saver = Saver(snapshots, {}, contextlib.nullcontext(), lambda: ended.append(True))
    saver.changed.set()

    def no_memory() -> int:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(os, "fork", no_memory)
    files = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="Cannot allocate memory"):
        saver.fork()
    assert saver.changed.is_set() and snapshots.problem() == "Cannot allocate memory"
    assert len(list(Path("/proc/self/fd").iterdir())) == files + 1, "the journal's"
    saver.save_at_stop(None)
    assert ended and not snapshots.stopped_in_order()


def test_a_stack_that_is_discarded_keeps_its_items_and_its_last_saved_state(small: Local) -> None:
    small.start_emulator()
    make_resources(small)
    put_item(small, "saved")
    small.save()
    put_item(small, "since")
    small.client("sqs").create_queue(QueueName="since")
    filler = fill(small)
    assert small.down(discard=True)
    assert small.crashed()  # and `up` says so
    filler.unlink()
    small.start_emulator()
    assert items(small) == {"saved", "since"}
    assert len(small.client("sqs").list_queues()["QueueUrls"]) == 1


def test_a_start_on_a_full_disk_names_it(small: Local, archive: Callable[[str], bytes], tmp_path: Path) -> None:
    package = tmp_path / "model.tar.gz"
    package.write_bytes(archive("v1"))
    with pytest.raises(NotStored, match=r"has 6\d MB free, and a start needs 250 MB. Free some space, or set"):
        replace(small, package=package).up(print)
    assert not small.pid_file.exists()


def states_of(**services: str) -> Iterator[tuple[str, bytes]]:
    for name, content in services.items():
        yield name, content.encode()


def fails() -> Iterator[tuple[str, bytes]]:
    yield "s3", b"3"
    raise OSError(28, "No space left on device")


def read(snapshots: Snapshots) -> dict[str, str]:
    found = snapshots.newest()
    assert found is not None
    return {file.stem: file.read_text() for file in found.folder.glob("*.json") if file.stem != "manifest"}


def test_a_snapshot_counts_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    assert snapshots.newest() is None
    snapshots.write(states_of(s3="1", sqs="1"), 1000.0, snapshots.newest())
    snapshots.write(states_of(s3="2", sqs="2"), 2000.0, snapshots.newest())
    found = snapshots.newest()
    assert found is not None
    assert found.moment.timestamp() == 2000.0

    with pytest.raises(OSError, match="No space left"):
        snapshots.write(fails(), 3000.0, snapshots.newest())
    assert read(snapshots) == {"s3": "2", "sqs": "2"}
    (snapshots.root / "part").mkdir()  # as a crash leaves it
    (snapshots.root / "part" / "s3.json").write_text("4")
    assert read(snapshots) == {"s3": "2", "sqs": "2"}


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "no manifest"])
def test_a_damaged_snapshot_gives_way_to_the_one_before_it(tmp_path: Path, damage: str) -> None:
    snapshots = Snapshots(tmp_path)
    snapshots.write(states_of(s3="1" * 10, sqs="1"), 1000.0, snapshots.newest())
    folder = snapshots.write(states_of(s3="2" * 10, sqs="2"), 2000.0, snapshots.newest()).folder
    match damage:
        case "cut":
            (folder / "s3.json").write_text("2" * 9)
        case "changed":
            (folder / "s3.json").write_text("2" * 9 + "3")
        case "missing":
            (folder / "sqs.json").unlink()
        case _:
            (folder / "manifest.json").unlink()
    assert read(snapshots)["sqs"] == "1"
    with pytest.raises(OSError, match="No space left"):
        snapshots.write(fails(), 3000.0, snapshots.newest())
    assert read(snapshots)["sqs"] == "1"


def test_the_state_of_an_older_version_is_read_and_replaced(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    snapshots.root.mkdir()
    (snapshots.root / "s3.json").write_text("old")
    assert read(snapshots) == {"s3": "old"}
    snapshots.write(states_of(s3="new"), 1000.0, snapshots.newest())
    assert read(snapshots) == {"s3": "new"}
    assert not (snapshots.root / "s3.json").exists()


def test_packages_of_functions_stay_as_long_as_a_snapshot_names_them(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    snapshots.blobs.mkdir(parents=True)
    for name in ("aa", "bb", "cc"):
        (snapshots.blobs / f"{name}.zip").touch()
    snapshots.write(states_of(**{"lambda": "aa"}), 1000.0, snapshots.newest())
    (snapshots.blobs / "bb.zip").touch()
    snapshots.write(states_of(**{"lambda": "bb"}), 2000.0, snapshots.newest())
    assert {blob.stem for blob in snapshots.blobs.iterdir()} == {"aa", "bb"}
    snapshots.write(states_of(**{"lambda": "bb"}), 3000.0, snapshots.newest())
    assert {blob.stem for blob in snapshots.blobs.iterdir()} == {"bb"}


@pytest.mark.parametrize("large", [True, False])
def test_a_state_is_the_same_whatever_encodes_it(large: bool) -> None:
    def tagged(value: object) -> dict[str, str]:
        assert isinstance(value, bytes)
        return {"__bytes__": value.hex()}

    state = {
        "items": defaultdict(dict, a={"N": "1" * 38}),
        "bytes": b"1",
        "none": None,
        "pair": (1, 2.5),
        "é": "\U0001f600",
    }
    for odd in ({}, {"half a pair": "\ud800"}, {"large": 2**64}, {"keys": {1: 2}}):
        found = json.loads(encoded(state | odd, tagged, large=large))
        assert found == json.loads(json.dumps(state | odd, default=tagged))
