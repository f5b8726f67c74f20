"""Examines a deployed stack: takes every look of LOOKS and reports what is wrong.

A look that is refused or fails is reported as not examined, and the others go on.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from deployed import looks
from deployed.access import explain
from deployed.errors import Denied, StackError
from deployed.patient import Finding, Patient
from deployed.settings import settings
from deployed.stack import Deployed
from deployed.version import RUNBOOK


@dataclass(frozen=True)
class Report:
    """The outcome of an examination. `not_examined` has the reason for each look that could not be made, `runbook` the
    address of the page whose sections findings name."""

    runbook: str
    findings: list[Finding]
    examined: list[str]
    not_examined: dict[str, str]


LOOKS: dict[str, Callable[[Patient], Iterator[Finding]]] = {
    "deployment": looks.deployment,
    "drift": looks.drift,
    "endpoint": looks.endpoint,
    "model": looks.model,
    "images": looks.images,
    "mappings": looks.mappings,
    "queues": looks.queues,
    "alerts": looks.alerts,
    "schedules": looks.schedules,
    "settings": settings,
    "runs": looks.runs,
    "quotas": looks.quotas,
    "alarms": looks.alarms,  # last, as it leaves out what another look has found
}
ON_AWS = {"alerts", "images", "quotas"}
"""Looks at what one machine lacks: people with an e-mail address, a registry of images, quotas."""


def examine(stack: Deployed, start: Callable[[str], None] = lambda look: None) -> Report:
    """Takes every look; calls `start` with the name of each. Raises NotRunning, NotDeployed or another StackError when
    nothing at all can be said of the stack."""
    patient = Patient(stack)
    report = Report(patient.parameters.get("Runbook", RUNBOOK), [], [], {})
    for name, look in LOOKS.items():
        if name in ON_AWS and not stack.on_aws:
            continue
        start(name)
        try:
            found = list(look(patient))
        except Denied as error:
            report.not_examined[name] = f"missing permission {error.action}"
        except (BotoCoreError, ClientError) as error:
            report.not_examined[name] = str(explain(error))
        except StackError as error:
            report.not_examined[name] = str(error)
        else:
            report.examined.append(name)
            known = {each.section for each in report.findings} if name == "alarms" else set()
            report.findings.extend(each for each in found if each.section not in known)
    return report
