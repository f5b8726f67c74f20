"""A release by hand, watched until it ends."""

import json
import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape

from cli.errors import CliError
from deployed.stack import Deployed, how_it_failed

POLL_SECONDS = 0.5
STEPS = {  # the state that starts a step, and its text for people; other states belong to the previous step
    "Begin": "Checking that no other release runs",
    "AskLive": "Asking the live endpoint whether it is this version",
    "CreateCandidate": "Starting a candidate",
    "AskCandidate": "The candidate answers the golden images",
    "RemoveCandidate": "Removing the candidate",
    "ChangeLive": "Updating the endpoint",
    "AskNew": "The endpoint answers the golden images",
    "Finish": "Enabling counting",
    "Restore": "Restoring the endpoint",
    "FreeLock": "Reporting the outcome",
}


@dataclass
class Watch:
    """The progress of an execution: its current step, and the step's start by the execution's clock."""

    states: Any
    execution: str
    seen: int = 0
    step: str = ""
    since: float = 0.0

    def look(self) -> list[tuple[str, float]]:
        """The steps that ended since the last call, with their seconds; at the execution's end also the last one."""
        pages = self.states.get_paginator("get_execution_history").paginate(executionArn=self.execution)
        events = [event for page in pages for event in page["events"]]
        ended = []
        for event in events[self.seen :]:
            step = STEPS.get(event.get("stateEnteredEventDetails", {}).get("name"), "")
            is_last = event["type"] in ("ExecutionSucceeded", "ExecutionFailed", "ExecutionAborted")
            if is_last or (step and step != self.step):
                at = event["timestamp"].timestamp()
                ended += [(self.step, at - self.since)] if self.step else []
                self.step, self.since = step, at
        self.seen = len(events)
        return ended


def release(stack: Deployed, request: dict[str, Any], console: Console) -> None:
    """Starts a release by hand and prints each step until it ends. Raises CliError when it does not succeed."""
    states = stack.client("stepfunctions")
    watch = Watch(states, stack.start_release(request, stack.outputs()))
    with console.status("") as status:
        found = {"status": "RUNNING"}
        while found["status"] == "RUNNING":
            time.sleep(POLL_SECONDS)
            found = states.describe_execution(executionArn=watch.execution)
            for step, seconds in watch.look():
                console.print(f"[green]✓[/] {step} [dim]{seconds:.1f} s[/]")
            status.update(watch.step)
    if found["status"] != "SUCCEEDED":
        raise CliError(how_it_failed(found))
    output = json.loads(found["output"])
    console.print(
        f"Model {output['model_version']}: [bold]{output['outcome']}[/]. {escape(output['reason'])}", soft_wrap=True
    )
