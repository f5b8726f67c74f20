"""People at the stack's own door: over HTTP, with tokens of its user pool and with others."""

import base64
import contextlib
import http.client
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import requests  # type: ignore[import-untyped]
import schemathesis
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from schemathesis import GenerationMode

from deployed.people import People
from local.stack import Local
from tests.described import faults, operations_of
from tests.stack.people import Browser, Person

OWN = "correct horse battery staple"


@pytest.fixture(scope="module")
def browse(stack: Local) -> Callable[[], Browser]:
    return lambda: Browser(stack)


@pytest.fixture(scope="module")
def ida(stack: Local, browse: Callable[[], Browser]) -> Browser:
    """A counter of RCT8, signed in."""
    browser, given = browse(), People(stack).add("ida", "counter", ["RCT8"])
    assert browser.session(name="ida", password=given)[1]["code"] == "NEW_PASSWORD"
    assert browser.session(name="ida", password=given, new_password="short")[1]["code"] == "WEAK_PASSWORD"
    assert browser.session(name="Ida", password=given, new_password=OWN)[0] == 200
    return browser


def part(claims: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    head, claims, signature = token.split(".")
    first, second = (json.loads(base64.urlsafe_b64decode(each + "==")) for each in (head, claims))
    return first, second, signature


def signed(head: dict[str, Any], claims: dict[str, Any], pem: bytes) -> str:
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, rsa.RSAPrivateKey)
    text = f"{part(head)}.{part(claims)}"
    signature = key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{text}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def test_a_session_from_the_first_sign_in_to_the_sign_out(ida: Browser) -> None:
    assert ida.get("/api/me") == (200, {"name": "ida", "role": "counter", "sites": ["RCT8"]})
    assert ida.get("/api/sites/RCT8/recounts")[0] == 200
    assert ida.get("/api/sites/RCT1/recounts")[1]["code"] == "FORBIDDEN"
    assert ida.get("/api/sites/RCT8/differences")[1]["code"] == "FORBIDDEN"
    assert ida.ask("GET", "/openapi.json")[1]["openapi"].startswith("3.1")
    before = ida.token
    assert ida.session(refresh=True)[0] == 200 and ida.token != before
    cookie = ida.cookie
    assert ida.session(sign_out=True) == (200, {"signed_out": True})
    assert ida.cookie == "session="
    ida.cookie = cookie
    assert ida.session(refresh=True)[1]["code"] == "SESSION_ENDED"
    assert ida.session(name="ida", password=OWN)[0] == 200


def test_tokens_that_are_not_this_stacks(stack: Local, ida: Browser) -> None:
    head, claims, signature = parts(ida.token)
    outputs, cognito = stack.outputs(), stack.client("cognito-idp")
    pool, client = outputs["UserPool"], outputs["UserPoolClient"]
    pems = {pem.stem.rpartition("-")[2]: pem.read_bytes() for pem in stack.home.rglob(f"{pool}-*.pem")}
    assert ida.get("/api/me", signed(head, claims, pems["id"]))[0] == 200, "else the refusals below show nothing"
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    manager = claims | {"cognito:groups": ["manager", "site:*"]}
    forged = {
        "none": "",
        "no token": "x",
        "unsigned": f"{part({'alg': 'none'})}.{part(manager)}.",
        "unsigned with the key's id": f"{part(head | {'alg': 'none'})}.{part(manager)}.",
        "other groups": f"{part(head)}.{part(manager)}.{signature}",
        "another key": signed(head, manager, other),
        "expired": signed(head, claims | {"exp": int(time.time()) - 1}, pems["id"]),
        "another pool's": signed(head, claims | {"iss": claims["iss"] + "x"}, pems["id"]),
        "another client's": signed(head, claims | {"aud": "another"}, pems["id"]),
        "an access token": cognito.admin_initiate_auth(
            UserPoolId=pool,
            ClientId=client,
            AuthFlow="ADMIN_USER_PASSWORD_AUTH",
            AuthParameters={"USERNAME": "ida", "PASSWORD": OWN},
        )["AuthenticationResult"]["AccessToken"],
        "a refresh token": ida.cookie.partition("=")[2],
    }
    assert {name: ida.get("/api/me", token)[0] for name, token in forged.items()} == dict.fromkeys(forged, 401)
    assert ida.ask("GET", "/api/me")[0] == 401
    assert ida.ask("GET", "/api/me", Authorization=ida.token)[0] in (200, 401, 403), "without Bearer"


def test_a_persons_token_opens_nothing_else(stack: Local, ida: Browser) -> None:
    """Neither what machines call, nor a service, nor the pool itself."""
    assert ida.get("/machine/manager/sites/RCT8/recounts")[0] in (401, 403)
    body = {"UserPoolId": stack.outputs()["UserPool"], "Username": "ida"}

    def ask(method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, bytes]:
        # What the gate refuses it does not read, so that a connection is of no further use.
        connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    for action in ("AdminDeleteUser", "ListUsers", "AdminInitiateAuth", "InitiateAuth", "GetUser"):
        for authorization in ({}, {"Authorization": f"Bearer {ida.token}"}):
            headers = {"X-Amz-Target": f"AWSCognitoIdentityProviderService.{action}"} | authorization
            status, said = ask("POST", "/", json.dumps(body), **headers)
            assert status == 403 and b"ida" not in said
    for path in (f"/{body['UserPoolId']}/.well-known/jwks.json", "/oauth2/token", "/login"):
        assert ask("GET", path)[0] == 403, path
    assert ida.get("/api/me")[0] == 200


def test_an_administrator_of_people_and_nobody_else(
    stack: Local, person: Callable[..., Person], browse: Callable[[], Browser]
) -> None:
    admin, counter = person("admin", "people"), person("karl", "counter")
    counter.is_refused("people", "add", "uli", "--role", "manager", "--all-sites", permission="cognito-idp:")
    given = re.findall(r"\S+$", admin.does("people", "add", "uli", "--role", "manager", "--site", "RCT8"))[0]
    assert "uli" in admin.does("people", "list")
    uli = browse()
    assert uli.session(name="uli", password=given, new_password=OWN)[0] == 200
    again = re.findall(r"\S+$", admin.does("people", "reset", "uli"))[0]
    assert uli.session(refresh=True)[1]["code"] == "SESSION_ENDED"
    assert uli.session(name="uli", password=OWN)[1]["code"] == "WRONG_PASSWORD"
    assert uli.session(name="uli", password=again)[1]["code"] == "NEW_PASSWORD"
    admin.does("people", "remove", "uli")
    assert uli.session(name="uli", password=again)[1]["code"] == "WRONG_PASSWORD"
    admin.is_refused("counts", permission="")


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: str(mode.value))
def test_answers_over_http_are_as_described(stack: Local, ida: Browser, mode: GenerationMode) -> None:
    """With a token that the gateway has checked, through the gateway's routes and the deployed functions. A counter may
    send anything; what a manager may do would change the stack of other tests, and is asked in process."""
    status, description = ida.ask("GET", "/openapi.json")
    assert status == 200
    address = f"http://127.0.0.1:{stack.port}"
    operations = operations_of(schemathesis.openapi.from_dict(description))
    assert len(operations) > 20
    session, codes = requests.Session(), Counter[int]()
    session.hooks["response"].append(lambda answer, *_, **__: codes.update([answer.status_code]))
    call = {"base_url": address, "headers": {"Host": ida.host}, "session": session}
    found = [faults(operation, mode, 5, ida.token, **call) for operation in operations]
    assert not any(found), "\n".join(found)
    assert codes[200 if mode is GenerationMode.POSITIVE else 400] > 10, codes


def test_no_log_has_a_password_or_a_token(stack: Local, ida: Browser) -> None:
    logs, secrets = stack.client("logs"), (OWN, ida.token, ida.cookie.partition("=")[2])
    told = stack.log_file.read_text(errors="replace")
    for group in logs.describe_log_groups()["logGroups"]:
        if re.search("SignIn|Answer|Api", group["logGroupName"]):
            pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"])
            told += "".join(event["message"] for page in pages for event in page["events"])
    assert '"answered"' in told
    assert not [secret for secret in secrets if secret in told]
