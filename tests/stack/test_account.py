"""The command as people use it on an account: from another folder, by the stack's name, with an IAM user's keys.

The local stack is the account: its address is in AWS_ENDPOINT_URL, as any AWS client takes it. What each person may do
is the policy that docs/operations.md prints.
"""

import contextlib
import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from cli.errors import CliError
from cli.model_rollback import previous
from deployed.doctor import examine
from deployed.stack import Account
from local.stack import Local, package_version
from tests.stack.people import Person


@pytest.fixture(scope="module")
def inventory(person: Callable[..., Person]) -> Person:
    return person("inventory", "inventory")


@pytest.fixture(scope="module")
def operator(person: Callable[..., Person]) -> Person:
    return person("operator", "inventory", "operator")


@pytest.fixture(scope="module")
def version(stack: Local) -> str:
    """The shipped version of the model, live."""
    found = package_version(stack.package)
    live = stack.live_model_data(stack.outputs())
    if live is None or f"/models/{found}/" not in live:
        stack.release(found)
    return found


def test_an_inventory_person_uploads_and_reads_counts(
    inventory: Person, user: Any, photograph: Callable[..., bytes]
) -> None:
    folder = inventory.folder / "ACC1" / "P-1"
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(photograph(41))
    (folder / "b.heic").write_bytes(b"no photograph")
    (folder / "labels.csv").write_text("id,quantity\na,3\n")
    printed = inventory.does("upload", "--wait", ".")
    uploaded, counted = printed.splitlines()
    assert uploaded.startswith("1 uploaded, 1 with a record, 1 left out (HEIC). Send HEIC as JPEG")
    assert counted == "1 counted, 0 rejected"
    (inventory.folder / "stock.csv").write_text("Location;On Hand Qty\nP-4-B217;4,0\n")
    printed = inventory.does("records", "load", "stock.csv", "--site", "FAR1")
    assert printed.startswith("stock.csv: 1 row kept for 1 bin, 0 refused\n")
    assert "stock.csv" in inventory.does("records", "status")
    (row,) = csv.DictReader(io.StringIO(inventory.does("counts", "--site", "ACC1", "--csv", "-")))
    assert (row["bin"], row["recorded_quantity"]) == ("P-1", "3")
    assert row["photograph"] == f"s3://{user.bucket}/incoming/ACC1/P-1/a.jpg"
    assert "ACC1/P-1" in inventory.does("counts", "--recount", "--site", "ACC1")
    assert "a.jpg" in inventory.does("counts", "--site", "ACC1", "--bin", "P-1")


def test_an_inventory_person_is_refused_the_rest(inventory: Person, version: str) -> None:
    inventory.is_refused("model", "release", version, permission="sagemaker:ListModelPackages")
    inventory.is_refused("model", "rollback", permission="sagemaker:DescribeEndpoint")
    inventory.is_refused("retrain", "start", permission="states:StartExecution")
    inventory.is_refused("stack", "redrive", permission="sqs:GetQueueAttributes")
    inventory.is_refused("stack", "reconcile", permission="sqs:GetQueueAttributes")
    inventory.is_refused("stack", "forget", "--before", "400d", "--yes", permission="states:ListExecutions")
    inventory.is_refused("status", permission="sagemaker:DescribeEndpoint")


def test_an_inventory_person_of_a_site_uploads_there_and_nowhere_else(
    person: Callable[..., Person], user: Any, photograph: Callable[..., bytes]
) -> None:
    """The site of the policy is RCT1 (tests/stack/people.py)."""
    local = person("of-site", "inventory-of-site")
    for site in ("RCT1", "ACC1"):
        folder = local.folder / site / site / "P-9"
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(photograph(47))
    printed = local.does("upload", "--wait", "RCT1")
    assert printed.splitlines()[-1] == "1 counted, 0 rejected"
    assert "P-9" in local.does("counts", "--site", "RCT1", "--csv", "-")
    local.is_refused("upload", "ACC1", permission="s3:PutObject")
    local.is_refused("recount", "list", "--site", "ACC1", permission="execute-api:Invoke")
    assert "Versions" not in user.s3.list_object_versions(Bucket=user.bucket, Prefix="incoming/ACC1/P-9/")


def test_who_may_forget_a_site_leaves_nothing_of_it(
    person: Callable[..., Person], user: Any, photograph: Callable[..., bytes], stack: Local
) -> None:
    keeper = person("keeper", "inventory", "forget")
    folder = keeper.folder / "FGT1" / "P-1"
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(photograph(43))
    (folder / "labels.csv").write_text("id,quantity\na,3\n")
    keeper.does("upload", "--wait", str(keeper.folder))
    place = {"site": "FGT1", "bin": "P-1", "split": "test", "object": "datasets/test/fgt1.jpg", "member": "fgt1.jpg"}
    change = {"dynamodb": {"Keys": {"PK": {"S": "BIN#FGT1#P-1"}}}}
    copies = {
        "retrain/fgt1/dataset/index.jsonl": json.dumps(place),
        place["object"]: "a copy",
        "aws/lambda/fgt1/1": json.dumps({"payload": json.dumps({"Records": [change]})}),
    }
    for key, body in copies.items():
        user.s3.put_object(Bucket=stack.outputs()["ArtifactsBucket"], Key=key, Body=body.encode())
    planned = json.loads(keeper.does("stack", "forget", "--site", "fgt1", "--dry-run", "--json"))
    assert (planned["bins"], planned["photographs"], planned["labels"], planned["in_datasets"]) == (1, 1, 1, 1)
    assert json.loads(keeper.does("stack", "forget", "--site", "fgt1", "--yes", "--json"))["photographs"] == 1
    assert "FGT1" not in keeper.does("counts", "--csv", "-")
    left = user.s3.list_object_versions(Bucket=user.bucket, Prefix="incoming/FGT1/")
    assert "Versions" not in left and "DeleteMarkers" not in left
    for key in copies:
        left = user.s3.list_object_versions(Bucket=stack.outputs()["ArtifactsBucket"], Prefix=key)
        assert [one["Size"] for one in left.get("Versions", [])] in ([], [0]), "an index without lines"
    assert json.loads(keeper.does("stack", "forget", "--site", "fgt1", "--dry-run", "--json")).get("items", 0) == 0


def test_env_names_the_stack_and_no_keys(inventory: Person, stack: Local) -> None:
    exports = dict(re.findall(r"export (\w+)=(\S+)", inventory.does("env")))
    assert (exports["BINTALLY_STACK"], exports["AWS_REGION"]) == (stack.name, "us-east-1")
    assert exports["IMAGES_BUCKET"] == stack.outputs()["ImagesBucket"]
    assert "AWS_SECRET_ACCESS_KEY" not in exports


def test_an_inventory_person_cannot_start_a_release_past_the_command(inventory: Person, stack: Local) -> None:
    """Not with the state machine, whose name they may read."""
    key, secret = (inventory.environment[f"AWS_{name}"] for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"))
    session: Any = boto3.Session(key, secret, region_name="us-east-1")
    states = session.client("stepfunctions", endpoint_url=stack.endpoint_url)
    with pytest.raises(ClientError, match="not authorized to perform: states:StartExecution"):
        states.start_execution(stateMachineArn=stack.outputs()["ReleaseStateMachine"], input="{}")


def test_an_operator_releases_and_rejects(operator: Person, stack: Local, version: str) -> None:
    status = json.loads(operator.does("status", "--json"))
    assert (status["region"], status["stack"]) == ("us-east-1", stack.name)
    assert status["you"].endswith(":user/operator")
    (found,) = [one for one in json.loads(operator.does("model", "list", "--json")) if one["state"] == "live"]
    assert found["model_version"] == version
    assert found["metrics"], "of the artifacts bucket"
    assert f"Model {version}: already live" in operator.does("model", "release", version)
    assert "was approved before" in operator.does("model", "approve", version)
    printed = operator.does("stack", "redrive")
    assert printed == "0 messages sent back to the count queue\n0 messages sent back to the record queue\n"
    assert json.loads(operator.does("stack", "reconcile", "--since", "1d", "--json"))["uncounted"] == 0


def test_the_doctor_finds_a_healthy_stack_well_and_names_what_is_broken(
    operator: Person, stack: Local, user: Any, version: str
) -> None:
    """On this machine; then as an operator of an account, whose policy lets every look through. What tests changed on
    their stack, the seconds before a retry, is all that is wrong at first."""
    report = examine(stack)
    assert [each.wrong for each in report.findings if "RETRY_SECONDS" not in each.wrong] == []
    assert [each.about for each in report.findings] == ["CountFunction"]
    assert report.not_examined == {}
    user.sqs.send_message(QueueUrl=user.dead, MessageBody="{}")
    with user.held():
        code, printed, errors = operator.run("stack", "doctor", "--json")
    user.sqs.purge_queue(QueueUrl=user.dead)
    assert (code, errors) == (1, "")
    found = json.loads(printed)
    found["not_examined"].pop("quotas", None)  # the emulator has no Service Quotas
    assert found["not_examined"] == {}
    wrong = {(each["about"], each["section"]) for each in found["findings"]}
    assert wrong == {
        ("CountFunction", "drift"),
        ("CountMapping", "mappings"),
        ("CountDeadLetterQueue", "countdeadletteralarm"),
        ("CountsTable", "settings"),  # the emulator makes tables without point-in-time recovery
        ("AlertsTopic", "alerts"),  # nobody subscribes to the alarms of a test
    }


def test_an_operator_may_go_back(operator: Person, monkeypatch: pytest.MonkeyPatch, stack: Local) -> None:
    """Everything that a rollback reads; its release is that of the test above."""
    for name, value in operator.environment.items():
        monkeypatch.setenv(name, value)
    with contextlib.suppress(CliError):  # no other model was live
        previous(Account(stack.name))


def test_an_operator_starts_a_retraining_and_watches_it(operator: Person) -> None:
    """With few labels it ends at once, as NothingToDo."""
    printed = operator.does("retrain", "start", "--watch")
    assert "nothing" in printed.lower()


def test_a_stack_that_does_not_exist_is_one_line(stack: Local, person: Callable[..., Person]) -> None:
    owner = person("owner-of-none")
    keys = stack.credentials() | {"BINTALLY_STACK": "other"}
    code, printed, errors = Person(owner.folder, owner.environment | keys).run("counts")
    assert (code, printed) == (3, "")
    assert errors.startswith("Error: there is no stack other in us-east-1. Check --stack, --region and --profile")


def test_without_a_name_the_local_stack_is_meant(inventory: Person, tmp_path: Path) -> None:
    environment = {name: value for name, value in inventory.environment.items() if name != "BINTALLY_STACK"}
    alone = Person(tmp_path, environment | {"BINTALLY_HOME": str(tmp_path / "home")})
    assert alone.run("counts") == (3, "", "Error: the stack is not running; start it with: bintally up\n")


def test_wrong_keys_are_one_line(inventory: Person) -> None:
    wrong = Person(inventory.folder, inventory.environment | {"AWS_SECRET_ACCESS_KEY": "wrong"})
    code, printed, errors = wrong.run("counts")
    assert (code, printed, errors.count("\n")) == (1, "", 1)
    assert errors.startswith("Error: AWS does not accept these credentials (")
