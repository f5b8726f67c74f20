"""The golden images of a model package, and the check that an endpoint answers them as recorded."""

import hashlib
import json
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import IO, TYPE_CHECKING, cast

from bintally.aws.endpoint import parse_answer
from bintally.aws.objects import located
from bintally.common.counts import Answer
from bintally.common.errors import BintallyError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

NAME = "package.json"
PACKAGE_LIMIT = 60 * 1024**2  # bytes of model.tar.gz
UNPACKED_LIMIT = 300 * 1024**2  # bytes unpacked from it, so that a small archive cannot take hours
FILE_LIMIT = 4 * 1024**2  # bytes of package.json or of a golden image; a serverless endpoint's limit
GOLDEN_LIMIT = 32  # images: 32 x 60 s at worst would not fit the time limit, 32 x 1 s does
TOLERANCE = 0.02  # mean difference of the probabilities, as in model/package.py

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


def fetch_goldens(client: "S3Client", model_data_url: str, model_version: str, digest: str = "") -> list[Golden]:
    """The golden images of the package at s3://bucket/key. Raises BadPackage, also for a package of another version,
    and for one whose package.json has another SHA-256 than `digest`, if that is not empty."""
    files = read_package(client, model_data_url)
    if digest and (found := digest_of(files)) != digest:
        raise BadPackage(f"{model_data_url} was replaced: its package.json is {found}, not {digest}")
    try:
        package = json.loads(files[NAME])
        if package["model_version"] != model_version:
            raise BadPackage(f"the package is version {package['model_version']}, not {model_version}")
        goldens = [
            Golden(entry["file"], files[entry["file"]], parse_answer(json.dumps(entry["answer"]).encode()))
            for entry in package["golden"]
        ]
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise BadPackage(f"{model_data_url} lacks or garbles {error}") from error
    if not 0 < len(goldens) <= GOLDEN_LIMIT:
        raise BadPackage(f"the package has {len(goldens)} golden images, it needs 1 to {GOLDEN_LIMIT}")
    return goldens


def read_package(client: "S3Client", model_data_url: str) -> dict[str, bytes]:
    """package.json and the golden images of the package at s3://bucket/key, read as a stream. Raises BadPackage."""
    bucket, key = located(model_data_url)
    found = client.get_object(Bucket=bucket, Key=key)
    if found["ContentLength"] > PACKAGE_LIMIT:
        raise BadPackage(f"{model_data_url} has {found['ContentLength']} bytes, more than {PACKAGE_LIMIT}")
    try:
        files = dict(small_files(cast(IO[bytes], found["Body"])))
    except (tarfile.TarError, EOFError, OSError, zlib.error, OverflowError, TypeError, ValueError) as error:
        # TypeError: a gzip header that ends early
        raise BadPackage(f"{model_data_url} is not a tar.gz archive: {error}") from error
    if NAME not in files:
        raise BadPackage(f"{model_data_url} lacks {NAME}")
    return files


def digest_of(files: dict[str, bytes]) -> str:
    """The digest of a package: the SHA-256 of its package.json, which contains the digests of the files it serves."""
    return hashlib.sha256(files[NAME]).hexdigest()


def small_files(archive: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Name and content of package.json and golden/*, read from the stream: nothing is written to disk."""
    unpacked = 0
    with tarfile.open(fileobj=archive, mode="r|gz") as tar:
        for member in tar:
            unpacked += 512 + member.size
            if unpacked > UNPACKED_LIMIT:
                raise BadPackage(f"the package unpacks to more than {UNPACKED_LIMIT} bytes")
            name = member.name.removeprefix("./")
            if not member.isreg() or not (name == NAME or name.startswith("golden/")):
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
    """How `answer` differs from the recorded one; None if another processor explains the difference."""
    for name in ("model_version", "count", "is_minimum"):
        if (found := getattr(answer, name)) != (wanted := getattr(recorded, name)):
            return f"{name} is {found}, recorded is {wanted}"
    pairs = zip(answer.probabilities, recorded.probabilities, strict=True)
    mean = fmean(abs(one - other) for one, other in pairs)
    return None if mean <= TOLERANCE else f"the probabilities are off by {mean:.3f} on average"
