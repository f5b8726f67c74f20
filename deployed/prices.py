"""The prices of a region, from prices.toml beside this file, which says where each comes from."""

import tomllib
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("prices.toml")
EVERYWHERE = "us-east-1"
"""The region that has every price."""


@dataclass(frozen=True)
class Prices:
    """US dollars by the names of prices.toml."""

    region: str
    date: date
    amounts: dict[str, float]
    unverified: frozenset[str]
    """Names of prices that nobody has looked up, or that are another region's."""
    free: dict[str, float]


@cache
def table() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text())


def regions() -> list[str]:
    """Those with a price of their own."""
    return sorted({region for price in table()["prices"].values() for region in price})


def prices(region: str) -> Prices:
    found = table()
    amounts, unverified = {}, set()
    for name, by_region in found["prices"].items():
        amount, source = by_region.get(region, by_region[EVERYWHERE])
        amounts[name] = float(amount)
        if region not in by_region or not found["sources"][source]["verified"]:
            unverified.add(name)
    return Prices(region, found["date"], amounts, frozenset(unverified), found["free"])
