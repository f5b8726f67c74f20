"""A stack whose AWS is moto, for commands that need one; and counts as the count function writes them."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from bintally.common.keys import encode_id
from moto import mock_aws

from local.stack import Local

KEYS = [("PK", "HASH"), ("SK", "RANGE")]
SESSION = boto3.Session("test", "test", region_name="us-east-1")  # one: a new one reads every service's model again
# As the template's: a password of letters alone is long enough.
PASSWORDS: Any = {"MinimumLength": 12} | {
    f"Require{kind}": False for kind in ("Uppercase", "Lowercase", "Numbers", "Symbols")
}
OUTPUTS = {"ImagesBucket": "images", "CountsTable": "counts"}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A versioned bucket and the counts table, in moto; `Local.from_environment` finds them."""
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        session: Any = SESSION
        s3 = session.client("s3")
        s3.create_bucket(Bucket="images")
        s3.put_bucket_versioning(Bucket="images", VersioningConfiguration={"Status": "Enabled"})
        table = session.resource("dynamodb").create_table(
            TableName="counts",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in ("PK", "SK", "site_key")],
            KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in KEYS],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "site",
                    "KeySchema": [
                        {"AttributeName": "site_key", "KeyType": "HASH"},
                        {"AttributeName": "PK", "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "ALL"},
                }
            ],
        )
        stack: Any = SimpleNamespace(
            name="bintally",
            endpoint_url=None,
            hint=" (see emulator.log)",
            outputs=lambda: OUTPUTS,
            counts_table=lambda: session.resource("dynamodb").Table(stack.outputs()["CountsTable"]),
            client=session.client,
            session=lambda: session,
            running=lambda: True,
            status=lambda: {"model": "s3://artifacts/models/1/model.tar.gz"},
        )
        monkeypatch.setattr(Local, "from_environment", lambda: stack)
        yield SimpleNamespace(s3=s3, table=table, stack=stack)


@pytest.fixture
def pool(aws: SimpleNamespace, tmp_path: Path) -> SimpleNamespace:
    """The same stack with a user pool and the template's groups, and a home of its own."""
    cognito = aws.stack.client("cognito-idp")
    made = cognito.create_user_pool(PoolName="bintally", Policies={"PasswordPolicy": PASSWORDS})["UserPool"]["Id"]
    for role in ("viewer", "counter", "manager"):
        cognito.create_group(UserPoolId=made, GroupName=role)
    aws.stack.home = tmp_path
    aws.stack.outputs = lambda: OUTPUTS | {"UserPool": made, "ApiUrl": "http://a1.execute-api.localhost:4566"}
    aws.cognito, aws.pool = cognito, made
    return aws


@pytest.fixture
def count_item() -> Any:
    """Makes a count's item; keyword arguments replace its attributes."""

    def make(
        site: str = "SEA1", bin_: str = "P-4-B217", captured_at: str = "2026-11-22T10:15:00.000000Z", **other: Any
    ) -> Any:
        item = {
            "PK": f"BIN#{encode_id(site)}#{encode_id(bin_)}",
            "SK": f"COUNT#{captured_at}#0123456789abcdef",
            "site": site,
            "bin": bin_,
            "image": {"bucket": "images", "key": f"incoming/{site}/{bin_}/front.jpg", "version_id": "v1"},
            "status": "COUNTED",
            "count": 3,
            "is_minimum": False,
            "expected_capped": Decimal("2.9"),
            "confidence": Decimal("0.61"),
            "probabilities": [Decimal(p) for p in ("0.01", "0.04", "0.2", "0.61", "0.1", "0.03", "0.01")],
            "recorded_quantity": 3,
            "p_record": Decimal("0.61"),
            "model_version": "resnet50-1",
            "captured_at": captured_at,
            "uploaded_at": "2026-11-22T10:15:02.000000Z",
            "counted_at": "2026-11-22T10:15:02.500000Z",
        }
        return {name: value for name, value in (item | other).items() if value is not None}

    return make
