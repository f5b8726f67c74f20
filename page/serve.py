"""The serve function: answers GET / and GET /page/<version>/<file> with the files of the web page.

It needs nothing but Python, so that a cold start takes a tenth of a second. `version` is the digest of all files:
browsers keep what they loaded for a year, and the next deployment has other addresses.
"""

import base64
import gzip
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SITE = Path(__file__).parent / "site"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".LICENSE": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
MODULES = (".js", ".mjs")
FOR_EVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"
"""Store it, and ask each time whether it has changed."""


class WrongEvent(ValueError):
    """The event is no request of an HTTP API."""


@dataclass(frozen=True)
class File:
    """A file as browsers get it. `tag` is of the bytes before compression."""

    type: str
    tag: str
    gzipped: bytes
    plain: bytes


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Raises WrongEvent."""
    if not isinstance(event, dict) or not {"rawPath", "headers", "requestContext"} <= event.keys():
        raise WrongEvent("serve takes a request of an HTTP API (payload 2.0); events/serve.json is a sample")
    answered = answer(event["rawPath"], event["headers"])
    print(json.dumps({"message": "served", "path": event["rawPath"][:200], "status": answered["statusCode"]}))
    return answered


def answer(path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """The answer of an HTTP API's function to GET. `headers`: in lower case."""
    shown = files()
    file = shown.get(path)
    if file is None:
        detail = {"status": 404, "title": "Not Found", "code": "UNKNOWN", "detail": "there is nothing at this path"}
        kind = "application/problem+json"
        return {"statusCode": 404, "headers": safe() | {"Content-Type": kind}, "body": json.dumps(detail)}
    kept = {"Cache-Control": ASK_AGAIN if path == "/" else FOR_EVER, "ETag": file.tag, "Vary": "Accept-Encoding"}
    if file.tag in [each.strip() for each in headers.get("if-none-match", "").split(",")]:
        return {"statusCode": 304, "headers": safe() | kept}
    zipped = takes_gzip(headers.get("accept-encoding", ""))
    return {
        "statusCode": 200,
        "headers": safe() | kept | {"Content-Type": file.type} | ({"Content-Encoding": "gzip"} if zipped else {}),
        "body": base64.b64encode(file.gzipped if zipped else file.plain).decode(),
        "isBase64Encoded": True,
    }


@cache
def files() -> dict[str, File]:
    """The files by path. Another path has none, whatever it spells."""
    found = {path.relative_to(SITE).as_posix(): path.read_bytes() for path in SITE.rglob("*") if path.is_file()}
    start = f"/page/{version_of(found)}"
    preloads = [f'<link rel="modulepreload" href="{start}/{name}">' for name in sorted(found) if name.endswith(MODULES)]
    index = (
        found.pop("index.html")
        .decode()
        .replace("/page/VERSION", start)
        .replace("<!-- modules -->", "\n".join(preloads))
    )
    return {"/": file_of("index.html", index.encode())} | {
        f"{start}/{name}": file_of(name, content) for name, content in found.items()
    }


def version_of(found: Mapping[str, bytes]) -> str:
    """16 hex digits of all names and contents."""
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(f"{name} {len(found[name])}\n".encode() + found[name])
    return digest.hexdigest()[:16]


def file_of(name: str, content: bytes) -> File:
    tag = f'W/"{hashlib.sha256(content).hexdigest()[:16]}"'
    return File(TYPES[Path(name).suffix], tag, gzip.compress(content, 9, mtime=0), content)


def takes_gzip(accepted: str) -> bool:
    """RFC 9110, section 12.5.3: named, or *, and not with a weight of 0."""
    weights = {}
    for each in accepted.lower().split(","):
        coding, _, weight = each.replace(" ", "").partition(";q=")
        weights[coding] = weight.strip("0.") != "" if weight else True
    return weights.get("gzip", weights.get("*", False))


def safe() -> dict[str, str]:
    """Headers of every answer: the page runs its own scripts, asks its own origin, and shows pictures of one bucket."""
    pictures = " ".join(["'self'", *picture_hosts(os.environ)])
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": pictures,
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "Referrer-Policy": "no-referrer",
        "Strict-Transport-Security": "max-age=63072000",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }


def picture_hosts(environment: Mapping[str, str]) -> list[str]:
    """Where presigned links to display copies lead: the bucket's host, or the emulator's."""
    if endpoint := environment.get("AWS_ENDPOINT_URL"):
        parts = urlsplit(endpoint)
        return [f"{parts.scheme}://{parts.netloc}"]
    bucket, region = environment["ARTIFACTS_BUCKET"], environment["AWS_REGION"]
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return [f"https://{bucket}.s3.{suffix}", f"https://{bucket}.s3.{region}.{suffix}"]
