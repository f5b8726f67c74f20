"""Requests of people to the HTTP API in process: as the gateway hands them on once it has checked a token."""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from bintally import answer, sign_in

from tests.functions.conftest import ROOT

CONTEXT: Any = SimpleNamespace(
    function_name="answer",
    memory_limit_in_mb=1024,
    invoked_function_arn="arn:aws:lambda:us-east-1:000000000000:function:answer",
    aws_request_id="a request",
)
SPEC = json.loads((ROOT / "functions" / "bintally" / "answering" / "openapi.json").read_bytes())
Claims = Mapping[str, str]


def claims_of(role: str, *sites: str, name: str = "ana") -> dict[str, str]:
    """Claims of an id token, as strings; `sites` are groups without their prefix."""
    groups = " ".join(filter(None, [role, *(f"site:{site}" for site in sites)]))
    return {"token_use": "id", "cognito:username": name, "cognito:groups": f"[{groups}]"}


def event_of(method: str, path: str, claims: Claims | None, body: str | None = None, query: str = "") -> dict[str, Any]:
    """`claims` are None where nobody has checked a token."""
    event: dict[str, Any] = json.loads((ROOT / "events" / "answer.json").read_bytes())
    event |= {"rawPath": path, "rawQueryString": query, "queryStringParameters": dict(parse_qsl(query, True))}
    context = event["requestContext"]
    context["http"] |= {"method": method, "path": path}
    context["authorizer"] = {"jwt": {"claims": claims, "scopes": []}} if claims is not None else None
    return event | ({"body": body} if body is not None else {})


def send(method: str, path: str, claims: Claims | None, body: str | None = None, query: str = "") -> dict[str, Any]:
    """The answer as the function gives it to the gateway."""
    handler = sign_in.handler if path == "/session" else answer.handler
    return handler(event_of(method, path, claims, body, query), CONTEXT)


def text_of(answered: Mapping[str, Any]) -> str:
    """All that a caller is sent: headers, cookies and body."""
    return json.dumps(answered["headers"]) + "".join(answered.get("cookies", [])) + str(answered["body"])


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of all that the description describes; parameters of the path included."""
    for path, item in SPEC["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                shared = [*item.get("parameters", []), *operation.get("parameters", [])]
                yield method.upper(), path, operation | {"parameters": [resolved(each) for each in shared]}


def resolved(found: Any) -> dict[str, Any]:
    while "$ref" in found:
        place: Any = SPEC
        for name in found["$ref"].removeprefix("#/").split("/"):
            place = place[name]
        found = place
    return dict(found)


def example(path: str, operation: Mapping[str, Any], site: str = "SEA1") -> tuple[str, str | None, str]:
    """Path, body and query of the operation's own example."""
    query = {}
    for each in operation["parameters"]:
        if each["in"] == "path":
            value = site if each["name"] == "site" else each["example"]
            path = path.replace(f"{{{each['name']}}}", quote(str(value)))
        elif each.get("required"):
            query[each["name"]] = each["example"]
    body = None
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        body = json.dumps(content["example"]) if kind == "application/json" else content["example"]
    return path, body, urlencode(query)


def wsgi(claims: Claims) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    """The functions as a WSGI application, behind a gateway that takes every token for one with these claims."""

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
        body = environ.get("wsgi.input", io.BytesIO()).read(int(environ.get("CONTENT_LENGTH") or 0))
        answered = send(
            environ["REQUEST_METHOD"],
            path,
            claims if environ.get("HTTP_AUTHORIZATION", "").startswith("Bearer ") else None,
            body.decode("utf-8", "replace") if body else None,
            environ.get("QUERY_STRING", ""),
        )
        headers = [*answered["headers"].items(), *(("Set-Cookie", each) for each in answered.get("cookies", []))]
        start_response(f"{answered['statusCode']} -", headers)
        return [str(answered["body"]).encode()]

    return application
