"""The order of a state machine's states."""

from collections.abc import Iterator, Mapping
from typing import Any


def following(state: dict[str, Any]) -> Iterator[str]:
    for part in (state, *state.get("Choices", []), *state.get("Catch", [])):
        yield from (part[name] for name in ("Next", "Default") if name in part)


def reachable(states: Mapping[str, dict[str, Any]], start: str, without: str = "") -> set[str]:
    """The states that can be come to from `start`, on ways that do not go through `without`."""
    found: set[str] = set()
    open_ = [start]
    while open_:
        name = open_.pop()
        if name not in found and name != without:
            found.add(name)
            open_ += following(states[name])
    return found
