"""Runs docker and the SAM CLI, each with a log of its own; or only prints the commands."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deployed.errors import DeployFailed
from deployed.shipping import Say


@dataclass(frozen=True)
class Shell:
    """Commands start in `folder`, with `variables` added to the environment; `logs` gets their output."""

    folder: Path
    logs: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def run(self, *words: str, log: str, secret: str | None = None) -> None:
        """Runs a command; `secret` is its input. Raises DeployFailed with the last line of what it printed."""
        self.logs.mkdir(parents=True, exist_ok=True)
        file = self.logs / f"{log}.log"
        with file.open("wb") as output:
            done = subprocess.run(
                words,
                cwd=self.folder,
                env=self.environment(),
                input=secret.encode() if secret else None,
                stdin=None if secret else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        if done.returncode:
            lines = [line.strip() for line in file.read_text(errors="replace").splitlines() if line.strip()]
            raise DeployFailed(
                f"{words[0]} {words[1]} failed: {lines[-1] if lines else 'it printed nothing'} (see {file})"
            )

    def environment(self) -> dict[str, str]:
        """The caller's. `sam`, and the uv that builds the functions, are beside this Python."""
        search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return dict(os.environ) | dict(self.variables) | {"PATH": search, "SAM_CLI_TELEMETRY": "0"}


@dataclass(frozen=True)
class Rehearsing(Shell):
    """Prints the commands and runs none."""

    say: Say = print

    def run(self, *words: str, log: str, secret: str | None = None) -> None:
        self.say(f"  {printed(words)}{' <password' if secret else ''}")


def printed(words: Sequence[str]) -> str:
    """The words as a person would type them; what only a shell would misread is quoted."""
    return " ".join(shlex.quote(word) for word in words)
