"""The answer function: answers the requests of people and machines over the HTTP API.

Each path exists twice. /api/… is for people, whose groups say who may be what, and where. /machine/<role>/… is for
callers that IAM authorizes, by a policy on these paths.
"""

import json
import re
from functools import cache, partial
from pathlib import Path
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import BotoCoreError, ClientError

from bintally.answering import bins, bulk, problems, requests
from bintally.answering.bins import Bins
from bintally.answering.bulk import Bulk
from bintally.answering.copies import Copies
from bintally.answering.models import Models, Services
from bintally.answering.overview import Overview
from bintally.answering.problems import Problem
from bintally.answering.recounts import Recounts
from bintally.answering.settings import answer_settings
from bintally.aws import clients
from bintally.aws.telemetry import logger
from bintally.common.errors import Transient
from bintally.common.events import check_fields
from bintally.reviewing.desk import Desk
from bintally.reviewing.rules import Refused
from bintally.reviewing.settings import desk_of, review_settings

THROTTLED = {"ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded", "SlowDown"}

DESCRIPTION = Path(__file__).with_name("answering") / "openapi.json"
"""Of all routes, kept by hand: docs/decisions/people.md says why. Tests compare it with the routes and answers."""

api = APIGatewayHttpResolver(
    serializer=partial(json.dumps, default=requests.number_of),
    strip_prefixes=["/api", re.compile(r"/machine/[^/]*")],
)


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Raises WrongEvent."""
    check_fields(event, "answer", "a request of an HTTP API (payload 2.0)", "requestContext", "rawPath", "headers")
    answered = api.resolve(event, context)
    answered["headers"] |= {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    route = event["requestContext"]["http"]
    logger.info("answered", method=route["method"], path=event["rawPath"][:200], status=answered["statusCode"])
    return answered


def recounts_of(site: str) -> Recounts:
    name = requests.decode_id(site)
    caller = requests.caller(api.current_event.raw_event)
    caller.check_site(name)
    return Recounts(desk(), copies(), name, caller)


def bins_of(site: str) -> Bins:
    found = recounts_of(site)
    return Bins(found.desk.table, found.copies, found.site, found.caller, found.desk.claim_length)


def bulk_of(site: str) -> Bulk:
    found = recounts_of(site)
    settings = answer_settings()
    buckets = settings.images_bucket, settings.artifacts_bucket
    return Bulk(clients.s3(), *buckets, found.site, found.caller)


def models() -> Models:
    services = Services(clients.sagemaker(), clients.s3(), clients.states(), desk().table, answer_settings())
    return Models(services, requests.caller(api.current_event.raw_event))


def body(*names: str) -> dict[str, Any]:
    return requests.body_of(api.current_event.raw_event, *names)


def query() -> dict[str, str]:
    return api.current_event.query_string_parameters or {}


@api.get("/openapi.json")
def description() -> Response[str]:
    return Response(200, "application/json", DESCRIPTION.read_text())


@api.get("/me")
def me() -> dict[str, Any]:
    caller = requests.caller(api.current_event.raw_event)
    everywhere = caller.sites is None or requests.ALL_SITES in caller.sites
    return {"name": caller.person.name, "role": caller.role, "sites": None if everywhere else list(caller.named)}


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


@api.get("/sites")
def sites() -> dict[str, Any]:
    return bins.sites(desk().table, requests.caller(api.current_event.raw_event))


@api.get("/sites/<site>/bins")
def listed_bins(site: str) -> dict[str, Any]:
    return bins_of(site).listed(query())


@api.get("/sites/<site>/bins/<bin_>")
def one_bin(site: str, bin_: str) -> dict[str, Any]:
    return bins_of(site).one(requests.decode_id(bin_), query())


@api.get("/sites/<site>/overview")
def overview(site: str) -> dict[str, Any]:
    found = recounts_of(site)
    return Overview(found.desk, found.site, found.caller).answer(query())


@api.post("/sites/<site>/records")
def send_records(site: str) -> tuple[dict[str, Any], int]:
    return bulk_of(site).send(requests.bytes_of(api.current_event.raw_event, bulk.LARGEST), query())


@api.get("/sites/<site>/records/<id_>")
def sent_records(site: str, id_: str) -> tuple[dict[str, Any], int]:
    return bulk_of(site).read(id_)


@api.get("/models")
def listed_models() -> dict[str, Any]:
    return models().listed(query())


@api.get("/models/<version>")
def one_model(version: str) -> dict[str, Any]:
    return models().one(version)


@api.post("/models/<version>/approvals")
def approve(version: str) -> dict[str, Any]:
    return models().approve(version, body("reason"))


@api.post("/models/<version>/rejections")
def reject(version: str) -> dict[str, Any]:
    return models().reject(version, body("reason"))


@api.post("/models/<version>/releases")
def release_model(version: str) -> tuple[dict[str, Any], int]:
    body()
    return models().release(version), 202


@api.post("/rollbacks")
def roll_back() -> tuple[dict[str, Any], int]:
    body()
    return models().roll_back(), 202


@api.get("/retrainings")
def retrainings() -> dict[str, Any]:
    return models().retrainings(query())


@api.post("/retrainings")
def retrain() -> tuple[dict[str, Any], int]:
    return models().retrain(body("force", "approve", "settings")), 202


def refused(error: Refused) -> Response[str]:
    return problems.answer(problems.refused(error))


def service(error: ClientError | BotoCoreError) -> Response[str]:
    """A service that throttles or fails is asked again later; what it refuses is our fault, and ends the function."""
    said = getattr(error, "response", {"Error": {"Code": "ThrottlingException"}})
    if said["Error"]["Code"] not in THROTTLED and said["ResponseMetadata"]["HTTPStatusCode"] < 500:
        raise error
    return transient(Transient(str(error)))


def transient(error: Transient) -> Response[str]:
    logger.warning("not answered", reason=str(error))
    return problems.answer(Problem(503, "TRY_AGAIN", "a service is busy; try again"))


def unknown(_: NotFoundError) -> Response[str]:
    return problems.answer(Problem(404, "UNKNOWN", "there is nothing at this path"))


api.exception_handler(Problem)(problems.answer)
api.exception_handler(Refused)(refused)
api.exception_handler(Transient)(transient)
api.exception_handler([ClientError, BotoCoreError])(service)
api.not_found(unknown)


@cache
def desk() -> Desk:
    return desk_of(review_settings())


@cache
def copies() -> Copies:
    return Copies(clients.s3_links(), review_settings().artifacts_bucket)
