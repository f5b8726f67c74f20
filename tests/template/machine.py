"""The order of a state machine's states, and what their JSONata evaluates to."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonata.jsonata import Jsonata

LOG_DELIVERY = {
    f"logs:{action}"
    for action in (
        *("CreateLogDelivery", "GetLogDelivery", "UpdateLogDelivery", "DeleteLogDelivery", "ListLogDeliveries"),
        *("PutResourcePolicy", "DescribeResourcePolicies", "DescribeLogGroups"),
    )
}
"""What a state machine's role needs to write logs (Step Functions, "Logging using CloudWatch Logs")."""


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


def evaluated(value: Any, substituted: Mapping[str, Any], **variables: Any) -> Any:
    """`value` with its JSONata evaluated, as Step Functions would. `substituted`: values of the template's names."""
    if isinstance(value, dict):
        return {name: evaluated(part, substituted, **variables) for name, part in value.items()}
    if isinstance(value, list):
        return [evaluated(part, substituted, **variables) for part in value]
    if not isinstance(value, str):
        return value
    text = re.sub(r"\$\{(\w+)\}", lambda found: str(substituted.get(found[1], found[1])), value)
    if not text.startswith("{%"):
        return text
    expression = Jsonata.jsonata(text.removeprefix("{%").removesuffix("%}").strip())
    for name, variable in variables.items():
        expression.assign(name, variable)
    return expression.evaluate(None)


def decided(state: dict[str, Any], substituted: Mapping[str, Any], **variables: Any) -> tuple[str, Any]:
    """The state that a Choice goes to, and what it assigns on the way."""
    for choice in state["Choices"]:
        if evaluated(choice["Condition"], substituted, **variables):
            return choice["Next"], evaluated(choice.get("Assign", {}), substituted, **variables)
    return state["Default"], evaluated(state.get("Assign", {}), substituted, **variables)
