"""What a page of another origin, in a real browser on this machine, can do to the local stack: nothing.

The attacks are those that were shown on the stack before: with ministack alone they still succeed.
"""

import base64
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from local.stack import Local
from tests.browser import launch

BOTH = pytest.mark.parametrize("which", ["bare", "ours"])


@pytest.fixture
def stack(which: str, request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(which)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = launch(playwright)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of another origin, in a real browser."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>elsewhere</title>")

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = browser.new_page()
        found.goto(f"http://127.0.0.1:{server.server_address[1]}/")
        yield found
        found.close()
        server.shutdown()


SEND = "([url, method, body, mode]) => fetch(url, {method, body, mode}).then(a => a.text(), e => `${e}`)"


@BOTH
def test_a_page_of_another_origin_cannot_wipe_the_stack(stack: Local, which: str, page: Page) -> None:
    stack.client("s3").create_bucket(Bucket="photographs")
    stack.client("s3").put_object(Bucket="photographs", Key="incoming/a.jpg", Body=b"a")
    page.evaluate(SEND, [f"{stack.endpoint_url}/_ministack/reset", "POST", None, "no-cors"])
    stored = list((stack.home / "s3").rglob("a.jpg"))
    assert bool(stored) == (which == "ours")


@BOTH
def test_a_page_of_another_origin_cannot_run_python(
    stack: Local,
    which: str,
    page: Page,
    function_role: Callable[..., str],
    signed_in_query: Callable[..., str],
    code_of: Callable[[str], bytes],
    tmp_path: Path,
) -> None:
    touched = tmp_path / "touched"
    code = code_of(f"open({str(touched)!r}, 'w').close()")
    function = {
        "FunctionName": "intruder",
        "Runtime": "python3.13",
        "Handler": "index.handler",
        "Role": function_role(stack, "any"),
    }
    body = json.dumps(function | {"Code": {"ZipFile": base64.b64encode(code).decode()}})
    functions = "/2015-03-31/functions"
    for path, content in ((functions, body), (f"{functions}/intruder/invocations", "{}")):
        address = signed_in_query(stack, "test", "test", "lambda", "POST", path, content.encode())
        page.evaluate(SEND, [stack.endpoint_url + address, "POST", content, "no-cors"])
    assert touched.exists() == (which == "bare")


@BOTH
def test_a_page_of_another_origin_reads_nothing(
    stack: Local, which: str, page: Page, signed_in_query: Callable[..., str]
) -> None:
    address = signed_in_query(stack, "test", "test", "sqs", "GET", "/?Action=ListQueues&Version=2012-11-05")
    seen = page.evaluate(SEND, [stack.endpoint_url + address, "GET", None, "cors"])
    assert ("Failed to fetch" in seen) == (which == "ours")
