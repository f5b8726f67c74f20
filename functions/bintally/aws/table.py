"""The counts table: writes counts, records and the state of retrainings exactly once, and reads them.

A single request takes at most clients.DYNAMODB.worst seconds.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from bintally.aws import clients
from bintally.aws.items import (
    COMPARED,
    Item,
    agreement,
    bin_key,
    comparison,
    count_item,
    latest_of,
    marked,
    marker_item,
    marker_key,
    needs_retake,
    plain,
    totals_key,
    wire,
)  # fmt: skip
from bintally.common.arrivals import Arrival
from bintally.common.counts import Count, Recorded
from bintally.common.errors import Transient
from bintally.common.evidence import SHARE
from bintally.common.keys import Place, utc

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

TRIES = 4

_FAILED = "ConditionalCheckFailed"
_CONFLICTS = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}


@dataclass(frozen=True)
class Table:
    """One table, by its name. Methods raise Transient when the table is unavailable or throttles."""

    name: str
    client: "DynamoDBClient"
    share: float = SHARE
    """Of records that are wrong, as far as nobody knows better: comparisons start from it."""

    @classmethod
    def named(cls, name: str, share: float = SHARE) -> "Table":
        return cls(name, clients.dynamodb(), share)

    # Counts

    def write_count(self, count: Count) -> bool:
        """Writes a count once, however often it is called; False when the image version had a count already, whatever
        its date.

        LATEST is written together with the count, unless the stored one is newer. Where the RECORD has changed since
        the count read it, the table's stream tells `review`.
        """
        item = count_item(count, self.share)
        before = self._add(item, marker_item(count.photograph.arrival, item), totals_key(item))
        if before and before["status"] == "COUNTED":
            # Versions up to 0.1.0 wrote LATEST after the count, and may have died between the two.
            self.together(renewing(latest_of(before)))
        return before is None

    def compare(self, latest: Item, recorded: Recorded) -> bool:
        """Writes how LATEST compares with a record, into it and into its day's totals. False, and nothing written, if
        it is no longer this count, or compared with another record than this one was."""
        found = comparison(recorded, int(latest["count"]), latest["probabilities"], self.share)
        names = {f"#{name}": name for name in (*found, "order")}
        values = wire({f":{name}": value for name, value in found.items()} | {":newest": latest["order"]})
        update = "SET " + ", ".join(f"#{name} = :{name}" for name in found)
        if missing := [name for name in COMPARED if name not in found]:
            update += " REMOVE " + ", ".join(missing)
        if "recorded_order" in latest:
            unchanged = "#recorded_order = :seen"
            values |= wire({":seen": latest["recorded_order"]})
        else:
            unchanged = "attribute_not_exists(#recorded_order)"
        change = {
            "Key": wire({"PK": latest["PK"], "SK": latest["SK"]}),
            "UpdateExpression": update,
            "ConditionExpression": f"#order = :newest AND {unchanged}",
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
        }
        before, after = agreement(latest), agreement(found)
        gained = {name: after[name] - before.get(name, 0) for name in after}
        numbers = {name: number for name, number in gained.items() if number}
        totals = [adding(totals_key(latest), numbers)] if numbers else []
        return self.together({"Update": change}, *totals) is None

    def uncounted(self, arrivals: Sequence[Arrival]) -> list[Arrival]:
        """The image versions without a COUNT item, by their markers. Reads eventually consistent."""
        markers = self.get_many(map(marker_key, arrivals), consistent=False)
        keys = {digest: marked(marker) for (digest, _), marker in markers.items()}
        counts = self.get_many(keys.values(), consistent=False, attributes=("PK", "SK"))
        counted = {digest for digest, key in keys.items() if (key["PK"], key["SK"]) in counts}
        return [arrival for arrival in arrivals if marker_key(arrival)["PK"] not in counted]

    def unmarked_counts(self, place: Place) -> dict[str, Item]:
        """The keys of all COUNT items of a bin, by the digest of their image version (items.digest_of).

        Finds the counts of releases before 0.2, which wrote no markers.
        """
        try:
            pages = self.client.get_paginator("query").paginate(
                TableName=self.name,
                KeyConditionExpression="PK = :bin AND begins_with(SK, :count)",
                ExpressionAttributeValues={":bin": {"S": bin_key(place)}, ":count": {"S": "COUNT#"}},
                ProjectionExpression="PK, SK",
            )
            return {item["SK"]["S"].rpartition("#")[2]: plain(item) for page in pages for item in page["Items"]}
        except (ClientError, BotoCoreError) as error:
            raise self._transient(error) from error

    def put_marker(self, arrival: Arrival, count: Item) -> None:
        """Marks an image version as counted, unless it is."""
        self.put(marker_item(arrival, count), only_if="attribute_not_exists(PK)")

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

    def newest_between(self, bin_: str, first: datetime, last: datetime, most: int) -> list[Item]:
        """At most `most` COUNTED items of a bin by capture time, the newest first. Reads no more than that, so rejected
        photographs among them make it fewer."""
        try:
            answer = self.client.query(
                TableName=self.name,
                KeyConditionExpression="PK = :bin AND SK BETWEEN :first AND :last",
                ExpressionAttributeValues=wire(
                    {":bin": bin_, ":first": f"COUNT#{utc(first)}", ":last": f"COUNT#{utc(last)}~"}
                ),
                ScanIndexForward=False,
                Limit=most,
                ConsistentRead=True,
            )
        except (ClientError, BotoCoreError) as error:
            raise self._transient(error) from error
        return [item for item in map(plain, answer["Items"]) if item["status"] == "COUNTED"]

    # Records

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

    def get_many(
        self, keys: Iterable[Item], *, consistent: bool = True, attributes: Sequence[str] = ()
    ) -> dict[tuple[str, str], Item]:
        """The current items with the same PK and SK as these, or some `attributes` of them, PK and SK included."""
        projection = {"ProjectionExpression": ", ".join(attributes)} if attributes else {}
        wanted = [wire({"PK": pk, "SK": sk}) for pk, sk in dict.fromkeys((key["PK"], key["SK"]) for key in keys)]
        found: dict[tuple[str, str], Item] = {}
        tries = 0
        while wanted:
            request = {self.name: {"Keys": wanted[:100], "ConsistentRead": consistent, **projection}}
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

    def in_index(self, index: str, key: Item, *, descending: bool, limit: int, after: Item | None = None) -> list[Item]:
        """The first items of an index's one partition, or those after the item with the keys of `after`.

        `key` is the partition's key attribute and value. Eventually consistent.
        """
        ((name, value),) = key.items()
        start: dict[str, Any] = {"ExclusiveStartKey": wire(after)} if after else {}
        try:
            answer = self.client.query(
                TableName=self.name,
                IndexName=index,
                KeyConditionExpression="#k = :k",
                ExpressionAttributeNames={"#k": name},
                ExpressionAttributeValues=wire({":k": value}),
                ScanIndexForward=not descending,
                Limit=limit,
                **start,
            )
        except (ClientError, BotoCoreError) as error:
            raise self._transient(error) from error
        return list(map(plain, answer["Items"]))

    def page(
        self, pk: str, prefix: str, limit: int, *, after: Item | None = None, newest: bool = False
    ) -> tuple[list[Item], bool]:
        """At most `limit` items of a partition whose SK begins with `prefix`, and whether more follow.

        `after` is the key of the last item of the page before. `newest` reads from the end. Eventually consistent. One
        item more than `limit` is read.
        """
        request: dict[str, Any] = {"ExclusiveStartKey": wire(after)} if after else {}
        try:
            answer = self.client.query(
                TableName=self.name,
                KeyConditionExpression="PK = :pk AND begins_with(SK, :prefix)",
                ExpressionAttributeValues=wire({":pk": pk, ":prefix": prefix}),
                ScanIndexForward=not newest,
                Limit=limit + 1,
                **request,
            )
        except (ClientError, BotoCoreError) as error:
            raise self._transient(error) from error
        found = list(map(plain, answer["Items"]))
        return found[:limit], len(found) > limit or "LastEvaluatedKey" in answer

    def beginning(self, pk: str, prefix: str) -> Iterator[Item]:
        """The items of a partition whose SK begins with `prefix`, in its order."""
        try:
            pages = self.client.get_paginator("query").paginate(
                TableName=self.name,
                KeyConditionExpression="PK = :pk AND begins_with(SK, :prefix)",
                ExpressionAttributeValues=wire({":pk": pk, ":prefix": prefix}),
                ConsistentRead=True,
            )
            for page in pages:
                yield from map(plain, page["Items"])
        except (ClientError, BotoCoreError) as error:
            raise self._transient(error) from error

    def bins(self, site_key: str, first: str, last: str, limit: int) -> list[Item]:
        """The LATEST items of a part of a site from one PK to another, at most `limit` and 1 MB, sorted by PK.

        Eventually consistent.
        """
        if first > last:  # which DynamoDB refuses
            return []
        try:
            answer = self.client.query(
                TableName=self.name,
                IndexName="site",
                KeyConditionExpression="site_key = :key AND PK BETWEEN :first AND :last",
                ExpressionAttributeValues=wire({":key": site_key, ":first": first, ":last": last}),
                Limit=limit,
            )
        except (ClientError, BotoCoreError) as error:
            raise self._transient(error) from error
        return list(map(plain, answer["Items"]))

    def between(self, pk: str, first: str, last: str) -> list[Item]:
        """The items of a partition from one SK to another, 1 MB at most. Eventually consistent."""
        try:
            answer = self.client.query(
                TableName=self.name,
                KeyConditionExpression="PK = :pk AND SK BETWEEN :first AND :last",
                ExpressionAttributeValues=wire({":pk": pk, ":first": first, ":last": last}),
            )
        except (ClientError, BotoCoreError) as error:
            raise self._transient(error) from error
        return list(map(plain, answer["Items"]))

    def last(self, pk: str, limit: int) -> list[Item]:
        """The last items of a partition, at most `limit` and 1 MB, the last one first. Eventually consistent."""
        try:
            answer = self.client.query(
                TableName=self.name,
                KeyConditionExpression="PK = :pk",
                ExpressionAttributeValues=wire({":pk": pk}),
                ScanIndexForward=False,
                Limit=limit,
            )
        except (ClientError, BotoCoreError) as error:
            raise self._transient(error) from error
        return list(map(plain, answer["Items"]))

    def delete(self, key: Item, *, only_if: str, **words: Mapping[str, Any]) -> bool:
        """Deletes an item if the condition holds; False if it does not."""
        return self._conditional(self.client.delete_item, {"Key": wire(key)}, only_if, **words)

    def put_and_delete(
        self, item: Item, key: Item, *, only_if: str, names: Mapping[str, str], values: Mapping[str, Any]
    ) -> bool:
        """Puts `item` and deletes the item under `key`, both or neither; False if the condition on the latter fails."""
        condition: dict[str, Any] = {
            "ConditionExpression": only_if,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": wire(values),
        }
        operations: list[Any] = [
            {"Put": {"TableName": self.name, "Item": wire(item)}},
            {"Delete": {"TableName": self.name, "Key": wire(key), **condition}},
        ]
        try:
            self.client.transact_write_items(TransactItems=operations)
        except self.client.exceptions.TransactionCanceledException as error:
            if error.response["CancellationReasons"][1].get("Code") == _FAILED:
                return False
            raise self._transient(error) from error
        except (ClientError, BotoCoreError) as error:
            raise self._transient(error) from error
        return True

    def together(self, *operations: Item, tries: int = TRIES) -> int | None:
        """Makes all changes (`putting`, `removing`, `adding`), or none: then the place of the first whose condition
        failed. Others who change one of the items at the same time make it try again."""
        for attempt in range(1, tries + 1):
            try:
                self.client.transact_write_items(TransactItems=[self._operation(each) for each in operations])
            except self.client.exceptions.TransactionCanceledException as error:
                codes = [reason.get("Code") for reason in error.response["CancellationReasons"]]
                if _FAILED in codes and not _CONFLICTS.intersection(codes):
                    return codes.index(_FAILED)
                if attempt == tries or not _CONFLICTS.intersection(codes):
                    raise self._transient(error) from error
            except (ClientError, BotoCoreError) as error:
                raise self._transient(error) from error
            else:
                return None
            time.sleep(random.uniform(0.02, 0.05) * 2**attempt)
        raise AssertionError("the last try returns or raises")

    def _operation(self, change: Item) -> Any:
        ((kind, request),) = change.items()
        return {kind: {"TableName": self.name, **request}}

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

    def _add(self, count: Item, marker: Item, totals: Item) -> Item | None:
        """Adds the count and returns None; else returns the count that this image version has already."""
        stale: Item | None = None
        latest = latest_of(count) if count["status"] == "COUNTED" else None
        for attempt in range(1, TRIES + 1):
            try:
                self.client.transact_write_items(
                    TransactItems=transaction(self.name, count, marker, totals, latest, stale)
                )
                return None
            except self.client.exceptions.TransactionCanceledException as error:
                reasons = error.response["CancellationReasons"]
                codes = [reason.get("Code") for reason in reasons]
                if codes[0] == _FAILED:
                    return plain(reasons[0]["Item"])
                in_conflict = bool(_CONFLICTS.intersection(codes))
                if codes[1] == _FAILED:
                    stale = plain(reasons[1]["Item"])
                    if stored := self.get(marked(stale), consistent=True):
                        return stored
                elif codes[-1] == _FAILED:  # LATEST is of a newer photograph
                    latest = None
                elif not in_conflict:
                    raise self._transient(error) from error
                if attempt == TRIES:
                    raise self._transient(error) from error
            except (ClientError, BotoCoreError) as error:
                raise self._transient(error) from error
            if in_conflict:
                time.sleep(random.uniform(0.02, 0.05) * 2**attempt)
        raise AssertionError("the last try returns or raises")

    def _transient(self, error: Exception) -> Transient:
        return Transient(f"table {self.name}: {error}")


def putting(item: Item, only_if: str = "", **values: Any) -> Item:
    """For `together`: puts an item if the condition, when there is one, holds. `values` are the condition's."""
    named = {"ExpressionAttributeValues": wire({f":{name}": value for name, value in values.items()})} if values else {}
    return {"Put": {"Item": wire(item), **({"ConditionExpression": only_if} if only_if else {}), **named}}


def adding(key: Item, numbers: Item) -> Item:
    """For `together`: adds numbers to attributes of an item, which need not be there."""
    names = {f"#{name}": name for name in numbers}
    values = wire({f":{name}": number for name, number in numbers.items()})
    terms = ", ".join(f"#{name} :{name}" for name in numbers)
    named = {"ExpressionAttributeNames": names, "ExpressionAttributeValues": values}
    return {"Update": {"Key": wire(key), "UpdateExpression": f"ADD {terms}", **named}}


def renewing(latest: Item) -> Item:
    """For `together`: puts a LATEST unless the stored one is the same or newer."""
    newer = {
        "ConditionExpression": "attribute_not_exists(#o) OR #o < :o",
        "ExpressionAttributeNames": {"#o": "order"},
        "ExpressionAttributeValues": wire({":o": latest["order"]}),
    }
    return {"Put": {"Item": wire(latest), **newer}}


def removing(key: Item) -> Item:
    """For `together`: removes the item under a key, if there is one."""
    return {"Delete": {"Key": wire(key)}}


def transaction(
    table: str, count: Item, marker: Item, totals: Item, latest: Item | None, stale: Item | None
) -> "list[TransactWriteItemTypeDef]":
    """Writes the count, its marker, the day's total and LATEST together: a retry finds the count and adds nothing.

    `stale` is a marker whose count someone has removed; it is replaced. Without `latest`, LATEST stays as it is.
    """
    unmarked: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(PK)"}
    if stale:
        unmarked = {
            "ConditionExpression": "count_pk = :pk AND count_sk = :sk",
            "ExpressionAttributeValues": wire({":pk": stale["count_pk"], ":sk": stale["count_sk"]}),
        }
    numbers = {count["status"].lower(): 1, "retake": int(needs_retake(count)), **agreement(count)}
    added = adding(totals, {name: number for name, number in numbers.items() if number})
    put: dict[str, Any] = {"TableName": table, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    operations: list[Any] = [
        {"Put": put | {"Item": wire(count), "ConditionExpression": "attribute_not_exists(PK)"}},
        {"Put": put | {"Item": wire(marker)} | unmarked},
        {"Update": {"TableName": table, **added["Update"]}},
    ]
    if latest:
        operations.append({"Put": {"TableName": table, **renewing(latest)["Put"]}})
    return operations
