"""The counts table: its keys, its items and how a count is written once (docs/decisions/one-table.md)."""

import hashlib
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from bintally.aws.arrivals import Arrival
from bintally.common.errors import Transient
from bintally.common.keys import Place, encode_id, utc

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

Item = dict[str, Any]

SHARDS = 16
"""Items that share a day's total of a site, so that 10 functions at once seldom wait for each other."""
TRIES = 4
SEQUENCER_WIDTH = 32
# At worst one request takes 2 tries x (1 + 3) s and 1 s between = 9 s.
CONFIG = Config(connect_timeout=1, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 2})

_CONFLICTS = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}
_serialise = TypeSerializer().serialize
_deserialise = TypeDeserializer().deserialize


@cache
def client() -> "DynamoDBClient":
    return boto3.client("dynamodb", config=CONFIG)


def bin_key(place: Place) -> str:
    return f"BIN#{encode_id(place.site)}#{encode_id(place.bin)}"


def version_digest(bucket: str, key: str, version_id: str) -> str:
    """16 hex digits of the image version. Neither a bucket's name nor a version id has the separator in it."""
    return hashlib.sha256("\0".join((bucket, key, version_id)).encode()).hexdigest()[:16]


def digest_of(arrival: Arrival) -> str:
    return version_digest(arrival.bucket, arrival.key, arrival.version_id)


def count_key(arrival: Arrival, place: Place, captured: datetime) -> Item:
    return {"PK": bin_key(place), "SK": f"COUNT#{utc(captured)}#{digest_of(arrival)}"}


def record_key(place: Place) -> Item:
    return {"PK": bin_key(place), "SK": "RECORD"}


def totals_key(arrival: Arrival, place: Place, captured: datetime) -> Item:
    shard = int(digest_of(arrival), 16) % SHARDS
    return {"PK": f"DAY#{encode_id(place.site)}#{utc(captured)[:10]}", "SK": f"TOTALS#{shard:02d}"}


def order(arrival: Arrival, captured: datetime, uploaded: datetime) -> str:
    """As text, later is greater: when taken, then by storage_order."""
    return f"{utc(captured)}#{storage_order(arrival, uploaded)}"


def storage_order(arrival: Arrival, uploaded: datetime) -> str:
    """As text, later is greater: when stored, S3's own sequence, and the version id for the rest."""
    sequencer = arrival.sequencer.upper().ljust(SEQUENCER_WIDTH, "0")
    return "#".join((utc(uploaded), sequencer, arrival.version_id))


def latest_of(count: Item) -> Item:
    """The bin's LATEST as it is when `count` is its newest; `site_key` puts it into the index `site`."""
    return {**count, "SK": "LATEST", "site_key": f"SITE#{encode_id(count['site'])}"}


def transaction(table: str, count: Item, totals: Item) -> "list[TransactWriteItemTypeDef]":
    """The count and the day's total in one: a retry finds the count and adds nothing."""
    return [
        {
            "Put": {
                "TableName": table,
                "Item": wire(count),
                "ConditionExpression": "attribute_not_exists(PK)",
            }
        },
        {
            "Update": {
                "TableName": table,
                "Key": wire(totals),
                "UpdateExpression": "ADD #status :one",
                "ExpressionAttributeNames": {"#status": count["status"].lower()},
                "ExpressionAttributeValues": {":one": {"N": "1"}},
            }
        },
    ]


def write_count(dynamodb: "DynamoDBClient", table: str, count: Item, totals: Item) -> bool:
    """Writes a count once, however often it is asked to; False when it stood there already. Raises Transient.

    LATEST follows in either case, with the order that was stored first: the function may have died between the two.
    """
    added = _add(dynamodb, table, count, totals)
    stored = count if added else get(dynamodb, table, {"PK": count["PK"], "SK": count["SK"]}, consistent=True)
    if stored and stored["status"] == "COUNTED":
        _renew_latest(dynamodb, table, latest_of(stored))
    return added


def record(dynamodb: "DynamoDBClient", table: str, place: Place) -> Item | None:
    """The bin's RECORD: what the inventory system says. None when it says nothing. Raises Transient."""
    return get(dynamodb, table, record_key(place), consistent=False)


def put_record(dynamodb: "DynamoDBClient", table: str, record: Item) -> None:
    """Puts a RECORD unless what stands there is as of later, or was told later as of the same time. Raises Transient.

    In whatever order, and however often, records are put, the same one stands in the end.
    """
    try:
        dynamodb.put_item(
            TableName=table,
            Item=wire(record),
            ConditionExpression="attribute_not_exists(as_of) OR as_of < :as_of"
            " OR (as_of = :as_of AND (attribute_not_exists(#o) OR #o < :o))",
            ExpressionAttributeNames={"#o": "order"},
            ExpressionAttributeValues={":as_of": {"S": record["as_of"]}, ":o": {"S": record["order"]}},
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        return
    except (ClientError, BotoCoreError) as error:
        raise Transient(f"table {table}: {error}") from error


def counts_between(
    dynamodb: "DynamoDBClient", table: str, bin_: str, first: datetime, last: datetime
) -> Iterator[Item]:
    """The COUNTED items of a bin, `bin_` being its PK, by when they were taken. Raises Transient."""
    try:
        pages = dynamodb.get_paginator("query").paginate(
            TableName=table,
            KeyConditionExpression="PK = :bin AND SK BETWEEN :first AND :last",
            FilterExpression="#s = :counted",
            ExpressionAttributeNames={"#s": "status"},
            ExpressionAttributeValues={
                ":bin": {"S": bin_},
                ":first": {"S": f"COUNT#{utc(first)}"},
                ":last": {"S": f"COUNT#{utc(last)}~"},  # after the # that a digest follows
                ":counted": {"S": "COUNTED"},
            },
            ConsistentRead=True,
        )
        for page in pages:
            yield from map(plain, page["Items"])
    except (ClientError, BotoCoreError) as error:
        raise Transient(f"table {table}: {error}") from error


def is_counted(dynamodb: "DynamoDBClient", table: str, arrival: Arrival, place: Place) -> bool:
    """Whether this image version has an item, whenever it was taken. Raises Transient.

    Reads all counts of the bin: only for a version that is gone, which tells its captured_at no more.
    """
    digest = digest_of(arrival)
    try:
        pages = dynamodb.get_paginator("query").paginate(
            TableName=table,
            KeyConditionExpression="PK = :bin AND begins_with(SK, :count)",
            ExpressionAttributeValues={":bin": {"S": bin_key(place)}, ":count": {"S": "COUNT#"}},
            ProjectionExpression="SK",
            ConsistentRead=True,
        )
        return any(item["SK"]["S"].endswith(f"#{digest}") for page in pages for item in page["Items"])
    except (ClientError, BotoCoreError) as error:
        raise Transient(f"table {table}: {error}") from error


def _add(dynamodb: "DynamoDBClient", table: str, count: Item, totals: Item) -> bool:
    items = transaction(table, count, totals)
    for attempt in range(1, TRIES + 1):
        try:
            dynamodb.transact_write_items(TransactItems=items)
            return True
        except dynamodb.exceptions.TransactionCanceledException as error:
            reasons = [reason.get("Code") for reason in error.response["CancellationReasons"]]
            if reasons[0] == "ConditionalCheckFailed":
                return False
            if attempt == TRIES or not _CONFLICTS.intersection(reasons):
                raise Transient(f"table {table}: {error}") from error
        except (ClientError, BotoCoreError) as error:
            raise Transient(f"table {table}: {error}") from error
        time.sleep(random.uniform(0.02, 0.05) * 2**attempt)
    raise AssertionError("the last try returns or raises")


def _renew_latest(dynamodb: "DynamoDBClient", table: str, latest: Item) -> None:
    try:
        dynamodb.put_item(
            TableName=table,
            Item=wire(latest),
            ConditionExpression="attribute_not_exists(#o) OR #o < :o",
            ExpressionAttributeNames={"#o": "order"},
            ExpressionAttributeValues={":o": {"S": latest["order"]}},
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        return  # a newer one stands there, or this one
    except (ClientError, BotoCoreError) as error:
        raise Transient(f"table {table}: {error}") from error


def get(dynamodb: "DynamoDBClient", table: str, key: Item, *, consistent: bool) -> Item | None:
    """The item under a key, None when there is none. Raises Transient."""
    try:
        found = dynamodb.get_item(TableName=table, Key=wire(key), ConsistentRead=consistent).get("Item")
    except (ClientError, BotoCoreError) as error:
        raise Transient(f"table {table}: {error}") from error
    return None if found is None else plain(found)


def get_many(dynamodb: "DynamoDBClient", table: str, keys: Iterable[Item]) -> dict[tuple[str, str], Item]:
    """The items that stand under the keys of these, by PK and SK, as they are now. Raises Transient."""
    wanted = [wire({"PK": pk, "SK": sk}) for pk, sk in dict.fromkeys((key["PK"], key["SK"]) for key in keys)]
    found: dict[tuple[str, str], Item] = {}
    tries = 0
    while wanted:
        try:
            answer = dynamodb.batch_get_item(RequestItems={table: {"Keys": wanted[:100], "ConsistentRead": True}})
        except (ClientError, BotoCoreError) as error:
            raise Transient(f"table {table}: {error}") from error
        for item in map(plain, answer["Responses"].get(table, [])):
            found[item["PK"], item["SK"]] = item
        unprocessed = answer["UnprocessedKeys"]
        left = [dict(key) for key in unprocessed[table]["Keys"]] if table in unprocessed else []
        wanted = left + wanted[100:]
        tries = tries + 1 if left else 0
        if tries == TRIES:
            raise Transient(f"table {table}: {len(left)} keys were not read in {TRIES} tries")
        if left:
            time.sleep(random.uniform(0.02, 0.05) * 2**tries)
    return found


def plain(item: Mapping[str, Any]) -> Item:
    """An item as DynamoDB's client, or a stream, gives it. Numbers are decimals."""
    return {name: _deserialise(value) for name, value in item.items()}


def wire(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item as DynamoDB's client takes it."""
    return {name: _serialise(_exact(value)) for name, value in item.items()}


def _exact(value: Any) -> Any:
    """DynamoDB takes no floats: decimals, of six places."""
    if isinstance(value, float):
        return Decimal(f"{value:.6f}").normalize()
    if isinstance(value, list | tuple):
        return [_exact(each) for each in value]
    return value
