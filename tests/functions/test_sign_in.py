"""Signing in and out, and renewing a session: what is answered, what the cookie is like, and what is never logged."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from bintally import sign_in
from bintally.aws import clients
from botocore.exceptions import ConnectTimeoutError

from tests.functions.conftest import ROOT

CONTEXT: Any = SimpleNamespace(
    function_name="sign_in",
    memory_limit_in_mb=512,
    invoked_function_arn="arn:aws:lambda:us-east-1:000000000000:function:sign_in",
    aws_request_id="a request",
)
GIVEN, OWN = "given-by-an-admin", "correct horse battery staple"


@dataclass
class Answer:
    status: int
    body: Any
    headers: dict[str, str]
    cookies: list[str]


@dataclass
class Browser:
    """Sends what a browser would: its one cookie."""

    cookie: str = ""
    aside: bool = True
    """AWS puts cookies aside; the emulator leaves them in their header."""
    host: str = "a1b2c3d4e5.execute-api.us-east-1.amazonaws.com"

    def post(self, body: Any) -> Answer:
        event = json.loads((ROOT / "events" / "sign_in.json").read_bytes())
        event["body"] = body if isinstance(body, str) else json.dumps(body)
        event["requestContext"]["domainName"] = self.host
        sent = ["theme=dark", *([self.cookie] if self.cookie else [])]
        event["cookies"] = sent if self.aside else None
        event["headers"] |= {} if self.aside else {"cookie": "; ".join(sent)}
        answered = sign_in.handler(event, CONTEXT)
        answer = Answer(
            answered["statusCode"], json.loads(answered["body"]), answered["headers"], answered.get("cookies", [])
        )
        if answer.status >= 400:
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.body["status"] == answer.status
            assert not answer.cookies
        for cookie in answer.cookies:
            self.cookie = cookie.split(";")[0] if "Max-Age=0" not in cookie else ""
        return answer


@pytest.fixture
def pool(world: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user pool as the template's, with ana, who has a password that an administrator gave her."""
    cognito = clients.cognito()
    kinds = ("Uppercase", "Lowercase", "Numbers", "Symbols")
    policy: Any = {"MinimumLength": 12} | {f"Require{kind}": False for kind in kinds}
    pool = cognito.create_user_pool(PoolName="bintally", Policies={"PasswordPolicy": policy})["UserPool"]["Id"]
    client = cognito.create_user_pool_client(
        UserPoolId=pool,
        ClientName="page",
        ExplicitAuthFlows=["ALLOW_ADMIN_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"],
        PreventUserExistenceErrors="ENABLED",
    )["UserPoolClient"]["ClientId"]
    cognito.admin_create_user(UserPoolId=pool, Username="ana", TemporaryPassword=GIVEN, MessageAction="SUPPRESS")
    monkeypatch.setenv("USER_POOL", pool)
    monkeypatch.setenv("USER_POOL_CLIENT", client)
    return pool


@pytest.fixture
def ana(pool: str) -> Browser:
    """Ana's browser once she has chosen a password."""
    browser = Browser()
    assert browser.post({"name": "ana", "password": GIVEN, "new_password": OWN}).status == 200
    return browser


@pytest.mark.usefixtures("pool")
def test_the_first_sign_in_asks_for_a_password_of_ones_own() -> None:
    browser = Browser()
    asked = browser.post({"name": "ana", "password": GIVEN})
    assert (asked.status, asked.body["code"]) == (403, "NEW_PASSWORD")
    weak = browser.post({"name": "ana", "password": GIVEN, "new_password": "short"})
    assert (weak.status, weak.body["code"]) == (400, "WEAK_PASSWORD")
    first = browser.post({"name": "Ana ", "password": GIVEN, "new_password": OWN})
    assert first.status == 200 and first.body["expires_in"] > 0 and first.body["token"].count(".") == 2
    assert browser.post({"name": "ana", "password": GIVEN}).body["code"] == "WRONG_PASSWORD"
    assert browser.post({"name": "ana", "password": OWN}).status == 200
    surplus = browser.post({"name": "ana", "password": OWN, "new_password": "another " + OWN})
    assert (surplus.status, surplus.body["code"]) == (400, "WRONG_REQUEST")
    assert browser.post({"name": "ana", "password": OWN}).status == 200


def test_nobody_learns_who_exists(ana: Browser, pool: str) -> None:
    clients.cognito().admin_create_user(UserPoolId=pool, Username="ben", TemporaryPassword=GIVEN)
    clients.cognito().admin_disable_user(UserPoolId=pool, Username="ben")
    wrong = [ana.post({"name": name, "password": "a wrong pass phrase"}) for name in ("ana", "nobody", "ben")]
    wrong.append(ana.post({"name": "ben", "password": GIVEN}))
    assert [(each.status, each.body) for each in wrong] == [(401, wrong[0].body)] * 4
    assert wrong[0].body["code"] == "WRONG_PASSWORD"


@pytest.mark.parametrize("aside", [True, False])
def test_a_reload_keeps_the_session_and_a_sign_out_ends_it(ana: Browser, aside: bool) -> None:
    ana.aside = aside
    renewed = ana.post({"refresh": True})
    assert renewed.status == 200 and not renewed.cookies, "the cookie stays as it is"
    assert "refresh" not in json.dumps(renewed.body)
    assert renewed.headers["Cache-Control"] == "no-store"
    out = ana.post({"sign_out": True})
    assert (out.status, out.body) == (200, {"signed_out": True})
    assert "Max-Age=0" in out.cookies[0] and not ana.cookie
    assert ana.post({"refresh": True}).body["code"] == "SESSION_ENDED"
    assert ana.post({"sign_out": True}).status == 200, "also for who has signed out"


def test_a_sign_out_ends_the_session_that_it_names(ana: Browser, refuse: Any) -> None:
    asked: list[Any] = []
    events = clients.cognito().meta.events
    events.register("provide-client-params.cognito-identity-provider.AdminUserGlobalSignOut", note := asked_of(asked))
    try:
        ana.post({"sign_out": True})
    finally:
        events.unregister("provide-client-params.cognito-identity-provider.AdminUserGlobalSignOut", note)
    assert [each["Username"] for each in asked] == ["ana"]


def asked_of(asked: list[Any]) -> Callable[..., None]:
    def note(params: Any, **_: Any) -> None:
        asked.append(params)

    return note


@pytest.mark.parametrize(
    ("host", "secure"),
    [
        ("a1b2c3d4e5.execute-api.us-east-1.amazonaws.com", True),
        ("localhost.example.com", True),
        ("notlocalhost", True),
        ("a1.execute-api.localhost", False),
    ],
)
def test_no_script_and_no_other_site_reads_the_cookie(ana: Browser, host: str, secure: bool) -> None:
    ana.host = host
    (cookie,) = ana.post({"name": "ana", "password": OWN}).cookies
    marks = cookie.split("; ")[1:]
    assert {"Path=/session", "HttpOnly", "SameSite=Strict", "Max-Age=43200"} <= set(marks)
    assert ("Secure" in marks) == secure
    assert not any(mark.startswith("Domain") for mark in marks)


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400),
        ("[", 400),
        ("[]", 400),
        ("null", 400),
        ({}, 400),
        ({"name": "ana"}, 400),
        ({"password": OWN}, 400),
        ({"name": "", "password": OWN}, 400),
        ({"name": "   ", "password": OWN}, 401),
        ({"name": "ana", "password": ""}, 400),
        ({"name": 5, "password": OWN}, 400),
        ({"name": "ana", "password": ["x"]}, 400),
        ({"name": "ana", "password": None}, 400),
        ({"name": "ana", "password": OWN, "new_password": None}, 400),
        ({"name": "ana", "password": OWN, "role": "manager"}, 400),
        ({"name": "x" * 129, "password": OWN}, 400),
        ({"name": "ana", "password": "x" * 257}, 400),
        ({"name": "ana", "password": "x" * 1_000_000}, 413),
        ({"refresh": "x"}, 400),
        ({"refresh": False}, 400),
        ({"sign_out": 1}, 400),
        ({"refresh": True}, 401),
        ({"name": "\ud800", "password": OWN}, 400),
        ({"name": "ana\x00", "password": OWN}, 401),
        ({"name": "<script>alert(1)</script>", "password": "=cmd()"}, 401),
    ],
)
def test_what_signs_nobody_in_is_told_what_is_wrong(body: Any, status: int) -> None:
    answer = Browser().post(body)
    assert answer.status == status, answer.body
    assert answer.body["detail"] and "script" not in answer.body["detail"]


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("cookie", ["", "session=", "session=" + "x" * 5000, "session=\x01;;=", "a b=c"])
def test_a_cookie_that_is_none(cookie: str) -> None:
    assert Browser(cookie).post({"refresh": True}).body["code"] == "SESSION_ENDED"
    assert Browser(cookie).post({"sign_out": True}).status == 200


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        ("TooManyRequestsException", 429, "TOO_MANY"),
        ("LimitExceededException", 429, "TOO_MANY"),
        ("PasswordResetRequiredException", 403, "PASSWORD_RESET"),
        ("InternalErrorException", 503, "TRY_AGAIN"),
        ("ResourceNotFoundException", 503, "TRY_AGAIN"),
    ],
)
def test_what_cognito_refuses(refuse: Any, error: str, status: int, code: str) -> None:
    refuse(clients.cognito(), "AdminInitiateAuth", error)
    answer = Browser().post({"name": "ana", "password": GIVEN})
    assert (answer.status, answer.body["code"]) == (status, code)
    assert ("Retry-After" in answer.headers) == (status in (429, 503))


@pytest.mark.usefixtures("pool")
def test_a_challenge_that_this_stack_cannot_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    challenge = {"ChallengeName": "SOFTWARE_TOKEN_MFA", "Session": "x" * 30}
    monkeypatch.setattr(sign_in.sessions().cognito, "admin_initiate_auth", lambda **_: challenge)
    assert Browser().post({"name": "ana", "password": GIVEN}).body["code"] == "UNSUPPORTED"


def test_passwords_and_tokens_are_never_logged(
    pool: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in records, not in what is printed, not with an error."""
    caplog.set_level(logging.DEBUG, logger="service_undefined")
    browser, typo = Browser(), "mistyped " + OWN
    browser.post({"name": "ana", "password": GIVEN, "new_password": "short7"})
    token = browser.post({"name": "ana", "password": GIVEN, "new_password": OWN}).body["token"]
    refresh = browser.cookie.partition("=")[2]
    browser.post({"name": typo, "password": typo})
    browser.post({"name": "ana", "password": OWN, "passwort": typo})
    browser.post('{"name": "ana", "password": "' + typo)
    browser.post({"refresh": True})
    browser.post({"sign_out": True})

    def fail(**request: Any) -> Any:
        raise ConnectTimeoutError(endpoint_url=json.dumps(request))

    monkeypatch.setattr(sign_in.sessions().cognito, "admin_initiate_auth", fail)
    assert browser.post({"name": "ana", "password": OWN}).status == 503
    shown = capsys.readouterr()
    mine = [record for record in caplog.records if record.name.startswith(("service", "bintally"))]
    assert len(mine) >= 8
    text = shown.out + shown.err + "".join(f"{vars(record)}" for record in mine)
    for secret in (GIVEN, OWN, typo, "short7", token, refresh):
        assert secret not in text


def test_another_path_is_unknown(pool: str) -> None:
    event = json.loads((ROOT / "events" / "sign_in.json").read_bytes()) | {"rawPath": "/sessions"}
    event["requestContext"]["http"]["path"] = "/sessions"
    assert sign_in.handler(event, CONTEXT)["statusCode"] == 404
