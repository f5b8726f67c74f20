"""The service knows only the stack description that its caller gives."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from localsagemaker.wire import ServiceError

from localsagemaker import host

SOURCES = sorted((Path(__file__).parents[1] / "src" / "localsagemaker").glob("*.py"))


def a_host(**entry_points: list[str]) -> host.Host:
    return host.Host(
        home=Path("home"), folder=Path("folder"), search_path=(), python=Path(sys.executable), python_hint="",
        entry_points=entry_points, endpoint_url="", account="000000000000", region="us-east-1", assume=lambda _: {},
        put_event=lambda *_: None, record_metric=lambda *_: None, alarmed=lambda *_: None,
    )  # fmt: skip


@pytest.mark.parametrize(
    "image",
    [
        "train",
        "acme/train:latest",
        "0.dkr.ecr.us-east-1.amazonaws.com/train@sha256:0",
        "localhost:5000/train",
    ],
)
def test_an_images_entry_point_goes_by_its_name(image: str) -> None:
    assert a_host(serve=["serve"], train=["python", "-m", "job"]).entry_point(image) == ["python", "-m", "job"]


def test_the_first_pattern_counts() -> None:
    told = a_host(**{"*train*": ["first"], "*": ["second"]})
    assert (told.entry_point("my-train:1"), told.entry_point("other")) == (["first"], ["second"])


def test_an_unknown_image_is_refused_by_name() -> None:
    with pytest.raises(ServiceError, match=r"the image acme/other:1; known are train, serve"):
        a_host(train=[], serve=[]).entry_point("acme/other:1")


def test_it_knows_nothing_of_the_stack_that_uses_it() -> None:
    words = re.compile(r"bintally|make train-venv|model\.serve|training\.train", re.IGNORECASE)
    assert SOURCES
    assert [path.name for path in SOURCES if words.search(path.read_text())] == []


def test_it_starts_without_optuna() -> None:
    """It costs half a second, which only a tuning job should wait for."""
    code = "import sys, localsagemaker.tuning; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=SOURCES[0].parents[1], check=False).returncode == 0
