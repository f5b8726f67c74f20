"""What tests/transactions.py puts in the place of moto's own copies: a transaction that fails changes nothing."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.functions.conftest import table


def item(pk: str, sk: str, **more: str) -> dict[str, Any]:
    return {"PK": {"S": pk}, "SK": {"S": sk}} | {name: {"S": value} for name, value in more.items()}


def test_a_transaction_that_fails_changes_nothing(world: Any) -> None:
    for sk in ("one", "two", "three"):
        world.dynamodb.put_item(TableName="counts", Item=item("A", sk, said="before"))
    before = world.items()
    update = {"UpdateExpression": "SET said = :s", "ExpressionAttributeValues": {":s": {"S": "after"}}}
    steps: list[Any] = [
        {"Update": {"TableName": "counts", "Key": item("A", "one"), **update}},
        {"Delete": {"TableName": "counts", "Key": item("A", "two")}},
        {"Put": {"TableName": "counts", "Item": item("B", "new")}},
    ]
    never = {"TableName": "counts", "Item": item("A", "three"), "ConditionExpression": "attribute_not_exists(PK)"}
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        world.dynamodb.transact_write_items(TransactItems=[*steps, {"Put": never}])
    assert world.items() == before
    world.dynamodb.transact_write_items(TransactItems=steps)
    found = {(each["PK"], each["SK"]): each.get("said") for each in table().scan()["Items"]}
    assert found == {("A", "one"): "after", ("A", "three"): "before", ("B", "new"): None}
