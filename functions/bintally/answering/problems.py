"""Errors as answers of the HTTP API: problem details (RFC 9457), one line for people and a code for programs."""

import json
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler import Response

from bintally.reviewing.rules import Refused

STATUS = {"UNKNOWN": 404, "NOT_MANAGER": 403, "WRONG_ENTRY": 400}
"""Of refusals; the others are conflicts: 409."""
AGAIN = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


class Problem(Exception):
    """A request that gets no other answer. `status` is HTTP's."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail


def wrong(detail: str) -> Problem:
    """A malformed request."""
    return Problem(400, "WRONG_REQUEST", detail)


def refused(refusal: Refused) -> Problem:
    return Problem(STATUS.get(refusal.code, 409), refusal.code, str(refusal))


def answer(problem: Problem) -> Response[str]:
    """RFC 9457, with `code` as an extension member."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
    }
    headers = {"Retry-After": "1"} if problem.status in AGAIN else {}
    return Response(problem.status, "application/problem+json", json.dumps(body), headers=headers)
