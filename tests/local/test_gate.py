"""The local stack answers its owner and the IAM users and roles that they made: no page, no other user of the machine.

The attacks are those that were shown on the stack before: with ministack alone they still succeed.
"""

import asyncio
import hashlib
import http.client
import json
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from local.errors import StackError
from local.gate import Gate
from local.owner import key_file, make_key, read_key
from local.stack import REGION, Local

BOTH = pytest.mark.parametrize("which", ["bare", "ours"])
NOBODY = 65534


@pytest.fixture
def stack(which: str, request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(which)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: str


def raw(
    stack: Local, method: str = "GET", path: str = "/_ministack/health", body: bytes | None = None, **headers: str
) -> Answer:
    """One raw request; header names have _ for -."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=30)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    found = {name.lower(): value for name, value in answer.getheaders()}
    return Answer(answer.status, found, answer.read().decode(errors="replace"))


def refused(answer: Answer, says: str = "") -> bool:
    """403 and one line."""
    return answer.status == 403 and answer.body.count("\n") == 1 and says in answer.body


# Origin and Host


@BOTH
def test_no_answer_lets_every_origin_read_it(stack: Local, which: str, signed_in_query: Callable[..., str]) -> None:
    key, secret = stack.owner_key().access_key_id, stack.owner_key().secret_access_key
    path = signed_in_query(stack, key, secret, "sqs", "GET", "/?Action=ListQueues&Version=2012-11-05")
    answer = raw(stack, "GET", path)
    assert answer.status == 200
    assert (answer.headers.get("access-control-allow-origin") == "*") == (which == "bare")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1:{port}"])
def test_a_foreign_origin_is_refused_even_with_the_owners_key(ours: Local, origin: str) -> None:
    origin = origin.format(port=ours.port)
    link = urlsplit(ours.client("s3", signature_version="s3v4").generate_presigned_url("list_buckets"))
    path = f"{link.path}?{link.query}"
    assert raw(ours, path=path).status == 200
    assert refused(raw(ours, path=path, Origin=origin), f"Origin {origin} ")


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "a1b2c3d4.execute-api.localhost"])
def test_the_stacks_own_pages_may_call_it(ours: Local, name: str) -> None:
    host = f"{name}:{ours.port}"
    assert raw(ours, Host=host, Origin=f"http://{host}").status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:{port}",
        "evil.example",
        "localhost.evil.example:{port}",
        "127.0.0.1:1",
        "localhost",
        ".localhost:{port}",
        "a/.localhost:{port}",
        "",
    ],
)
def test_dns_rebinding_is_refused(ours: Local, host: str) -> None:
    """A foreign name that its owner lets resolve to 127.0.0.1: the page has the stack's origin, not its Host."""
    host = host.format(port=ours.port)
    assert refused(raw(ours, Host=host), f"Host {host or 'missing'} ")


@BOTH
def test_ministack_alone_serves_any_host(stack: Local, which: str) -> None:
    assert raw(stack, Host="evil.example:80").status == (200 if which == "bare" else 403)


# The emulator's own administration


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/_ministack/reset"),
        ("POST", "/_ministack/config"),
        ("GET", "/_ministack/ready"),
        ("GET", "/_ministack/lambda-code/000000000000/us-east-1/any"),
        ("GET", "/_ministack/sqs/messages"),
        ("POST", "/_ministack/health"),
        ("GET", "/_ministack/healthx"),
        ("GET", "/_localstack/health"),
    ],
)
def test_the_emulators_administration_is_closed(ours: Local, method: str, path: str) -> None:
    assert refused(raw(ours, method, path), f"{path} is closed")


def test_health_and_answers_of_custom_resources_are_open(ours: Local) -> None:
    assert raw(ours).status == 200
    assert raw(ours, "PUT", "/_ministack/cfn-response/no-such-token", b"{}").status == 200


# Keys


def client(stack: Local, service: str, key: str, secret: str) -> Any:
    session: Any = boto3.Session(key, secret, region_name=REGION)
    return session.client(service, endpoint_url=stack.endpoint_url)


CALLS = {
    "s3": lambda one: one.list_buckets(),
    "sts": lambda one: one.get_caller_identity(),
    "dynamodb": lambda one: one.list_tables(),
    "lambda": lambda one: one.list_functions(),
    "sqs": lambda one: one.list_queues(),
    "iam": lambda one: one.create_user(UserName="intruder"),
    "sagemaker": lambda one: one.list_models(),
    "stepfunctions": lambda one: one.list_state_machines(),
}
UNKNOWN = r"InvalidAccessKeyId|InvalidClientTokenId|UnrecognizedClientException"


@pytest.mark.parametrize("service", CALLS)
@pytest.mark.parametrize("key", ["test", "000000000000", "123456789012", "AKIAIOSFODNN7EXAMPLE"])
def test_no_other_key_is_the_owner(ours: Local, service: str, key: str) -> None:
    with pytest.raises(ClientError, match=UNKNOWN):
        CALLS[service](client(ours, service, key, "test"))


@pytest.mark.parametrize("service", CALLS)
def test_the_owners_signature_is_checked(ours: Local, service: str) -> None:
    key = ours.owner_key()
    if service != "iam":
        CALLS[service](ours.client(service))
    with pytest.raises(ClientError, match=r"SignatureDoesNotMatch|InvalidSignatureException"):
        CALLS[service](client(ours, service, key.access_key_id, "another secret"))


@pytest.mark.parametrize(
    "path", ["/", "/any-bucket/key", "/?Action=ListQueues", "/2015-03-31/functions", "/v2/", "/_aws/sqs/messages"]
)
def test_a_request_without_a_key_is_refused(ours: Local, path: str) -> None:
    assert refused(raw(ours, path=path), "not signed")
    assert refused(raw(ours, "POST", path, b"", X_Amz_Target="DynamoDB_20120810.ListTables"), "not signed")


@pytest.mark.parametrize("key", ["", "test", "000000000000", "owner"])
@pytest.mark.parametrize("service", ["s3", "lambda"])
def test_a_wrong_signature_in_the_query_is_refused(
    ours: Local, service: str, key: str, signed_in_query: Callable[..., str]
) -> None:
    key = ours.owner_key().access_key_id if key == "owner" else key
    path = "/" if service == "s3" else "/2015-03-31/functions"
    signed = signed_in_query(ours, key or "x", "test", service, "GET", path)
    answer = raw(ours, path=signed if key else signed.replace("=x%2F", "=%2F"))
    assert answer.status in (400, 403)
    assert "<Buckets>" not in answer.body and '"Functions"' not in answer.body


TARGETS = {  # what each service would answer to its owner
    "dynamodb": ("POST", "/", {"X-Amz-Target": "DynamoDB_20120810.ListTables"}, "TableNames"),
    "lambda": ("GET", "/2015-03-31/functions", {}, '"Functions"'),
    "iam": ("GET", "/?Action=ListUsers&Version=2010-05-08", {}, "ListUsersResult"),
    "sts": ("GET", "/?Action=GetSessionToken&Version=2011-06-15", {}, "SecretAccessKey"),
    "s3": ("GET", "/", {}, "<Buckets>"),
    "s3control": ("GET", "/v20180820/accesspoint", {"x-amz-account-id": "000000000000"}, "AccessPointList"),
}
CLAIM = "Credential={key}/20261128/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=" + "0" * 64
QUERY = (
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={key}/20261128/us-east-1/{scope}/aws4_request&X-Amz-Signature=x"
)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("authorizations", "query", "scope"),
    [
        (["AWS4-HMAC-SHA256 x", CLAIM], "", ""),
        (["AWS4-HMAC-SHA256 x, " + CLAIM], "", ""),
        (["Bearer x", "AWS4-HMAC-SHA256 " + CLAIM], "", ""),
        (["AWS4-HMAC-SHA512 " + CLAIM], "", ""),
        (["AWS4-ECDSA-P256-SHA256 " + CLAIM], "", ""),
        (["AWS {key}:x"], "", ""),
        ([], QUERY, "s3"),
        ([], QUERY, "own"),
        ([], "X-Amz-Credential={key}/20261128/us-east-1/{scope}/aws4_request", "own"),
        ([], "AWSAccessKeyId={key}&Signature=x&Expires=9999999999", ""),
        (["Bearer x"], QUERY, "s3"),
        (["Basic x"], QUERY, "own"),
        (["AWS4-x"], QUERY, "s3"),
        (["AWS4-HMAC-SHA256 x"], QUERY, "s3"),
        (["AWS4-HMAC-SHA256 x"], "x-amz-credential={key}/20261128/us-east-1/{scope}/aws4_request", "s3"),
    ],
)
def test_the_owners_key_id_alone_opens_nothing(
    ours: Local, target: str, authorizations: list[str], query: str, scope: str
) -> None:
    """The id is in every link that the owner signs. Two claims of a signature must not vouch for each other."""
    method, path, headers, reveals = TARGETS[target]
    own = target.removesuffix("control")
    words = {"key": ours.owner_key().access_key_id, "service": own, "scope": own if scope == "own" else scope}
    connection = http.client.HTTPConnection("127.0.0.1", ours.port, timeout=30)
    connection.putrequest(method, f"{path}{'&' if '?' in path else '?'}{query.format(**words)}" if query else path)
    for value in authorizations:
        connection.putheader("Authorization", value.format(**words))
    for name, value in {**headers, "Content-Type": "application/x-amz-json-1.0", "Content-Length": "2"}.items():
        connection.putheader(name, value)
    connection.endheaders(b"{}")
    answer = connection.getresponse()
    body = answer.read().decode()
    assert answer.status in (400, 403) and reveals not in body


def test_a_users_signature_does_not_vouch_for_the_owners_key(ours: Local) -> None:
    iam = ours.client("iam")
    iam.create_user(UserName="nobody")
    key = iam.create_access_key(UserName="nobody")["AccessKey"]
    request = AWSRequest("GET", f"{ours.endpoint_url}/", headers={"Host": f"127.0.0.1:{ours.port}"})
    SigV4Auth(Credentials(key["AccessKeyId"], key["SecretAccessKey"]), "s3", REGION).add_auth(request)
    signed: dict[str, Any] = {name.replace("-", "_"): value for name, value in request.headers.items()}
    assert "AccessDenied" in raw(ours, **signed, path="/").body
    claim = f"/?X-Amz-Credential={ours.owner_key().access_key_id}/20261128/{REGION}/s3/aws4_request"
    assert refused(raw(ours, path=claim, **signed), "signed twice")


@pytest.mark.parametrize("host", ["127.0.0.1", "a1b2c3d4.execute-api.localhost"])
@pytest.mark.parametrize(
    "path", ["/v2/_catalog", "/oauth2/token", "/login", "/logout", "/pool/.well-known/jwks.json", "/oauth2/authorize"]
)
def test_services_that_do_not_run_answer_nobody(ours: Local, host: str, path: str) -> None:
    """Neither a container registry nor a sign-in page, also not under an API's name."""
    for method in ("GET", "POST"):
        answer = raw(ours, method, path, Host=f"{host}:{ours.port}")
        assert answer.status in (403, 404) and "repositories" not in answer.body


def test_links_that_the_owner_signed_work_without_a_key(ours: Local) -> None:
    s3 = ours.client("s3", signature_version="s3v4")
    s3.create_bucket(Bucket="links")
    s3.put_object(Bucket="links", Key="a b.jpg", Body=b"a")
    link = urlsplit(s3.generate_presigned_url("get_object", Params={"Bucket": "links", "Key": "a b.jpg"}))
    assert raw(ours, path=f"{link.path}?{link.query}").body == "a"
    assert raw(ours, path=f"{link.path}?{link.query}".replace("a%20b", "another")).status == 403


def test_every_home_has_a_key_of_its_own(ours: Local, own: Local) -> None:
    own.make_home()
    first, second = ours.owner_key(), make_key(own.home)
    assert first.access_key_id != second.access_key_id and first.secret_access_key != second.secret_access_key
    assert not first.access_key_id.isdigit() and len(first.secret_access_key) == 40
    assert make_key(own.home) == second == own.owner_key()


def test_one_of_several_first_starts_makes_the_key(tmp_path: Path) -> None:
    for home in (tmp_path / str(n) for n in range(20)):
        home.mkdir()
        with ThreadPoolExecutor(4) as pool:
            keys = set(pool.map(make_key, [home] * 4))
        assert keys == {read_key(home)} and [path.name for path in home.iterdir()] == ["owner.json"]
        assert key_file(home).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"access_key_id": "x"}', b"\xff\xfe"])
def test_a_spoiled_key_file_is_named(own: Local, content: bytes) -> None:
    own.make_home()
    key_file(own.home).write_bytes(content)
    with pytest.raises(StackError, match=r"owner\.json is not a key file"):
        own.credentials()


def test_a_lost_key_of_a_running_stack_is_named(own: Local) -> None:
    own.start_emulator()
    kept = key_file(own.home).read_bytes()
    key_file(own.home).unlink()
    with pytest.raises(StackError, match="does not contain the running stack's key"):
        own.credentials()
    make_key(own.home)
    with pytest.raises(StackError, match="does not contain the running stack's key"):
        own.outputs()
    key_file(own.home).write_bytes(kept)
    assert own.client("sts").get_caller_identity()["Arn"].endswith(":root")


def test_a_home_of_another_user_is_refused(own: Local) -> None:
    if os.geteuid():
        pytest.skip("only root can give a folder away")
    own.make_home()
    os.chown(own.home, NOBODY, NOBODY)
    with pytest.raises(StackError, match="belongs to another user"):
        own.make_home()


# Another user of this machine


@BOTH
def test_another_user_of_this_machine_gets_nowhere(stack: Local, which: str) -> None:
    """As `nobody`: neither the key, nor a state file, nor the emulator's administration."""
    if os.geteuid():
        pytest.skip("only root can become another user")

    def as_nobody(*command: str | Path) -> tuple[int, str]:
        done = subprocess.run(command, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True)
        return done.returncode, done.stdout

    reset = [
        "curl",
        "-s",
        "-o",
        os.devnull,
        "-w",
        "%{http_code}",
        "-X",
        "POST",
        f"{stack.endpoint_url}/_ministack/reset",
    ]
    assert as_nobody(*reset) == (0, "200" if which == "bare" else "403")
    if which == "ours":
        assert as_nobody("cat", key_file(stack.home))[0] != 0
        assert as_nobody("ls", stack.home)[0] != 0


def loose(home: Path) -> list[Path]:
    """What someone else may read, or that is not as private as promised."""
    folders = [path for path in [home, *home.rglob("*")] if path.is_dir() and path.stat().st_mode & 0o777 != 0o700]
    return folders + [path for path in home.rglob("*") if path.is_file() and path.stat().st_mode & 0o777 != 0o600]


def test_a_home_is_its_users_alone_also_one_from_before(
    own: Local,
    model: Callable[..., str],
    settled: Callable[..., dict[str, Any]],
    ask: Callable[..., dict[str, Any]],
    function_role: Callable[..., str],
    code_of: Callable[[str], bytes],
) -> None:
    """What an older version left readable, and all that a running emulator writes: state, logs, models, functions."""
    umask = os.umask(0o022)
    try:
        (own.home / "state").mkdir(parents=True)
        own.lock_file.touch()
        (own.home / "state" / "kms.json").write_text('{"__ministack_format__": 3, "payload": {}}')
        (own.home / "emulator.log").touch()
        own.home.chmod(0o755)
        own.start_emulator()
        own.client("sagemaker").create_endpoint(EndpointName="e", EndpointConfigName=model(own, "m", "v1"))
        assert settled(own, "e")["EndpointStatus"] == "InService"
        assert ask(own, "e")["model_version"] == "v1"
        functions = own.client("lambda")
        code = {"ZipFile": code_of("return dict(__import__('os').environ)")}
        functions.create_function(
            FunctionName="f", Runtime="python3.13", Handler="index.handler", Role=function_role(own, "f"), Code=code
        )
        seen = json.load(functions.invoke(FunctionName="f")["Payload"])
        assert own.owner_key().secret_access_key not in seen.values()
        assert loose(own.home) == []
        own.down()
        assert loose(own.home) == []
        assert own.home.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(umask)


@BOTH
def test_a_functions_keys_are_not_made_of_its_name(
    stack: Local, which: str, function_role: Callable[..., str], code_of: Callable[[str], bytes]
) -> None:
    """Whoever knows a function's name and its role's could compute its keys."""
    role = function_role(stack, "guessed")
    functions = stack.client("lambda")
    function = functions.create_function(
        FunctionName="guessed",
        Runtime="python3.13",
        Handler="index.handler",
        Role=role,
        Code={"ZipFile": code_of("pass")},
    )
    functions.invoke(FunctionName="guessed")
    digest = hashlib.sha256(f"{function['FunctionArn']}:{role}".encode()).hexdigest()
    secret, token = (hashlib.sha256(f"{word}:{digest}".encode()).hexdigest() for word in ("secret", "token"))
    session = boto3.Session(f"ASIA{digest[:16].upper()}", secret, token, region_name=REGION)
    sts = session.client("sts", endpoint_url=stack.endpoint_url)
    if which == "bare":
        assert sts.get_caller_identity()["Arn"].endswith("assumed-role/guessed/guessed")
    else:
        with pytest.raises(ClientError, match="InvalidClientTokenId"):
            sts.get_caller_identity()


# Containers of `sam local invoke`


async def nothing(*arguments: object) -> Any:
    """An app, and what it would be given."""


@pytest.mark.parametrize(
    ("running", "host", "passes"),
    [
        ({"172.17.0.1", "host.docker.internal"}, "172.17.0.1:4566", True),
        ({"172.17.0.1", "host.docker.internal"}, "host.docker.internal:4566", True),
        ({"172.17.0.1", "host.docker.internal"}, "172.17.0.1:80", False),
        ({"172.17.0.1", "host.docker.internal"}, "172.17.0.2:4566", False),
        (set(), "172.17.0.1:4566", False),
    ],
)
def test_containers_come_in_by_the_bridge_while_one_runs(running: set[str], host: str, passes: bool) -> None:
    gate = Gate(nothing, 4566, lambda: running)
    scope = {"type": "http", "method": "GET", "path": "/_ministack/health", "headers": [(b"host", host.encode())]}
    assert (asyncio.run(gate.refusal(scope)) is None) == passes


def test_a_websocket_of_another_origin_is_closed() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1:4566"), (b"origin", b"http://evil.example")]
    scope = {"type": "websocket", "path": "/", "headers": headers}
    asyncio.run(Gate(nothing, 4566, set)(scope, nothing, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
