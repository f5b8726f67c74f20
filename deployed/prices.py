"""The prices of a region, from prices.toml beside this file, which says where each comes from."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

FILE = Path(__file__).with_name("prices.toml")
State = Literal["sourced", "dated", "unverified"]
"""Has an address and a day; a day alone; neither, or another region's price."""
EVERYWHERE = "us-east-1"
"""The region that has every price."""


@dataclass(frozen=True)
class Prices:
    """US dollars by the names of prices.toml."""

    region: str
    date: date
    amounts: dict[str, float]
    states: dict[str, State]
    free: dict[str, float]


@cache
def table() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text())


def regions() -> list[str]:
    """Those with a price of their own."""
    return sorted({region for price in table()["prices"].values() for region in price})


def prices(region: str) -> Prices:
    found = table()
    amounts: dict[str, float] = {}
    states: dict[str, State] = {}
    for name, by_region in found["prices"].items():
        amount, source = by_region.get(region, by_region[EVERYWHERE])
        amounts[name] = float(amount)
        states[name] = state_of(found["sources"][source]) if region in by_region else "unverified"
    return Prices(region, found["date"], amounts, states, found["free"])


def state_of(source: Mapping[str, Any]) -> State:
    if "read" not in source:
        return "unverified"
    return "sourced" if "address" in source else "dated"
