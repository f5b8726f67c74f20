"""Reads retraining runs from the table, and formats them for people."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from boto3.dynamodb.conditions import Key
from rich.markup import escape
from rich.table import Table

from cli.errors import CliError
from deployed.stack import Deployed

STYLES = {"running": "yellow", "registered": "green", "failed": "red"}


@dataclass(frozen=True)
class Run:
    """A retraining. `outcome` is running, nothing to do, not better, registered, refused or failed; `model_version` is
    the challenger's, `champion` the live one's that it was compared with; both empty when none was to be trained."""

    run: str
    outcome: str
    execution: str
    started_at: str = ""
    concluded_at: str = ""
    trigger: str = ""
    model_version: str = ""
    champion: str = ""
    error: str = ""
    reason: str = ""

    @classmethod
    def of(cls, item: dict[str, Any]) -> "Run":
        champion = item.get("champion") or {}  # with its package, as `plan` found it
        known = item | {"champion": champion.get("model_version", "")}
        return cls(**{field.name: str(known[field.name]) for field in fields(cls) if field.name in known})

    def as_json(self) -> dict[str, str]:
        return asdict(self)


def runs(stack: Deployed) -> list[Run]:
    """Every retraining, the newest first."""
    query = {
        "KeyConditionExpression": Key("PK").eq("RETRAIN") & Key("SK").begins_with("RUN#"),
        "ConsistentRead": True,
    }
    table, found = stack.counts_table(), list[Run]()
    while True:
        page = table.query(**query)
        found += map(Run.of, page["Items"])
        if "LastEvaluatedKey" not in page:
            return sorted(found, key=lambda run: run.started_at or run.concluded_at, reverse=True)
        query["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def find(stack: Deployed, name: str | None) -> Run:
    """The run of this name, or that trained this model version; the newest that trained one where `name` is None.

    Raises CliError when there is none.
    """
    known = runs(stack)
    wanted = (run for run in known if (name in (run.run, run.model_version) if name else run.model_version))
    if run := next(wanted, None):
        return run
    which = f"no retraining {name}" if name else "no retraining that trained a model"
    raise CliError(f"there is {which}. See: bintally retrain runs")


def table_of(found: list[Run]) -> Table:
    """A row for each run in the order given; the reason is cut where the terminal is too narrow."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("Run", "Started (UTC)", "Outcome"):
        table.add_column(name, no_wrap=True)
    table.add_column("Reason", overflow="ellipsis", no_wrap=True)
    for run in found:
        texts = (run.run, run.started_at[:16].replace("T", " "), run.outcome, run.reason)
        table.add_row(*map(escape, texts), style=STYLES.get(run.outcome, ""))
    return table
