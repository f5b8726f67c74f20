"""The web page in a real browser before the real functions: `serve` and `answer`, in process, with moto's table and
buckets. The gateway's part is played here: it names the person of a token, and what it would refuse is refused.

Only /session has a stand-in: names, passwords and tokens that a test may end. tests/stack/test_page.py signs in for
real.
"""

import base64
import json
import threading
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bintally import answer

from page import serve

CONTEXT: Any = SimpleNamespace(
    function_name="answer",
    memory_limit_in_mb=1769,
    invoked_function_arn="arn:aws:lambda:us-east-1:000000000000:function:answer",
    aws_request_id="a request",
)
ONE_AT_A_TIME = threading.Lock()
"""moto's transactions are none between threads."""
SAMPLE = json.loads((Path(__file__).parents[2] / "events" / "answer.json").read_bytes())


@dataclass
class Gate:
    """Who may enter, and what was asked. `down`: paths whose requests get no answer."""

    groups: dict[str, list[str]] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)
    fresh: set[str] = field(default_factory=set)
    """People who must choose a new password."""
    refuse: list[tuple[int, Any]] = field(default_factory=list)
    """Status and answer of the next requests for an overview."""
    tokens: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    answered: list[tuple[str, str, bytes]] = field(default_factory=list)
    """Path, headers and body of each answer of the API."""

    def end_tokens(self) -> None:
        self.tokens.clear()

    def end_sessions(self) -> None:
        self.tokens.clear()
        self.sessions.clear()

    def sign_in(self, body: Any, cookie: str) -> tuple[int, Any, str]:
        """Status, answer and cookie."""
        if body.get("sign_out"):
            self.sessions.pop(cookie, None)
            return 200, {"signed_out": True}, ""
        name = self.sessions.get(cookie, "") if body.get("refresh") else str(body.get("name"))
        if body.get("refresh") and not name:
            return 401, problem(401, "SESSION_ENDED", "sign in again"), ""
        if not body.get("refresh"):
            if self.passwords.get(name) != body.get("password"):
                return 401, problem(401, "WRONG_PASSWORD", "the name or the password is wrong"), ""
            if name in self.fresh and not body.get("new_password"):
                return 409, problem(409, "NEW_PASSWORD", "choose a new password"), ""
            self.fresh.discard(name)
        number = len(self.tokens) + len(self.sessions) + len(self.asked)
        claims = base64.urlsafe_b64encode(json.dumps({"cognito:username": name, "n": number}).encode()).decode()
        token = f"e30.{claims.rstrip('=')}.x"
        self.tokens[token] = name
        self.sessions[f"s{number}"] = name
        return 200, {"token": token, "expires_in": 3600}, f"s{number}"


def problem(status: int, code: str, detail: str) -> dict[str, Any]:
    return {"type": "about:blank", "title": code, "status": status, "code": code, "detail": detail}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # of 5, a browser's first requests fill it on a busy machine, and some wait for seconds

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.gate = Gate()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that was closed."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.reply(b"")

    def do_POST(self) -> None:
        self.reply(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def reply(self, body: bytes) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if parts.path == "/session":
            status, said, cookie = self.server.gate.sign_in(json.loads(body), cookie_of(headers))
            extra = {"Set-Cookie": f"session={cookie}; Path=/session; HttpOnly; SameSite=Strict"} if cookie else {}
            return self.send(status, {"Content-Type": "application/json"} | extra, json.dumps(said).encode())
        if not parts.path.startswith("/api/"):
            answered = serve.answer(parts.path, headers)
        else:
            answered = self.ask(parts.path, parts.query, body, headers)
        content = answered.get("body", "")
        data = base64.b64decode(content) if answered.get("isBase64Encoded") else content.encode()
        sent = {name: str(value) for name, value in answered["headers"].items()}
        if parts.path.startswith("/api/"):
            self.server.gate.answered.append((parts.path, json.dumps(sent), data))
        return self.send(answered["statusCode"], sent, data)

    def ask(self, path: str, query: str, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
        """What the gateway answers, or the function behind it."""
        gate = self.server.gate
        raw = headers.get("content-type") == "application/octet-stream"
        gate.asked.append((self.command, path, body if raw else json.loads(body) if body else None))
        name = gate.tokens.get(headers.get("authorization", "").removeprefix("Bearer "))
        if name is None:
            return {"statusCode": 401, "headers": {}, "body": json.dumps({"message": "Unauthorized"})}
        if path.endswith("/overview") and gate.refuse:
            status, said = gate.refuse.pop(0)
            return {"statusCode": status, "headers": {}, "body": json.dumps(said)}
        claims = {"token_use": "id", "cognito:username": name, "cognito:groups": f"[{' '.join(gate.groups[name])}]"}
        event = json.loads(json.dumps(SAMPLE)) | {"rawPath": path, "rawQueryString": query}
        event |= {"body": base64.b64encode(body).decode() if raw else body.decode(), "isBase64Encoded": raw}
        event["queryStringParameters"] = {name: values[-1] for name, values in parse_qs(query).items()}
        event["requestContext"] |= {"authorizer": {"jwt": {"claims": claims}}}
        event["requestContext"]["http"] |= {"method": self.command, "path": path}
        with ONE_AT_A_TIME:
            return dict(answer.handler(event, CONTEXT))

    def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def cookie_of(headers: dict[str, str]) -> str:
    found = SimpleCookie(headers.get("cookie", "")).get("session")
    return found.value if found else ""
