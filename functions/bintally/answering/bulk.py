"""Files of inventory records over the API: stored below records/api/, read by `record` as any other, and answered row
by row from its report.

The client makes the id of a file. The same file with the same parameters is stored once under it, and gets the same
answer again. Without an id, that holds for RETRY_TIME: rows without a date of their own are dated by the upload, so the
same bytes say something new later.
"""

import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from botocore.exceptions import BotoCoreError, ClientError

from bintally.answering.problems import Problem, wrong
from bintally.answering.requests import Caller
from bintally.aws.items import version_digest
from bintally.common.errors import Transient
from bintally.common.keys import encode_id, summaries_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LARGEST = 4 * 1024**2
"""Bytes. Lambda takes events of 6 MB, and text that is not UTF-8 arrives in base64: 4 MiB x 4/3 = 5.6 MB."""
PATIENCE_SECONDS = 10.0
"""A request to S3 takes at most 11 s (clients.S3), and API Gateway waits for 30 s."""
PAUSE_SECONDS = 0.3
RETRY_TIME = timedelta(minutes=15)
"""A file without an id that is sent again within this time is a retry, by a client that got no answer, or 202. Later it
is stored again: another file may have come between, whose undated rows it replaces."""
MOST_FAULTS = 5000
"""Faults of some 300 bytes in an answer, which Lambda limits to 6 MB."""
ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
TOLD = (
    *("kept", "bins", "outdated", "malformed", "read_as", "unknown_columns", "skipped", "records", "uploaded_at"),
    "dry_run",
)


@dataclass(frozen=True)
class File:
    """A version of a file of records in the bucket."""

    key: str
    version_id: str
    uploaded: datetime
    digest: str
    """See `digest_of`."""


@dataclass(frozen=True)
class Bulk:
    """The answers about files of records for one site."""

    s3: "S3Client"
    images_bucket: str
    artifacts_bucket: str
    site: str
    caller: Caller

    def send(self, data: bytes, query: Mapping[str, str]) -> tuple[dict[str, Any], int]:
        """Stores a file and answers what its rows gave, or 202 when that takes longer than PATIENCE_SECONDS."""
        self.caller.check("manager")
        if not data:
            raise wrong("the body is the text of a CSV file, and it is empty")
        said = parameters(query)
        digest = digest_of(data, said)
        id_ = checked_id(query.get("id", digest[:32]))
        if not self._put(id_, data, said | {"sha256": digest}, IfNoneMatch="*"):
            found = self._find(id_)
            if found.digest != digest:
                taken = "a file of other contents, columns or dry_run has this id: make a new one for each file"
                raise Problem(409, "ID_TAKEN", taken)
            if "id" not in query and datetime.now(UTC) - found.uploaded > RETRY_TIME:
                self._put(id_, data, said | {"sha256": digest})
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (answer := self.read(id_))[1] == 202 and time.monotonic() < deadline:
            time.sleep(PAUSE_SECONDS)
        return answer

    def read(self, id_: str) -> tuple[dict[str, Any], int]:
        """What the rows of a file gave; 202 while nobody has read it."""
        self.caller.check("manager")
        file = self._find(checked_id(id_))
        digest = version_digest(self.images_bucket, file.key, file.version_id)
        summary = self._report(f"{summaries_of(file.uploaded)}{digest}.json")
        if summary is None:
            return {"id": id_, "state": "WAITING"}, 202
        faults = summary["faults"]
        if "report" in summary:
            faults = (self._report(summary["report"]["key"]) or summary)["faults"][:MOST_FAULTS]
        told = {name: summary[name] for name in TOLD if name in summary}
        left_out = {
            "faults_left_out": summary["malformed"] - len(faults),
            "records_left_out": summary["bins"] - len(summary["records"]),
        }
        return {"id": id_, "state": "READ", **told, "faults": faults, **left_out}, 200

    def _key(self, id_: str) -> str:
        """By the site's digest: its name may be no part of a key."""
        return f"records/api/{hashlib.sha256(encode_id(self.site).encode()).hexdigest()[:16]}/{id_}.csv"

    def _put(self, id_: str, data: bytes, said: Mapping[str, str], **condition: Any) -> bool:
        """Stores a version with this metadata and the sender's. False when the condition fails."""
        site = quote(self.site, safe="")
        named = {"site": site, "only-site": site, "sent-by": quote(self.caller.person.name), **said}
        try:
            self.s3.put_object(Bucket=self.images_bucket, Key=self._key(id_), Body=data, Metadata=named, **condition)
        except ClientError as error:
            if error.response["Error"]["Code"] == "PreconditionFailed":
                return False
            raise Transient(f"S3: {error}") from error
        except BotoCoreError as error:
            raise Transient(f"S3: {error}") from error
        return True

    def _find(self, id_: str) -> File:
        try:
            head = self.s3.head_object(Bucket=self.images_bucket, Key=self._key(id_))
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                raise Problem(404, "UNKNOWN", "there is no file of records of this id") from error
            raise Transient(f"S3: {error}") from error
        except BotoCoreError as error:
            raise Transient(f"S3: {error}") from error
        digest = head["Metadata"].get("sha256", "")
        return File(self._key(id_), head["VersionId"], head["LastModified"], digest)

    def _report(self, key: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.load(self.s3.get_object(Bucket=self.artifacts_bucket, Key=key)["Body"])
        except self.s3.exceptions.NoSuchKey:
            return None
        except (ClientError, BotoCoreError) as error:
            raise Transient(f"S3: {error}") from error
        return found


def parameters(query: Mapping[str, str]) -> dict[str, str]:
    """The metadata that say how a file is read, without defaults. Raises Problem."""
    columns, dry_run = query.get("columns", ""), query.get("dry_run", "")
    if len(columns) > 1000 or not columns.isascii():
        raise wrong("columns maps names, such as bin=Location&expected_quantity=Stock%20level")
    if dry_run not in ("", "true", "false"):
        raise wrong("dry_run is true or false")
    return ({"columns": columns} if columns else {}) | ({"dry-run": dry_run} if dry_run == "true" else {})


def digest_of(data: bytes, said: Mapping[str, str]) -> str:
    """SHA-256, in hex, of a file, and of the parameters if it has any: they decide what its rows give."""
    digest = hashlib.sha256(data).hexdigest()
    return hashlib.sha256(f"{digest}?{urlencode(said)}".encode()).hexdigest() if said else digest


def checked_id(text: str) -> str:
    """Raises Problem."""
    if not ID.fullmatch(text):
        raise wrong("id has at most 64 letters, digits, _ and -")
    return text
