"""The answer function: answers the requests of people and machines over the HTTP API.

Each path exists twice. /api/… is for people, whose groups say who may be what, and where. /machine/<role>/… is for
callers that IAM authorizes, by a policy on these paths.
"""

import json
import re
from functools import cache, partial
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.utilities.typing import LambdaContext

from bintally.answering import problems, requests
from bintally.answering.copies import Copies
from bintally.answering.problems import Problem
from bintally.answering.recounts import Recounts
from bintally.aws import clients
from bintally.aws.telemetry import logger
from bintally.common.errors import Transient
from bintally.common.events import check_fields
from bintally.reviewing.desk import Desk
from bintally.reviewing.rules import Refused
from bintally.reviewing.settings import desk_of, review_settings

api = APIGatewayHttpResolver(
    serializer=partial(json.dumps, default=requests.number_of),
    strip_prefixes=["/api", re.compile(r"/machine/[^/]*")],
)


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Raises WrongEvent."""
    check_fields(event, "answer", "a request of an HTTP API (payload 2.0)", "requestContext", "rawPath", "headers")
    answered = api.resolve(event, context)
    route = event["requestContext"]["http"]
    logger.info("answered", method=route["method"], path=event["rawPath"][:200], status=answered["statusCode"])
    return answered


def recounts_of(site: str) -> Recounts:
    name = requests.decode_id(site)
    caller = requests.caller(api.current_event.raw_event)
    caller.check_site(name)
    return Recounts(desk(), copies(), name, caller)


def body(*names: str) -> dict[str, Any]:
    return requests.body_of(api.current_event.raw_event, *names)


def query() -> dict[str, str]:
    return api.current_event.query_string_parameters or {}


@api.get("/sites/<site>/recounts")
def listed(site: str) -> dict[str, Any]:
    return recounts_of(site).listed(query())


@api.post("/sites/<site>/claims")
def claim(site: str) -> dict[str, Any]:
    return recounts_of(site).claim(body("bin", "skip"))


@api.post("/sites/<site>/releases")
def release(site: str) -> dict[str, Any]:
    return recounts_of(site).release(body("bin"))


@api.post("/sites/<site>/recounts")
def enter(site: str) -> dict[str, Any]:
    names = ("id", "bin", "image_version", "quantity", "outcome", "reason", "note")
    return recounts_of(site).enter(body(*names))


@api.post("/sites/<site>/undos")
def undo(site: str) -> dict[str, Any]:
    return recounts_of(site).undo(body("bin"))


@api.get("/sites/<site>/audit")
def audit(site: str) -> dict[str, Any]:
    return recounts_of(site).audit()


@api.get("/sites/<site>/trail")
def trail(site: str) -> dict[str, Any]:
    return recounts_of(site).trail(query())


@api.get("/sites/<site>/differences")
def differences(site: str) -> dict[str, Any]:
    return recounts_of(site).differences(query())


def refused(error: Refused) -> Response[str]:
    return problems.answer(problems.refused(error))


def transient(error: Transient) -> Response[str]:
    logger.warning("not answered", reason=str(error))
    return problems.answer(Problem(503, "TRY_AGAIN", "a service is busy; try again"))


def unknown(_: NotFoundError) -> Response[str]:
    return problems.answer(Problem(404, "UNKNOWN", "there is nothing at this path"))


api.exception_handler(Problem)(problems.answer)
api.exception_handler(Refused)(refused)
api.exception_handler(Transient)(transient)
api.not_found(unknown)


@cache
def desk() -> Desk:
    return desk_of(review_settings())


@cache
def copies() -> Copies:
    return Copies(clients.s3_links(), review_settings().artifacts_bucket)
