"""Who may talk to the emulator: an ASGI layer before it, and the check of the owner's signature.

The emulator listens on loopback, which keeps other machines out. It does not keep out a web page in a browser on this
machine, nor another user of it. docs/security.md says who can reach what.
"""

import asyncio
import contextlib
import hmac
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from local.owner import OwnerKey

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CLOSED = ("/_ministack/", "/_localstack/")
OPEN = (("GET", "/_ministack/health"), ("PUT", "/_ministack/cfn-response/"))
"""Method and start of what is open below CLOSED: health, and the answer of a custom resource, whose address holds a
random token as AWS's presigned one does."""
SIGNED = ("x-amz-credential", "awsaccesskeyid")
"""Query parameters, in lower case, that name the key of a signed request."""


class Gate:
    """Refuses with 403 and one line, before any service sees it, every request that

    - a page of another origin sends (`Origin`), or that reached us under a foreign name (`Host`: DNS rebinding);
    - asks for the emulator's own administration;
    - is not signed, unless it goes to an API, which checks its callers itself.

    `containers` answers the host names under which containers of `sam local invoke` reach this machine now.
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
        """Why the request is refused; None when it may pass."""
        hosts, origins = headers_of(scope, b"host"), headers_of(scope, b"origin")
        host = hosts[0].lower() if len(hosts) == 1 else ""
        if not self.is_ours(host) and not await self.is_of_container(host):
            return f"Host {host or 'missing'} is not this stack's; use http://127.0.0.1:{self.port}"
        for origin in origins:
            scheme, _, place = origin.lower().partition("://")
            if scheme != "http" or not self.is_ours(place):
                return f"Origin {origin} is not this stack's; a page of another origin may not call it"
        method, path = scope.get("method", "GET"), scope["path"]
        if path.startswith(CLOSED):
            if any(method == allowed and path.startswith(start) for allowed, start in OPEN):
                return None
            return f"{path} is closed; the stack is managed with the bintally command"
        if not is_signed(scope) and not is_for_api(host, path):
            return 'The request is not signed; get the stack\'s key with: eval "$(bintally env)"'
        return None

    def is_ours(self, host: str) -> bool:
        """Whether a host, with its port, is a loopback name of this stack. API addresses end in `.localhost`, which
        always resolves to loopback (RFC 6761)."""
        name, _, port = host.partition(":")
        return (port or "80") == str(self.port) and (name in ("127.0.0.1", "localhost") or name.endswith(".localhost"))

    async def is_of_container(self, host: str) -> bool:
        name, _, port = host.partition(":")
        return port == str(self.port) and name in await asyncio.to_thread(self.containers)


def headers_of(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope.get("headers", []) if key.lower() == name]


def is_signed(scope: Scope) -> bool:
    """Whether it names a key, in header or query. Whether that key is known, and its signature right, is for the
    emulator to check."""
    if any(value.startswith(("AWS4-", "AWS ")) for value in headers_of(scope, b"authorization")):
        return True
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    return any(name.lower() in SIGNED for name in query)


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
    """The emulator lets every origin read every answer outside S3. Here only an origin that a bucket or an API names
    may."""

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
    running = [one for one in containers if "AWS_SAM_LOCAL=true" in one["Config"]["Env"]]
    networks = [network for one in running for network in one["NetworkSettings"]["Networks"].values()]
    return {"host.docker.internal", *(network["Gateway"] for network in networks)} - {""} if running else set()


def check_the_owner(key: OwnerKey) -> None:
    """ministack's root is whoever names no key, `test`, twelve digits or the configured key, and its signature is
    never checked. Here it is the owner's key alone, checked as that of any user."""
    from ministack.core import iam_evaluator
    from ministack.services import sts

    def is_owner(access_key_id: str) -> bool:
        return hmac.compare_digest(access_key_id.encode(), key.access_key_id.encode())

    iam_evaluator.is_root_access_key = is_owner
    sts.is_root_access_key = is_owner
    # Whose signature is left out.
    iam_evaluator._is_root_key = lambda access_key_id: False
