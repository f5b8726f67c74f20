"""A stack that is examined, and what was found wrong with it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from deployed.errors import StackError
from deployed.stack import Deployed


@dataclass(frozen=True)
class Finding:
    """Something wrong: a resource or setting, what is wrong with it, what to do, and the runbook's section."""

    about: str
    wrong: str
    cure: str
    section: str


class Told(dict[str, str]):
    """Outputs or parameters by name. A stack of an older template lacks some: that is a StackError."""

    def __missing__(self, name: str) -> str:
        raise StackError(f"the stack is older than this command and has no {name}. Deploy it again")


@dataclass(frozen=True)
class Patient:
    """A stack, and what several looks need to know of it; each is asked once."""

    stack: Deployed
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def client(self, service: str) -> Any:
        return self.stack.client(service)

    @cached_property
    def description(self) -> dict[str, Any]:
        return self.stack.describe()

    @cached_property
    def outputs(self) -> Told:
        return Told(self.stack.outputs())

    @cached_property
    def parameters(self) -> Told:
        return Told({each["ParameterKey"]: each["ParameterValue"] for each in self.description.get("Parameters", [])})

    @cached_property
    def resources(self) -> list[dict[str, Any]]:
        pages = self.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=self.stack.name)
        return [each for page in pages for each in page["StackResourceSummaries"] if "PhysicalResourceId" in each]

    def of_type(self, kind: str) -> dict[str, str]:
        """Physical ids by logical id."""
        return {r["LogicalResourceId"]: r["PhysicalResourceId"] for r in self.resources if r["ResourceType"] == kind}

    @cached_property
    def alarms(self) -> dict[str, dict[str, Any]]:
        """The stack's alarms by logical id, as DescribeAlarms returns them. Of 100 names, its most, we have 27."""
        names = self.of_type("AWS::CloudWatch::Alarm")
        answer = self.client("cloudwatch").describe_alarms(AlarmNames=list(names.values()), MaxRecords=100)
        found = {each["AlarmName"]: each for each in answer["MetricAlarms"]}
        return {logical: found[name] for logical, name in names.items() if name in found}

    @cached_property
    def schedules(self) -> dict[str, dict[str, Any]]:
        """The stack's schedules by logical id, as GetSchedule returns them."""
        names = self.of_type("AWS::Scheduler::Schedule")
        return {logical: self.client("scheduler").get_schedule(Name=name) for logical, name in names.items()}

    @cached_property
    def live_model(self) -> dict[str, Any] | None:
        return self.stack.live_model(self.outputs)
