"""`bintally stack doctor`: says what is wrong with a stack, and what to do."""

import json
from dataclasses import asdict

import click
from rich.console import Console

from cli.errors import FAILED
from cli.stacks import chosen
from deployed.doctor import Report, examine

NOT_ALL = 4
"""The exit code while nothing wrong is seen and not all is: a lost permission must not look like a healthy stack."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Say what is wrong with a stack, one line each, with what to do and the runbook's page.

    It changes nothing. It looks at the last deployment, at what was changed by hand, at endpoint, model and images,
    mappings, queues, the alerts topic, schedules and what they started, settings of buckets, table, rules and state
    machines, quotas and alarms. What you have no permission for is named and not examined.

    Exits 0 when nothing is wrong, 1 when something is, 3 when there is no such stack, and 4 when nothing wrong was
    found and something was not examined.
    """
    with Console(stderr=True).status("") as status:
        report = examine(chosen(), lambda look: status.update(f"Looking at {look}"))
    click.echo(json.dumps(as_dict(report), indent=2) if as_json else "\n".join(lines(report)))
    context.exit(FAILED if report.findings else NOT_ALL if report.not_examined else 0)


def as_dict(report: Report) -> dict[str, object]:
    return {"well": not (report.findings or report.not_examined)} | asdict(report)


def lines(report: Report) -> list[str]:
    found = [f"✗ {each.about}: {each.wrong}. {each.cure} ({report.runbook}#{each.section})" for each in report.findings]
    skipped = [f"- not examined: {name}: {reason}" for name, reason in report.not_examined.items()]
    number = len(report.findings)
    wrong = f"{number} {'thing is' if number == 1 else 'things are'} wrong" if number else "Nothing is wrong"
    wrong = "Nothing wrong was found" if skipped and not number else wrong
    return [*found, *skipped, f"{wrong}. Examined: {', '.join(report.examined) or 'nothing'}"]
