"""A stack that was deleted, and one whose counts were spoiled, by the scripts of docs/restoring.md as they are.

By a person with the policies that the page names. What the scripts cannot have here comes from the lines before them: a
registry of images, and an AWS CLI that knows AWS_ENDPOINT_URL.
"""

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bintally.aws.items import marker_key_of

from deployed import deploying
from deployed.deploying import Wanted
from deployed.people import People
from deployed.shell import Shell
from deployed.target import Target
from local.stack import REGION, REPOSITORY, Local, digest_of, package_version, sources
from tests.stack.conftest import User
from tests.stack.people import Person, make_person
from tests.stack.releasing import as_version, unpacked

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]
PAGE = (REPOSITORY / "docs" / "restoring.md").read_text()
IMAGES = {"ServingImage": "bintally-serve:latest", "TrainingImage": "bintally-train:latest"}
POLICIES = ("inventory", "operator", "deploy", "destroy", "adopt")
BEFORE = r"""
aws() { command aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }
bintally() {
  if [ "$*" = "stack deploy" ]; then set -- "$@" $GIVEN; fi
  command bintally "$@"
}
"""


def script(name: str) -> str:
    (found,) = re.findall(rf"<!-- script: {name} -->\n```sh\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def lost(stack: Local) -> Local:
    return dataclasses.replace(stack, name=f"{stack.name}-lost")


@pytest.fixture(scope="module")
def operator(lost: Local, tmp_path_factory: pytest.TempPathFactory) -> Person:
    built = lost.build_folder(digest_of(sources(lost.template))) / "template.json"
    words = (
        *("--serving-image", IMAGES["ServingImage"], "--training-image", IMAGES["TrainingImage"]),
        "--built",
        built,
    )
    person = make_person(lost, tmp_path_factory, "restorer", *POLICIES)
    # The emulator does not know which table this action is about, and asks about every resource.
    everywhere = {"Effect": "Allow", "Action": "dynamodb:RestoreTableToPointInTime", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [everywhere]})
    lost.client("iam").put_user_policy(UserName="restorer", PolicyName="emulator", PolicyDocument=policy)
    more = {"GIVEN": " ".join(map(str, words)), "SAM_CLI_POLL_DELAY": "0.5", "AWS_DEFAULT_REGION": REGION}
    more["PATH"] = f"{Path(sys.executable).parent}:{person.environment['PATH']}"
    return dataclasses.replace(person, environment=person.environment | more)


@pytest.fixture(scope="module")
def runs(operator: Person) -> Callable[..., str]:
    def run(name: str, **variables: str) -> str:
        done = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", BEFORE + script(name)],
            cwd=operator.folder,
            env=operator.environment | variables,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_what_a_deleted_stack_kept_is_adopted_and_then_a_table_of_another_time(
    lost: Local, operator: Person, runs: Callable[..., str], photograph: Callable[..., bytes]
) -> None:
    (built,) = re.findall(r"--built (\S+)", operator.environment["GIVEN"])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in operator.environment.items():
            patch.setenv(name, value)
        wanted = Wanted(REPOSITORY, built=Path(built))
        shell = Shell(REPOSITORY, operator.folder, operator.environment)
        deploying.sam_deploy(Target(lost.name, region=REGION), wanted, IMAGES, shell)
    lost.ship(package_version(lost.package), print)
    user = User(lost)
    user.upload("incoming/LST/B-1/1.jpg", photograph(81), recorded_quantity="3")
    (first,) = user.wait_counts("incoming/LST/B-1/1.jpg")
    People(lost).add("carla", "manager", ["LST"])
    artifacts = user.outputs["ArtifactsBucket"]
    retrained = as_version(unpacked(lost.package.read_bytes()), "retrained")
    user.s3.put_object(Bucket=artifacts, Key="models/retrained/model.tar.gz", Body=retrained)

    code, _, errors = operator.run("stack", "destroy", "--keep-data")
    assert code == 0, errors
    user.upload("incoming/LST/B-2/2.jpg", photograph(82))
    adopted = runs("deleted")
    assert not User(lost).counts("incoming/LST/B-2/2.jpg"), "nothing told the new stack of it"
    assert f"CountsTable {user.outputs['CountsTable']}" in adopted
    again = User(lost)
    for name in ("ImagesBucket", "ArtifactsBucket", "CountsTable", "UserPool"):
        assert again.outputs[name] == user.outputs[name]
    assert again.outputs["ApiUrl"] != user.outputs["ApiUrl"], "all else is new"
    assert again.counts("incoming/LST/B-1/1.jpg") == [first]
    (carla,) = People(lost).members()
    assert (carla.name, carla.role, carla.sites) == ("carla", "manager", ("LST",))
    again.upload("incoming/LST/B-1/3.jpg", photograph(83))
    again.wait_counts("incoming/LST/B-1/3.jpg")

    assert "retrained/" in runs("model", VERSION="retrained")
    again.wait_for("the retrained model", lambda: "/models/retrained/" in str(lost.live_model_data(again.outputs)), 300)

    runs("reconcile")
    (second,) = again.wait_counts("incoming/LST/B-2/2.jpg")
    assert second["model_version"] == "retrained"

    with_the_spoiled(runs, again, photograph)


def with_the_spoiled(runs: Callable[..., str], user: User, photograph: Callable[..., bytes]) -> None:
    """Back to a table that lacks the newest photographs: the emulator restores the present, so a count is taken away
    from the table that it restores, and lies in the bucket alone."""
    (item,) = user.counts("incoming/LST/B-2/2.jpg")
    image = item["image"]
    for key in ({"PK": item["PK"], "SK": item["SK"]}, marker_key_of(user.bucket, image["key"], image["version_id"])):
        user.table.delete_item(Key=key)
    runs("spoiled", TIME="2026-11-01T00:00:00Z")
    runs("reconcile")
    restored = User(user.stack)
    assert restored.outputs["CountsTable"].startswith(f"{user.stack.name}-CountsTable-20")
    assert restored.outputs["ImagesBucket"] == user.bucket
    restored.wait_counts("incoming/LST/B-2/2.jpg")
    assert restored.counts("incoming/LST/B-1/1.jpg") and restored.counts("incoming/LST/B-1/3.jpg")
    table = user.stack.client("dynamodb").describe_table(TableName=restored.outputs["CountsTable"])["Table"]
    assert table["StreamSpecification"]["StreamEnabled"], "labels and reviews follow the restored table"
