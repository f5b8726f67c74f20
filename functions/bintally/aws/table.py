"""The counts table: writes counts, records and the state of retrainings exactly once, and reads them.

A single request takes at most clients.DYNAMODB.worst seconds.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from bintally.aws import clients
from bintally.aws.items import (
    Item,
    bin_key,
    comparison,
    count_item,
    digest_of,
    latest_of,
    outranks,
    plain,
    record_key,
    recorded_by,
    totals_key,
    wire,
)  # fmt: skip
from bintally.common.arrivals import Arrival
from bintally.common.counts import Count, Recorded
from bintally.common.errors import Transient
from bintally.common.keys import Place, utc

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

TRIES = 4

_CONFLICTS = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}


@dataclass(frozen=True)
class Table:
    """One table, by its name. Methods raise Transient when the table is unavailable or throttles."""

    name: str
    client: "DynamoDBClient"

    @classmethod
    def named(cls, name: str) -> "Table":
        return cls(name, clients.dynamodb())

    # Counts

    def write_count(self, count: Count) -> bool:
        """Writes a count once, however often it is called; False when the count was stored already.

        LATEST is updated in either case, by the order that was stored first: the function may have died between the
        two writes.
        """
        photograph = count.photograph
        item = count_item(count)
        added = self._add(item, totals_key(photograph.arrival, photograph.place, photograph.captured))
        stored = item if added else self.get({"PK": item["PK"], "SK": item["SK"]}, consistent=True)
        if stored and stored["status"] == "COUNTED":
            self._renew_latest(latest_of(stored))
            self.compare_latest(stored["PK"])
        return added

    def compare_latest(self, bin_: str, *, tries: int = 1) -> bool:
        """Compares the bin's newest count with its RECORD, unless it is compared with that, or its photograph came with
        a quantity of a later time. True if this changed LATEST. `bin_` is the bin's PK.

        Whoever changes LATEST or RECORD calls this afterwards. It reads both after the change, and writes only if
        LATEST has not changed since: so the two end in one state, in any order and however often it is called.
        """
        for attempt in range(1, tries + 1):
            standing = self.get_many({"PK": bin_, "SK": kind} for kind in ("LATEST", "RECORD"))
            latest, record = (standing.get((bin_, kind)) for kind in ("LATEST", "RECORD"))
            if latest is None or record is None or not outranks(record, latest):
                return False
            if self._compare(latest, recorded_by(record)):
                return True
            if attempt < tries:
                time.sleep(random.uniform(0.02, 0.05) * 2**attempt)
        raise Transient(f"table {self.name}: LATEST of {bin_} changed while it was compared with its record")

    def is_counted(self, arrival: Arrival, place: Place) -> bool:
        """Whether this image version has an item, whenever it was taken.

        Reads all counts of the bin: used only for a deleted version, whose captured_at can no longer be read.
        """
        digest = digest_of(arrival)
        try:
            pages = self.client.get_paginator("query").paginate(
                TableName=self.name,
                KeyConditionExpression="PK = :bin AND begins_with(SK, :count)",
                ExpressionAttributeValues={":bin": {"S": bin_key(place)}, ":count": {"S": "COUNT#"}},
                ProjectionExpression="SK",
                ConsistentRead=True,
            )
            return any(item["SK"]["S"].endswith(f"#{digest}") for page in pages for item in page["Items"])
        except (ClientError, BotoCoreError) as error:
            raise self._transient(error) from error

    def counts_between(self, bin_: str, first: datetime, last: datetime) -> Iterator[Item]:
        """The COUNTED items of a bin by capture time. `bin_` is the bin's PK."""
        try:
            pages = self.client.get_paginator("query").paginate(
                TableName=self.name,
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
            raise self._transient(error) from error

    # Records

    def record(self, place: Place) -> Item | None:
        """The bin's RECORD: the quantity in the inventory system. None when there is no record."""
        return self.get(record_key(place), consistent=False)

    def put_record(self, record: Item) -> None:
        """Puts a RECORD unless the stored one is dated later, or has the same date and was reported later.

        In whatever order and however often records are put, the same one remains.
        """
        self.put(
            record,
            only_if="attribute_not_exists(as_of) OR as_of < :as_of"
            " OR (as_of = :as_of AND (attribute_not_exists(#o) OR #o < :o))",
            names={"#o": "order"},
            values={":as_of": record["as_of"], ":o": record["order"]},
        )

    # Items of any kind

    def get(self, key: Item, *, consistent: bool) -> Item | None:
        """The item under a key, None when there is none."""
        try:
            found = self.client.get_item(TableName=self.name, Key=wire(key), ConsistentRead=consistent).get("Item")
        except (ClientError, BotoCoreError) as error:
            raise self._transient(error) from error
        return None if found is None else plain(found)

    def get_many(self, keys: Iterable[Item]) -> dict[tuple[str, str], Item]:
        """The current items with the same PK and SK as these."""
        wanted = [wire({"PK": pk, "SK": sk}) for pk, sk in dict.fromkeys((key["PK"], key["SK"]) for key in keys)]
        found: dict[tuple[str, str], Item] = {}
        tries = 0
        while wanted:
            request = {self.name: {"Keys": wanted[:100], "ConsistentRead": True}}
            try:
                answer = self.client.batch_get_item(RequestItems=request)  # type: ignore[arg-type]
            except (ClientError, BotoCoreError) as error:
                raise self._transient(error) from error
            for item in map(plain, answer["Responses"].get(self.name, [])):
                found[item["PK"], item["SK"]] = item
            unprocessed = answer["UnprocessedKeys"]
            left = [dict(key) for key in unprocessed[self.name]["Keys"]] if self.name in unprocessed else []
            wanted = left + wanted[100:]
            tries = tries + 1 if left else 0
            if tries == TRIES:
                raise Transient(f"table {self.name}: {len(left)} keys were not read in {TRIES} tries")
            if left:
                time.sleep(random.uniform(0.02, 0.05) * 2**tries)
        return found

    def put(self, item: Item, *, only_if: str = "", **words: Mapping[str, Any]) -> bool:
        """Puts an item if the condition, when there is one, holds; False if it does not.

        `words` are the condition's `names` and `values`.
        """
        return self._conditional(self.client.put_item, {"Item": wire(item)}, only_if, **words)

    def delete(self, key: Item, *, only_if: str, **words: Mapping[str, Any]) -> bool:
        """Deletes an item if the condition holds; False if it does not."""
        return self._conditional(self.client.delete_item, {"Key": wire(key)}, only_if, **words)

    def _conditional(
        self,
        call: Callable[..., Any],
        request: Item,
        only_if: str,
        *,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> bool:
        condition = {
            "ConditionExpression": only_if,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": wire(values) if values else None,
        }
        try:
            call(TableName=self.name, **request, **{name: value for name, value in condition.items() if value})
        except self.client.exceptions.ConditionalCheckFailedException:
            return False
        except (ClientError, BotoCoreError) as error:
            raise self._transient(error) from error
        return True

    def _compare(self, latest: Item, recorded: Recorded) -> bool:
        """Writes the comparison if LATEST is still this one, and compared with the same; False otherwise."""
        found = comparison(recorded, int(latest["count"]), latest["probabilities"])
        names = {f"#{name}": name for name in (*found, "order")}
        values = wire({f":{name}": value for name, value in found.items()} | {":newest": latest["order"]})
        update = "SET " + ", ".join(f"#{name} = :{name}" for name in found)
        if recorded.as_of is None:
            update += " REMOVE recorded_as_of"
        if "recorded_order" in latest:
            unchanged = "#recorded_order = :seen"
            values |= wire({":seen": latest["recorded_order"]})
        else:
            unchanged = "attribute_not_exists(#recorded_order)"
        try:
            self.client.update_item(
                TableName=self.name,
                Key=wire({"PK": latest["PK"], "SK": latest["SK"]}),
                UpdateExpression=update,
                ConditionExpression=f"#order = :newest AND {unchanged}",
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
            )
        except self.client.exceptions.ConditionalCheckFailedException:
            return False
        except (ClientError, BotoCoreError) as error:
            raise self._transient(error) from error
        return True

    def _add(self, count: Item, totals: Item) -> bool:
        request = transaction(self.name, count, totals)
        for attempt in range(1, TRIES + 1):
            try:
                self.client.transact_write_items(TransactItems=request)
                return True
            except self.client.exceptions.TransactionCanceledException as error:
                reasons = [reason.get("Code") for reason in error.response["CancellationReasons"]]
                if reasons[0] == "ConditionalCheckFailed":
                    return False
                if attempt == TRIES or not _CONFLICTS.intersection(reasons):
                    raise self._transient(error) from error
            except (ClientError, BotoCoreError) as error:
                raise self._transient(error) from error
            time.sleep(random.uniform(0.02, 0.05) * 2**attempt)
        raise AssertionError("the last try returns or raises")

    def _renew_latest(self, latest: Item) -> None:
        """Keeps a stored LATEST that is the same or newer."""
        self.put(
            latest,
            only_if="attribute_not_exists(#o) OR #o < :o",
            names={"#o": "order"},
            values={":o": latest["order"]},
        )

    def _transient(self, error: Exception) -> Transient:
        return Transient(f"table {self.name}: {error}")


def transaction(table: str, count: Item, totals: Item) -> "list[TransactWriteItemTypeDef]":
    """Writes the count and the day's total together: a retry finds the count and adds nothing."""
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
