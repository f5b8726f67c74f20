"""Takes each granted action away in turn, and shows that a test of the stack breaks without it.

    make grants                                         # notes which test uses which action
    python -m tests.removals .runs/grants.txt [ROLE …]

Every action that a test used gets a stack of its own, whose emulator denies it, and that test; one that passes is
followed by another test that used the action, up to TESTS. One that fails before the action is denied shows nothing.
What takes a while to break is waited for PATIENCE, and a test that needs longer with all permissions is no witness.
Ends with 1 if an action is missed by no test.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from threading import Lock

from samtranslator.yaml_helper import yaml_parse

from local.grants import TEMPLATE, granted, used
from local.stack import Local

TESTS = 3
PATIENCE = {"tests/stack/test_retrain.py": 400}
"""Seconds, of a test's file; 60 of others."""
MOST = 900
"""Seconds of one test, the start of its stack included."""
AT_ONCE = 6
"""Stacks on two cores: a test without a permission mostly waits."""
START = "the start of a stack"
WITNESSES = {
    "FollowRole": "tests/stack/test_labels.py",
    "ReviewRole": "tests/stack/test_recounts.py",
    "AdvanceRole sagemaker:ListEndpointConfigs": "tests/stack/test_release.py::test_old_configurations_are_deleted",
}
"""Of roles, or of their actions, that work in the background of many tests: the tests that look at what they did."""


@dataclass
class Grant:
    """An action of a role, as the template writes it, and the tests that used it, those of few actions first."""

    name: str
    tests: list[str]
    broke: str = ""
    """The test that broke without it."""
    missed: list[str] = field(default_factory=list)
    """Tests that passed without it."""


def grants_in(noted: str, roles: list[str]) -> Iterator[Grant]:
    allowed = granted(yaml_parse(TEMPLATE.read_text())["Resources"])
    found = used(noted, allowed)
    actions_of: dict[str, int] = {}
    for tests in (tests for mine in found.values() for tests in mine.values()):
        for test in tests:
            actions_of[test] = actions_of.get(test, 0) + 1
    for role in roles or sorted(allowed):
        for pattern in sorted(allowed[role]):
            first = [test for name, test in WITNESSES.items() if f"{role} {pattern}".startswith(name)]
            tests = {test for action, tests in found[role].items() if fnmatchcase(action, pattern) for test in tests}
            if tests:
                ordered = sorted(tests, key=lambda test: (test == START, actions_of[test], test))
                yield Grant(f"{role} {pattern}", first + ordered)


def patience_of(test: str) -> int:
    return PATIENCE.get(test.partition("::")[0], 60)


def passes(test: str, without: str = "") -> bool | None:
    """Whether a test, or the start of a stack, passes on a stack of its own without this action. None if it fails
    before the action is denied: for another reason."""
    settings = os.environ | {"BINTALLY_WITHOUT": without, "BINTALLY_PATIENCE": str(patience_of(test))}
    settings.pop("BINTALLY_GRANTS", None)
    node = "tests/stack/test_photograph_to_count.py" if test == START else test
    with tempfile.TemporaryDirectory() as folder:
        denied = Path(folder, "denied")
        settings["BINTALLY_DENIED"] = str(denied)
        options = ["-x", "-q", f"--basetemp={folder}/run", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", *options, node]
        try:
            passed = subprocess.run(command, env=settings, capture_output=True, timeout=MOST).returncode == 0
        except subprocess.TimeoutExpired:
            for pid_file in Path(folder).rglob("emulator.pid"):
                Local(home=pid_file.parent, port=1).stop()
            passed = False
        return passed if passed or denied.exists() else None


@cache
def lock_of(test: str) -> Lock:
    return Lock()


@cache
def control(test: str) -> bool:
    return passes(test) is True


def is_a_witness(test: str) -> bool:
    """Whether it passes with all permissions; asked once."""
    with lock_of(test):
        return control(test)


def look(grant: Grant) -> Grant:
    for test in grant.tests[:TESTS]:
        passed = passes(test, grant.name)
        if passed:
            grant.missed.append(test)
        elif passed is False and is_a_witness(test):
            grant.broke = test
            break
    print(f"{grant.name}: {grant.broke or 'NOT MISSED by ' + ', '.join(grant.missed)}", flush=True)
    return grant


def main(file: str, *roles: str) -> int:
    with ThreadPoolExecutor(AT_ONCE) as workers:
        looked = list(workers.map(look, grants_in(Path(file).read_text(), list(roles))))
    if not looked:
        raise SystemExit(f"{file} names no granted action that a test used: run `make grants` first")
    left = [grant for grant in looked if not grant.broke]
    print(f"{len(looked)} actions taken away in turn; {len(left)} that no test misses")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
