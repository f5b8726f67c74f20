"""Real emulators on free ports with homes of their own, and a small serving app in the place of the real one."""

import io
import json
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from localsagemaker.ports import free_port

from local import emulator, processes
from local.owner import make_key
from local.stack import REGION, Local, healthy
from tests.shared import shared

# Speaks the container contract. Its answer names its model and process; a body says what else it should do.
SERVING_APP = """
import http.server, json, os, time
from pathlib import Path
package = json.loads((Path(os.environ["SM_MODEL_DIR"]) / "package.json").read_text())
if package["model_version"] == "broken":
    raise SystemExit("the model does not load")
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(200, b"")
    def do_POST(self):
        word = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if word == "die":
            os._exit(3)
        if word in ("slow", "slower"):
            time.sleep(1 if word == "slow" else 3)
        if package["model_version"] == "failing":
            word = "500"
        if word.isdigit():
            return self.answer(int(word), b'{"error": "as asked"}')
        seen = dict(package, pid=os.getpid(), type=self.headers["Content-Type"], variables=sorted(os.environ))
        self.answer(200, json.dumps(seen).encode())
    def log_message(self, *arguments):
        pass
port = int(os.environ["SAGEMAKER_BIND_TO_PORT"])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture(scope="session")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Emulators started with these serve models with SERVING_APP, and run jobs with this Python."""
    script = tmp_path_factory.mktemp("serving") / "app.py"
    script.write_text(SERVING_APP)
    serving = json.dumps([sys.executable, str(script)])
    return {"BINTALLY_SERVING": serving, "BINTALLY_TRAINING_PYTHON": sys.executable}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What shows a gap of ministack alone runs when its version changes. Tests of one file share names in an emulator
    and run in one worker, except those that have an emulator of their own."""
    for item in items:
        if not isinstance(item, pytest.Function) or "tests/local/" not in item.nodeid:
            continue
        if hasattr(item, "callspec") and item.callspec.params.get("which") == "bare":
            item.add_marker(pytest.mark.upstream)
        if "own" not in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(autouse=True)
def own_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack builds in its home, as it does for a person: only tests/stack has builds that stacks share."""
    monkeypatch.delenv("BINTALLY_BUILDS", raising=False)


@pytest.fixture(scope="session")
def ours(variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Local:
    """A running emulator that the tests of all workers share; they use names of their own in it."""

    def make(home: Path) -> Local:
        stack = Local(home=home, port=free_port(), variables=variables)
        stack.start_emulator()
        return stack

    return shared(tmp_path_factory, "ours", make)


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """ministack with the same settings and nothing of ours."""
    stack = Local(home=tmp_path_factory.mktemp("bare"), port=free_port())
    stack.make_home()
    settings = emulator.environment(stack.home, stack.port, make_key(stack.home))
    process = subprocess.Popen(
        [sys.executable, "-m", "ministack.app"],
        env=os.environ | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not healthy(stack.endpoint_url):
        assert process.poll() is None
        time.sleep(0.1)
    yield stack
    processes.end_session(process.pid, 10)
    process.wait()


@pytest.fixture
def own(variables: dict[str, str], tmp_path: Path) -> Iterator[Local]:
    """A stack that is not running, for tests that start, stop or kill it."""
    stack = Local(home=tmp_path / "home", port=free_port(), variables=variables)
    yield stack
    stack.down()


@pytest.fixture(scope="session")
def policy() -> Callable[..., str]:
    def document(*statements: dict[str, Any]) -> str:
        return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})

    return document


@pytest.fixture(scope="session")
def role(policy: Callable[..., str]) -> Callable[..., str]:
    """Makes a role that `service` (or the account, when None) may assume and that may do what is listed."""

    def make(stack: Local, name: str, service: str | None, *statements: dict[str, Any]) -> str:
        principal = {"Service": service} if service else {"AWS": "arn:aws:iam::000000000000:root"}
        trust = policy({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"})
        iam = stack.client("iam")
        arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        if statements:
            iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=policy(*statements))
        return arn

    return make


@pytest.fixture(scope="session")
def function_role(role: Callable[..., str]) -> Callable[..., str]:
    """Makes a role for functions that may do nothing."""
    return lambda stack, name: role(stack, name, "lambda.amazonaws.com")


@pytest.fixture(scope="session")
def code_of() -> Callable[[str], bytes]:
    """A function's deployment package: its handler has one line."""

    def build(line: str) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("index.py", f"def handler(event, context):\n    {line}\n")
        return buffer.getvalue()

    return build


@pytest.fixture(scope="session")
def signed_in_query() -> Callable[..., str]:
    """The path of a request that carries its signature in the query, as a page can send it without a preflight."""

    def sign(stack: Local, key: str, secret: str, service: str, method: str, path: str, body: bytes = b"") -> str:
        request = AWSRequest(method, stack.endpoint_url + path, data=body)
        SigV4QueryAuth(Credentials(key, secret), service, REGION).add_auth(request)
        parts = urlsplit(request.prepare().url)
        return f"{parts.path}?{parts.query}"

    return sign


@pytest.fixture(scope="session")
def as_role() -> Callable[..., Any]:
    """A client that acts as a role."""

    def client(stack: Local, role_arn: str, service: str) -> Any:
        keys = stack.client("sts").assume_role(RoleArn=role_arn, RoleSessionName="test")["Credentials"]
        session: Any = boto3.Session(
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys["SessionToken"],
            region_name=REGION,
        )
        return session.client(service, endpoint_url=stack.endpoint_url)

    return client


@pytest.fixture(scope="session")
def archive() -> Callable[[str], bytes]:
    """A model.tar.gz whose package.json names a version."""

    def build(version: str) -> bytes:
        content = json.dumps({"model_version": version}).encode()
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            member = tarfile.TarInfo("package.json")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        return buffer.getvalue()

    return build


@pytest.fixture(scope="session")
def model(role: Callable[..., str], archive: Callable[[str], bytes]) -> Callable[..., str]:
    """Makes model, configuration and role for a version; the configuration is named as the model."""

    def make(stack: Local, name: str, version: str, **variant: Any) -> str:
        s3, sagemaker = stack.client("s3"), stack.client("sagemaker")
        bucket, key = f"{name}-models", f"{version}/model.tar.gz"
        s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket=bucket, Key=key, Body=archive(version))
        read = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
        sagemaker.create_model(
            ModelName=name,
            PrimaryContainer={"Image": "serving", "ModelDataUrl": f"s3://{bucket}/{key}"},
            ExecutionRoleArn=role(stack, f"{name}-model", "sagemaker.amazonaws.com", read),
        )
        serverless = {"ServerlessConfig": {"MemorySizeInMB": 3072, "MaxConcurrency": 20}}
        sagemaker.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[{"VariantName": "AllTraffic", "ModelName": name, **(variant or serverless)}],
        )
        return name

    return make


@pytest.fixture(scope="session")
def settled() -> Callable[..., dict[str, Any]]:
    """The endpoint's description once it is in service or failed."""

    def wait(stack: Local, endpoint: str) -> dict[str, Any]:
        sagemaker = stack.client("sagemaker")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found: dict[str, Any] = sagemaker.describe_endpoint(EndpointName=endpoint)
            if found["EndpointStatus"] in ("InService", "Failed"):
                return found
            time.sleep(0.1)
        raise TimeoutError(found)

    return wait


@pytest.fixture(scope="session")
def serves(ask: Callable[..., dict[str, Any]]) -> Callable[[Local, str], None]:
    """Waits until an endpoint answers: after a stop it is in service at once, and says 503 while its process starts."""

    def wait(stack: Local, endpoint: str) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                ask(stack, endpoint)
                return
            except ClientError as error:
                assert error.response["Error"]["Code"] == "ServiceUnavailable" and time.monotonic() < deadline, error
                time.sleep(0.1)

    return wait


@pytest.fixture(scope="session")
def ask() -> Callable[..., dict[str, Any]]:
    """Invokes an endpoint without retries and reads its JSON answer."""
    clients: dict[int, Any] = {}

    def invoke(stack: Local, endpoint: str, body: bytes = b"count") -> dict[str, Any]:
        if stack.port not in clients:
            clients[stack.port] = stack.client("sagemaker-runtime", retries={"total_max_attempts": 1})
        answer = clients[stack.port].invoke_endpoint(EndpointName=endpoint, Body=body, ContentType="image/jpeg")
        content: dict[str, Any] = json.load(answer["Body"])
        return content

    return invoke


@pytest.fixture
def inside(tmp_path: Path) -> Callable[[str, str], subprocess.CompletedProcess[str]]:
    """Runs a script with "bare" or "ours" in a process of its own, since ministack reads its settings when it is
    imported; its state is in `tmp_path`. Answers what it printed and logged."""

    def run(script: str, which: str) -> subprocess.CompletedProcess[str]:
        settings = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return subprocess.run(
            [sys.executable, "-c", script, which],
            cwd=Path(__file__).parents[2],
            env=settings | {"PERSIST_STATE": "1", "STATE_DIR": str(tmp_path), "S3_DATA_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run
