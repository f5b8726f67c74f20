"""The order of a state machine's states, what their JSONata evaluates to, and executions in this process."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
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
    return compiled(text.removeprefix("{%").removesuffix("%}").strip()).evaluate(None, variables)


@cache
def compiled(expression: str) -> Jsonata:
    return Jsonata.jsonata(expression)


def decided(state: dict[str, Any], substituted: Mapping[str, Any], **variables: Any) -> tuple[str, Any]:
    """The state that a Choice goes to, and what it assigns on the way."""
    for choice in state["Choices"]:
        if evaluated(choice["Condition"], substituted, **variables):
            return choice["Next"], evaluated(choice.get("Assign", {}), substituted, **variables)
    return state["Default"], evaluated(state.get("Assign", {}), substituted, **variables)


class TaskFailed(Exception):
    """What a task of an Execution raises: an error's name, and its cause."""


@dataclass
class Execution:
    """An execution of a state machine in this process. Its tasks and its clock are a test's."""

    states: Mapping[str, dict[str, Any]]
    substituted: Mapping[str, Any]
    arn: str
    do: Callable[[str, Any], Any]
    """do(state's name, its arguments) is the task's result, or raises TaskFailed."""
    sleep: Callable[[float], None]
    entered: list[str] = field(default_factory=list)
    variables: dict[str, Any] = field(default_factory=dict)

    def run(self, start: str, request: Any) -> dict[str, Any]:
        """The output, or Error and Cause."""
        value, name = request, start
        while True:
            self.entered.append(name)
            state = self.states[name]
            states = {"input": value, "context": {"Execution": {"Id": self.arn}}}
            if state["Type"] == "Fail":
                return {part: self.worth(state[part], states) for part in ("Error", "Cause")}
            if state["Type"] == "Choice":
                name, assigned = decided(state, self.substituted, states=states, **self.variables)
                self.variables |= assigned
                continue
            if state["Type"] == "Wait":
                self.sleep(self.worth(state["Seconds"], states))
            caught = self.attempted(name, state, states) if state["Type"] == "Task" else state
            self.variables |= self.worth(caught.get("Assign", {}), states)
            value = self.worth(state["Output"], states) if "Output" in state else states.get("result", value)
            if state.get("End"):
                return dict(value)
            name = caught["Next"]

    def attempted(self, name: str, state: dict[str, Any], states: dict[str, Any]) -> dict[str, Any]:
        """Does the task, as often as its Retry says. The state, or the Catch that took its last error."""
        tries = 0
        while True:
            try:
                states["result"] = self.do(name, self.worth(state["Arguments"], states))
                return state
            except TaskFailed as failure:
                error, cause = failure.args
                retry = next(r for r in state["Retry"] if {error, "States.ALL"} & set(r["ErrorEquals"]))
                tries += 1
                if tries <= retry["MaxAttempts"]:
                    self.sleep(retry["IntervalSeconds"] * retry["BackoffRate"] ** (tries - 1))
                    continue
                states["errorOutput"] = {"Error": error, "Cause": cause}
                return next(c for c in state["Catch"] if {error, "States.ALL"} & set(c["ErrorEquals"]))

    def worth(self, value: Any, states: dict[str, Any]) -> Any:
        return evaluated(value, self.substituted, states=states, **self.variables)


def drawn(definition: Mapping[str, Any]) -> str:
    """The machine as a Mermaid diagram, which a reader of docs/ sees. A Choice is the arrows that leave it, a Wait an
    arrow back; an error that is caught is drawn where the Choice does not go there anyway."""
    states: Mapping[str, dict[str, Any]] = definition["States"]
    arrows: dict[tuple[str, str], list[str]] = {}

    def arrow(start: str, to: str, label: str) -> None:
        if states[to]["Type"] == "Choice":
            for choice in states[to]["Choices"]:
                arrow(start, choice["Next"], spoken(choice["Condition"]))
            arrow(start, states[to]["Default"], "otherwise")
        elif states[to]["Type"] == "Wait":
            arrow(start, states[to]["Next"], label)
        elif label not in arrows.setdefault((start, to), []):
            arrows[start, to].append(label)

    arrows["[*]", definition["StartAt"]] = [""]
    for name, state in states.items():
        if state["Type"] in ("Choice", "Wait"):
            continue
        if "Next" in state:
            arrow(name, state["Next"], "")
        for caught in state.get("Catch", []):
            if (name, caught["Next"]) not in arrows:
                arrow(name, caught["Next"], "error")
        if "Next" not in state:
            arrows[name, "[*]"] = [""]
    lines = (f"    {start} --> {to}{label_of(labels)}" for (start, to), labels in arrows.items())
    return "\n".join(["stateDiagram-v2", *lines, ""])


def label_of(labels: list[str]) -> str:
    named = [label for label in labels if label]
    return f": {', '.join(named)}" if named else ""


def spoken(condition: str) -> str:
    """A Choice's condition in a word: the step's answer, or what it is about."""
    found = re.search(r"\$next = '(\w+)'|\$verdict\.(ok)|'(failed)'", condition)
    assert found, condition
    return str(next(filter(None, found.groups())))
