"""The notebook has no output in the repository, and runs from its first cell to its last on a local stack."""

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from localsagemaker.ports import free_port

REPOSITORY = Path(__file__).parents[2]
NOTEBOOK = REPOSITORY / "notebooks" / "bin-object-counting.ipynb"
BINTALLY = REPOSITORY / ".venv" / "bin" / "bintally"
SECONDS = 1800


def cells(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    return found


def test_no_output_is_in_the_repository() -> None:
    code = [cell for cell in cells(NOTEBOOK) if cell["cell_type"] == "code"]
    assert code and not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert not any(cell["metadata"] for cell in cells(NOTEBOOK))


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A whole stack of its own: the environment that `bintally env` gives a shell."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    own = clean | {"BINTALLY_HOME": str(tmp_path / "home"), "BINTALLY_PORT": str(free_port())}
    subprocess.run([BINTALLY, "up"], env=own, check=True)
    try:
        exports = subprocess.run([BINTALLY, "env"], env=own, check=True, capture_output=True, text=True).stdout
        words = (
            line.removeprefix("export ").partition("=") for line in exports.splitlines() if line.startswith("export ")
        )
        yield own | {name: shlex.split(value)[0] for name, _, value in words}
    finally:
        subprocess.run([BINTALLY, "down", "--wipe"], env=own, check=False)


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 600)
def test_it_runs_on_the_local_stack(stack: dict[str, str], tmp_path: Path) -> None:
    execute = REPOSITORY / ".venv-launch" / "bin" / "jupyter-execute"
    assert execute.exists(), "make .venv-launch/notebook.installed"
    executed = tmp_path / "executed.ipynb"
    subprocess.run([execute, f"--output={executed}", NOTEBOOK], env=stack, check=True, timeout=SECONDS)
    said = {cell["id"]: "".join(line for out in cell["outputs"] for line in out.get("text", ()))
            for cell in cells(executed) if cell["cell_type"] == "code"}  # fmt: skip
    for cell in ("process", "train", "transform"):
        assert ": Completed" in said[cell], cell
    assert ": InService" in said["deploy"]
    assert "lower bound" in said["report"]
    pictures = [cell["id"] for cell in cells(executed) for out in cell.get("outputs", ()) if "image/png" in str(out)]
    assert {"render", "report", "invoke"} <= set(pictures)
