"""The commit that is deployed."""

import subprocess
from pathlib import Path


def code_version(folder: Path) -> str:
    """The commit that is deployed, for the model registry; `unknown` without a repository."""
    words = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        found = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        found = ""
    return found or "unknown"
