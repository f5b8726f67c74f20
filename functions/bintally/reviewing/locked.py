"""The locked copy of the trail: its lines in a bucket where S3 lets nobody change or delete them before their day.

The trail itself is in the table, where whoever may write a bin may change it; a copy shows that. A stream delivers at
least once, and a batch that failed may come again in parts: readers drop lines with the same PK and SK.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from bintally.aws.items import Item
from bintally.common.errors import Transient

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True)
class LockedTrail:
    client: "S3Client"
    bucket: str
    """Its default retention locks what is stored. Empty: there are no copies."""

    def store(self, lines: Sequence[Item]) -> None:
        """One object of the lines, named by them, so that the same batch is stored once. Raises Transient."""
        if not (lines and self.bucket):
            return
        body = "".join(f"{json.dumps(line, default=_json, sort_keys=True)}\n" for line in lines).encode()
        day = str(lines[0].get("at", "undated"))[:10].replace("-", "/")  # written by hand, a line may lack anything
        key = f"trail/{day}/{hashlib.sha256(body).hexdigest()[:32]}.jsonl"
        try:
            self.client.put_object(Bucket=self.bucket, Key=key, Body=body, IfNoneMatch="*", ChecksumAlgorithm="SHA256")
        except ClientError as error:
            if error.response["Error"]["Code"] != "PreconditionFailed":  # else it is stored already
                raise Transient(f"locked trail: {error}") from error
        except BotoCoreError as error:
            raise Transient(f"locked trail: {error}") from error


def _json(value: object) -> int | float | str:
    if not isinstance(value, Decimal):
        return str(value)
    return int(value) if value == int(value) else float(value)
