"""What S3 answers, and which of it is the photograph's fault."""

import io
import time
from collections.abc import Iterator

import boto3
import pytest
from botocore.config import Config
from botocore.response import StreamingBody
from botocore.stub import Stubber

from training.dataset import store

KEY = {"Bucket": "b", "Key": "a/k.jpg", "VersionId": "1"}


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    client = boto3.client(
        "s3", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b",
        config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip
    monkeypatch.setattr(store, "client", lambda: client)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with Stubber(client) as stubber:
        yield stubber


def answer(data: bytes, length: int) -> dict[str, object]:
    return {"Body": StreamingBody(io.BytesIO(data), length), "ContentLength": length}


def test_a_body_that_breaks_off_is_read_again(s3: Stubber) -> None:
    s3.add_response("get_object", answer(b"who", 5), KEY)
    s3.add_response("get_object", answer(b"whole", 5), KEY)
    assert store.photograph("b", "a/k.jpg", "1") == b"whole"
    s3.assert_no_pending_responses()


def test_a_body_that_always_breaks_off_is_the_stores_fault(s3: Stubber) -> None:
    for _ in range(store.READ_ATTEMPTS):
        s3.add_response("get_object", answer(b"who", 5), KEY)
    with pytest.raises(store.StoreError, match=r"s3://b/a/k\.jpg: .*3.*5") as failed:
        store.photograph("b", "a/k.jpg", "1")
    assert type(failed.value) is store.StoreError


def test_a_large_photograph_is_not_downloaded(s3: Stubber) -> None:
    s3.add_response("get_object", answer(b"", store.LARGEST + 1), KEY)
    with pytest.raises(store.TooLarge, match="31,457,281 bytes"):
        store.photograph("b", "a/k.jpg", "1")


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("NoSuchKey", 404, store.Missing),
        ("NoSuchVersion", 404, store.Missing),
        ("InvalidObjectState", 403, store.Missing),
        ("AccessDenied", 403, store.StoreError),
        ("SlowDown", 503, store.StoreError),
    ],
)
def test_only_what_is_not_there_is_missing(
    s3: Stubber, code: str, status: int, expected: type[store.StoreError]
) -> None:
    s3.add_client_error("get_object", code, http_status_code=status)
    with pytest.raises(expected) as failed:
        store.photograph("b", "a/k.jpg", "1")
    assert type(failed.value) is expected
    assert "s3://b/a/k.jpg" in str(failed.value)


def test_whether_a_file_is_there(s3: Stubber) -> None:
    s3.add_response("head_object", {})
    s3.add_client_error("head_object", "404", http_status_code=404)
    s3.add_client_error("head_object", "403", http_status_code=403)
    place, name = store.located("s3://b/a/k.jpg")
    assert place.address == "s3://b/a"
    assert place.holds(name)
    assert not place.holds(name)
    with pytest.raises(store.StoreError, match=r"s3://b/a/k\.jpg"):
        place.holds(name)


@pytest.mark.parametrize(
    ("address", "folder", "name"),
    [("s3://b/k", "s3://b", "k"), ("s3://b/a/c/k", "s3://b/a/c", "k"), ("/tmp/x/k", "/tmp/x", "k")],
)
def test_addresses(s3: Stubber, address: str, folder: str, name: str) -> None:
    place, found = store.located(address)
    assert (place.address, found) == (folder, name)
