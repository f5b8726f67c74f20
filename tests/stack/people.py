"""People with IAM users of their own, who may do what docs/operations.md and docs/deploying.md print, and `bintally` at
their shells; and people at a browser.

The local stack is the account: its address is in AWS_ENDPOINT_URL, as any AWS client takes it.
"""

import http.client
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from local.stack import REPOSITORY, Local

PAGE = "".join((REPOSITORY / "docs" / f"{name}.md").read_text() for name in ("operations", "deploying"))
PLACEHOLDERS = {"<region>": "us-east-1", "<account>": "000000000000", "<site>": "RCT1", "<pool>": "*", "<role>": "*"}


def policy(name: str, stack: str) -> str:
    """The policy that a page prints under this name, for a stack of this account."""
    (found,) = re.findall(rf"<!-- policy: {name} -->\n```json\n(.*?)```", PAGE, re.DOTALL)
    for place, value in (PLACEHOLDERS | {"<stack>": stack}).items():
        found = found.replace(place, value)
    assert "<" not in found
    return str(found)


@dataclass(frozen=True)
class Person:
    """An IAM user at a shell in a folder that has nothing of Bintally."""

    folder: Path
    environment: dict[str, str]

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit code, output and errors of a `bintally` command."""
        command = [str(Path(sys.executable).with_name("bintally")), *words]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    def does(self, *words: str) -> str:
        code, printed, errors = self.run(*words)
        assert (code, errors) == (0, ""), (words, printed, errors)
        return printed

    def is_refused(self, *words: str, permission: str) -> None:
        code, printed, errors = self.run(*words)
        assert (code, printed, errors.count("\n")) == (1, "", 1), (words, printed, errors)
        assert errors.startswith(f"Error: access denied. Missing permission: {permission}")


def make_person(stack: Local, factory: pytest.TempPathFactory, name: str, *policies: str) -> Person:
    """An IAM user with these policies of docs/operations.md and no other right."""
    iam = stack.client("iam")
    iam.create_user(UserName=name)
    for each in policies:
        iam.put_user_policy(UserName=name, PolicyName=each, PolicyDocument=policy(each, stack.name))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    aws = {
        "AWS_ENDPOINT_URL": stack.endpoint_url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    return Person(factory.mktemp(name), kept | aws | {"BINTALLY_STACK": stack.name})


@dataclass
class Browser:
    """Of one person, at the API's Host form."""

    stack: Local
    token: str = ""
    cookie: str = ""

    def __post_init__(self) -> None:
        self.host = urlsplit(self.stack.outputs()["ApiUrl"]).netloc

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        sent = {"Host": self.host, "Content-Type": "application/json"} | headers
        sent |= {"Cookie": self.cookie} if self.cookie else {}
        connection = http.client.HTTPConnection("127.0.0.1", self.stack.port, timeout=60)
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        answer = connection.getresponse()
        said = json.loads(answer.read())
        for cookie in answer.headers.get_all("Set-Cookie") or []:
            self.cookie = cookie.split(";")[0]
        connection.close()
        return answer.status, said

    def get(self, path: str, token: str | None = None) -> tuple[int, Any]:
        return self.ask("GET", path, Authorization=f"Bearer {self.token if token is None else token}")

    def session(self, **body: Any) -> tuple[int, Any]:
        status, said = self.ask("POST", "/session", body)
        self.token = said.get("token", self.token)
        return status, said
