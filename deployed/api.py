"""The HTTP API of a stack: requests that its caller signs (signature version 4)."""

import base64
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import HTTPClientError
from botocore.httpsession import URLLib3Session

from deployed.errors import ApiRefused, Denied, NotDeployed, StackError
from deployed.stack import Deployed

SECONDS = 35
"""API Gateway gives up after 30."""
TRIES = 4
"""Of requests that find a service busy; the API stores an entry once, however often it is sent."""


@dataclass(frozen=True)
class Api:
    """The API of a stack, as a caller with this role at this site."""

    stack: Deployed
    role: str
    site: str

    def ask(self, path: str, body: Any = None, **query: str) -> dict[str, Any]:
        """The answer to GET, or to POST with a body. Raises ApiRefused, Denied or another StackError."""
        outputs = self.stack.outputs()
        if "ApiUrl" not in outputs:
            raise NotDeployed("this stack has no HTTP API yet. Update it (docs/operations.md)")
        where = f"/machine/{self.role}/sites/{encode_id(self.site)}/{path}"
        url = outputs["ApiUrl"] + where + (f"?{urlencode(sorted(query.items()))}" if query else "")
        for left in range(TRIES - 1, -1, -1):
            status, text = self._send("GET" if body is None else "POST", url, body)
            if status not in (429, 502, 503, 504) or not left:
                break
        try:
            said = json.loads(text)
        except ValueError as error:
            raise StackError(f"the HTTP API answered {status}: {text[:200]}") from error
        if status < 400:
            return dict(said)
        if "code" in said:  # ours; the gateway's own errors have a message alone
            raise ApiRefused(said["code"], said["detail"])
        if status in (401, 403):
            raise Denied("execute-api:Invoke", f"{self.role} of site {self.site}")
        raise StackError(f"the HTTP API answered {status}: {said.get('message', said)}")

    def _send(self, method: str, url: str, body: Any) -> tuple[int, str]:
        host = urlsplit(url).netloc
        data = None if body is None else json.dumps(body).encode()
        request = AWSRequest(method, url, data=data, headers={"Host": host, "Content-Type": "application/json"})
        session: Any = self.stack.session()
        SigV4Auth(session.get_credentials(), "execute-api", session.region_name).add_auth(request)
        prepared = request.prepare()
        name, _, port = host.partition(":")
        if name.endswith(".localhost"):  # loopback by definition, but few systems look it up
            prepared.url = prepared.url.replace(f"//{host}", f"//127.0.0.1:{port}", 1)
        try:
            answer: Any = URLLib3Session(timeout=SECONDS).send(prepared)
        except HTTPClientError as error:
            raise StackError(f"the HTTP API does not answer at {urlsplit(url).netloc}: {error}") from error
        return answer.status_code, answer.text


def encode_id(text: str) -> str:
    """A site in a path: as it is, or `~` and base64url of its UTF-8."""
    if re.fullmatch(r"[A-Za-z0-9_.-]+", text) and text not in (".", ".."):
        return text
    return "~" + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
