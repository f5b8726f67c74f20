"""Asks an endpoint the golden images of a model package: does it answer as the package says, and as that version?

The release state machine decides by this function's answer, never by an exception.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import IO, TYPE_CHECKING, Any, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from bintally.aws.endpoint import Answer, parse_answer
from bintally.aws.telemetry import logger
from bintally.common.errors import BintallyError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

PACKAGE_LIMIT = 60 * 1024**2  # bytes of model.tar.gz
UNPACKED_LIMIT = 300 * 1024**2  # bytes read from it, so that a small archive cannot keep us for hours
FILE_LIMIT = 4 * 1024**2  # bytes of package.json or of a golden image; what a serverless endpoint takes
GOLDEN_LIMIT = 32  # images: 32 x 60 s at worst would not fit the time limit, 32 x 1 s does
TOLERANCE = 0.02  # of a probability, between the processors that record and repeat an answer

CONTENT_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}


class BadPackage(BintallyError):
    """The object is not a model package that can be verified; the message says why."""


class WrongAnswer(BintallyError):
    """The endpoint does not answer as the package says; the message says where."""


@dataclass(frozen=True)
class Golden:
    file: str
    image: bytes
    answer: Answer


def handler(event: dict[str, str], context: object) -> dict[str, Any]:
    """`event`: endpoint, model_version, model_data_url. Answers {"ok": bool, "reason": str}."""
    logger.info("asked to verify", extra=event)
    try:
        goldens = fetch_goldens(s3(), event["model_data_url"], event["model_version"])
        for golden in goldens:
            ask(sagemaker_runtime(), event["endpoint"], golden)
    except (BintallyError, ClientError, BotoCoreError) as error:
        logger.warning("not verified", extra={"reason": str(error)})
        return {"ok": False, "reason": str(error)}
    return {"ok": True, "reason": f"{len(goldens)} golden images answered as recorded"}


@cache
def s3() -> "S3Client":
    return boto3.client("s3")


@cache
def sagemaker_runtime() -> "SageMakerRuntimeClient":
    # A serverless endpoint answers within 60 s. Throttled tries are repeated: a live endpoint also has other work.
    return boto3.client(
        "sagemaker-runtime", config=Config(read_timeout=65, retries={"mode": "standard", "total_max_attempts": 6})
    )


def fetch_goldens(client: "S3Client", model_data_url: str, model_version: str) -> list[Golden]:
    """Reads the package at s3://bucket/key as a stream. Raises BadPackage, also when it is another version's."""
    bucket, _, key = model_data_url.removeprefix("s3://").partition("/")
    found = client.get_object(Bucket=bucket, Key=key)
    if found["ContentLength"] > PACKAGE_LIMIT:
        raise BadPackage(f"{model_data_url} has {found['ContentLength']} bytes, more than {PACKAGE_LIMIT}")
    try:
        files = dict(small_files(cast(IO[bytes], found["Body"])))
        package = json.loads(files["package.json"])
        if package["model_version"] != model_version:
            raise BadPackage(f"the package is version {package['model_version']}, not {model_version}")
        goldens = [
            Golden(entry["file"], files[entry["file"]], parse_answer(json.dumps(entry["answer"]).encode()))
            for entry in package["golden"]
        ]
    except (tarfile.TarError, EOFError, OSError) as error:
        raise BadPackage(f"{model_data_url} is not a tar.gz archive: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise BadPackage(f"{model_data_url} lacks or garbles {error}") from error
    if not 0 < len(goldens) <= GOLDEN_LIMIT:
        raise BadPackage(f"the package has {len(goldens)} golden images, it needs 1 to {GOLDEN_LIMIT}")
    return goldens


def small_files(archive: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Name and content of package.json and golden/*, read in passing: nothing is written to disk."""
    unpacked = 0
    with tarfile.open(fileobj=archive, mode="r|gz") as tar:
        for member in tar:
            unpacked += 512 + member.size
            if unpacked > UNPACKED_LIMIT:
                raise BadPackage(f"the package unpacks to more than {UNPACKED_LIMIT} bytes")
            name = member.name.removeprefix("./")
            if not member.isreg() or not (name == "package.json" or name.startswith("golden/")):
                continue
            content = tar.extractfile(member)
            if content is None or member.size > FILE_LIMIT:
                raise BadPackage(f"{name} has {member.size} bytes, more than {FILE_LIMIT}")
            yield name, content.read()


def ask(client: "SageMakerRuntimeClient", endpoint: str, golden: Golden) -> None:
    """Raises WrongAnswer unless the endpoint answers the image as recorded, Transient or ClientError when it does
    not answer, or not as the contract says."""
    suffix = golden.file[golden.file.rfind(".") :]
    response = client.invoke_endpoint(
        EndpointName=endpoint,
        Body=golden.image,
        ContentType=CONTENT_TYPES.get(suffix, "application/x-image"),
        Accept="application/json",
    )
    found = difference(parse_answer(response["Body"].read()), golden.answer)
    if found:
        raise WrongAnswer(f"{golden.file}: {found}")


def difference(answer: Answer, recorded: Answer) -> str | None:
    """What `answer` has otherwise than recorded; None if nothing that another processor explains."""
    for name in ("model_version", "count", "is_minimum"):
        if (found := getattr(answer, name)) != (wanted := getattr(recorded, name)):
            return f"{name} is {found}, recorded is {wanted}"
    pairs = zip(answer.probabilities, recorded.probabilities, strict=True)
    furthest = max(abs(one - other) for one, other in pairs)
    return f"a probability is off by {furthest:.3f}" if furthest > TOLERANCE else None
