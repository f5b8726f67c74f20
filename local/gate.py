"""Protects the emulator: an ASGI layer in front of it, and the check of the owner's signature.

The emulator listens on loopback, which excludes other machines. It does not exclude a web page in a browser on this
machine, or another user of it. docs/security.md says who can reach what.
"""

import asyncio
import contextlib
import hmac
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from local.owner import OwnerKey

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CLOSED = ("/_ministack/", "/_localstack/")
HEALTH, CUSTOM_RESOURCES = "/_ministack/health", "/_ministack/cfn-response/"
"""Open below CLOSED: a custom resource reports to an address with a random token, like AWS's presigned one."""
NAME = re.compile(r"127\.0\.0\.1|(?:[a-z0-9-]+\.)*localhost")
"""Loopback. API addresses end in `.localhost`, which always resolves to loopback (RFC 6761)."""
CONTAINERS_NAME = re.compile(r"[0-9.]+|host\.docker\.internal")
SIGNATURE = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=\w+/\d{8}/[\w-]+/[\w-]+/aws4_request, *SignedHeaders=[^,\s]+, *Signature=[0-9a-f]+"
)
QUERY = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Signature")
SIGNING = {"awsaccesskeyid", "signature", *(name.lower() for name in QUERY)}
"""Query parameters of signature versions 2 and 4, in lower case."""
S3_CONTROL = "/v20180820/"


class Gate:
    """Refuses with 403 and one line, before any service sees it, every request that

    - a page of another origin sends (`Origin`), or that arrived under a foreign name (`Host`: DNS rebinding);
    - is for the emulator's own administration;
    - is not signed, unless it is for an API, which checks its callers itself;
    - is signed in more than one way. The emulator checks one signature and may act for the key of the other.

    The emulator itself checks that the one signature is correct. `containers` returns the host names by which
    containers of `sam local invoke` reach this machine now.
    """

    def __init__(self, app: App, port: int, containers: Callable[[], Iterable[str]]) -> None:
        self.app, self.port, self.containers = app, port, containers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif reason := await self.refusal(scope):
            await refuse(scope, reason, send)
        else:
            await self.app(scope, receive, without_wildcard_cors(send))

    async def refusal(self, scope: Scope) -> str | None:
        """The reason for which the request is refused; None when it may pass."""
        hosts, origins = headers_of(scope, b"host"), headers_of(scope, b"origin")
        host = hosts[0].lower() if len(hosts) == 1 else ""
        if not self.is_ours(host) and not await self.is_of_container(host):
            return f"Host {host or 'missing'} is not this stack's; use http://127.0.0.1:{self.port}"
        for origin in origins:
            scheme, _, place = origin.lower().partition("://")
            if scheme != "http" or not self.is_ours(place):
                return f"Origin {origin} is not this stack's; a page of another origin may not call it"
        method, path = scope.get("method", "GET"), scope["path"]
        if (method, path) == ("GET", HEALTH) or (method == "PUT" and path.startswith(CUSTOM_RESOURCES)):
            return None
        if path.startswith(CLOSED):
            return f"{path} is closed; the stack is managed with the bintally command"
        signatures = signatures_of(scope)
        if signatures > 1 or (signatures == 1 and not is_well_signed(scope)):
            return "The request is signed twice, or in a form other than signature version 4"
        if not signatures and not is_for_api(host, path):
            return 'The request is not signed; get the stack\'s key with: eval "$(bintally env)"'
        return None

    def is_ours(self, host: str) -> bool:
        """Whether a host with its port is a loopback name of this stack."""
        name, _, port = host.partition(":")
        return (port or "80") == str(self.port) and bool(NAME.fullmatch(name))

    async def is_of_container(self, host: str) -> bool:
        name, _, port = host.partition(":")
        if port != str(self.port) or not CONTAINERS_NAME.fullmatch(name):
            return False
        return name in await asyncio.to_thread(self.containers)


def headers_of(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope.get("headers", []) if key.lower() == name]


def query_of(scope: Scope) -> dict[str, list[str]]:
    return parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)


def signatures_of(scope: Scope) -> int:
    """The number of AWS signatures that a request has, in headers and in the query."""
    authorizations = headers_of(scope, b"authorization")
    in_query = bool({name.lower() for name in query_of(scope)} & SIGNING)
    if len(authorizations) == 1 and not in_query and not authorizations[0].startswith("AWS"):
        return 0  # A token for an API. Together with another header or a signature it could hide either.
    return len(authorizations) + in_query


def is_well_signed(scope: Scope) -> bool:
    """Whether the one signature has the form of signature version 4."""
    if authorizations := headers_of(scope, b"authorization"):
        return bool(SIGNATURE.fullmatch(authorizations[0]))
    query = query_of(scope)
    once = all(len(query.get(name, [])) == 1 for name in QUERY)
    alone = not {name.lower() for name in query if name not in QUERY} & SIGNING
    # The emulator leaves S3 signatures in the query to S3, and S3 Control does not check them.
    return (
        once and alone and query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"] and not scope["path"].startswith(S3_CONTROL)
    )


def is_for_api(host: str, path: str) -> bool:
    from ministack import app

    return app._parse_execute_api_url(host, path) is not None


async def refuse(scope: Scope, reason: str, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = f"{reason}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def without_wildcard_cors(send: Send) -> Send:
    """Removes the emulator's permission for every origin to read answers outside S3. Foreign origins get no answer
    here, so nobody needs it."""

    async def send_without(message: dict[str, Any]) -> None:
        headers = [(name.lower(), value) for name, value in message.get("headers", [])]
        if (b"access-control-allow-origin", b"*") in headers:
            kept = [(name, value) for name, value in headers if not name.startswith(b"access-control-")]
            message = {**message, "headers": kept}
        await send(message)

    return send_without


def sam_containers() -> set[str]:
    """The names of this machine in running containers of `sam local invoke`: the gateways of their networks, and
    Docker Desktop's name. Empty without one, or without Docker."""
    import docker

    try:
        with contextlib.closing(docker.from_env(timeout=5)) as client:
            containers = [one.attrs for one in client.containers.list()]
    except (docker.errors.DockerException, OSError):
        return set()
    running = [one for one in containers if "AWS_SAM_LOCAL=true" in (one["Config"]["Env"] or [])]
    networks = [network for one in running for network in one["NetworkSettings"]["Networks"].values()]
    return {"host.docker.internal", *(network["Gateway"] for network in networks)} - {""} if running else set()


def check_the_owner(key: OwnerKey) -> None:
    """ministack treats callers with no key, `test`, twelve digits or the configured key as root, and never checks
    their signature. Here only the owner's key is root, and its signature is checked like any user's."""
    from ministack.core import iam_evaluator
    from ministack.services import sts

    def is_owner(access_key_id: str) -> bool:
        return hmac.compare_digest(access_key_id.encode(), key.access_key_id.encode())

    iam_evaluator.is_root_access_key = is_owner
    sts.is_root_access_key = is_owner
    known = iam_evaluator.resolve_caller_identity

    def identity(access_key_id: str) -> dict[str, Any] | None:
        """An HTTP API tells its functions who calls; ministack knows no owner."""
        if not is_owner(access_key_id):
            found: dict[str, Any] | None = known(access_key_id)
            return found
        account = sts.get_account_id()
        arn = f"arn:aws:iam::{account}:root"
        return {"accessKey": access_key_id, "accountId": account, "userId": account, "userArn": arn}

    iam_evaluator.resolve_caller_identity = identity
    # ministack skips the signature check for these keys.
    iam_evaluator._is_root_key = lambda access_key_id: False


def close_what_is_not_run() -> None:
    """The emulator serves a container registry and sign-in pages to anyone, at any host, even if these services are
    not enabled. Operations of Cognito that need no permission take any answer to NEW_PASSWORD_REQUIRED; people sign in
    through the stack's own API, whose function has a permission."""
    from ministack import app
    from ministack.services import cognito

    async def nothing(*arguments: Any) -> None:
        return None

    run = cognito._run_idp_handler

    def run_what_needs_a_permission(handler: Any, action: str, data: dict[str, Any]) -> Any:
        if action in cognito._UNSIGNED_IDP_ACTIONS:
            return cognito.error_response_json("NotAuthorizedException", f"{action} is closed on this machine", 400)
        return run(handler, action, data)

    cognito._run_idp_handler = run_what_needs_a_permission
    app._handle_ecr_registry_request = nothing
    app._handle_cognito_get_request = nothing
    app._handle_cognito_body_request = nothing
