"""The sign_in function: signs people in and out, and renews their sessions.

The web page keeps the id token in its memory. What renews it is in a cookie that no script can read and that browsers
send to this path alone, from pages of this stack alone.
"""

import base64
import json
from functools import cache
from http.cookies import CookieError, SimpleCookie
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.shared.cookies import Cookie, SameSite
from aws_lambda_powertools.utilities.typing import LambdaContext

from bintally.answering import problems, requests
from bintally.answering.problems import Problem, wrong
from bintally.answering.sessions import MEMBERS, Session, Sessions
from bintally.answering.settings import sign_in_settings
from bintally.aws import clients
from bintally.aws.telemetry import logger
from bintally.common.errors import Transient
from bintally.common.events import check_fields

COOKIE, PATH = "session", "/session"
SHIFT_SECONDS = 12 * 3600
"""As UserPoolClient's RefreshTokenValidity."""

api = APIGatewayHttpResolver()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Raises WrongEvent."""
    check_fields(event, "sign_in", "a request of an HTTP API (payload 2.0)", "requestContext", "rawPath", "headers")
    answered = api.resolve(event, context)
    logger.info("answered", status=answered["statusCode"])
    return answered


@api.post(PATH)
def session() -> Response[str]:
    event = api.current_event.raw_event
    body = requests.body_of(event, *MEMBERS)
    if body.get("sign_out") is True:
        return sign_out(event)
    if body.get("refresh") is True:
        return given(sessions().renew(cookie_of(event)), event)
    if "password" not in body:
        raise wrong('send name and password, or {"refresh": true}, or {"sign_out": true}')
    return given(sessions().sign_in(body), event)


def given(found: Session, event: dict[str, Any]) -> Response[str]:
    """The id token, and a cookie where there is a new refresh token."""
    cookies = [] if found.refresh is None else [cookie(found.refresh, SHIFT_SECONDS, event)]
    return answer({"token": found.token, "expires_in": found.seconds}, cookies)


def sign_out(event: dict[str, Any]) -> Response[str]:
    """Also for who has no session any more: the cookie goes."""
    gone = [cookie("", -1, event)]
    try:
        found = sessions().renew(cookie_of(event))
    except Problem as problem:
        if problem.code != "SESSION_ENDED":
            raise
        return answer({"signed_out": True}, gone)
    sessions().sign_out(name_in(found.token))
    return answer({"signed_out": True}, gone)


def answer(body: dict[str, Any], cookies: list[Cookie]) -> Response[str]:
    headers = {"Cache-Control": "no-store"}
    return Response(200, "application/json", json.dumps(body), headers=headers, cookies=cookies)


def cookie(value: str, seconds: int, event: dict[str, Any]) -> Cookie:
    """Not Secure on one machine, whose link is plain HTTP over loopback."""
    host = str(event["requestContext"].get("domainName", "")).partition(":")[0]
    secure = not f".{host}".endswith(".localhost")
    return Cookie(COOKIE, value, PATH, "", secure, True, seconds, None, SameSite.STRICT_MODE)


def cookie_of(event: dict[str, Any]) -> str:
    """The refresh token that a browser sends; empty without one. AWS puts cookies aside, the emulator does not."""
    sent = "; ".join(event.get("cookies") or []) or event["headers"].get("cookie", "")
    try:
        found = SimpleCookie(sent).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def name_in(token: str) -> str:
    """The person of an id token that Cognito has just given to this function."""
    text = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))["cognito:username"])


def transient(error: Transient) -> Response[str]:
    logger.warning("not answered", reason=str(error))
    return problems.answer(Problem(503, "TRY_AGAIN", "a service is busy; try again"))


def unknown(_: NotFoundError) -> Response[str]:
    return problems.answer(Problem(404, "UNKNOWN", "there is nothing at this path"))


api.exception_handler(Problem)(problems.answer)
api.exception_handler(Transient)(transient)
api.not_found(unknown)


@cache
def sessions() -> Sessions:
    settings = sign_in_settings()
    return Sessions(clients.cognito(), settings.user_pool, settings.user_pool_client)
