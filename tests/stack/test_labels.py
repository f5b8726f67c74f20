"""From photographs and inventory records to the label log, on the running stack."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bintally.common.keys import encode_id
from bintally.labels import log
from bintally.labels.log import Label

Photo = Callable[..., bytes]
HEAD = "site,bin,expected_quantity,as_of\n"
NOW = datetime.now(UTC)


class Clerk:
    """Someone who tells the stack what the inventory records say, and reads the label log."""

    def __init__(self, user: Any) -> None:
        self.user = user
        self.artifacts = user.outputs["ArtifactsBucket"]

    def tell(self, key: str, body: str) -> str:
        return str(self.user.upload(key, body.encode()))

    def record(self, site: str, bin_: str) -> dict[str, Any]:
        found = self.user.table.get_item(
            Key={"PK": f"BIN#{encode_id(site)}#{encode_id(bin_)}", "SK": "RECORD"}, ConsistentRead=True
        )
        return dict(found.get("Item", {}))

    def labels(self, site: str) -> list[Label]:
        """One for each photograph and quantity; a line may stand in the log twice."""
        found = [label for _, labels in log.read_log(self.user.s3, self.artifacts, NOW) for label in labels]
        return list({label["id"]: label for label in found if label["site"] == site}.values())

    def wait_labels(self, site: str, number: int) -> list[Label]:
        return list(
            self.user.wait_for(
                f"{number} labels of {site}", lambda: len(found := self.labels(site)) >= number and found, 60
            )
        )

    def objects(self, prefix: str) -> list[dict[str, Any]]:
        found = self.user.s3.list_objects_v2(Bucket=self.artifacts, Prefix=prefix).get("Contents", [])
        bodies = [self.user.s3.get_object(Bucket=self.artifacts, Key=each["Key"])["Body"].read() for each in found]
        return [json.loads(body) for body in bodies]

    def log(self, function: str) -> list[dict[str, Any]]:
        """What a function's own log says."""
        name = self.user.outputs[function]
        group = self.user.functions.get_function_configuration(FunctionName=name)["LoggingConfig"]["LogGroup"]
        pages = self.user.stack.client("logs").get_paginator("filter_log_events").paginate(logGroupName=group)
        lines = [event["message"] for page in pages for event in page["events"]]
        return [json.loads(line) for line in lines if line.startswith('{"level"')]

    def followed(self) -> int:
        """How many changes the follow function has taken, once its log, which comes after its labels, grows no more."""

        def settled() -> bool:
            before = len(self.log("FollowFunction"))
            time.sleep(5)
            return len(self.log("FollowFunction")) == before

        self.user.wait_for("an idle stream", settled, 60)
        return sum(line.get("records", 0) for line in self.log("FollowFunction"))

    @contextmanager
    def without(self, function: str, action: str) -> Iterator[None]:
        """Takes one permission from a function's role, and gives it back."""
        iam = self.user.stack.client("iam")
        arn = self.user.functions.get_function_configuration(FunctionName=self.user.outputs[function])["Role"]
        role = arn.rpartition("/")[2]
        (policy,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
        document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
        less = [statement for statement in document["Statement"] if action not in statement["Action"]]
        assert len(less) == len(document["Statement"]) - 1
        iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(document | {"Statement": less}))
        try:
            yield
        finally:
            iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(document))


@pytest.fixture(scope="module")
def clerk(user: Any) -> Clerk:
    """Files that could not be read come again after 1, 2, 4 s, as photographs do for `user`."""
    name = user.outputs["RecordFunction"]
    variables = user.functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    user.functions.update_function_configuration(
        FunctionName=name, Environment={"Variables": variables | {"RETRY_SECONDS": "1"}}
    )
    return Clerk(user)


def test_a_photograph_with_its_record_gives_a_label(clerk: Clerk, user: Any, photograph: Photo) -> None:
    key = "incoming/LAB1/A/photo.jpg"
    version = user.upload(key, photograph(1), expected_quantity="3")
    (count,) = user.wait_counts(key)
    (label,) = clerk.wait_labels("LAB1", 1)
    image = {"bucket": user.bucket, "key": key, "version_id": version}
    assert label["image"] == image and label["id"] == log.label_id(image, "record", label["as_of"], 3)
    assert (label["bin"], label["quantity"], label["source"]) == ("A", 3, "record")
    assert (label["captured_at"], label["as_of"]) == (count["captured_at"], count["uploaded_at"])
    assert (label["count"], label["model_version"]) == (int(count["count"]), count["model_version"])
    assert label["p_record"] == pytest.approx(float(count["p_record"]))
    assert log.winners(user.s3, clerk.artifacts, NOW).newest >= label["logged_at"]


def test_the_stream_is_filtered_as_the_template_says(clerk: Clerk, user: Any, photograph: Photo) -> None:
    """A photograph changes three items, and one of them is followed; a rejected one is not."""
    before = clerk.followed()
    user.upload("incoming/LAB2/A/no.jpg", b"no photograph")
    user.upload("incoming/LAB2/A/photo.jpg", photograph(1), expected_quantity="3")
    user.wait_counts("incoming/LAB2/A/no.jpg", "incoming/LAB2/A/photo.jpg")
    clerk.wait_labels("LAB2", 1)
    user.wait_drained()
    user.wait_for("its line", lambda: clerk.followed() > before, 60)
    assert clerk.followed() == before + 1


def test_a_record_labels_its_bins_photographs_of_its_time(clerk: Clerk, user: Any, photograph: Photo) -> None:
    moments = {"now": NOW, "yesterday": NOW - timedelta(hours=23), "before": NOW - timedelta(hours=25)}
    keys = {name: f"incoming/LAB3/A/{name}.jpg" for name in moments}
    for seed, (name, moment) in enumerate(moments.items()):
        user.upload(keys[name], photograph(seed), captured_at=moment.isoformat())
    user.upload("incoming/LAB3/B/other.jpg", photograph(7))
    user.wait_counts(*keys.values(), "incoming/LAB3/B/other.jpg")
    assert clerk.labels("LAB3") == []

    clerk.tell("records/LAB3/A.json", json.dumps({"expected_quantity": 2, "as_of": NOW.isoformat()}))
    found = clerk.wait_labels("LAB3", 2)
    assert sorted(label["image"]["key"] for label in found) == sorted([keys["now"], keys["yesterday"]])
    assert {(label["quantity"], label["source"], label["p_record"]) for label in found} == {(2, "record", None)}

    # A photograph that comes after the record is compared with it, and labelled by it.
    user.upload("incoming/LAB3/A/later.jpg", photograph(4))
    (count,) = user.wait_counts("incoming/LAB3/A/later.jpg")
    assert (count["recorded_quantity"], count["recorded_from"]) == (2, "record")
    assert len(clerk.wait_labels("LAB3", 3)) == 3


def test_a_newer_label_wins(clerk: Clerk, user: Any, photograph: Photo) -> None:
    user.upload("incoming/LAB4/A/photo.jpg", photograph(1), expected_quantity="3")
    user.wait_counts("incoming/LAB4/A/photo.jpg")
    clerk.wait_labels("LAB4", 1)
    later = datetime.now(UTC) + timedelta(minutes=1)
    clerk.tell("records/lab4.csv", f"{HEAD}LAB4,A,1,{later.isoformat()}\n")
    clerk.wait_labels("LAB4", 2)
    found = log.winners(user.s3, clerk.artifacts, NOW).lines()
    assert [label["quantity"] for label in found if label["site"] == "LAB4"] == [1]


def test_a_malformed_file_keeps_its_good_rows_and_tells_of_the_others(clerk: Clerk, user: Any) -> None:
    events, sqs = user.stack.client("events"), user.sqs
    queue = sqs.create_queue(QueueName="records-read")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = {
        "source": ["bintally"],
        "detail-type": ["Records Read"],
        "detail": {"malformed": [{"numeric": [">", 0]}]},
    }
    events.put_rule(Name="records-read", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="records-read", Targets=[{"Id": "queue", "Arn": arn}])
    allow = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow | {"Resource": arn}]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
    try:
        key = "records/lab5 + more.csv"
        version = clerk.tell(key, HEAD + "LAB5,A,3,\nLAB5,B,-1,\nLAB5,C,four,\n\nLAB5,D,0,\n")
        messages = user.wait_for(
            "an event", lambda: sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages"), 60
        )
        detail = json.loads(messages[0]["Body"])["detail"]
        assert detail["file"] == {"bucket": user.bucket, "key": key, "version_id": version}
        assert (detail["kept"], detail["malformed"]) == (2, 2)
        assert [fault["line"] for fault in detail["faults"]] == [3, 4]
        assert detail["report"] == {"bucket": clerk.artifacts, "key": f"reports/records/{key}/{version}.json"}
        (report,) = clerk.objects(detail["report"]["key"])
        assert report["faults"] == detail["faults"] and "-1" in report["faults"][0]["reason"]
        assert clerk.record("LAB5", "A")["expected_quantity"] == 3
        assert clerk.record("LAB5", "D")["expected_quantity"] == 0
        assert clerk.record("LAB5", "B") == {}
        user.wait_for("the message's end", lambda: user.depth(user.outputs["RecordQueueUrl"]) == 0, 60)
    finally:
        events.remove_targets(Rule="records-read", Ids=["queue"])
        events.delete_rule(Name="records-read")
        sqs.delete_queue(QueueUrl=queue)


def test_records_in_any_order_leave_the_newest(clerk: Clerk, user: Any) -> None:
    for day in (3, 5, 1, 4):
        clerk.tell("records/LAB6/A.json", json.dumps({"expected_quantity": day, "as_of": f"2026-01-0{day}T00:00:00Z"}))
    user.wait_for("the newest record", lambda: clerk.record("LAB6", "A").get("expected_quantity") == 5, 60)
    user.wait_for("an empty record queue", lambda: user.depth(user.outputs["RecordQueueUrl"]) == 0, 60)
    assert clerk.record("LAB6", "A")["expected_quantity"] == 5


def test_what_can_never_give_a_label_is_put_aside_and_the_stream_goes_on(
    clerk: Clerk, user: Any, photograph: Photo
) -> None:
    user.table.put_item(Item={"PK": "BIN#LAB7#A", "SK": "RECORD", "expected_quantity": "many"})
    user.upload("incoming/LAB7/B/photo.jpg", photograph(1), expected_quantity="3")
    clerk.wait_labels("LAB7", 1)
    found = clerk.objects("labels/aside/")
    aside = [each for each in found if each["record"]["dynamodb"]["Keys"]["PK"]["S"] == "BIN#LAB7#A"]
    assert len(aside) == 1 and aside[0]["reason"].startswith("not a record")


@pytest.mark.parametrize("action", ["dynamodb:PutItem", "s3:PutObject", "events:PutEvents"])
def test_record_may_do_what_its_role_allows_and_loses_nothing_without(clerk: Clerk, user: Any, action: str) -> None:
    bin_ = action.partition(":")[2]
    before = len(clerk.log("RecordFunction"))
    with clerk.without("RecordFunction", action):
        clerk.tell(f"records/{bin_}.csv", f"{HEAD}LAB8,{bin_},3,\nLAB8,{bin_}-bad,-1,\n")
        user.wait_for(
            "a failed try",
            lambda: any("AccessDenied" in json.dumps(line) for line in clerk.log("RecordFunction")[before:]),
            60,
        )
        assert user.depth(user.outputs["RecordQueueUrl"]) == 1
    user.wait_for("an empty record queue", lambda: user.depth(user.outputs["RecordQueueUrl"]) == 0, 120)
    assert clerk.record("LAB8", bin_)["expected_quantity"] == 3
    assert user.depth(user.outputs["RecordDeadLetterQueueUrl"]) == 0


@pytest.mark.parametrize("action", ["s3:PutObject", "dynamodb:BatchGetItem"])
def test_follow_may_do_what_its_role_allows_and_loses_nothing_without(
    clerk: Clerk, user: Any, photograph: Photo, action: str
) -> None:
    bin_ = action.partition(":")[2]
    key = f"incoming/LAB9/{bin_}/photo.jpg"
    told = len(clerk.labels("LAB9"))
    with clerk.without("FollowFunction", action):
        user.upload(key, photograph(1), expected_quantity="3")
        user.wait_counts(key)
        mapping = user.outputs["FollowMapping"]
        user.wait_for(
            "a failed batch",
            lambda: user.functions.get_event_source_mapping(UUID=mapping)["LastProcessingResult"] == "FAILED",
            60,
        )
        assert len(clerk.labels("LAB9")) == told
    assert clerk.wait_labels("LAB9", told + 1)[-1]["quantity"] == 3
