"""Requests that nobody means to send to the serving app: it answers each with an error of its own, and serves on."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import search
from tests.model.test_serve import Endpoint, colours, picture

__all__ = ["colours"]  # a fixture

pytestmark = pytest.mark.fuzz
TYPES = [
    "image/jpeg",
    "image/png",
    "image/webp",
    "application/x-image",
    "application/json",
    "text/csv",
    "",
    "\xff",
    "/",
]
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["images", "a"]), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def endpoint(colours: Path) -> Iterator[Endpoint]:
    endpoint = Endpoint(colours).start().wait()
    yield endpoint
    code, _ = endpoint.stop()
    assert code == 0


def test_any_request_gets_an_answer_or_an_error(endpoint: Endpoint) -> None:
    sound = [picture("red", form) for form in ("JPEG", "PNG", "WEBP")]
    cut = st.builds(lambda data, at: data[: at % len(data)], st.sampled_from(sound), st.integers(0))
    images = (st.binary(max_size=99) | cut).map(lambda data: base64.b64encode(data).decode()) | st.text(max_size=9)
    requests = st.lists(images, max_size=3).map(lambda found: json.dumps({"images": found}).encode())
    deep = st.sampled_from([b"[" * 100_000, b'{"images": ["' + b"A" * 5_000_000 + b'"]}', b'{"images": [NaN]}'])
    bodies = st.binary(max_size=200) | cut | requests | JSONS.map(lambda found: json.dumps(found).encode()) | deep

    @given(bodies, st.sampled_from(TYPES))
    def asked(body: bytes, content_type: str) -> None:
        reply = endpoint.invoke(body, content_type)
        assert reply.status == 200 or (reply.status in (400, 413, 415) and reply.error), reply
        assert endpoint.process.poll() is None

    search(asked, examples=60)
    assert endpoint.ask("GET", "/ping").status == 200
