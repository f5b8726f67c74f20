"""Whether answers of the HTTP API are as /openapi.json describes them, for requests that schemathesis makes from it."""

from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

TRUE = (
    schemathesis.checks.not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)


def operations_of(described: Any) -> list[Any]:
    """All that schemathesis finds in a description."""
    return [found.ok() for found in described.get_all_operations() if isinstance(found, Ok)]


def faults(operation: Any, mode: GenerationMode, examples: int, token: str = "", **call: Any) -> str:
    """How answers of an operation to so many requests differ from what the description says; "" if they do not.

    `token` stands for each that schemathesis makes up; `call` is what it needs to send a request.
    """
    checks = TRUE if mode is GenerationMode.POSITIVE else (*TRUE, negative_data_rejection)

    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def told(case: Any) -> None:
        if operation.path == "/api/models":
            (case.query or {}).pop("cursor", None)  # moto and the emulator refuse a wrong one in ways of their own
        if token and str(case.headers.get("Authorization", "")).startswith("Bearer "):
            case.headers["Authorization"] = f"Bearer {token}"
        case.call_and_validate(checks=list(checks), **call)

    try:
        told()
    except Unsatisfiable:
        pass  # no request of GET /openapi.json can be wrong
    except FailureGroup as failure:
        return f"{operation.label}: {[str(each)[:600] for each in failure.exceptions]}"
    return ""
