"""A stack of 0.1.0 is updated to this version while photographs arrive, and back again.

`make upgrade` runs it, since it needs the history.

0.1.0's template, functions and model package run on today's emulator, with today's serving image.
"""

import dataclasses
import io
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployed.doctor import examine
from local.stack import REPOSITORY, Local, package_version
from tests.stack.conftest import FEW_SNAPSHOTS, User

pytestmark = [pytest.mark.upgrade, pytest.mark.timeout(1500)]
COMMIT = "ecd4e11"
"""0.1.0, as CHANGELOG.md names it."""
PACKAGE = "model/pretrained/model.tar.gz"


@pytest.fixture
def old(tmp_path: Path, a_port: Callable[[], int]) -> Iterator[Local]:
    """A stack of 0.1.0 that counts."""
    archive = subprocess.run(["git", "archive", COMMIT], cwd=REPOSITORY, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(tmp_path / "repository", filter="data")
    stack = Local(
        home=tmp_path / "home",
        port=a_port(),
        template=tmp_path / "repository" / "template.yaml",
        package=tmp_path / "repository" / PACKAGE,
        variables=FEW_SNAPSHOTS,
    )
    stack.up(print)
    yield stack
    stack.down()


def test_counts_in_flight_survive_an_update(old: Local, photograph: Callable[..., bytes]) -> None:
    before, ended = User(old), threading.Event()
    earlier = [f"incoming/UPG/B{number}/{number}.jpg" for number in range(3)]
    for number, key in enumerate(earlier):
        before.upload(key, photograph(number), recorded_quantity="3")
    kept = before.wait_counts(*earlier)
    keys: list[str] = []

    def keep_uploading() -> None:
        while not ended.is_set():
            number = len(keys)
            before.upload(f"incoming/UPG/B{number % 5}/during-{number}.jpg", photograph(number))
            keys.append(f"incoming/UPG/B{number % 5}/during-{number}.jpg")
            time.sleep(0.4)

    uploads = threading.Thread(target=keep_uploading)
    uploads.start()
    try:
        new = dataclasses.replace(old, template=REPOSITORY / "template.yaml")
        new.up(print)
        time.sleep(3)
    finally:
        ended.set()
        uploads.join()

    after = User(new)
    for name in ("ImagesBucket", "ArtifactsBucket", "CountsTable"):
        assert after.outputs[name] == before.outputs[name]
    counted = after.wait_counts(*keys, seconds=300)
    assert len(counted) == len(keys) > 10
    assert {item["status"] for item in counted} == {"COUNTED"}
    assert sorted(after.counts(*earlier), key=str) == sorted(kept, key=str)
    assert after.depth(after.dead) == 0
    assert after.totals("UPG")["counted"] == len(keys) + len(earlier)
    assert new.reconcile(grace_seconds=0).uncounted == 0, "items of 0.1.0 have no markers, and are counts all the same"
    assert len(after.of_site("UPG")) == len(keys) + len(earlier)
    # Photographs that waited while functions were replaced, on a busy machine, may have raised an alarm, which ends.
    after.wait_for("nothing for the doctor to find", lambda: not examine(new).findings, 600)

    assert {item["model_version"] for item in counted} == {package_version(old.package)}, "the live model stays"
    newest = dataclasses.replace(new, package=REPOSITORY / PACKAGE)
    newest.ship(package_version(newest.package), print)
    after.upload("incoming/UPG/B0/newest.jpg", photograph(99))
    (item,) = after.wait_counts("incoming/UPG/B0/newest.jpg")
    assert item["model_version"] == package_version(newest.package) != package_version(old.package)

    assert after.outputs != before.outputs
    dataclasses.replace(old, package=newest.package).up(print)
    back = User(old)
    assert back.outputs == before.outputs
    back.upload("incoming/UPG/B1/back.jpg", photograph(100))
    (item,) = back.wait_counts("incoming/UPG/B1/back.jpg")
    assert item["model_version"] == package_version(newest.package), "the live model stays here too"
    assert sorted(back.counts(*earlier), key=str) == sorted(kept, key=str)
