"""The commit that is deployed, and where its pages can be read."""

import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

RUNBOOK = "docs/runbook.md"
"""The default of the template's parameter Runbook."""


def code_version(folder: Path) -> str:
    """The commit that is deployed, for the model registry; `unknown` without a repository."""
    return git(folder, "describe", "--always", "--dirty", "--exclude", "*") or "unknown"


def runbook(folder: Path) -> str | None:
    """The address of the runbook's page as of the commit that is deployed; None where no page is known to show it."""
    commit = git(folder, "rev-parse", "HEAD")
    if not git(folder, "branch", "--remotes", "--contains", "HEAD"):
        return None  # nobody else has the commit
    return page(git(folder, "remote", "get-url", "origin"), commit, RUNBOOK)


def page(remote: str, commit: str, file: str) -> str | None:
    """The address of a file's page on the host of a Git remote, if it is a GitHub or a GitLab: both show /blob/ pages.
    Never with the user or password that a remote's address may contain."""
    if short := re.fullmatch(r"(?:[\w.-]+@)?([\w.-]+):(?!/)(.+)", remote):  # git@host:owner/name.git
        remote = f"ssh://{short[1]}/{short[2]}"
    found = urlsplit(remote)
    host, name = found.hostname or "", found.path.strip("/").removesuffix(".git")
    if found.scheme not in ("https", "ssh") or not re.search(r"\bgit(hub|lab)\b", host) or not name:
        return None
    port = f":{found.port}" if found.port and found.scheme == "https" else ""
    return f"https://{host}{port}/{name}/blob/{commit}/{file}"


def git(folder: Path, *words: str) -> str:
    """What git printed; nothing without git or a repository."""
    try:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""
