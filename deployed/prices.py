"""The prices of a region, from prices.toml beside this file, which says where each comes from."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

FILE = Path(__file__).with_name("prices.toml")
State = Literal["sourced", "unverified"]
"""Sourced: with the address of its source and the day on which it was read there, and of this region."""
EVERYWHERE = "us-east-1"
"""The region that has every price."""


@dataclass(frozen=True)
class Prices:
    """US dollars by the names of prices.toml."""

    region: str
    date: date
    amounts: dict[str, float]
    states: dict[str, State]
    borrowed: list[str]
    """The names of those that are another region's, as this one's are not known."""
    free: dict[str, float]


@cache
def table() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text())


def prices(region: str) -> Prices:
    """A price that the file does not have for the region is us-east-1's, and unverified."""
    found = table()
    amounts: dict[str, float] = {}
    states: dict[str, State] = {}
    for name, by_region in found["prices"].items():
        amount, source = by_region.get(region, by_region[EVERYWHERE])
        amounts[name] = float(amount)
        states[name] = state_of(found["sources"][source]) if region in by_region else "unverified"
    borrowed = [name for name, by_region in found["prices"].items() if region not in by_region]
    return Prices(region, found["date"], amounts, states, borrowed, found["free"])


def state_of(source: Mapping[str, Any]) -> State:
    return "sourced" if {"address", "read"} <= source.keys() else "unverified"
