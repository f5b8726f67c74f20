"""What a bin's RECORD says. People write these items by hand: one that nobody can read is none, wherever it is read."""

from decimal import Decimal

from bintally.aws.items import MALFORMED, Item, outranks, record_digest
from bintally.aws.telemetry import logger
from bintally.common.counts import Recorded
from bintally.common.keys import moment, quantity


def recorded_by(record: Item | None) -> Recorded | None:
    """What a RECORD says; None without one, or if it cannot be read, which is logged."""
    if record is None:
        return None
    try:
        expected, value = quantity(str(int(record["expected_quantity"]))), record.get("value")
        if expected is None or not isinstance(value, Decimal | None):
            raise ValueError(f"expected_quantity {record['expected_quantity']!r}, value {value!r}")
        if (as_of := record.get("as_of")) is not None:
            moment(as_of)
        return Recorded(expected, "record", as_of, record_digest(record), value)
    except MALFORMED as error:
        logger.error("unreadable record", item=record["PK"], reason=repr(error))
        return None


def to_compare(record: Item | None, latest: Item) -> Recorded | None:
    """What the RECORD says, if LATEST is to be compared with it."""
    recorded = recorded_by(record)
    return recorded if record and recorded and outranks(record, latest) else None
