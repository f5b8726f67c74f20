"""Reads requests of the HTTP API: who asks, as what, and for which site; and what they say."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from bintally.answering.problems import Problem, wrong
from bintally.common.keys import Place, fold
from bintally.reviewing.desk import Person

LONGEST_BODY = 64 * 1024
"""Bytes."""
PLAIN = re.compile(r"[A-Za-z0-9_.-]+")
ROLES = ("viewer", "counter", "manager")
"""Groups of people. Each may do what those before it may."""
SITE = "site:"
"""Prefix of the groups that say where; the rest is an id as in a path."""
ALL_SITES = "*"


@dataclass(frozen=True)
class Caller:
    """Who asks."""

    person: Person
    role: str
    sites: frozenset[str] | None
    """Folded; None: the gateway has judged the path, which names the site."""
    named: tuple[str, ...] = ()
    """The same sites as an administrator spells them; empty where all are."""

    def check(self, role: str) -> None:
        """Raises Problem unless the caller may do what this role may."""
        if ROLES.index(self.role) < ROLES.index(role):
            raise Problem(403, "FORBIDDEN", f"this needs the role {role}")

    @property
    def everywhere(self) -> bool:
        """Whether the caller belongs to every site."""
        return self.sites is None or ALL_SITES in self.sites

    def may_see(self, site: str) -> bool:
        return self.everywhere or fold(site) in (self.sites or ())

    def check_site(self, site: str) -> None:
        """Raises Problem unless the caller belongs to this site."""
        if not self.may_see(site):
            raise Problem(403, "FORBIDDEN", "this is not your site")


def caller(event: Mapping[str, Any]) -> Caller:
    """The caller of a request that the gateway has authorized. Raises Problem."""
    said = event["requestContext"].get("authorizer") or {}
    if event["rawPath"].startswith("/api/"):
        return person(said.get("jwt", {}).get("claims") or {})
    return machine(said.get("iam") or {}, event["rawPath"].split("/")[2])


def person(claims: Mapping[str, Any]) -> Caller:
    """The caller with these claims of an id token. An access token passes the gateway too."""
    if claims.get("token_use") != "id":
        raise Problem(401, "UNAUTHORIZED", "sign in, and send the id token")
    groups = str(claims.get("cognito:groups", "")).strip("[]").split()
    roles = [role for role in ROLES if role in groups]
    if not roles:
        raise Problem(403, "FORBIDDEN", f"you are in none of the groups {', '.join(ROLES)}")
    sites = [group.removeprefix(SITE) for group in groups if group.startswith(SITE)]
    named = tuple(sorted(filter(None, map(site_of, sites)))) if ALL_SITES not in sites else ()
    found = frozenset({ALL_SITES} if ALL_SITES in sites else map(fold, named))
    name = str(claims["cognito:username"])
    return Caller(Person(name, manager=roles[-1] == "manager"), roles[-1], found, named)


def site_of(encoded: str) -> str | None:
    """The site that a group names; None for a group that names none, which gives nothing and takes nothing away."""
    try:
        return decode_id(encoded)
    except Problem:
        return None


def machine(signed: Mapping[str, Any], role: str) -> Caller:
    """The caller of a route that IAM authorizes. The path names role and site, so a policy on paths grants them."""
    if role not in ROLES:
        raise Problem(404, "UNKNOWN", f"there is no role {role[:40]}; one of {', '.join(ROLES)}")
    if not signed:
        raise Problem(401, "UNAUTHORIZED", "sign the request with signature version 4 for execute-api")
    return Caller(Person(signed["userArn"].split(":", 5)[5], manager=role == "manager"), role, None)


def decode_id(text: str) -> str:
    """An id in a path: as it is, or `~` and base64url of its UTF-8. Raises Problem."""
    if PLAIN.fullmatch(text) and text not in (".", ".."):
        return checked(text)
    try:
        if not text.startswith("~"):
            raise ValueError(text)
        return checked(base64.b64decode(text[1:] + "=" * (-len(text[1:]) % 4), altchars=b"-_", validate=True).decode())
    except (ValueError, binascii.Error) as error:
        raise wrong(
            f"{text[:60]!r} is not an id: letters, digits, . _ - as they are, all else as ~ and base64url"
        ) from error


def encoded(text: str) -> str:
    """A cursor: the place of an item within what its path names, so that it leads nowhere else."""
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decoded(cursor: str) -> str:
    """Raises Problem."""
    try:
        found = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error) as error:
        raise wrong("this is not a cursor of this list") from error
    if not 0 < len(found.encode()) <= 1000:
        raise wrong("this is not a cursor of this list")
    return found


def checked(text: str) -> str:
    if not fold(text) or len(text) > 1024:
        raise wrong(f"{text[:60]!r} is not an id")
    return text


def place(site: str, bin_: Any) -> Place:
    """Raises Problem."""
    if not isinstance(bin_, str):
        raise wrong("bin must be a text")
    return Place(site, checked(bin_), "")


def body_of(event: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The JSON object that a request sends, with no members but these. Raises Problem."""
    text = event.get("body") or ""
    if event.get("isBase64Encoded"):
        text = base64.b64decode(text).decode("utf-8", "replace")
    if len(text) > LONGEST_BODY:
        raise Problem(413, "TOO_LARGE", f"a request has at most {LONGEST_BODY:,} bytes")
    try:
        found = json.loads(text, parse_constant=lambda name: float(name)) if text else {}
    except (ValueError, RecursionError) as error:
        raise wrong("the body is not JSON") from error
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:  # \ud83d alone: half of what UTF-16 has for one character
        raise wrong("the body has half a character") from error
    if not isinstance(found, dict):
        raise wrong("the body is not a JSON object")
    if unknown := found.keys() - set(names):
        raise wrong(f"unknown: {', '.join(sorted(unknown))[:200]}; the members are {', '.join(names)}")
    return found


def bytes_of(event: Mapping[str, Any], longest: int) -> bytes:
    """What a request sends, as it is. Raises Problem."""
    text = event.get("body") or ""
    try:
        data = base64.b64decode(text) if event.get("isBase64Encoded") else text.encode()
    except UnicodeEncodeError as error:
        raise wrong("the body has half a character") from error
    if len(data) > longest:
        raise Problem(413, "TOO_LARGE", f"a file has at most {longest:,} bytes; store larger ones in the bucket")
    return data


def text_of(body: Mapping[str, Any], name: str, *, longest: int, default: str | None = None) -> str:
    """Raises Problem."""
    found = body.get(name, default)
    if not isinstance(found, str) or (default is None and not found):
        raise wrong(f"{name} must be a text")
    if len(found) > longest:
        raise wrong(f"{name} has at most {longest} characters")
    return found


def number_of(found: object) -> int | float:
    """A number of the table as JSON has it. Raises TypeError."""
    if not isinstance(found, Decimal):
        raise TypeError(f"{type(found).__name__} is no JSON")
    return int(found) if found == found.to_integral_value() else float(found)
