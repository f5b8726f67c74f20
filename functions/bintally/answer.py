"""The answer function: answers the requests of people and machines over the HTTP API.

/machine/<role>/<site>/… is for callers that IAM authorizes: a policy on these paths says who may be what, and where.
"""

import json
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
from bintally.aws.table import Table
from bintally.aws.telemetry import logger
from bintally.common.errors import Transient
from bintally.common.events import check_fields
from bintally.reviewing.desk import Desk
from bintally.reviewing.rules import Refused
from bintally.reviewing.settings import review_settings

api = APIGatewayHttpResolver(serializer=partial(json.dumps, default=requests.number_of))


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Raises WrongEvent."""
    check_fields(event, "answer", "a request of an HTTP API (payload 2.0)", "requestContext", "rawPath", "headers")
    answered = api.resolve(event, context)
    route = event["requestContext"]["http"]
    logger.info("answered", method=route["method"], path=event["rawPath"][:200], status=answered["statusCode"])
    return answered


def of_machine(role: str, site: str) -> Recounts:
    caller = requests.machine(api.current_event.raw_event, role)
    return Recounts(desk(), copies(), requests.decode_id(site), caller)


def body(*names: str) -> dict[str, Any]:
    return requests.body_of(api.current_event.raw_event, *names)


def query() -> dict[str, str]:
    return api.current_event.query_string_parameters or {}


@api.get("/machine/<role>/<site>/recounts")
def listed(role: str, site: str) -> dict[str, Any]:
    return of_machine(role, site).listed(query())


@api.post("/machine/<role>/<site>/claims")
def claim(role: str, site: str) -> dict[str, Any]:
    return of_machine(role, site).claim(body("bin", "skip"))


@api.post("/machine/<role>/<site>/releases")
def release(role: str, site: str) -> dict[str, Any]:
    return of_machine(role, site).release(body("bin"))


@api.post("/machine/<role>/<site>/recounts")
def enter(role: str, site: str) -> dict[str, Any]:
    names = ("id", "bin", "image_version", "quantity", "outcome", "reason", "note")
    return of_machine(role, site).enter(body(*names))


@api.post("/machine/<role>/<site>/undos")
def undo(role: str, site: str) -> dict[str, Any]:
    return of_machine(role, site).undo(body("bin"))


@api.get("/machine/<role>/<site>/trail")
def trail(role: str, site: str) -> dict[str, Any]:
    return of_machine(role, site).trail(query())


@api.get("/machine/<role>/<site>/differences")
def differences(role: str, site: str) -> dict[str, Any]:
    return of_machine(role, site).differences(query())


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
    settings = review_settings()
    return Desk(Table.named(settings.counts_table), settings.claim_length, settings.tolerance)


@cache
def copies() -> Copies:
    return Copies(clients.s3_links(), review_settings().artifacts_bucket)
