"""A package's golden images against an endpoint's answers."""

import hashlib
import io
import itertools
import json
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from bintally import verify
from bintally.aws import clients
from bintally.releasing import goldens
from botocore.exceptions import ClientError
from botocore.response import StreamingBody
from botocore.stub import Stubber

VERSION = "2026-11-22"
URL = f"s3://artifacts/models/{VERSION}/model.tar.gz"
ANSWER = {
    "count": 2,
    "is_minimum": False,
    "expected_capped": 2.25,
    "confidence": 0.4,
    "probabilities": [0.1, 0.1, 0.4, 0.25, 0.15, 0.0, 0.0],
    "model_version": VERSION,
}
PACKAGE = {
    "model_version": VERSION,
    "golden": [{"file": "golden/0.png", "answer": ANSWER}, {"file": "golden/1.jpg", "answer": ANSWER}],
}
FILES = {"golden/0.png": b"png", "golden/1.jpg": b"jpg", "model.bin": b"\0" * 100_000}


def archive(package: object = PACKAGE, files: dict[str, bytes] = FILES, prefix: str = "") -> bytes:
    """model.tar.gz with these files; those named first lie before package.json."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in {**files, "package.json": json.dumps(package).encode()}.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


class Aws:
    """S3 and an endpoint that answer as a test says."""

    def __init__(self) -> None:
        self.s3 = Stubber(boto3.client("s3", "us-east-1"))
        self.endpoint = Stubber(boto3.client("sagemaker-runtime", "us-east-1"))

    def package(self, content: bytes, length: int | None = None) -> None:
        body = StreamingBody(io.BytesIO(content), len(content))
        answer = {"Body": body, "ContentLength": length or len(content)}
        key = f"models/{VERSION}/model.tar.gz"
        self.s3.add_response("get_object", answer, {"Bucket": "artifacts", "Key": key})

    def answer(self, body: bytes, image: bytes, content_type: str) -> None:
        asked = {
            "EndpointName": "stack-candidate",
            "Body": image,
            "ContentType": content_type,
            "Accept": "application/json",
        }
        response = {"Body": StreamingBody(io.BytesIO(body), len(body))}
        self.endpoint.add_response("invoke_endpoint", response, asked)

    def verify(self, digest: str = "") -> tuple[bool, str]:
        event = {"endpoint": "stack-candidate", "model_version": VERSION, "model_data_url": URL}
        event["package_digest"] = digest
        found = verify.handler(event, None)
        assert found.keys() == {"ok", "reason"}
        self.s3.assert_no_pending_responses()
        self.endpoint.assert_no_pending_responses()
        return found["ok"], found["reason"]


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    aws = Aws()
    monkeypatch.setattr(clients, "s3", lambda: aws.s3.client)
    monkeypatch.setattr(clients, "endpoint_for_golden_images", lambda: aws.endpoint.client)
    with aws.s3, aws.endpoint:
        yield aws


def with_(**changes: object) -> bytes:
    return json.dumps(ANSWER | changes).encode()


@pytest.mark.parametrize("prefix", ["", "./"])
def test_right_answers(aws: Aws, prefix: str) -> None:
    aws.package(archive(prefix=prefix))
    near = [0.13, 0.07, 0.43, 0.22, 0.15, 0.0, 0.0]  # as far apart as processors with and without VNNI
    aws.answer(with_(), b"png", "image/png")
    aws.answer(with_(probabilities=near), b"jpg", "image/jpeg")
    assert aws.verify() == (True, "2 golden images answered as recorded")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"count": 3}, "golden/0.png: count is 3, recorded is 2"),
        ({"model_version": "older"}, f"golden/0.png: model_version is older, recorded is {VERSION}"),
        (
            {"probabilities": [0.18, 0.02, 0.4, 0.25, 0.15, 0.0, 0.0]},
            "golden/0.png: the probabilities are off by 0.023 on average",
        ),
        ({"probabilities": [0.5, 0.5]}, "malformed answer"),
        ({"probabilities": [float("nan")] * 7}, "malformed answer"),
        ({"confidence": None}, "malformed answer"),
    ],
)
def test_a_wrong_answer_is_named_and_ends_it(aws: Aws, changes: dict[str, object], reason: str) -> None:
    aws.package(archive())
    aws.answer(with_(**changes), b"png", "image/png")
    ok, found = aws.verify()
    assert not ok
    assert reason in found


def test_an_endpoint_that_fails(aws: Aws) -> None:
    aws.package(archive())
    aws.endpoint.add_client_error("invoke_endpoint", "ModelError", "the model is out of order", 424)
    ok, reason = aws.verify()
    assert not ok
    assert "the model is out of order" in reason


@pytest.mark.parametrize(("code", "status", "original"), [("ThrottlingException", 400, None), ("ModelError", 424, 503)])
def test_a_busy_endpoint_answers_neither_right_nor_wrong(
    aws: Aws, code: str, status: int, original: int | None
) -> None:
    aws.package(archive())
    modelled = {"modeled_fields": {"OriginalStatusCode": original}} if original else {}
    aws.endpoint.add_client_error("invoke_endpoint", code, "busy", status, **modelled)
    with pytest.raises(ClientError, match="busy"):
        aws.verify()


def test_a_package_of_another_version(aws: Aws) -> None:
    aws.package(archive(PACKAGE | {"model_version": "other"}))
    assert aws.verify() == (False, f"the package is version other, not {VERSION}")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a tar.gz"),
        (b"not an archive at all" * 100, "not a tar.gz"),
        (archive()[:300], "not a tar.gz"),
        *((archive()[:end], "not a tar.gz") for end in (2, 3, 5, 9)),  # within the header of gzip
        (archive(files={}), "golden/0.png"),
        (archive({"golden": []}), "model_version"),
        (archive(["a list"]), "lacks or garbles"),
        (archive(PACKAGE | {"golden": []}), "0 golden images"),
        (archive(PACKAGE | {"golden": PACKAGE["golden"] * 50}), "100 golden images"),  # type: ignore[operator]
        (archive(PACKAGE | {"golden": [{"file": "golden/0.png", "answer": {"count": 2}}]}), "malformed answer"),
        (archive(files=FILES | {"golden/0.png": b"\0" * 5_000_000}), "golden/0.png has 5000000 bytes"),
    ],
    ids=itertools.count(),  # an archive's bytes tell when it was made, which is another second in another worker
)
def test_a_bad_package_is_named(aws: Aws, content: bytes, reason: str) -> None:
    aws.package(content)
    ok, found = aws.verify()
    assert not ok
    assert reason in found


def test_a_package_too_large_is_not_read(aws: Aws) -> None:
    aws.package(b"", length=61 * 1024**2)
    ok, reason = aws.verify()
    assert not ok
    assert "more than" in reason


def test_a_small_archive_that_unpacks_to_much_is_given_up(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goldens, "UNPACKED_LIMIT", 50_000)
    aws.package(archive())
    ok, reason = aws.verify()
    assert not ok
    assert "unpacks to more than" in reason


def test_a_link_is_not_followed(aws: Aws) -> None:
    """golden/0.png as a link out of the archive is a missing file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        link = tarfile.TarInfo("golden/0.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
        content = json.dumps(PACKAGE).encode()
        member = tarfile.TarInfo("package.json")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    aws.package(file.getvalue())
    assert not aws.verify()[0]


def test_a_missing_object(aws: Aws) -> None:
    aws.s3.add_client_error("get_object", "NoSuchKey", "The specified key does not exist.", 404)
    ok, reason = aws.verify()
    assert not ok
    assert "does not exist" in reason


def test_a_package_that_was_replaced_since_the_release_read_it(aws: Aws) -> None:
    package = json.dumps(PACKAGE).encode()
    aws.package(archive())
    aws.answer(with_(), b"png", "image/png")
    aws.answer(with_(), b"jpg", "image/jpeg")
    assert aws.verify(hashlib.sha256(package).hexdigest())[0]
    aws.package(archive())
    ok, reason = aws.verify("0" * 64)
    assert not ok
    assert f"{URL} was replaced: its package.json is {hashlib.sha256(package).hexdigest()}, not {'0' * 64}" in reason


def test_the_sample_event_is_what_the_state_machine_sends() -> None:
    root = Path(__file__).parents[2]
    definition = json.loads((root / "machines" / "release.asl.json").read_text())
    sample = json.loads((root / "events" / "verify.json").read_text())
    asked: list[Any] = [
        state["Arguments"]["Payload"]
        for state in definition["States"].values()
        if isinstance(state.get("Arguments"), dict) and state["Arguments"].get("FunctionName") == "${VerifyFunction}"
    ]
    assert len(asked) == 3
    assert all(payload.keys() == sample.keys() for payload in asked)


HOSTILE: list[object] = [
    10**400,
    -(10**400),
    1e308,
    float("nan"),
    float("inf"),
    None,
    True,
    [],
    {},
    "",
    "\ud800",
    "9" * 5000,
    [[]] * 3,
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("member", [*ANSWER, "file", "answer", "golden", "model_version of the package", "all"])
def test_whatever_a_package_contains_it_answers(aws: Aws, member: str, value: object) -> None:
    answer: dict[str, object] = dict(ANSWER)
    entry: dict[str, object] = {"file": "golden/0.png", "answer": ANSWER}
    package: dict[str, object] = dict(PACKAGE)
    if member in ANSWER:
        package["golden"] = [entry | {"answer": answer | {member: value}}]
    elif member in entry:
        package["golden"] = [entry | {member: value}]
    elif member == "golden":
        package["golden"] = value
    else:
        package["model_version"] = value
    aws.package(archive(value if member == "all" else package))
    ok, reason = aws.verify()
    assert not ok
    assert 0 < len(reason) <= 2000
    reason.encode()  # as Lambda does


DEEP = b"[" * 100_000
BODIES = [b"9" * 400, b'{"count": ' + b"9" * 400 + b"}", DEEP, b"\xff\xfe", b"", b"null", b"NaN", b'{"a":' * 100_000]
BODIES += [json.dumps(ANSWER | {name: 10**400}).encode() for name in ("count", "expected_capped", "confidence")]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: str(body[:20]))
def test_whatever_an_endpoint_answers_it_answers(aws: Aws, body: bytes) -> None:
    aws.package(archive())
    aws.answer(body, b"png", "image/png")
    ok, reason = aws.verify()
    assert not ok
    assert "malformed answer from the endpoint" in reason


@pytest.mark.parametrize("content", [DEEP, b"{" * 3, b"9" * 5000, b"\xff\xfe", b""], ids=lambda body: str(body[:20]))
def test_a_package_json_that_is_none_is_named(aws: Aws, content: bytes) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        member = tarfile.TarInfo("package.json")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    aws.package(file.getvalue())
    assert not aws.verify()[0]


@pytest.mark.parametrize("place", [0, 10, 200, 20_000, -9, -1])
def test_a_damaged_archive_is_named(aws: Aws, place: int) -> None:
    content = bytearray(archive(files=FILES | {"random.bin": random.Random(1).randbytes(50_000)}))
    content[place] ^= 0xFF
    content[place // 2] ^= 0x10
    aws.package(bytes(content))
    assert not aws.verify()[0]
