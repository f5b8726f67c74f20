"""The description at /openapi.json: of all routes and no others, and true of their answers."""

import json
import re

import pytest
import schemathesis
from bintally import answer
from schemathesis import GenerationMode

from tests.described import faults, operations_of
from tests.functions.asking import SPEC, claims_of, operations, send, wsgi
from tests.functions.test_access import secret, stack  # noqa: F401
from tests.functions.test_answer import ask  # noqa: F401
from tests.functions.test_models import registry  # noqa: F401
from tests.functions.test_sign_in import pool  # noqa: F401

EXAMPLES = 4
"""Of requests to each operation, valid and invalid ones."""


def routes() -> set[tuple[str, str]]:
    router = answer.api
    return {
        (method, re.sub(r"<(\w+?)_?>", r"{\1}", str(route.path)))
        for route in [*router._static_routes, *router._dynamic_routes]
        for method in [route.method]
    }


def test_every_route_is_described_and_nothing_else() -> None:
    described = {(method, path.removeprefix("/api")) for method, path, _ in operations()}
    assert described - {("POST", "/session")} == routes()


def test_every_operation_says_who_may() -> None:
    ids = []
    for _, path, operation in operations():
        ids.append(operation["operationId"])
        assert operation["summary"].endswith(".")
        assert operation.get("security") == ([] if not path.startswith("/api/") else None)
        assert (operation.get("x-role") in ("viewer", "counter", "manager")) == path.startswith("/api/")
    assert len(set(ids)) == len(ids)


def test_it_is_served_to_anybody() -> None:
    answered = send("GET", "/openapi.json", None)
    assert answered["statusCode"] == 200
    assert json.loads(answered["body"]) == SPEC
    assert SPEC["openapi"].startswith("3.1.")


@pytest.mark.slow
@pytest.mark.usefixtures("stack", "secret", "pool")
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: str(mode.value))
@pytest.mark.parametrize("role", ["counter", "manager"])
def test_answers_are_as_described(role: str, mode: GenerationMode) -> None:
    """Whatever is sent: requests that fit the description, and requests that do not."""
    described = schemathesis.openapi.from_wsgi("/openapi.json", wsgi(claims_of(role, "*")))
    found = [faults(operation, mode, EXAMPLES) for operation in operations_of(described)]
    assert len(found) == len(list(operations())) - 1  # all but the description itself
    assert not any(found), "\n".join(found)
