"""The page's files over HTTP: what browsers may keep, and what nobody gets."""

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from page import serve

EVENTS = Path(__file__).parents[2] / "events"
FILES = {path.relative_to(serve.SITE).as_posix() for path in serve.SITE.rglob("*") if path.is_file()}
CONTEXT = object()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTIFACTS_BUCKET", "artifacts")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)


def get(path: str = "/", **headers: str) -> dict[str, Any]:
    event = json.loads((EVENTS / "serve.json").read_bytes())
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return serve.handler(event | {"rawPath": path, "headers": named}, CONTEXT)


def content(answered: dict[str, Any]) -> bytes:
    body = base64.b64decode(answered["body"])
    return gzip.decompress(body) if answered["headers"].get("Content-Encoding") == "gzip" else body


def address(name: str) -> str:
    (found,) = [path for path in serve.files() if path.endswith(f"/{name}")]
    return found


def test_the_first_page_names_every_module_and_is_asked_for_again() -> None:
    answered = get()
    index = content(answered).decode()
    assert (answered["statusCode"], answered["headers"]["Cache-Control"]) == (200, "no-cache")
    assert answered["headers"]["Content-Type"] == "text/html; charset=utf-8"
    preloaded = re.findall(r'<link rel="modulepreload" href="([^"]+)">', index)
    assert {path.split("/", 3)[3] for path in preloaded} == {name for name in FILES if name.endswith((".js", ".mjs"))}
    for path in re.findall(r'(?:href|src)="([^"]+)"', index):
        assert get(path)["statusCode"] == 200, path
    assert "VERSION" not in index and "http" not in index


@pytest.mark.parametrize("name", sorted(FILES - {"index.html"}))
def test_a_file_is_kept_for_a_year(name: str) -> None:
    answered = get(address(name), accept_encoding="gzip, deflate, br")
    assert answered["headers"]["Cache-Control"] == "public, max-age=31536000, immutable"
    assert content(answered) == (serve.SITE / name).read_bytes()
    assert answered["headers"]["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize(
    ("accepted", "zipped"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("*", True),
        ("", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000, *", False),
        ("*;q=0", False),
    ],
)
def test_gzip_for_who_takes_it_under_the_same_tag(accepted: str, zipped: bool) -> None:
    answered, bare = get(accept_encoding=accepted), get()
    assert (answered["headers"].get("Content-Encoding") == "gzip") == zipped
    assert (answered["headers"]["ETag"], content(answered)) == (bare["headers"]["ETag"], content(bare))


def test_an_unchanged_file_is_not_sent_again() -> None:
    tag = get()["headers"]["ETag"]
    for given in (tag, f'"other", {tag}'):
        answered = get(if_none_match=given)
        assert answered["statusCode"] == 304 and "body" not in answered
        assert answered["headers"]["ETag"] == tag
    assert get(if_none_match='"other"')["statusCode"] == 200


@pytest.mark.parametrize(
    "path",
    ["/page/", "/page/../serve.py", "/page/%2e%2e/serve.py", "/page/0000000000000000/main.js", "//", "", "/index.html"],
)
def test_nothing_else_is_served(path: str) -> None:
    answered = get(path)
    assert (answered["statusCode"], json.loads(answered["body"])["code"]) == (404, "UNKNOWN")
    assert answered["headers"]["Content-Type"] == "application/problem+json"


def test_every_answer_forbids_what_the_page_does_not_need() -> None:
    for answered in (get(), get("/nothing"), get(address("main.js")), get(if_none_match=get()["headers"]["ETag"])):
        headers = answered["headers"]
        policy = dict(each.split(" ", 1) for each in headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("environment", "hosts"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:4566/"}, ["http://127.0.0.1:4566"]),
        (
            {"ARTIFACTS_BUCKET": "a", "AWS_REGION": "eu-central-1"},
            ["https://a.s3.amazonaws.com", "https://a.s3.eu-central-1.amazonaws.com"],
        ),
    ],
)
def test_pictures_come_from_the_bucket_alone(environment: dict[str, str], hosts: list[str]) -> None:
    assert serve.picture_hosts(environment) == hosts


@pytest.mark.parametrize("event", [None, [], {}, {"Records": []}])
def test_another_event_is_refused_in_one_line(event: Any) -> None:
    with pytest.raises(serve.WrongEvent, match=r"^serve takes .*; events/serve\.json is a sample$"):
        serve.handler(event, CONTEXT)


def test_the_queue_weighs_less_than_150_kb() -> None:
    """Everything that the page loads, since every module is preloaded."""
    sent = sum(len(file.gzipped) for path, file in serve.files().items() if not path.endswith((".md", ".LICENSE")))
    assert sent < 150_000
